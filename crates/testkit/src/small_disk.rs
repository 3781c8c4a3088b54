//! A small file system that a test can fill, where this machine allows to mount one.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A tmpfs; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` without the permission to mount.
    pub fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let path = CString::new(at.as_os_str().as_bytes()).ok()?;
        let size = CString::new(format!("size={bytes}")).ok()?;
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all arguments are C strings that outlive the call.
        let mounted = unsafe { libc::mount(kind, path.as_ptr(), kind, 0, size.as_ptr().cast()) };
        (mounted == 0).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Ok(path) = CString::new(self.0.as_os_str().as_bytes()) else { return };
        // SAFETY: the path is a C string that outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}
