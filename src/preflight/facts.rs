//! Limits and permissions of this process, read from the system when needed. Explanations contain these facts.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// A resource limit: a number, or none (`None`).
pub(crate) type ResourceLimit = Option<u64>;

/// One resource limit of this process, its soft and its hard value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceLimits {
    pub(crate) soft: ResourceLimit,
    pub(crate) hard: ResourceLimit,
}

impl ResourceLimits {
    /// Whether the soft limit leaves room for `amount`.
    pub(crate) fn allows(self, amount: u64) -> bool {
        self.soft.is_none_or(|soft| soft >= amount)
    }
}

/// How system calls of this process are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seccomp {
    Off,
    Strict,
    Filter,
    /// The kernel does not report it.
    Unknown,
}

/// Live facts about this process and its kernel. What cannot be read is unknown, never an error:
/// the facts are for explaining failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// `uname -r`, empty if unknown.
    pub(crate) kernel: String,
    /// RLIMIT_MEMLOCK, in bytes.
    pub(crate) memlock: ResourceLimits,
    /// Whether CAP_IPC_LOCK lifts RLIMIT_MEMLOCK for this process.
    pub(crate) memlock_exempt: bool,
    /// RLIMIT_NOFILE, in descriptors.
    pub(crate) open_files: ResourceLimits,
    pub(crate) seccomp: Seccomp,
    /// kernel.io_uring_disabled: 0 open to all, 1 to a group, 2 to nobody; `None` before 6.6.
    pub(crate) io_uring_disabled: Option<u8>,
    /// The container engine this process seems to run under.
    pub(crate) container: Option<&'static str>,
}

impl HostFacts {
    /// Reads them now.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            memlock: limits_of(MEMLOCK),
            memlock_exempt: ipc_lock_in(&status),
            open_files: limits_of(NOFILE),
            seccomp: seccomp_in(&status),
            io_uring_disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            container: container(),
        }
    }

    /// Major and minor version of the kernel.
    pub(crate) fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for HostFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = if self.kernel.is_empty() { "unknown" } else { &self.kernel };
        write!(f, "kernel {kernel}")?;
        write!(f, ", locked memory {}", bytes(self.memlock.soft))?;
        if self.memlock.hard != self.memlock.soft {
            write!(f, " (hard limit {})", bytes(self.memlock.hard))?;
        }
        if self.memlock_exempt {
            f.write_str(" (CAP_IPC_LOCK: not enforced by the kernel)")?;
        }
        f.write_str(match self.seccomp {
            Seccomp::Off => ", no seccomp",
            Seccomp::Strict => ", seccomp strict",
            Seccomp::Filter => ", a seccomp filter",
            Seccomp::Unknown => ", seccomp unknown",
        })?;
        if let Some(disabled) = self.io_uring_disabled {
            write!(f, ", kernel.io_uring_disabled={disabled}")?;
        }
        if let Some(engine) = self.container {
            write!(f, ", in {engine}")?;
        }
        Ok(())
    }
}

/// A size as text: `64 KiB`, `8 MiB`, `unlimited`.
pub(crate) fn bytes(size: ResourceLimit) -> String {
    const MIB: u64 = 1024 * 1024;
    match size {
        None => "unlimited".to_owned(),
        Some(size) if size >= MIB && size % MIB == 0 => format!("{} MiB", size / MIB),
        Some(size) if size >= 1024 => format!("{} KiB", size / 1024),
        Some(size) => format!("{size} bytes"),
    }
}

/// Raises the soft limits on descriptors and locked memory to the hard ones, as far as the kernel
/// lets it: services often start with 1024 descriptors although far more are granted. Failing is
/// no error: the server then serves within the soft limit.
pub(crate) fn raise_soft_limits() {
    for resource in [NOFILE, MEMLOCK] {
        let Some(mut limit) = raw_limits(resource) else {
            continue;
        };
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit that lives through the call, which only reads it.
        let _unraised = unsafe { libc::setrlimit(resource as _, &limit) };
    }
}

