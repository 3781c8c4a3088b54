//! Faults as they are done to a running round. Each function returns when its fault is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use inventory_store_model::{FaultKind, FaultRule};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::schedule::{ChaosFault, PlannedFault};
use crate::server::ChaosServer;
use crate::store::StoreUnderTest;
use crate::store_front::{ClientRelay, FrontMode, StoreFront};

/// Probability with which an answer is swallowed or truncated: most calls of a batch or a retry are hit sooner or later.
const ANSWER_FAULT: f64 = 0.3;

/// Longest delay of an answer: two to three times the time limit of a request.
const DELAY_MAX: Duration = Duration::from_millis(1_500);

/// Probability of each fault of the model.
const MODEL_FAULT: f64 = 0.5;

/// New connections of a server that has no free descriptors or little memory.
const FLOOD: usize = 200;

/// Steps of the wall clock: above `RECLAIM_CLOCK_STEP`, from which the search for expired holds starts again, and below
/// the lengths of most holds. The end is [`CLOCK_STEP_MAX`].
const CLOCK_STEP_MS: std::ops::Range<u64> = 1_200..2_000;

/// Longest step of the wall clock, in either direction.
pub(crate) const CLOCK_STEP_MAX: Duration = Duration::from_millis(CLOCK_STEP_MS.end);

/// Memory above the usage that a server keeps: from nothing to enough for the connections of [`FLOOD`].
const SPARE_BYTES_MAX: u64 = 4 << 20;

/// What a client sends first: the preface and an empty SETTINGS frame.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What faults act on.
pub(crate) struct ChaosTarget {
    /// Locked while a fault changes the process.
    pub(crate) servers: Vec<Mutex<ChaosServer>>,
    pub(crate) fronts: Vec<Arc<StoreFront>>,
    pub(crate) relays: Vec<Arc<ClientRelay>>,
    pub(crate) store: Mutex<StoreUnderTest>,
}

/// What became of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultOutcome {
    Hit,
    /// A process was killed by the kernel for memory.
    HitAndKilled,
    /// This machine does not allow the fault.
    Skipped(&'static str),
}

impl ChaosTarget {
    /// Waits for its time, then does the fault.
    ///
    /// # Errors
    /// What must not happen: a server that does not start or does not drain.
    pub(crate) async fn execute(&self, fault: PlannedFault) -> Result<FaultOutcome, String> {
        tokio::time::sleep(fault.after).await;
        match fault.kind {
            ChaosFault::Kill | ChaosFault::Drain | ChaosFault::Freeze => {
                self.signal_process(fault).await?;
            }
            ChaosFault::Descriptors => self.exhaust_descriptors(fault).await,
            ChaosFault::Memory => return self.limit_memory(fault).await,
            ChaosFault::ClockStep => return Ok(self.step_clock(fault).await),
            ChaosFault::StoreOutage => {
                let mode = match fault.draw % 2 {
                    0 => FrontMode::Refuse,
                    _ => FrontMode::Hang,
                };
                self.change_fronts(fault, mode).await;
            }
            ChaosFault::ConnectionsCut => self.cut_connections(fault).await,
            ChaosFault::AnswersSwallowed => {
                self.change_fronts(fault, FrontMode::Swallow(ANSWER_FAULT)).await;
            }
            ChaosFault::AnswersSlow => self.change_fronts(fault, FrontMode::Delay(DELAY_MAX)).await,
            ChaosFault::AnswersTruncated => {
                self.change_fronts(fault, FrontMode::Truncate(ANSWER_FAULT)).await;
            }
            ChaosFault::StoreRestart => self.store.lock().await.restart(fault.lasts).await,
            ChaosFault::DiskFull => return Ok(self.fill_disk(fault).await),
            ChaosFault::DiskReadOnly => self.refuse_writes(fault).await,
            ChaosFault::Throttling | ChaosFault::Conflicts | ChaosFault::StoreErrors => {
                self.change_model(fault).await;
            }
        }
        Ok(FaultOutcome::Hit)
    }

