//! Moves the wall clock of one process: preloaded by `LD_PRELOAD`, it replaces `clock_gettime` of the C library and adds
//! an offset to the wall clock. The monotonic clock stays as it is, as when an operator or NTP sets the clock.
//!
//! The offset, in nanoseconds, is the first eight bytes of the file that `CHAOS_CLOCK_FILE` names. The file is mapped, so
//! that a write to it takes effect at once. Without the variable the clock is not moved.
//!
//! Must not be put here: anything that allocates, locks, or reads a clock. The function runs before `main` and in every
//! thread.

use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use libc::{c_int, clockid_t, timespec};

/// Name of the variable, for the C library.
const FILE_VARIABLE: &std::ffi::CStr = c"CHAOS_CLOCK_FILE";

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The offset of a process without the file.
static NO_OFFSET: AtomicI64 = AtomicI64::new(0);

/// The mapped offset; null until the first call.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());

/// `clock_gettime` with a moved wall clock.
///
/// # Safety
/// As that of the C library: `time` is null or valid for a write.
// SAFETY: the name replaces that of the C library on purpose, with the same signature and contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the system call has the contract of this function.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    let is_wall_clock = clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE;
    if result == 0 && is_wall_clock {
        let ahead = offset().load(Ordering::Relaxed);
        // SAFETY: the system call succeeded, so it wrote to `time`.
        let time = unsafe { &mut *time };
        let nanos = time.tv_nsec + ahead;
        time.tv_sec += nanos.div_euclid(NANOS_PER_SECOND);
        time.tv_nsec = nanos.rem_euclid(NANOS_PER_SECOND);
    }
    result as c_int
}

fn offset() -> &'static AtomicI64 {
    let mut mapped = OFFSET.load(Ordering::Acquire);
    if mapped.is_null() {
        // Two threads may map the file at the same time: both mappings show the same bytes.
        mapped = map().unwrap_or((&raw const NO_OFFSET).cast_mut());
        OFFSET.store(mapped, Ordering::Release);
    }
    // SAFETY: a static, or a page of a file of eight bytes that is never unmapped.
    unsafe { &*mapped }
}

fn map() -> Option<*mut AtomicI64> {
    let size = size_of::<AtomicI64>();
    // SAFETY: the strings end with a zero byte; the variable is not changed while the process runs; the descriptor is
    // closed once, and a mapping survives that.
    let mapped = unsafe {
        let path = libc::getenv(FILE_VARIABLE.as_ptr());
        if path.is_null() {
            return None;
        }
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let mapped = libc::mmap(ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file, 0);
        libc::close(file);
        mapped
    };
    (mapped != libc::MAP_FAILED).then(|| mapped.cast())
}
