//! Collecting the shards' figures, one scrape at a time.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits;
use crate::telemetry::log;
use crate::telemetry::process::Process;
use crate::telemetry::recorder::Snapshot;
use crate::telemetry::registry::{Aggregate, BuildInfo, ScrapeFacts};
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;

/// Asks shards for their figures; the server implements it with messages to the shards.
#[tonic::async_trait]
pub trait Scrape: Send + Sync + 'static {
    /// How many shards there are, numbered from 0. Constant.
    fn shards(&self) -> usize;

    /// What `shard` has counted since it was last asked; `None` if it cannot be asked any more. May
    /// take arbitrarily long: the future is kept, never dropped, so that no figures are lost.
    async fn take(&self, shard: usize) -> Option<Snapshot>;

    /// How an event stands, to be shown some seconds later; `None` when that is not known.
    async fn status(&self, _event: EventId) -> Option<EventStatus> {
        None
    }

    /// What is known without asking a shard.
    fn facts(&self) -> ScrapeFacts {
        ScrapeFacts::default()
    }
}

/// Why a scrape gave no text.
#[derive(Debug, Error)]
pub(super) enum ScrapeError {
    #[error("{max} scrapes are under way or waiting already; scrape less often", max = limits::SCRAPES_MAX)]
    TooMany,
    #[error("the figures cannot be rendered: {0}")]
    Render(#[from] prometheus::Error),
}

/// The one reader of all shards' recorders.
pub(super) struct Scraper {
    source: Arc<dyn Scrape>,
    began: Instant,
    places: Semaphore,
    figures: Mutex<Figures>,
}

struct Figures {
    aggregate: Aggregate,
    /// The question each shard has not answered yet, however many scrapes ago it was asked.
    questions: Vec<Option<JoinHandle<Option<Snapshot>>>>,
    /// Reads of how events stand, for the scrapes to come; each event at most once.
    statuses: JoinSet<Option<(EventId, EventStatus)>>,
}

impl Scraper {
    pub(super) fn new(source: Arc<dyn Scrape>, build: BuildInfo) -> Self {
        let shards = source.shards();
        let figures = Figures {
            aggregate: Aggregate::new(shards, build),
            questions: (0..shards).map(|_| None).collect(),
            statuses: JoinSet::new(),
        };
        Self {
            source,
            began: Instant::now(),
            places: Semaphore::new(limits::SCRAPES_MAX),
            figures: Mutex::new(figures),
        }
    }

    /// Asks every shard, waits [`limits::SCRAPE_TIMEOUT`] for all together, and renders. A shard that
    /// gives no answer is counted in `inventory_scrape_incomplete`. Dropping the future loses nothing.
    pub(super) async fn scrape(&self) -> Result<String, ScrapeError> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| ScrapeError::TooMany)?;
        let mut figures = self.figures.lock().await;
        let Figures {
            aggregate,
            questions,
            statuses,
        } = &mut *figures;
        while let Some(told) = statuses.try_join_next() {
            if let Ok(Some((event, status))) = told {
                aggregate.learn(&event, status);
            }
        }
        for (shard, question) in questions.iter_mut().enumerate() {
            // What came too late for the scrape before belongs to this one, and so does what came since.
            let late = question.take_if(|late| late.is_finished());
            settle(late, self.began.elapsed(), aggregate).await;
            question.get_or_insert_with(|| {
                let source = Arc::clone(&self.source);
                tokio::spawn(async move { source.take(shard).await })
            });
        }
        let deadline = Instant::now() + limits::SCRAPE_TIMEOUT;
        let mut shards_missing = 0;
        for (shard, question) in questions.iter_mut().enumerate() {
            let Some(asked) = question else { continue };
            let answered = match timeout_at(deadline, &mut *asked).await {
                Ok(answer) => {
                    *question = None;
                    let snapshot = answer.ok().flatten();
                    let answered = snapshot.is_some();
                    let now = self.began.elapsed();
                    snapshot.into_iter().for_each(|s| aggregate.absorb(now, s));
                    answered
                }
                Err(_elapsed) => false,
            };
            if !answered {
                shards_missing += 1;
                tracing::warn!(shard, "the shard gave no figures for a scrape");
            }
        }
        for event in aggregate.events_to_read(self.began.elapsed()) {
            let source = Arc::clone(&self.source);
            statuses.spawn(async move {
                let read = source.status(event.clone());
                let status = timeout(limits::EVENT_UNITS_PATIENCE, read).await;
                Some((event, status.ok()??))
            });
        }
        let facts = ScrapeFacts {
            shards_missing,
            log_lines_dropped: log::dropped(),
            process: Process::read(),
            ..self.source.facts()
        };
        Ok(aggregate.render(&facts)?)
    }
}

/// Adds a late answer to the sum.
async fn settle(
    question: Option<JoinHandle<Option<Snapshot>>>,
    now: Duration,
    aggregate: &mut Aggregate,
) {
    if let Some(question) = question
        && let Ok(Some(snapshot)) = question.await
    {
        aggregate.absorb(now, snapshot);
    }
}

#[cfg(test)]
#[path = "scrape_tests.rs"]
mod tests;
