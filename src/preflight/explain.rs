//! Explains failed starts: cause, facts of this machine, fix. Pure functions, except for one system call where the
//! executor does not return the error code.
//!
//! Used by `check` and by a failed start.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use inventory_tls::TlsFileError;

use super::facts::{HostFacts, Seccomp, bytes, try_ring};
use crate::limits::{KERNEL_MIN, MEMLOCK_FLOOR_BYTES, MEMLOCK_SHARD_BYTES};

/// Cause and fix of a failure. `Display` formats it over several lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Explanation {
    /// One sentence, without a full stop.
    pub(crate) wrong: String,
    /// The facts that show the cause, if any.
    pub(crate) facts: Option<String>,
    /// What to do: one alternative per line.
    pub(crate) fixes: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wrong)?;
        if let Some(facts) = &self.facts {
            write!(f, "\n  facts: {facts}")?;
        }
        for fix in &self.fixes {
            write!(f, "\n  fix:   {fix}")?;
        }
        Ok(())
    }
}

impl From<TlsFileError> for Explanation {
    fn from(error: TlsFileError) -> Self {
        Self {
            wrong: format!("{}={}: {}", error.setting, error.path.display(), error.problem),
            facts: None,
            fixes: vec![error.fix.to_owned()],
        }
    }
}

/// Locked memory for `shards` shards and one more executor, in bytes: a start checks the store and creates tables on
/// executors of its own, and the kernel releases their memory with a delay.
pub(crate) fn memlock_needed(shards: usize) -> u64 {
    (shards as u64 + 1) * MEMLOCK_SHARD_BYTES
}

/// Why the rings of `shards` shards could not all be created.
pub(crate) fn explain_ring_error(
    error: &io::Error,
    facts: &HostFacts,
    shards: usize,
) -> Explanation {
    let (wrong, fixes) = match errno_of(error, facts) {
        libc::ENOSYS => explain_enosys(facts),
        libc::EPERM | libc::EACCES => explain_eperm(facts),
        libc::ENOMEM => explain_enomem(facts, shards),
        libc::EMFILE | libc::ENFILE => explain_emfile(facts),
        libc::EINVAL => (
            "the kernel's io_uring lacks something that the executor needs (EINVAL)".to_owned(),
            vec![newer_kernel()],
        ),
        _ => (
            format!("the kernel cannot create an io_uring ring: {error}"),
            vec![
                newer_kernel(),
                "run `inventory-api check`: it checks everything that a start needs".to_owned(),
            ],
        ),
    };
    Explanation { wrong, facts: Some(facts.to_string()), fixes }
}

/// The error number; if the executor returned only a text, the number that the text means.
fn errno_of(error: &io::Error, facts: &HostFacts) -> i32 {
    if let Some(errno) = error.raw_os_error() {
        return errno;
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => libc::EPERM,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        // The executor reports every failure alike; the system call returns the error code.
        io::ErrorKind::Unsupported => {
            let refused = try_ring().err();
            let errno = refused.and_then(|error| error.raw_os_error());
            errno.unwrap_or(libc::EINVAL)
        }
        // The executor's own floor has no error number.
        _ if !facts.memlock.allows(MEMLOCK_FLOOR_BYTES) => libc::ENOMEM,
        _ => 0,
    }
}

fn newer_kernel() -> String {
    let (major, minor) = KERNEL_MIN;
    format!("run on a Linux kernel {major}.{minor} or newer with io_uring built in")
}

const ALLOW_CALLS: &str = "let the seccomp profile allow io_uring_setup, io_uring_enter and \
                           io_uring_register";

