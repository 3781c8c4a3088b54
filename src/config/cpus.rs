//! CPUs of this process: which it may use, which get a shard, and the CPU quota.
//!
//! Affinity and cpusets determine the allowed CPUs. A CPU quota of the cgroup changes nothing (the kernel enforces it by
//! throttling) and is only warned about.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;

use crate::limits::SHARDS_MAX;

/// The CPUs that get a shard, as SHARDS specifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShardSpec {
    /// Every allowed CPU.
    All,
    /// The first CPUs, 1 to [`SHARDS_MAX`] of them.
    Count(usize),
    /// These CPUs, by the kernel's numbering; not empty.
    Range(Range<usize>),
}

impl FromStr for ShardSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| -> Option<usize> {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        let spec = match text.split_once("..") {
            None => number(text).map(Self::Count),
            Some((from, to)) => number(from).zip(number(to)).map(|(a, b)| Self::Range(a..b)),
        };
        let shards = match spec.as_ref() {
            None => return Err("is neither all, nor a number, nor a range".to_owned()),
            Some(Self::All) => 1,
            Some(Self::Count(shards)) => *shards,
            Some(Self::Range(cpus)) => cpus.len(),
        };
        match (spec, shards) {
            (_, 0) => Err("names no CPU".to_owned()),
            (Some(spec), shards) if shards <= SHARDS_MAX => Ok(spec),
            _ => Err(format!("is more than {SHARDS_MAX} shards")),
        }
    }
}

impl fmt::Display for ShardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(shards) => write!(f, "{shards}"),
            Self::Range(cpus) => write!(f, "{}..{}", cpus.start, cpus.end),
        }
    }
}

/// Why the machine cannot provide the requested shards.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ResolveError {
    #[error("asks for more shards than the {} CPUs this process may use ({})", .allowed.len(), list(.allowed))]
    TooMany { allowed: Vec<usize> },
    #[error("names CPUs that this process may not use ({}); it may use {}", list(.forbidden), list(.allowed))]
    Forbidden { forbidden: Vec<usize>, allowed: Vec<usize> },
    #[error("finds no CPU that this process may use")]
    None,
}

/// The CPUs that get a shard each, ascending; `allowed` must be ascending and distinct.
///
/// # Errors
/// When `allowed` does not contain what `spec` requires. Never returns fewer shards than required.
pub(crate) fn resolve(spec: &ShardSpec, allowed: &[usize]) -> Result<Vec<usize>, ResolveError> {
    if allowed.is_empty() {
        return Err(ResolveError::None);
    }
    match spec {
        ShardSpec::All => Ok(allowed.iter().copied().take(SHARDS_MAX).collect()),
        ShardSpec::Count(shards) if *shards <= allowed.len() => Ok(allowed[..*shards].to_vec()),
        ShardSpec::Count(_) => Err(ResolveError::TooMany { allowed: allowed.to_vec() }),
        ShardSpec::Range(cpus) => {
            let forbidden: Vec<_> = cpus.clone().filter(|cpu| !allowed.contains(cpu)).collect();
            if forbidden.is_empty() {
                Ok(cpus.clone().collect())
            } else {
                Err(ResolveError::Forbidden { forbidden, allowed: allowed.to_vec() })
            }
        }
    }
}

/// CPU numbers in the kernel's list format: `0-3,8`.
pub(crate) fn list(cpus: &[usize]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < cpus.len() {
        let first = cpus[at];
        let run =
            cpus[at..].iter().zip(first..).take_while(|(cpu, expected)| **cpu == *expected).count();
        let comma = if at == 0 { "" } else { "," };
        text += &match run {
            1 => format!("{comma}{first}"),
            _ => format!("{comma}{first}-{}", first + run - 1),
        };
        at += run;
    }
    text
}

/// CPU quota of this process's cgroup, in CPUs; `None`: no quota.
pub(crate) fn quota() -> Option<f64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    quota_under(Path::new("/sys/fs/cgroup"), &own)
}

/// The smallest quota from the cgroup named in `own` (the text of /proc/self/cgroup) up to the root, in the files of
/// either cgroup version below `mount`.
fn quota_under(mount: &Path, own: &str) -> Option<f64> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let root = match controllers {
                "" => mount.to_owned(),
                names if names.split(',').any(|name| name == "cpu") => mount.join(names),
                _ => return None,
            };
            // In a container the path may be the host's while only its own directory is mounted: missing
            // directories are skipped.
            let path = Path::new(path.trim_start_matches('/'));
            path.ancestors().filter_map(|at| quota_in(&root.join(at))).reduce(f64::min)
        })
        .reduce(f64::min)
}

