//! One thread that plays its part of the schedule.
//!
//! Everything happens in turns of one future: send what is due, let the connections read and write,
//! hear the answers, write what gathered, sleep until the next call is due or something arrives. No
//! task is spawned and nothing is allocated per call but what h2 allocates itself.

mod call;
mod player;
mod timer;

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::player::Player;
use crate::ledger::Ledger;
use crate::scenario::Scenario;
use crate::tally::Tally;
pub use crate::wire::connection::ConnectError;

/// What all workers of a run share.
#[derive(Debug)]
pub struct Plan {
    pub scenario: Scenario,
    /// `host:port` of the servers; connections are spread over them.
    pub targets: Vec<String>,
    /// Event ids.
    pub events: Vec<String>,
    /// What reservation ids begin with.
    pub run: String,
    pub threads: u32,
}

/// A worker's figures while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    pub sent: u64,
    pub not_sent: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    pub in_flight: usize,
    /// 95th percentile of the last whole second: checks, and other calls; microseconds.
    pub check_p95: u64,
    pub write_p95: u64,
}

/// What a worker brings back.
pub struct Played {
    pub tally: Tally,
    pub ledger: Ledger,
    /// Why connections were lost, the first few.
    pub losses: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Connection(String),
    #[error("{what}: {why}")]
    System {
        what: &'static str,
        why: std::io::Error,
    },
    #[error("{target:?} is no address: want host:port")]
    Target { target: String },
}

/// Connects, says so through `ready`, waits for the start through `go`, plays to the end.
///
/// # Errors
/// When no connection can be made; then nothing was sent.
pub fn play(
    plan: &Arc<Plan>,
    part: u32,
    live: &Arc<Mutex<Live>>,
    ready: &Sender<()>,
    go: &Receiver<Instant>,
) -> Result<Option<Played>, PlayError> {
    let system = |what| move |why| PlayError::System { what, why };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("the reactor"))?;
    runtime.block_on(async {
        let mut player = Player::new(plan, part, Arc::clone(live))?;
        player.connect().await?;
        // The receiver is gone only when the run was given up.
        let _ = ready.send(());
        let Ok(start) = go.recv() else {
            return Ok(None);
        };
        tokio::time::sleep_until((start - Duration::from_millis(2)).into()).await;
        player.play(start).await.map_err(system("the timer"))?;
        Ok(Some(player.finish()))
    })
}