/// How a profile is chosen for this container engine; both usual ways if the engine is unknown.
fn seccomp_fixes(facts: &HostFacts) -> Vec<String> {
    let docker = "docker run --security-opt seccomp=profile.json (or seccomp=unconfined)";
    let pod = "securityContext.seccompProfile: {type: Localhost, localhostProfile: profile.json} \
               (or type: Unconfined)";
    let how = match facts.container {
        Some("Kubernetes") => pod.to_owned(),
        Some("Podman") => docker.replace("docker", "podman"),
        Some(_) => docker.to_owned(),
        None => format!("{docker}; in a pod {pod}"),
    };
    vec![ALLOW_CALLS.to_owned(), how]
}

fn explain_enosys(facts: &HostFacts) -> (String, Vec<String>) {
    let version = facts.kernel_version();
    if version.is_some_and(|version| version < KERNEL_MIN) {
        return (
            format!("kernel {} is too old for io_uring (ENOSYS)", facts.kernel),
            vec![
                newer_kernel(),
                "a sandbox such as gVisor shows an old kernel of its own: run outside it"
                    .to_owned(),
            ],
        );
    }
    if facts.seccomp == Seccomp::Filter {
        let wrong = "a seccomp filter hides io_uring, or the kernel has none (ENOSYS)";
        return (wrong.to_owned(), seccomp_fixes(facts));
    }
    (
        "the kernel was built without io_uring (ENOSYS)".to_owned(),
        vec![format!("{} (CONFIG_IO_URING=y)", newer_kernel())],
    )
}

fn explain_eperm(facts: &HostFacts) -> (String, Vec<String>) {
    match (facts.io_uring_disabled, facts.seccomp) {
        (Some(2), _) => (
            "io_uring is disabled for every process: kernel.io_uring_disabled=2 (EPERM)".to_owned(),
            vec!["on the host: sysctl -w kernel.io_uring_disabled=0".to_owned()],
        ),
        (Some(1), _) => (
            "io_uring is disabled for this user: kernel.io_uring_disabled=1 (EPERM)".to_owned(),
            vec![
                "on the host: sysctl -w kernel.io_uring_disabled=0".to_owned(),
                "or: sysctl -w kernel.io_uring_group=GID, with a group of this user".to_owned(),
            ],
        ),
        (_, Seccomp::Filter | Seccomp::Strict) => {
            ("a seccomp filter denies io_uring (EPERM)".to_owned(), seccomp_fixes(facts))
        }
        _ => (
            "a security policy denies io_uring (EPERM); it is neither seccomp nor the sysctl"
                .to_owned(),
            vec![
                "look for the denial in the audit log: ausearch -m avc -ts recent, or dmesg"
                    .to_owned(),
                "allow io_uring in the SELinux or AppArmor policy of this service".to_owned(),
            ],
        ),
    }
}

fn explain_enomem(facts: &HostFacts, shards: usize) -> (String, Vec<String>) {
    let needed = memlock_needed(shards);
    let below_floor = !facts.memlock.allows(MEMLOCK_FLOOR_BYTES);
    if facts.memlock_exempt && !below_floor {
        return (
            "the kernel has no memory left for a ring (ENOMEM); the limit on locked memory does \
             not apply to this process"
                .to_owned(),
            vec![
                "raise the memory limit of the container or cgroup, or free memory".to_owned(),
                "or serve with fewer shards, for example SHARDS=1".to_owned(),
            ],
        );
    }
    let limit = bytes(facts.memlock.soft);
    let floor = bytes(Some(MEMLOCK_FLOOR_BYTES));
    let (wrong, wanted) = if below_floor {
        (
            format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit}: no shard starts below \
                 {floor}"
            ),
            needed,
        )
    } else if facts.memlock.allows(needed) {
        // The kernel counts per user, and releases the memory of an ended process with a delay.
        (
            format!(
                "memory for a ring ran out (ENOMEM): other processes of this user, or one that has \
                 just ended, share its {limit} of locked memory; or the memory cgroup is full"
            ),
            facts.memlock.soft.unwrap_or(needed).saturating_add(needed),
        )
    } else {
        (
            format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit}: too low for {} (ENOMEM)",
                shards_text(shards)
            ),
            needed,
        )
    };
    let mut fixes = memlock_fixes(facts, wanted, &bytes(Some(wanted)));
    if !below_floor && shards > 1 {
        fixes.push("or serve with fewer shards, for example SHARDS=1".to_owned());
    }
    (wrong, fixes)
}

