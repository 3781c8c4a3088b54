//! Resource usage of the process and of the calling thread, read from the operating system.
//!
//! Not here: rendering (`aggregate`).

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Resource usage of the process. A value is `None` if its file cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// Start time since the Unix epoch.
    pub(crate) started: Option<Duration>,
}

impl ProcessUsage {
    pub(crate) fn read() -> Self {
        Self {
            cpu: cpu_of(libc::CLOCK_PROCESS_CPUTIME_ID),
            resident_bytes: resident(),
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
            max_fds: max_fds(),
            started: started(),
        }
    }
}

/// CPU time of the calling thread since its start.
pub(crate) fn thread_cpu() -> Duration {
    cpu_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; the call fills it and keeps no pointer.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    match failed {
        true => Duration::ZERO,
        false => Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ),
    }
}

fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes and returns integers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

fn max_fds() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit; the call fills it and keeps no pointer.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0;
    (!failed).then_some(limit.rlim_cur)
}

/// Start time of the process. Computed once, since two readings would differ by microseconds and look like a restart.
fn started() -> Option<Duration> {
    static STARTED: OnceLock<Option<Duration>> = OnceLock::new();
    *STARTED.get_or_init(compute_start)
}

/// The current time minus the age of the process on the boot clock.
fn compute_start() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The process name in parentheses may contain any character; field 3 follows it.
    let after = stat.rsplit_once(')')?.1;
    let ticks: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: sysconf takes and returns integers.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    let since_boot = Duration::from_millis(ticks * 1_000 / per_second.max(1));
    let running = cpu_of(libc::CLOCK_BOOTTIME).saturating_sub(since_boot);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_sub(running)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn usage_of_this_process_is_plausible() {
        let busy: u64 = (0..3_000_000_u64).map(std::hint::black_box).sum();
        assert!(busy > 0);
        let process = ProcessUsage::read();
        assert!(process.cpu >= thread_cpu() && thread_cpu() > Duration::ZERO);
        assert!(process.resident_bytes.unwrap() > 1 << 20);
        let open = process.open_fds.unwrap();
        assert!((3..=process.max_fds.unwrap()).contains(&open), "{open}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.checked_sub(process.started.unwrap()).unwrap();
        assert!(age < Duration::from_secs(3_600), "{age:?}");
        assert_eq!(ProcessUsage::read().started, process.started);
    }
}
