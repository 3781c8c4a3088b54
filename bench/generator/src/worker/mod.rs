//! A worker: one thread that makes its part of the calls.
//!
//! One future runs in turns: send the calls that are due, let connections read and write, process answers,
//! flush the sockets, sleep until the next call is due or a connection is ready. The worker spawns no task
//! and allocates nothing per call except what h2 allocates.

mod call;
mod event_loop;
mod timer;

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::event_loop::EventLoop;
use inventory_client::ClientTls;

use crate::ledger::WorkerLedger;
use crate::scenario::Scenario;
use crate::stats::RunStats;
pub(crate) use crate::wire::connection::HandshakeError;

/// Parameters that all workers of a run share.
#[derive(Debug)]
pub(crate) struct RunPlan {
    pub scenario: Scenario,
    /// Servers, `host:port`; connections are distributed over them.
    pub targets: Vec<String>,
    /// TLS of the connections; `None`: without TLS.
    pub tls: Option<ClientTls>,
    pub events: Vec<String>,
    /// Prefix of reservation ids.
    pub run: String,
    pub threads: u32,
    /// Ends the run early: nothing is sent once this is true.
    pub stop: Arc<AtomicBool>,
}

/// Counts of a running worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LiveStats {
    pub sent: u64,
    pub not_sent: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    pub in_flight: usize,
    /// 95th percentile of checks and of other calls in the last complete second, in microseconds.
    pub check_p95: u64,
    pub write_p95: u64,
}

/// Result of a worker.
pub(crate) struct WorkerResult {
    pub stats: RunStats,
    pub ledger: WorkerLedger,
    /// Causes of the first few lost connections.
    pub losses: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Connect(#[from] HandshakeError),
    #[error("{0}")]
    Connection(String),
    #[error("{what}: {why}")]
    System { what: &'static str, why: std::io::Error },
    #[error("{target:?} is not an address: must be host:port")]
    Target { target: String },
}

/// Connects, reports that through `ready`, waits for the start time from `go`, and runs to the end.
///
/// # Errors
/// If a connection cannot be made. No call was sent in this case.
pub(crate) fn run(
    plan: &Arc<RunPlan>,
    part: u32,
    live: &Arc<Mutex<LiveStats>>,
    ready: &Sender<()>,
    go: &Receiver<Instant>,
) -> Result<Option<WorkerResult>, WorkerError> {
    let system = |what| move |why| WorkerError::System { what, why };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("the tokio runtime"))?;
    runtime.block_on(async {
        let mut event_loop = EventLoop::new(plan, part, Arc::clone(live))?;
        event_loop.connect().await?;
        // Sending fails only if the run was given up.
        let _ = ready.send(());
        let Ok(start) = go.recv() else {
            return Ok(None);
        };
        tokio::time::sleep_until((start - Duration::from_millis(2)).into()).await;
        event_loop.run(start).await.map_err(system("the timer"))?;
        Ok(Some(event_loop.finish()))
    })
}
