//! The checks of the machine: kernel, rings, limits, CPUs, ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::explain::{
    Explanation, explain_listen_error, explain_ring_error, explain_topology_error, memlock_needed,
    shards_text,
};
use super::facts::{HostFacts, bytes, try_ring};
use super::{CheckResult, PreflightCheck};
use crate::config::{Config, cpus};
use crate::control_plane::AdminTokens;
use crate::limits::{
    CONNECTIONS_PER_SHARD_MAX, CONNECTIONS_PER_SHARD_USEFUL, CONNECTIONS_PER_SHARD_USUAL,
    DESCRIPTORS_OF_PROCESS, DESCRIPTORS_OF_SHARD, KERNEL_MIN, MEMLOCK_FLOOR_BYTES,
    STORE_CONNECTIONS_MAX,
};
use inventory_tls::FileSetting;
use inventory_tls::server::ServerFiles;

/// All checks of the machine, in the order of a start, and whether rings could be created.
pub(super) fn checks(config: &Config, facts: &HostFacts) -> (Vec<PreflightCheck>, bool) {
    let shards = config.shard_cpus.len();
    let rings = try_rings(shards);
    let mut checks = vec![
        kernel(facts),
        ring(&rings, facts, shards),
        memlock(facts, shards, rings.is_ok()),
        processors(&config.shard_cpus, cpus::quota(), inventory_runtime::check_topology()),
        open_files(facts, shards),
    ];
    checks.extend(listeners(config).into_iter().map(|(name, address)| port(name, address)));
    checks.extend(config.grpc_tls.as_ref().map(|files| tls_files("TLS", files)));
    if config.admin.is_some() {
        checks.extend(config.admin_access.tls.as_ref().map(|files| tls_files("admin TLS", files)));
        checks.extend(config.admin_access.tokens.clone().map(admin_tokens));
    }
    (checks, rings.is_ok())
}

fn admin_tokens(file: FileSetting) -> PreflightCheck {
    let path = file.path.display().to_string();
    match AdminTokens::load(file) {
        Ok(_) => PreflightCheck::ok("admin tokens", format!("usable: {path}")),
        Err(error) => PreflightCheck {
            name: "admin tokens",
            verdict: CheckResult::Wrong,
            finding: error.to_string(),
            fixes: Vec::new(),
        },
    }
}

fn tls_files(name: &'static str, files: &ServerFiles) -> PreflightCheck {
    match crate::tls::problem(files) {
        None => {
            let path = files.certificate.path.display();
            PreflightCheck::ok(name, format!("certificate, key and authorities usable: {path}"))
        }
        Some(error) => PreflightCheck::wrong(name, error.into()),
    }
}

fn kernel(facts: &HostFacts) -> PreflightCheck {
    let (major, minor) = KERNEL_MIN;
    match facts.kernel_version() {
        Some(version) if version < KERNEL_MIN => PreflightCheck {
            name: "kernel",
            verdict: CheckResult::Wrong,
            finding: format!("{} is older than {major}.{minor}", facts.kernel),
            fixes: vec![format!("run on a Linux kernel {major}.{minor} or newer")],
        },
        Some(_) => {
            PreflightCheck::ok("kernel", format!("{} (needs {major}.{minor})", facts.kernel))
        }
        None => PreflightCheck {
            name: "kernel",
            verdict: CheckResult::Note,
            finding: "its version cannot be read from /proc".to_owned(),
            fixes: Vec::new(),
        },
    }
}

fn ring(rings: &io::Result<()>, facts: &HostFacts, shards: usize) -> PreflightCheck {
    match rings {
        Ok(()) => PreflightCheck::ok(
            "io_uring",
            format!("the rings of {} were created", shards_text(shards)),
        ),
        Err(error) => PreflightCheck::wrong("io_uring", explain_ring_error(error, facts, shards)),
    }
}

/// Creates the executors of this many shards, all at the same time, and ends them.
///
/// # Errors
/// The error of the first executor that could not be created: the kernel's if available, else the executor's.
fn try_rings(shards: usize) -> io::Result<()> {
    // One bare ring first, because the executor does not return the kernel's error number.
    try_ring()?;
    let (made, results) = mpsc::channel();
    thread::scope(|scope| {
        // Dropping the sender ends every executor: each waits until its receiver is closed.
        let mut holds = Vec::with_capacity(shards);
        let mut threads = Vec::with_capacity(shards);
        for _ in 0..shards {
            let (hold, held) = mpsc::channel();
            holds.push(hold);
            let made = made.clone();
            let trial = move || hold_executor(made, &held);
            threads.push(thread::Builder::new().spawn_scoped(scope, trial)?);
        }
        // Without this, the receiver would wait for a thread that ended without a message.
        drop(made);
        let outcomes: io::Result<Vec<()>> = results.iter().collect();
        drop(holds);
        let deaths = threads.into_iter().filter_map(|thread| thread.join().err());
        match (outcomes, deaths.count()) {
            (Err(error), _) => Err(error),
            (Ok(_), 0) => Ok(()),
            (Ok(_), _) => Err(io::Error::other("the executor panicked while it started")),
        }
    })
}

