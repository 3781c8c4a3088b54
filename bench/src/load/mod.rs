//! A sell-out in front of the user: many buyers, few tickets, and every answer checked.
//!
//! [`Plan`] says what is played, `script` draws each buyer from a seed, `player` makes the calls,
//! [`ledger`] judges the answers, [`Report`] sums up. Closed loop: a buyer's next call waits for
//! the answer to the one before. This client sees only what any client sees; comparing its ledger
//! with what the store holds is the caller's part.

pub mod ledger;
mod plan;
mod player;
mod report;
mod script;

use std::{sync::Arc, time::Instant};

use tokio::{sync::watch, task::JoinSet};

use self::player::{Phase, Player};
pub use self::{
    plan::{Plan, PlanError, Shares},
    report::{Progress, Report},
};
use crate::{client::ClientError, limits::PROGRESS_PERIOD};

/// Why a run could not start, or not end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a buyer's task did not end: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Plays `plan` to its end and reports. Runs on the tokio runtime it is called on (one thread is
/// enough); dropping the future stops all calls.
///
/// `progress`, if given, is renewed every 100 ms and once at the end. Broken promises are in the
/// report, not errors: an error is only what kept the run from being played.
pub async fn run(
    plan: Plan,
    progress: Option<watch::Sender<Progress>>,
) -> Result<Report, LoadError> {
    plan.validate()?;
    let player = Arc::new(Player::new(plan)?);
    let started = Instant::now();
    for phase in [Phase::Sale, Phase::Repeats] {
        let mut tasks = player.start(phase);
        play(&mut tasks, || {
            if let Some(progress) = &progress {
                progress.send_replace(player.progress(started.elapsed()));
            }
        })
        .await?;
        player.phase_over(phase, started.elapsed());
    }
    if let Some(progress) = &progress {
        progress.send_replace(player.progress(started.elapsed()));
    }
    Ok(player.report(started.elapsed()))
}

/// Waits for all tasks, with a tick for the progress watch.
async fn play(tasks: &mut JoinSet<()>, tick: impl Fn()) -> Result<(), LoadError> {
    let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
    loop {
        tokio::select! {
            _ = ticks.tick() => tick(),
            ended = tasks.join_next() => match ended {
                Some(ended) => ended?,
                None => return Ok(()),
            },
        }
    }
}
