//! What the operating system says of this process and of the calling thread.
//!
//! Must not live here: rendering.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The usual figures of a process. A file that cannot be read leaves its figure out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu: Duration,
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// Since the Unix epoch.
    pub started: Option<Duration>,
}

impl Process {
    pub fn read() -> Self {
        Self {
            cpu: cpu_of(libc::CLOCK_PROCESS_CPUTIME_ID),
            resident_bytes: resident(),
            open_fds: std::fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as u64),
            max_fds: max_fds(),
            started: started(),
        }
    }
}

/// What the calling thread has computed since its start.
pub fn thread_cpu() -> Duration {
    cpu_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec that the call fills, and it keeps no pointer to it.
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
    // SAFETY: takes a number and gives one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

fn max_fds() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live rlimit that the call fills, and it keeps no pointer to it.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0;
    (!failed).then_some(limit.rlim_cur)
}

/// When the process started. Worked out once: two readings would differ by microseconds, and whoever
/// looks for restarts would see one in each.
fn started() -> Option<Duration> {
    static STARTED: OnceLock<Option<Duration>> = OnceLock::new();
    *STARTED.get_or_init(work_out_start)
}

/// How long ago by the clock that counts from boot, from now.
fn work_out_start() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; what follows is field 3 and on.
    let after = stat.rsplit_once(')')?.1;
    let ticks: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: takes a number and gives one.
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
    fn this_process_is_described() {
        let busy: u64 = (0..3_000_000_u64).map(std::hint::black_box).sum();
        assert!(busy > 0);
        let process = Process::read();
        assert!(process.cpu >= thread_cpu() && thread_cpu() > Duration::ZERO);
        assert!(process.resident_bytes.unwrap() > 1 << 20);
        let open = process.open_fds.unwrap();
        assert!((3..=process.max_fds.unwrap()).contains(&open), "{open}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.checked_sub(process.started.unwrap()).unwrap();
        assert!(age < Duration::from_secs(3_600), "{age:?}");
        assert_eq!(Process::read().started, process.started);
    }
}