fn memlock_fixes(facts: &HostFacts, needed: u64, needed_text: &str) -> Vec<String> {
    let kib = needed / 1024;
    match facts.container {
        Some("Kubernetes") => vec![format!(
            "raise it to {needed_text} in the node's container runtime (LimitMEMLOCK={needed} in \
             containerd.service); a pod cannot set it"
        )],
        Some(engine) => {
            vec![format!("{} run --ulimit memlock={needed}:{needed}", engine.to_lowercase())]
        }
        None => vec![format!(
            "raise it to {needed_text}: ulimit -l {kib} in a shell, LimitMEMLOCK={needed} in a \
             systemd unit, --ulimit memlock={needed}:{needed} for docker run"
        )],
    }
}

fn explain_emfile(facts: &HostFacts) -> (String, Vec<String>) {
    let limit = facts.open_files.soft;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    (
        format!(
            "no file descriptor is available for a ring: the limit on open files is {limit} (EMFILE)"
        ),
        vec![
            "raise it: ulimit -n 65536 in a shell, LimitNOFILE=65536 in a systemd unit".to_owned(),
        ],
    )
}

/// `1 shard`, `2 shards`.
pub(crate) fn shards_text(shards: usize) -> String {
    match shards {
        1 => "1 shard".to_owned(),
        n => format!("{n} shards"),
    }
}

/// Why nothing can listen on `address`, which the variable `variable` chose.
pub(crate) fn explain_listen_error(
    error: &io::Error,
    variable: &str,
    address: SocketAddr,
) -> Explanation {
    let port = address.port();
    let another = format!("or choose another port: {variable}=0 uses a free one and prints it");
    let (wrong, fixes) = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => (
            format!("{variable}: port {port} is taken by another process (EADDRINUSE)"),
            vec![format!("find the process: ss -ltnp 'sport = :{port}'"), another],
        ),
        Some(libc::EACCES | libc::EPERM) => (
            format!("{variable}: this user may not listen on port {port} (EACCES)"),
            vec!["ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(), another],
        ),
        Some(libc::EADDRNOTAVAIL) => (
            format!("{variable}: {} is no address of this machine (EADDRNOTAVAIL)", address.ip()),
            vec!["list its addresses: ip -brief address".to_owned()],
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            format!(
                "{variable}: no file descriptor is available to listen on port {port} (EMFILE)"
            ),
            vec!["raise the limit on open files: ulimit -n 65536".to_owned()],
        ),
        _ => (format!("{variable}: nothing can listen on {address}: {error}"), vec![another]),
    };
    Explanation { wrong, facts: None, fixes }
}

/// Why the executor cannot read the CPU topology.
pub(crate) fn explain_topology_error(error: &io::Error) -> Explanation {
    Explanation {
        wrong: format!(
            "the CPUs of this machine cannot be read below /sys/devices/system: {error}"
        ),
        facts: None,
        fixes: vec![
            "mount sysfs at /sys, read-only is enough; container engines do so by default"
                .to_owned(),
        ],
    }
}

/// Why the store did not answer. `endpoint` is the address, `detail` the error.
pub(crate) fn explain_store_unreachable(endpoint: &str, region: &str, detail: &str) -> Explanation {
    Explanation {
        wrong: format!("DynamoDB did not answer at {endpoint}: {detail}"),
        facts: Some(format!("AWS_REGION={region}")),
        fixes: vec![
            "check the network, the credentials (AWS_PROFILE, role) and AWS_REGION".to_owned(),
            "for another endpoint set AWS_ENDPOINT_URL_DYNAMODB=http://host:port".to_owned(),
            "to run without DynamoDB: inventory-api dev".to_owned(),
        ],
    }
}