/// Creates an executor, reports it to `made` once, and keeps it until `held` is closed.
fn hold_executor(made: Sender<io::Result<()>>, held: &Receiver<()>) {
    // Dropped after use, because the receiver waits until no sender is left.
    let mut made = Some(made);
    let mut report = |outcome| {
        if let Some(made) = made.take() {
            // If the receiver is gone, it has received a failure already.
            let _gone = made.send(outcome);
        }
    };
    let run = inventory_runtime::run_with_shard_rings(async {
        report(Ok(()));
        let _cut_off = held.recv();
    });
    if let Err(error) = run {
        report(Err(error));
    }
}

/// `made`: whether all rings were made just now. Some kernels count only a part of them.
fn memlock(facts: &HostFacts, shards: usize, made: bool) -> PreflightCheck {
    let needed = memlock_needed(shards);
    let limit = bytes(facts.memlock.soft);
    let need = format!("needed for {}: {}", shards_text(shards), bytes(Some(needed)));
    if !facts.memlock.allows(MEMLOCK_FLOOR_BYTES) || !(made || facts.memlock.allows(needed)) {
        let refused = io::Error::from_raw_os_error(libc::ENOMEM);
        return PreflightCheck::wrong("locked memory", explain_ring_error(&refused, facts, shards));
    }
    let why_enough = if facts.memlock.allows(needed) {
        ""
    } else if facts.memlock_exempt {
        ", but CAP_IPC_LOCK lifts the limit"
    } else {
        ", but this kernel counts less"
    };
    PreflightCheck::ok("locked memory", format!("{limit} ({need}{why_enough})"))
}

fn processors(
    shard_cpus: &[usize],
    quota: Option<f64>,
    topology: io::Result<()>,
) -> PreflightCheck {
    if let Err(error) = topology {
        return PreflightCheck::wrong("CPUs", explain_topology_error(&error));
    }
    let shards = shard_cpus.len();
    match cpus::quota_warning(shards, quota) {
        Some(warning) => PreflightCheck {
            name: "CPUs",
            verdict: CheckResult::Note,
            finding: warning,
            fixes: Vec::new(),
        },
        None => PreflightCheck::ok(
            "CPUs",
            format!("{} on CPU {}", shards_text(shards), cpus::list(shard_cpus)),
        ),
    }
}

/// Descriptors of the process that are not connections of clients.
fn descriptors_beside_clients(shards: u64) -> u64 {
    DESCRIPTORS_OF_PROCESS + shards * (DESCRIPTORS_OF_SHARD + STORE_CONNECTIONS_MAX as u64)
}

/// Connections of clients that a shard may have: as many as the limit on descriptors has room for, so that probes and
/// the store never find it used up.
pub(crate) fn connections_per_shard(facts: &HostFacts, shards: usize) -> usize {
    let Some(limit) = facts.open_files.soft else {
        return CONNECTIONS_PER_SHARD_MAX;
    };
    let shards = shards as u64;
    let room = limit.saturating_sub(descriptors_beside_clients(shards)) / shards.max(1);
    let room = room.max(CONNECTIONS_PER_SHARD_USEFUL);
    usize::try_from(room)
        .map_or(CONNECTIONS_PER_SHARD_MAX, |room| room.min(CONNECTIONS_PER_SHARD_MAX))
}

fn open_files(facts: &HostFacts, shards: usize) -> PreflightCheck {
    let shards = shards as u64;
    let beside = descriptors_beside_clients(shards);
    let least = beside + shards * CONNECTIONS_PER_SHARD_USEFUL;
    let most = beside + shards * CONNECTIONS_PER_SHARD_MAX as u64;
    let raise = || {
        vec![format!("raise it: ulimit -n {most} in a shell, LimitNOFILE={most} in a systemd unit")]
    };
    let Some(limit) = facts.open_files.soft else {
        return PreflightCheck::ok("open files", "unlimited".to_owned());
    };
    if limit < least {
        return PreflightCheck {
            name: "open files",
            verdict: CheckResult::Wrong,
            finding: format!("the limit is {limit}; serving needs at least {least}"),
            fixes: raise(),
        };
    }
    let connections = (limit - beside).min(shards * CONNECTIONS_PER_SHARD_MAX as u64);
    let finding = format!("{limit}: room for {connections} connections of clients");
    if connections < shards * CONNECTIONS_PER_SHARD_USUAL {
        return PreflightCheck {
            name: "open files",
            verdict: CheckResult::Note,
            finding,
            fixes: raise(),
        };
    }
    PreflightCheck::ok("open files", finding)
}

/// The listeners, with the variable of each port.
pub(crate) fn listeners(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let grpc = match config.grpc_address() {
        // A kernel without IPv6 has no `::`; then the server listens on IPv4.
        address if address.ip().is_unspecified() => everywhere(address.port()),
        address => address,
    };
    let mut listeners =
        vec![("GRPC_PORT", grpc), ("METRICS_PORT", everywhere(config.metrics_port))];
    listeners.extend(config.admin.map(|address| ("ADMIN_PORT", address)));
    listeners
}

