//! The binary: the allocator, the process-wide initialisation of the executor, and the command line.

use std::process::ExitCode;

use inventory_api::{build_info, cli};

// Planted faults belong into the mutation run of the tests and into no server.
const _: () = assert!(!inventory_core::fault::CAN_PLANT, "built with planted faults");

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// INVENTORY_API_REVISION where the build has no git, as in an image; else the revision of the checkout. Read in this crate
/// only, so that a commit does not recompile the library.
const REVISION: &str = match option_env!("INVENTORY_API_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => git_version::git_version!(
        args = ["--always", "--dirty", "--abbrev=12", "--exclude=*"],
        fallback = "unknown"
    ),
};

fn main() -> ExitCode {
    build_info::set_revision(REVISION);
    // Before any other thread exists: a later registration would interrupt every running core.
    inventory_runtime::early_init();
    cli::run()
}
