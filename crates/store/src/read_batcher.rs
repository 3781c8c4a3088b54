//! Reads the stripes of several events in one request.
//!
//! While fewer than [`limits::STRIPE_READS_BEFORE_BATCHING`] reads are in flight, each read is sent at once. Further
//! reads wait until one of these has finished or has taken [`limits::STRIPE_READ_BATCHING_MAX`], or until a request is
//! full. Checks of fifty events then cost a shard about 200 requests per second instead of 1,000. Every request
//! must be built, signed and sent.
//!
//! Not here: which event is read when, and how a stripe is decoded.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;

use aws_sdk_dynamodb::types::AttributeValue;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, select};

use super::Store;
use super::batch::{BatchProgress, ReadFailure};
use super::codec::{EVENT_ID, Item};
use crate::limits;
use inventory_core::ids::EventId;

type ItemsResult = Result<Vec<Option<Item>>, ReadFailure>;

/// The stripes of one event that a caller waits for.
struct PendingRead {
    event: EventId,
    keys: Vec<String>,
    reply: oneshot::Sender<ItemsResult>,
}

/// Reads that wait to be sent: never more than fit into one request, because a full request is sent at once.
#[derive(Default)]
pub(super) struct ReadBatcher(RefCell<ReadQueue>);

#[derive(Default)]
struct ReadQueue {
    pending: VecDeque<PendingRead>,
    /// Number of keys in all of `pending`.
    keys: usize,
    in_flight: usize,
}

impl ReadQueue {
    /// Takes the reads to send now, in one request.
    fn take(&mut self) -> Vec<PendingRead> {
        let is_full = self.keys >= limits::BATCH_GET_KEYS_MAX;
        if self.in_flight >= limits::STRIPE_READS_BEFORE_BATCHING && !is_full {
            return Vec::new();
        }
        let mut capacity = limits::BATCH_GET_KEYS_MAX;
        let mut batch = Vec::new();
        while let Some(next) = self.pending.front()
            && next.keys.len() <= capacity
            // The store rejects a request that names a key twice.
            && batch.iter().all(|other: &PendingRead| other.event != next.event)
        {
            capacity -= next.keys.len();
            self.keys -= next.keys.len();
            batch.extend(self.pending.pop_front());
        }
        self.in_flight += usize::from(!batch.is_empty());
        batch
    }
}

/// The events of a request, for the log.
struct EventList<'a>(&'a [EventId]);

impl fmt::Display for EventList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => one.fmt(f),
            [one, others @ ..] => write!(f, "{one} and {} other event(s)", others.len()),
        }
    }
}

impl Store {
    /// Returns the items with these keys (1 to [`limits::BATCH_GET_KEYS_MAX`], distinct) in their order, `None`
    /// where there is no item. The read begins after the call, possibly together with others.
    pub(super) async fn get_stripes(&self, event: &EventId, keys: Vec<String>) -> ItemsResult {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.inner.read_batcher.0.borrow_mut();
            queue.keys += keys.len();
            queue.pending.push_back(PendingRead { event: event.clone(), keys, reply });
        }
        self.send_queued_reads();
        answer.await.unwrap_or(Err(ReadFailure::Unavailable))
    }

    fn send_queued_reads(&self) {
        loop {
            let pending = self.inner.read_batcher.0.borrow_mut().take();
            if pending.is_empty() {
                return;
            }
            let store = self.clone();
            inventory_runtime::spawn(async move {
                // A panic drops the senders, which the waiting callers see as an unavailable store.
                let read = AssertUnwindSafe(store.read_batch(pending)).catch_unwind();
                // Otherwise a throttled partition of one event would delay the reads of other events.
                let timeout = inventory_runtime::sleep(limits::STRIPE_READ_BATCHING_MAX);
                let remaining = match select(Box::pin(read), Box::pin(timeout)).await {
                    Either::Left(_) => None,
                    Either::Right((_, read)) => Some(read),
                };
                store.inner.read_batcher.0.borrow_mut().in_flight -= 1;
                store.send_queued_reads();
                if let Some(remaining) = remaining {
                    let _ = remaining.await;
                }
            })
            .detach();
        }
    }

    /// Reads all pending keys and answers each caller as soon as its keys are complete.
    async fn read_batch(&self, pending: Vec<PendingRead>) {
        let events: Vec<_> = pending.iter().map(|w| w.event.clone()).collect();
        let key =
            |key: &String| Item::from([(EVENT_ID.to_owned(), AttributeValue::S(key.clone()))]);
        let keys: Vec<_> = pending.iter().flat_map(|w| &w.keys).map(key).collect();
        let mut pending: Vec<_> = pending.into_iter().map(Some).collect();
        let mut found = HashMap::with_capacity(keys.len());
        let handle = |round: BatchProgress<'_>| match round {
            BatchProgress::Found(item) => {
                if let Some(key) = key_of(&item).cloned() {
                    found.insert(key, item);
                }
            }
            BatchProgress::Unprocessed(unread) => {
                let unread: HashSet<&String> = unread.iter().filter_map(key_of).collect();
                for place in &mut pending {
                    let has_all =
                        |w: &mut PendingRead| !w.keys.iter().any(|key| unread.contains(key));
                    if let Some(done) = place.take_if(has_all) {
                        let items = done.keys.iter().map(|key| found.remove(key));
                        // A caller that has gone is ignored.
                        let _ = done.reply.send(Ok(items.collect()));
                    }
                }
            }
        };
        let table = &self.tables().inventory;
        let read = self.get_distinct(table, keys, &EventList(&events), handle).await;
        if let Err(why) = read {
            for unread in pending.into_iter().flatten() {
                let _ = unread.reply.send(Err(why));
            }
        }
    }
}

fn key_of(item: &Item) -> Option<&String> {
    match item.get(EVENT_ID) {
        Some(AttributeValue::S(key)) => Some(key),
        _ => None,
    }
}