/// A table is missing. `variable` sets its name, `place` is the address of the store.
pub(crate) fn explain_missing_table(variable: &str, table: &str, place: &str) -> Explanation {
    Explanation {
        wrong: format!("the table {table:?} does not exist at {place}"),
        facts: Some(format!("{variable}={table}")),
        fixes: vec![
            "create the tables: inventory-api tables create".to_owned(),
            format!("or set the right name or region: {variable}=..., AWS_REGION=..."),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::ResourceLimits;
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn facts() -> HostFacts {
        let limit = |n| ResourceLimits { soft: Some(n), hard: Some(n) };
        HostFacts {
            kernel: "6.1.0".to_owned(),
            memlock: limit(8 * MIB),
            memlock_exempt: false,
            open_files: limit(1_024),
            seccomp: Seccomp::Off,
            io_uring_disabled: Some(0),
            container: None,
        }
    }

    fn with_memlock(bytes: u64) -> HostFacts {
        let mut facts = facts();
        facts.memlock.soft = Some(bytes);
        facts
    }

    fn explain(errno: i32, facts: &HostFacts) -> String {
        explain_ring_error(&io::Error::from_raw_os_error(errno), facts, 4).to_string()
    }

    /// The text contains every needle and at least one fix.
    fn assert_says(text: &str, needles: &[&str]) {
        for needle in needles {
            assert!(text.contains(needle), "no {needle:?} in:\n{text}");
        }
        assert!(text.contains("fix:"), "{text}");
    }

    #[test]
    fn enosys_is_the_kernel_the_filter_or_the_build() {
        let old = HostFacts { kernel: "4.19.0-amd64".to_owned(), ..facts() };
        assert_says(&explain(libc::ENOSYS, &old), &["4.19.0-amd64 is too old", "5.8"]);
        let filtered = HostFacts { seccomp: Seccomp::Filter, ..facts() };
        let text = explain(libc::ENOSYS, &filtered);
        assert_says(&text, &["seccomp filter", "io_uring_enter", "--security-opt"]);
        assert_says(&explain(libc::ENOSYS, &facts()), &["built without", "CONFIG_IO_URING"]);
    }

    #[test]
    fn eperm_is_the_sysctl_the_filter_or_a_policy() {
        for (disabled, needle) in [(2, "every process"), (1, "io_uring_group")] {
            let facts = HostFacts {
                io_uring_disabled: Some(disabled),
                // The sysctl is the nearer cause even under a filter.
                seccomp: Seccomp::Filter,
                ..facts()
            };
            let text = explain(libc::EPERM, &facts);
            assert_says(&text, &[needle, "sysctl -w kernel.io_uring_disabled=0"]);
        }
        let filtered = HostFacts { seccomp: Seccomp::Filter, io_uring_disabled: None, ..facts() };
        assert_says(&explain(libc::EPERM, &filtered), &["seccomp filter denies", "Unconfined"]);
        assert_says(&explain(libc::EACCES, &facts()), &["SELinux", "audit"]);
    }

    #[test]
    fn fix_is_that_of_the_container_engine() {
        for (engine, seccomp, memlock) in [
            ("Docker", "docker run --security-opt", "docker run --ulimit memlock=2621440"),
            ("Podman", "podman run --security-opt", "podman run --ulimit memlock=2621440"),
            ("Kubernetes", "seccompProfile", "containerd.service"),
        ] {
            let filtered =
                HostFacts { container: Some(engine), seccomp: Seccomp::Filter, ..facts() };
            assert_says(&explain(libc::EPERM, &filtered), &[seccomp, engine]);
            let low = HostFacts { container: Some(engine), ..with_memlock(64 * 1024) };
            assert_says(&explain(libc::ENOMEM, &low), &[memlock]);
        }
    }

    #[test]
    fn enomem_is_the_lock_limit_or_the_memory_and_says_how_much_is_needed() {
        let floor = explain(libc::ENOMEM, &with_memlock(64 * 1024));
        assert_says(&floor, &["RLIMIT_MEMLOCK", "is 64 KiB", "below 512 KiB", "ulimit -l 2560"]);
        let low = explain(libc::ENOMEM, &with_memlock(768 * 1024));
        assert_says(
            &low,
            &["is 768 KiB", "4 shards", "2560 KiB", "LimitMEMLOCK=2621440", "SHARDS=1"],
        );
        let shared = explain(libc::ENOMEM, &facts());
        assert_says(&shared, &["other processes of this user", "8 MiB", "ulimit -l 10752"]);
        let exempt = HostFacts { memlock_exempt: true, ..facts() };
        let text = explain(libc::ENOMEM, &exempt);
        assert_says(&text, &["memory limit of the container", "CAP_IPC_LOCK"]);
        assert!(!text.contains("ulimit -l"), "{text}");
    }

    #[test]
    fn the_executors_own_floor_is_recognised_without_an_errno_even_with_the_capability() {
        let error = io::Error::other("MemLockLimit(65536/524288)");
        let exempt = HostFacts { memlock_exempt: true, ..with_memlock(64 * 1024) };
        let text = explain_ring_error(&error, &exempt, 1).to_string();
        assert_says(&text, &["RLIMIT_MEMLOCK", "64 KiB", "512 KiB", "ulimit -l 1024"]);
    }

    #[test]
    fn other_errors_are_shown_unchanged() {
        assert_says(&explain(libc::EMFILE, &facts()), &["1024", "ulimit -n"]);
        assert_says(&explain(libc::EINVAL, &facts()), &["EINVAL", "5.8"]);
        assert_says(&explain(libc::EIO, &facts()), &["Input/output error", "check"]);
        for errno in 1..134 {
            assert_says(&explain(errno, &facts()), &["facts: kernel 6.1.0", "8 MiB"]);
        }
    }

    #[test]
    fn required_memory_grows_with_the_shards() {
        assert_eq!(memlock_needed(1), MIB);
        assert_eq!(memlock_needed(15), 8 * MIB);
    }

    #[test]
    fn unavailable_port_is_named_with_its_variable() {
        let address = SocketAddr::from(([0, 0, 0, 0], 8080));
        let explain = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            explain_listen_error(&error, "GRPC_PORT", address).to_string()
        };
        let taken = explain(libc::EADDRINUSE);
        assert_says(&taken, &["GRPC_PORT", "8080 is taken", "ss -ltnp 'sport = :8080'", "=0"]);
        assert_says(&explain(libc::EACCES), &["GRPC_PORT", "CAP_NET_BIND_SERVICE"]);
        assert_says(&explain(libc::EADDRNOTAVAIL), &["0.0.0.0", "ip -brief"]);
        assert_says(&explain(libc::EMFILE), &["GRPC_PORT", "ulimit -n"]);
        assert_says(&explain(libc::EIO), &["GRPC_PORT", "Input/output"]);
    }

    #[test]
    fn hidden_cpus_are_explained_with_a_fix() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_says(
            &explain_topology_error(&error).to_string(),
            &["/sys/devices/system", "No such file", "mount sysfs at /sys"],
        );
    }

    #[test]
    fn silent_store_and_missing_table_are_explained() {
        let text = explain_store_unreachable("http://db:8000", "eu-west-1", "refused").to_string();
        assert_says(&text, &["http://db:8000", "refused", "eu-west-1", "AWS_ENDPOINT_URL"]);
        let text = explain_missing_table("DDB_TABLE_SEATS", "seats", "eu-west-1").to_string();
        assert_says(&text, &["seats", "DDB_TABLE_SEATS", "tables create", "eu-west-1"]);
    }
}