// The C libraries disagree on the type of a resource's number (musl has i32), so it is cast twice.
#[allow(clippy::unnecessary_cast)]
const NOFILE: u32 = libc::RLIMIT_NOFILE as u32;
#[allow(clippy::unnecessary_cast)]
const MEMLOCK: u32 = libc::RLIMIT_MEMLOCK as u32;

fn raw_limits(resource: u32) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that getrlimit fills in.
    let outcome = unsafe { libc::getrlimit(resource as _, &mut limit) };
    (outcome == 0).then_some(limit)
}

/// The limits of this process; unlimited if the kernel does not report them.
fn limits_of(resource: u32) -> ResourceLimits {
    let limit = |value: libc::rlim_t| (value != libc::RLIM_INFINITY).then_some(value);
    raw_limits(resource).map_or(ResourceLimits { soft: None, hard: None }, |raw| ResourceLimits {
        soft: limit(raw.rlim_cur),
        hard: limit(raw.rlim_max),
    })
}

/// The value of a line of /proc/self/status.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn seccomp_in(status: &str) -> Seccomp {
    match field(status, "Seccomp") {
        Some("0") => Seccomp::Off,
        Some("1") => Seccomp::Strict,
        Some("2") => Seccomp::Filter,
        _ => Seccomp::Unknown,
    }
}

/// Whether the effective capabilities hold CAP_IPC_LOCK.
fn ipc_lock_in(status: &str) -> bool {
    const CAP_IPC_LOCK: u64 = 14;
    field(status, "CapEff")
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .is_some_and(|held| held >> CAP_IPC_LOCK & 1 == 1)
}

fn container() -> Option<&'static str> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Some("Kubernetes")
    } else if Path::new("/.dockerenv").exists() {
        Some("Docker")
    } else if Path::new("/run/.containerenv").exists() {
        Some("Podman")
    } else {
        None
    }
}

/// Creates one small ring and closes it, to get the error of the kernel itself and not the text of the executor.
///
/// # Errors
/// The error of io_uring_setup.
pub(crate) fn try_ring() -> io::Result<()> {
    /// More than the kernel's parameter block, which has 120 bytes.
    const PARAMETER_WORDS: usize = 32;
    let mut parameters = [0_u64; PARAMETER_WORDS];
    // SAFETY: io_uring_setup reads and fills in a block of 120 bytes at its second argument;
    // `parameters` is larger, aligned beyond need, and lives through the call. Zeroes are the
    // defaults.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `ring` is a descriptor that was just made and that nobody else has.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(ring as i32) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_process_are_read() {
        let facts = HostFacts::read();
        assert!(facts.kernel_version() > Some((5, 0)), "{facts:?}");
        assert_ne!(facts.seccomp, Seccomp::Unknown);
        assert!(facts.open_files.allows(16));
    }

    #[test]
    fn proc_status_lines_are_parsed() {
        let status = "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert!(ipc_lock_in(status));
        assert_eq!(seccomp_in(status), Seccomp::Filter);
        assert!(!ipc_lock_in("CapEff:\t00000000a80425fb\n"));
        assert_eq!(seccomp_in(""), Seccomp::Unknown);
    }

    #[test]
    fn kernel_versions_are_read_with_any_suffix() {
        let mut facts = HostFacts::read();
        for (release, version) in [
            ("6.18.44-fc-v595", Some((6, 18))),
            ("5.8-rc1", Some((5, 8))),
            ("4.4.0", Some((4, 4))),
            ("", None),
            ("next", None),
        ] {
            facts.kernel = release.to_owned();
            assert_eq!(facts.kernel_version(), version, "{release}");
        }
    }

    #[test]
    fn sizes_are_shown_with_units() {
        assert_eq!(bytes(None), "unlimited");
        assert_eq!(bytes(Some(8 << 20)), "8 MiB");
        assert_eq!(bytes(Some(64 << 10)), "64 KiB");
        assert_eq!(bytes(Some(1_536 << 10)), "1536 KiB");
        assert_eq!(bytes(Some(100)), "100 bytes");
    }
}