fn quota_in(folder: &Path) -> Option<f64> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // "max" and -1 mean no quota.
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    Some(quota as f64 / period as f64)
}

/// Warning for the operator when the quota is smaller than the shards can use.
pub(crate) fn quota_warning(shards: usize, quota: Option<f64>) -> Option<String> {
    let quota = quota.filter(|quota| *quota < shards as f64)?;
    let fits = (quota.floor() as usize).max(1);
    Some(format!(
        "the CPU quota is {quota:.2} CPUs and there are {shards} shards: under load the kernel stops \
         them all for the rest of each period, which shows as latency. Raise the quota, or set \
         SHARDS={fits}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn specs_survive_the_round_trip() {
        for (text, spec) in
            [("all", ShardSpec::All), ("4", ShardSpec::Count(4)), ("2..6", ShardSpec::Range(2..6))]
        {
            assert_eq!(text.parse(), Ok(spec.clone()));
            assert_eq!(spec.to_string(), text);
        }
        assert_eq!("ALL".parse(), Ok(ShardSpec::All));
    }

    #[test]
    fn invalid_specs_are_rejected() {
        for text in [
            "",
            "0",
            "-1",
            "1025",
            "4..4",
            "6..2",
            "..4",
            "4..",
            "a..b",
            "1.5",
            "+2",
            "0..1025",
            "99999999999999999999",
            "0..99999999999999999999",
            "0..=3",
        ] {
            assert!(text.parse::<ShardSpec>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn shards_run_only_on_allowed_cpus() {
        let allowed = [2, 3, 6, 7];
        let resolve = |text: &str| resolve(&text.parse().unwrap(), &allowed);
        assert_eq!(resolve("all"), Ok(vec![2, 3, 6, 7]));
        assert_eq!(resolve("3"), Ok(vec![2, 3, 6]));
        assert_eq!(resolve("2..4"), Ok(vec![2, 3]));
        let too_many = resolve("5").unwrap_err().to_string();
        assert!(too_many.contains("4 CPUs") && too_many.contains("2-3,6-7"), "{too_many}");
        let forbidden = resolve("3..7").unwrap_err().to_string();
        assert!(forbidden.contains("(4-5)") && forbidden.contains("2-3,6-7"), "{forbidden}");
        assert_eq!(super::resolve(&ShardSpec::All, &[]), Err(ResolveError::None));
    }

    #[test]
    fn kernel_cpu_lists_are_parsed() {
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[5]), "5");
        assert_eq!(list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
    }

    #[test]
    fn the_least_quota_on_the_way_up_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = mount.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("pod/cpu.max", "150000 100000\n");
        write("pod/box/cpu.max", "max 100000\n");
        let quota = |own: &str| quota_under(mount.path(), own);
        assert_eq!(quota("0::/pod/box\n"), Some(1.5));
        assert_eq!(quota("0::/elsewhere\n"), None);
        assert_eq!(quota("0::/\n"), None);
        write("cpu,cpuacct/old/cpu.cfs_quota_us", "50000\n");
        write("cpu,cpuacct/old/cpu.cfs_period_us", "100000\n");
        assert_eq!(quota("3:cpu,cpuacct:/old\n2:memory:/old\n0::/pod\n"), Some(0.5));
        write("cpu,cpuacct/free/cpu.cfs_quota_us", "-1\n");
        write("cpu,cpuacct/free/cpu.cfs_period_us", "100000\n");
        assert_eq!(quota("3:cpu,cpuacct:/free\n"), None);
    }

    #[test]
    fn quota_below_the_shards_is_warned_with_a_fitting_number() {
        let warning = quota_warning(4, Some(2.5)).unwrap();
        assert!(warning.contains("2.50") && warning.contains("SHARDS=2"), "{warning}");
        assert!(quota_warning(4, Some(0.5)).unwrap().contains("SHARDS=1"));
        assert_eq!(quota_warning(2, Some(2.0)), None);
        assert_eq!(quota_warning(2, None), None);
    }
}