fn port(name: &'static str, address: SocketAddr) -> PreflightCheck {
    if address.port() == 0 {
        return PreflightCheck::ok(name, "0: a free port will be used".to_owned());
    }
    match probe_port(address) {
        Ok(()) => PreflightCheck::ok(name, format!("{address} is free")),
        Err(error) => PreflightCheck::wrong(name, explain_listen_error(&error, name, address)),
    }
}

/// Listens on `address` for a moment, without SO_REUSEPORT: with that option the port would be shared silently with
/// another process of the same user.
///
/// # Errors
/// The kernel's.
pub(crate) fn probe_port(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

impl PreflightCheck {
    pub(super) fn ok(name: &'static str, finding: String) -> Self {
        Self { name, verdict: CheckResult::Ok, finding, fixes: Vec::new() }
    }

    /// From an explanation; its facts are printed once, below the table.
    pub(super) fn wrong(name: &'static str, explanation: Explanation) -> Self {
        Self {
            name,
            verdict: CheckResult::Wrong,
            finding: explanation.wrong,
            fixes: explanation.fixes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{ResourceLimits, Seccomp};
    use super::*;

    fn facts() -> HostFacts {
        let limit = |n| ResourceLimits { soft: Some(n), hard: Some(n) };
        HostFacts {
            kernel: "6.1.0".to_owned(),
            memlock: limit(8 << 20),
            memlock_exempt: false,
            open_files: limit(1 << 20),
            seccomp: Seccomp::Off,
            io_uring_disabled: Some(0),
            container: None,
        }
    }

    fn files(limit: u64) -> PreflightCheck {
        let mut facts = facts();
        facts.open_files.soft = Some(limit);
        open_files(&facts, 2)
    }

    #[test]
    fn old_kernel_is_an_error_and_unknown_one_a_note() {
        let on = |kernel: &str| kernel_check(HostFacts { kernel: kernel.to_owned(), ..facts() });
        fn kernel_check(facts: HostFacts) -> CheckResult {
            kernel(&facts).verdict
        }
        assert_eq!(on("5.8.0"), CheckResult::Ok);
        assert_eq!(on("5.7.19"), CheckResult::Wrong);
        assert_eq!(on(""), CheckResult::Note);
    }

    #[test]
    fn locked_memory_is_compared_with_minimum_need_and_trial() {
        let judge = |bytes, made| {
            let mut facts = facts();
            facts.memlock.soft = Some(bytes);
            memlock(&facts, 4, made)
        };
        assert_eq!(judge(1 << 20, true).verdict, CheckResult::Ok);
        // Below the minimum no executor starts, even if a bare ring could be created.
        assert_eq!(judge(64 << 10, true).verdict, CheckResult::Wrong);
        assert_eq!(judge(768 << 10, false).verdict, CheckResult::Wrong);
        let lenient = judge(768 << 10, true);
        assert_eq!(lenient.verdict, CheckResult::Ok);
        assert!(lenient.finding.contains("counts less"), "{}", lenient.finding);
    }

    #[test]
    fn open_files_are_compared_with_the_need_of_the_server() {
        assert_eq!(files(256).verdict, CheckResult::Wrong);
        assert_eq!(files(1_024).verdict, CheckResult::Note);
        assert_eq!(files(65_536).verdict, CheckResult::Ok);
        assert!(files(256).fixes[0].contains("ulimit -n"));
    }

    #[test]
    fn connections_are_limited_by_the_descriptors() {
        let with = |limit| {
            let mut facts = facts();
            facts.open_files.soft = limit;
            connections_per_shard(&facts, 2)
        };
        assert_eq!(with(None), CONNECTIONS_PER_SHARD_MAX);
        assert_eq!(with(Some(1 << 20)), CONNECTIONS_PER_SHARD_MAX);
        let room = with(Some(4_096));
        assert!(room < 2_000, "{room}");
        assert!(descriptors_beside_clients(2) + 2 * room as u64 <= 4_096);
        assert_eq!(with(Some(100)) as u64, CONNECTIONS_PER_SHARD_USEFUL);
    }

    #[test]
    fn a_quota_below_the_shards_is_a_note() {
        assert_eq!(processors(&[0, 1], Some(1.5), Ok(())).verdict, CheckResult::Note);
        assert_eq!(processors(&[0, 1], None, Ok(())).verdict, CheckResult::Ok);
    }

    #[test]
    fn port_in_use_is_found_although_its_listener_would_share_it() {
        let holder = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let holder = holder.expect("a socket");
        holder.set_reuse_port(true).expect("SO_REUSEPORT");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        holder.bind(&any.into()).expect("a free port");
        holder.listen(1).expect("a listener");
        let taken = holder.local_addr().expect("bound").as_socket().expect("IPv4");
        let check = port("GRPC_PORT", taken);
        assert_eq!(check.verdict, CheckResult::Wrong);
        assert!(check.finding.contains(&taken.port().to_string()), "{}", check.finding);
        drop(holder);
        assert_eq!(port("GRPC_PORT", taken).verdict, CheckResult::Ok);
    }

    #[test]
    fn the_rings_of_several_shards_are_made_at_once() {
        assert!(try_rings(2).is_ok());
    }
}
