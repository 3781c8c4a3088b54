//! Pseudo terminals: what a program prints and reads when a person runs it.

use std::os::fd::{FromRawFd as _, OwnedFd};

/// Both ends of a new terminal, the program's last.
pub fn open() -> (OwnedFd, OwnedFd) {
    open_with_size(24, 80)
}

/// [`open`] with a number of rows and columns.
pub fn open_with_size(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let none = std::ptr::null_mut();
    // SAFETY: the two numbers and the size live through the call; name and modes may be null.
    let result = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), &raw const size)
    };
    assert_eq!(result, 0);
    // SAFETY: the call returned open descriptors that nothing else owns.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}
