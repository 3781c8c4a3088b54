//! One server process: its fixed ports, the relay to its clients, the front to its store, and what is done to it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inventory_process::{ChildProcess, allowed_cpus};
use inventory_testkit::server::{ServerCommand, shards};
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::clock_step;
use crate::memory_group::MemoryGroup;
use crate::store_front::{ClientRelay, StoreFront};

/// Number of server processes.
pub(crate) const SERVERS: usize = 3;

/// Time within which a server must start, with all attempts: it may be started while the store is away.
const START_MAX: Duration = Duration::from_secs(120);

/// Pause before the next attempt of a start that failed, as a supervisor pauses.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// Grace period of a drain: longer than any call of the load.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Time from SIGTERM to the exit: the grace period, and what is closed after it.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Below the kernel's range of ephemeral ports, which begins at 32768.
const SERVER_PORTS: std::ops::Range<u16> = 15_000..32_000;

const POLL: Duration = Duration::from_millis(5);

/// Time limit of one request to the store: above what the engine on a busy machine needs.
const STORE_TIMEOUT: &str = if cfg!(debug_assertions) { "1s" } else { "500ms" };

/// A server process that is started again on the same ports.
pub(crate) struct ChaosServer {
    pub(crate) number: usize,
    pub(crate) front: Arc<StoreFront>,
    pub(crate) relay: Arc<ClientRelay>,
    /// `127.0.0.1:port`.
    pub(crate) metrics: String,
    pub(crate) admin: String,
    grpc: SocketAddr,
    process: Option<ChildProcess>,
    memory: Option<MemoryGroup>,
    /// Offset of the wall clock, if it can be moved.
    clock: Option<File>,
    clock_path: std::path::PathBuf,
    /// Logs of the processes that have ended.
    old_logs: String,
}

impl ChaosServer {
    /// Everything around the process, which is not started yet.
    pub(crate) async fn prepare(
        number: usize,
        store: Arc<Mutex<SocketAddr>>,
        seed: u64,
        directory: &Path,
    ) -> Self {
        let grpc = free_address();
        let clock_path = directory.join(format!("clock-{number}"));
        let clock = clock_step::library().map(|_| {
            let file = File::options().write(true).create_new(true).open(&clock_path).unwrap();
            file.set_len(8).unwrap();
            file
        });
        let group = format!("inventory-chaos-{}-{seed}-{number}", std::process::id());
        Self {
            number,
            front: Arc::new(StoreFront::start(store, seed + number as u64).await),
            relay: Arc::new(ClientRelay::start(grpc).await),
            metrics: free_address().to_string(),
            admin: free_address().to_string(),
            grpc,
            process: None,
            memory: MemoryGroup::create(&group),
            clock,
            clock_path,
            old_logs: String::new(),
        }
    }

    fn command(&self) -> ServerCommand {
        let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
        let mut command = ServerCommand::with_store(self.front.address, &["serve"])
            .env("GRPC_PORT", &self.grpc.port().to_string())
            .env("METRICS_PORT", &port(&self.metrics))
            .env("ADMIN_PORT", &port(&self.admin))
            .env("SHARDS", &self.shards())
            .env("DDB_TIMEOUT", STORE_TIMEOUT)
            .env("SHUTDOWN_GRACE", &format!("{}s", SHUTDOWN_GRACE.as_secs()));
        if let Some(library) = clock_step::library() {
            command = command
                .env("LD_PRELOAD", library.to_str().unwrap())
                .env(clock_step::FILE_VARIABLE, self.clock_path.to_str().unwrap());
        }
        command
    }

    /// One server with two shards, two servers with one shard on different CPUs.
    fn shards(&self) -> String {
        let cpus = allowed_cpus().unwrap();
        match (self.number, cpus.get(1)) {
            (1, Some(cpu)) => format!("{cpu}..{}", cpu + 1),
            (2, _) => shards().to_string(),
            _ => "1".to_owned(),
        }
    }

    /// Starts the process, again after each start that fails, as a supervisor does.
    ///
    /// # Errors
    /// The log, if it does not start within [`START_MAX`].
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let mut command = self.command().command;
            let mut process = ChildProcess::spawn(command.stderr(Stdio::piped())).unwrap();
            if let Some(group) = &self.memory {
                group.add(process.pid()).unwrap();
            }
            while !process.out.text().contains("\n  shards  ") {
                if process.status().unwrap().is_some() || Instant::now() > deadline {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
            let has_exited = process.status().unwrap().is_some();
            if has_exited && Instant::now() < deadline {
                self.old_logs += &process.err.text();
                tokio::time::sleep(RESTART_PAUSE).await;
                continue;
            }
            if Instant::now() > deadline {
                let log = process.err.text();
                return Err(format!("server {} does not start:\n{log}", self.number));
            }
            self.process = Some(process);
            return Ok(());
        }
    }

    fn process(&self) -> &ChildProcess {
        self.process.as_ref().expect("the server was started")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// The exit status, if the process has ended by itself.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.status().unwrap()
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.process().signal(signal).unwrap();
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            self.old_logs += &process.err.text();
        }
    }

    /// SIGTERM; returns the time until the exit.
    ///
    /// # Errors
    /// If the process does not exit with code 0 in time.
    pub(crate) async fn drain(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        self.signal(libc::SIGTERM);
        let process = self.process.as_mut().expect("the server was started");
        let status = process.wait(DRAIN_MAX).await.unwrap();
        let failure = match status {
            Some(status) if status.code() == Some(0) => None,
            Some(status) => Some(format!("server {} ended with {status}", self.number)),
            None => Some(format!("server {} did not end within {DRAIN_MAX:?}", self.number)),
        };
        self.kill();
        failure.map_or(Ok(began.elapsed()), Err)
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> u64 {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.map_or(0, |open| open.count() as u64)
    }

    /// Sets the soft limit of descriptors; returns the one before.
    pub(crate) fn limit_descriptors(&self, count: Option<u64>) -> Option<u64> {
        limit_resource(self.pid(), Resource::Nofile, count)
    }

    /// The cgroup of the process, if there is one.
    pub(crate) fn memory(&self) -> Option<&MemoryGroup> {
        self.memory.as_ref()
    }

    /// Moves the wall clock of the process; `false` if that is impossible here.
    pub(crate) fn set_clock(&self, ahead_ms: i64) -> bool {
        let Some(file) = &self.clock else { return false };
        file.write_all_at(&(ahead_ms * 1_000_000).to_ne_bytes(), 0).unwrap();
        true
    }

    /// Log lines of all processes of this server.
    pub(crate) fn log(&self) -> String {
        let current = self.process.as_ref().map(|process| process.err.text());
        format!("{}{}", self.old_logs, current.unwrap_or_default())
    }
}

/// Sets the soft limit of a resource of a process; returns the one before.
pub(crate) fn limit_resource(pid: u32, resource: Resource, soft: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let current = rustix::process::getrlimit(resource);
    let limit = Rlimit { current: soft, maximum: current.maximum };
    prlimit(pid, resource, limit).unwrap().current
}

/// An address that stays free while its server is away: outside the range from which the kernel takes the ports of
/// outgoing connections and of listeners without a port.
fn free_address() -> SocketAddr {
    loop {
        let port = rand::rng().random_range(SERVER_PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