    /// The process of a fault.
    async fn server(&self, fault: PlannedFault) -> tokio::sync::MutexGuard<'_, ChaosServer> {
        self.servers[fault.server.expect("a fault of one process")].lock().await
    }

    async fn signal_process(&self, fault: PlannedFault) -> Result<(), String> {
        let mut server = self.server(fault).await;
        match fault.kind {
            ChaosFault::Freeze => {
                server.signal(libc::SIGSTOP);
                tokio::time::sleep(fault.lasts).await;
                server.signal(libc::SIGCONT);
                return Ok(());
            }
            ChaosFault::Drain => drop(server.drain().await?),
            _ => server.kill(),
        }
        tokio::time::sleep(fault.lasts).await;
        server.start().await
    }

    /// No descriptor is free, new clients arrive, and the connections to the store are closed.
    async fn exhaust_descriptors(&self, fault: PlannedFault) {
        let server = self.server(fault).await;
        let before = server.limit_descriptors(Some(server.descriptors() + fault.draw % 3));
        let flood = flood(server.relay.address).await;
        server.front.cut();
        tokio::time::sleep(fault.lasts).await;
        server.limit_descriptors(before);
        drop(flood);
    }

    async fn limit_memory(&self, fault: PlannedFault) -> Result<FaultOutcome, String> {
        let mut server = self.server(fault).await;
        let Some(memory) = server.memory() else {
            return Ok(FaultOutcome::Skipped("no memory cgroup can be made"));
        };
        let kills = memory.kills();
        let limited = memory.limit_to_usage(fault.draw % SPARE_BYTES_MAX);
        limited.map_err(|error| format!("the memory limit cannot be set: {error}"))?;
        let flood = flood(server.relay.address).await;
        tokio::time::sleep(fault.lasts).await;
        drop(flood);
        memory.lift_limit().map_err(|error| format!("the memory limit stays: {error}"))?;
        let was_killed = memory.kills() > kills;
        if server.exit_status().is_some() {
            server.kill();
            server.start().await?;
        }
        Ok(if was_killed { FaultOutcome::HitAndKilled } else { FaultOutcome::Hit })
    }

    async fn step_clock(&self, fault: PlannedFault) -> FaultOutcome {
        let server = self.server(fault).await;
        let length = CLOCK_STEP_MS.end - CLOCK_STEP_MS.start;
        let step = (CLOCK_STEP_MS.start + fault.draw / 2 % length) as i64;
        let step = if fault.draw.is_multiple_of(2) { step } else { -step };
        if !server.set_clock(step) {
            return FaultOutcome::Skipped("the library that moves clocks was not built");
        }
        tokio::time::sleep(fault.lasts).await;
        server.set_clock(0);
        FaultOutcome::Hit
    }

    /// Changes the fronts of one server or of all, and back. Connections that hang are closed at the end.
    async fn change_fronts(&self, fault: PlannedFault, mode: FrontMode) {
        let is_outage = fault.kind == ChaosFault::StoreOutage;
        let set = |mode| {
            for (number, front) in self.fronts.iter().enumerate() {
                if is_outage || fault.server.is_none_or(|hit| hit == number) {
                    front.set_mode(mode);
                    if is_outage {
                        front.cut();
                    }
                }
            }
        };
        set(mode);
        tokio::time::sleep(fault.lasts).await;
        set(FrontMode::Pass);
    }

    /// Cuts connections to the store and to clients a few times.
    async fn cut_connections(&self, fault: PlannedFault) {
        let times = 2 + fault.draw % 4;
        for _ in 0..times {
            for (number, (front, relay)) in self.fronts.iter().zip(&self.relays).enumerate() {
                if fault.server.is_none_or(|hit| hit == number) {
                    front.cut();
                    relay.cut();
                }
            }
            tokio::time::sleep(fault.lasts / times as u32).await;
        }
    }

    async fn fill_disk(&self, fault: PlannedFault) -> FaultOutcome {
        let mut store = self.store.lock().await;
        let disk = store.disk().expect("a fault of the disk");
        let Some(filler) = disk.fill() else {
            return FaultOutcome::Skipped("no file system can be mounted");
        };
        tokio::time::sleep(fault.lasts).await;
        drop(filler);
        FaultOutcome::Hit
    }

    async fn refuse_writes(&self, fault: PlannedFault) {
        let mut store = self.store.lock().await;
        let disk = store.disk().expect("a fault of the disk");
        disk.refuse_writes(true);
        tokio::time::sleep(fault.lasts).await;
        disk.refuse_writes(false);
    }

    async fn change_model(&self, fault: PlannedFault) {
        let kind = match fault.kind {
            ChaosFault::Throttling => FaultKind::Throttle,
            ChaosFault::Conflicts => FaultKind::Conflict,
            _ => FaultKind::Error500,
        };
        let rule: FaultRule = kind.with_probability(MODEL_FAULT);
        let store = self.store.lock().await;
        store.set_model_faults(vec![rule]);
        tokio::time::sleep(fault.lasts).await;
        store.set_model_faults(Vec::new());
    }
}

/// Opens connections that make no call.
async fn flood(address: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..FLOOD {
        if let Ok(mut connection) = TcpStream::connect(address).await {
            // The relay closes the connection if the server does not accept it.
            let _ = connection.write_all(HTTP2_PREFACE).await;
            connections.push(connection);
        }
    }
    connections
}
