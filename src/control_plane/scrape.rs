//! Collects the metrics of all shards, one collection at a time. Scrapes that arrive during a collection share the next
//! one, so that no scrape waits for longer than two collections, however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits;
use crate::telemetry::aggregate::{BuildInfo, MetricsAggregate, ServerMetrics};
use crate::telemetry::log;
use crate::telemetry::process::ProcessUsage;
use crate::telemetry::recorder::ShardMetrics;
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;

/// Source of the metrics of the shards; the server implements it with messages to the shards.
#[tonic::async_trait]
pub trait MetricsSource: Send + Sync + 'static {
    /// Number of shards, constant; shards are numbered from 0.
    fn shards(&self) -> usize;

    /// Metrics of a shard since the previous call; `None` if the shard has ended. May take any time: the caller keeps
    /// the future, so that no metrics are lost.
    async fn take(&self, shard: usize) -> Option<ShardMetrics>;

    /// Status of an event, for a later scrape; `None` if it cannot be read.
    async fn event_status(&self, _event: EventId) -> Option<EventStatus> {
        None
    }

    /// Metrics that need no request to a shard.
    fn server_metrics(&self) -> ServerMetrics {
        ServerMetrics::default()
    }
}

/// The only reader of the recorders of all shards.
pub(super) struct Scraper {
    source: Arc<dyn MetricsSource>,
    started: Instant,
    /// Number of the last collection that has begun.
    begun: AtomicU64,
    state: Mutex<ScrapeState>,
}

struct ScrapeState {
    aggregate: MetricsAggregate,
    /// The unanswered request of each shard, possibly from an earlier scrape.
    requests: Vec<Option<JoinHandle<Option<ShardMetrics>>>>,
    /// Pending reads of event statuses for later scrapes, at most one per event.
    statuses: JoinSet<Option<(EventId, EventStatus)>>,
    /// The number and the text of the last complete collection.
    rendered: (u64, Bytes),
}

impl Scraper {
    pub(super) fn new(source: Arc<dyn MetricsSource>, build: BuildInfo) -> Self {
        let shards = source.shards();
        let state = ScrapeState {
            aggregate: MetricsAggregate::new(shards, build),
            requests: (0..shards).map(|_| None).collect(),
            statuses: JoinSet::new(),
            rendered: (0, Bytes::new()),
        };
        Self { source, started: Instant::now(), begun: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// Requests the metrics of every shard, waits [`limits::SCRAPE_TIMEOUT`] for all of them, and renders. A shard
    /// without an answer is counted in `inventory_scrape_incomplete`. Dropping the future loses no metrics.
    ///
    /// # Errors
    /// If the metrics cannot be rendered.
    pub(super) async fn scrape(&self) -> Result<Bytes, prometheus::Error> {
        // A collection that begins from now on has everything until now.
        let wanted = self.begun.load(Ordering::Relaxed) + 1;
        let mut state = self.state.lock().await;
        if state.rendered.0 >= wanted {
            return Ok(state.rendered.1.clone());
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let shards_missing = self.collect(&mut state).await;
        self.update_events(&mut state);
        let server = ServerMetrics {
            shards_missing,
            log_lines_dropped: log::dropped(),
            process: ProcessUsage::read(),
            ..self.source.server_metrics()
        };
        let text = Bytes::from(state.aggregate.render(&server)?);
        state.rendered = (number, text.clone());
        Ok(text)
    }

    /// Adds the metrics of all shards to the aggregate and returns the number of shards without an answer.
    async fn collect(&self, state: &mut ScrapeState) -> usize {
        let ScrapeState { aggregate, requests, .. } = state;
        for (shard, request) in requests.iter_mut().enumerate() {
            // An answer that was too late for the previous scrape is added first, then the metrics since then.
            if let Some(late) = request.take_if(|request| request.is_finished()) {
                add(late.await.ok().flatten(), self.started.elapsed(), aggregate);
            }
            request.get_or_insert_with(|| {
                let source = Arc::clone(&self.source);
                tokio::spawn(async move { source.take(shard).await })
            });
        }
        let deadline = Instant::now() + limits::SCRAPE_TIMEOUT;
        let mut missing = 0;
        for (shard, request) in requests.iter_mut().enumerate() {
            let Some(pending) = request else { continue };
            let is_answered = match timeout_at(deadline, &mut *pending).await {
                Ok(answer) => {
                    *request = None;
                    add(answer.ok().flatten(), self.started.elapsed(), aggregate)
                }
                Err(_elapsed) => false,
            };
            if !is_answered {
                missing += 1;
                tracing::warn!(shard, "shard did not answer a scrape");
            }
        }
        missing
    }

    /// Adds the statuses that have been read, and starts to read the stale ones.
    fn update_events(&self, state: &mut ScrapeState) {
        while let Some(read) = state.statuses.try_join_next() {
            if let Ok(Some((event, status))) = read {
                state.aggregate.set_event_status(&event, status);
            }
        }
        for event in state.aggregate.stale_events(self.started.elapsed()) {
            let source = Arc::clone(&self.source);
            state.statuses.spawn(async move {
                let read = source.event_status(event.clone());
                let status = timeout(limits::EVENT_STATUS_TIMEOUT, read).await;
                Some((event, status.ok()??))
            });
        }
    }
}

/// Adds the answer of a shard; false if it has none.
fn add(answer: Option<ShardMetrics>, now: Duration, aggregate: &mut MetricsAggregate) -> bool {
    let is_answered = answer.is_some();
    if let Some(metrics) = answer {
        aggregate.absorb(now, metrics);
    }
    is_answered
}

#[cfg(test)]
mod tests;
