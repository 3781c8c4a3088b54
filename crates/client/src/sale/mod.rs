//! A sale in which many buyers compete for few tickets and every answer is checked.
//!
//! [`SalePlan`] holds the parameters, `buyer` draws each buyer from a seed, `buyers` makes the calls,
//! [`ledger`] checks the answers, [`SaleReport`] sums up. Closed loop: the next call of a buyer waits for
//! the answer to the previous one. The sale uses the public contract only; comparing the ledger with the
//! content of the store is left to the caller.

mod buyer;
mod buyers;
pub mod ledger;
mod plan;
mod report;

use std::{sync::Arc, time::Instant};

use tokio::{sync::watch, task::JoinSet};

use self::buyers::{BuyerPool, SalePhase};
pub use self::{
    plan::{BuyerShares, SalePlan, SalePlanError},
    report::{SaleProgress, SaleReport},
};
use crate::{connect::ConnectError, limits::PROGRESS_PERIOD};

/// Why a sale could not start or finish.
#[derive(Debug, thiserror::Error)]
pub enum SaleError {
    #[error(transparent)]
    Plan(#[from] SalePlanError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("a buyer task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs the sale to its end on the current tokio runtime (one thread is enough). Dropping the future stops
/// all calls.
///
/// `progress`, if given, is updated every 100 ms and once at the end. Broken rules are in the report; an
/// error means that the sale could not run.
pub async fn run(
    plan: SalePlan,
    progress: Option<watch::Sender<SaleProgress>>,
) -> Result<SaleReport, SaleError> {
    plan.validate()?;
    let pool = Arc::new(BuyerPool::new(plan)?);
    let started = Instant::now();
    for phase in [SalePhase::Sale, SalePhase::Repeats] {
        let mut tasks = pool.start(phase);
        wait_for(&mut tasks, || {
            if let Some(progress) = &progress {
                progress.send_replace(pool.progress(started.elapsed()));
            }
        })
        .await?;
        pool.end_phase(phase, started.elapsed());
    }
    if let Some(progress) = &progress {
        progress.send_replace(pool.progress(started.elapsed()));
    }
    Ok(pool.report(started.elapsed()))
}

/// Waits for all tasks; calls `tick` every [`PROGRESS_PERIOD`].
async fn wait_for(tasks: &mut JoinSet<()>, tick: impl Fn()) -> Result<(), SaleError> {
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
