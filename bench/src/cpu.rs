//! CPU time of another process, as Linux accounts it.

use std::{fs, io, time::Duration};

/// CPU time of a process, all its threads together, those that ended and io_uring's workers
/// included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub user: Duration,
    pub system: Duration,
}

impl CpuTime {
    /// Reads `/proc/PID/stat`. Exact to a clock tick, 10 ms: measure seconds with it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
        parse(&text, ticks_per_second()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path} is not as proc(5) says"),
            )
        })
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

/// proc(5): after the command's closing parenthesis come state (field 3) and so on; utime is
/// field 14, stime 15, in ticks.
fn parse(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(14 - 3);
    let mut next = || {
        let ticks: u64 = times.next()?.parse().ok()?;
        Some(Duration::from_nanos(
            ticks.checked_mul(1_000_000_000)? / ticks_per_second.max(1),
        ))
    };
    Some(CpuTime {
        user: next()?,
        system: next()?,
    })
}

fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes a constant and has no other precondition.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100)
}

/// The cores this process may use, ascending, from `/proc/self/status`.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(parse_cores)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "/proc/self/status has no Cpus_allowed_list",
            )
        })
}

/// `0-2,5` and the like.
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_command_name() {
        let stat = "7 (a) S 1 (b)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 3 0 55 1 2";
        let cpu = parse(stat, 100).unwrap();
        assert_eq!(cpu.user, Duration::from_millis(2_500));
        assert_eq!(cpu.system, Duration::from_millis(1_500));
        assert_eq!(cpu.total(), Duration::from_secs(4));
        assert_eq!(parse("7 (x) S 1", 100), None);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = CpuTime::of(pid).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let spent = CpuTime::of(pid).unwrap().since(before);
            if spent.total() >= Duration::from_millis(20) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{spent:?}");
        }
    }

    #[test]
    fn a_missing_process_is_named() {
        let error = CpuTime::of(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cores("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cores("3"), Some(vec![3]));
        assert_eq!(parse_cores("x"), None);
        assert!(!allowed_cores().unwrap().is_empty());
    }
}
