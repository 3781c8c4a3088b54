//! CPU time, resident memory and sleeps of a process, read from `/proc`.

use std::{fs, io, time::Duration};

/// CPU time of all threads of a process, including ended threads and io_uring workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub user: Duration,
    pub system: Duration,
}

impl CpuTime {
    /// Reads `/proc/PID/stat`. The resolution is one clock tick (10 ms): measure over seconds.
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
        parse(&text, ticks_per_second()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path}: unexpected format, see proc(5)"),
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

/// proc(5): the fields after the closing parenthesis of the command start with field 3; utime is
/// field 14, stime is field 15, both in ticks.
fn parse(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(14 - 3);
    let mut next = || {
        let ticks: u64 = times.next()?.parse().ok()?;
        Some(Duration::from_nanos(ticks.checked_mul(1_000_000_000)? / ticks_per_second.max(1)))
    };
    Some(CpuTime { user: next()?, system: next()? })
}

fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes a constant and has no other precondition.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100)
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// If the process does not exist; the error names the path.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text =
        fs::read_to_string(&path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} has no VmRSS")))
}

/// How often the threads of a process have gone to sleep (`voluntary_ctxt_switches` in proc(5)), ended threads excluded.
/// Other programs on the same CPUs do not change it.
///
/// # Errors
/// If the process does not exist; the error names the path.
pub fn sleeps(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/task");
    let threads =
        fs::read_dir(&path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    let mut sum = 0;
    for thread in threads {
        // A thread that ended since the directory was read.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// The CPUs that this process may use, in ascending order, from `/proc/self/status`.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(parse_cpu_list)
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no Cpus_allowed_list")
        })
}

/// Parses a list such as `0-2,5`.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_parentheses_in_the_command_is_parsed() {
        let stat = "7 (a) S 1 (b)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 3 0 55 1 2";
        let cpu = parse(stat, 100).unwrap();
        assert_eq!(cpu.user, Duration::from_millis(2_500));
        assert_eq!(cpu.system, Duration::from_millis(1_500));
        assert_eq!(cpu.total(), Duration::from_secs(4));
        assert_eq!(parse("7 (x) S 1", 100), None);
    }

    #[test]
    fn cpu_time_of_this_process_grows_under_load() {
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
    fn error_names_the_missing_process() {
        let error = CpuTime::of(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
        let error = resident_bytes(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/status"), "{error}");
        assert!(resident_bytes(std::process::id()).unwrap() > 1_000_000);
        let error = sleeps(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/task"), "{error}");
    }

    #[test]
    fn each_sleep_is_counted() {
        let before = sleeps(std::process::id()).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_micros(100));
        }
        let counted = sleeps(std::process::id()).unwrap() - before;
        assert!(counted >= 20, "{counted}");
    }

    #[test]
    fn cpu_lists_are_parsed() {
        assert_eq!(parse_cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpu_list("3"), Some(vec![3]));
        assert_eq!(parse_cpu_list("x"), None);
        assert!(!allowed_cpus().unwrap().is_empty());
    }
}
