//! Where the library is that moves the wall clock of a server.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names the file with the offset.
pub(crate) const FILE_VARIABLE: &str = "CHAOS_CLOCK_FILE";

/// The library that Cargo built together with this test; `None` if this platform has another name for it.
pub(crate) fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let test = std::env::current_exe().ok()?;
        let library = test.with_file_name("libinventory_clock_step.so");
        library.is_file().then_some(library)
    };
    LIBRARY.get_or_init(find).as_deref()
}
