//! Reads the stripes of several events in one request.
//!
//! While fewer than [`limits::STRIPE_READS_BEFORE_GATHERING`] reads are in flight, each read is sent at once.
//! Beyond that, reads wait until one of these has finished or a request is full: checks of fifty events cost a
//! shard about 200 requests per second instead of 1,000, each of which must be built, signed and sent.
//!
//! Must not be put here: which event is read when, and how a stripe is decoded.

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
    told: oneshot::Sender<ItemsResult>,
}

/// Reads that wait to be sent: never more than fit into one request, because a full request is sent at once.
#[derive(Default)]
pub(super) struct ReadBatcher(RefCell<ReadQueue>);

#[derive(Default)]
struct ReadQueue {
    wanted: VecDeque<PendingRead>,
    /// Number of keys in all of `wanted`.
    keys: usize,
    under_way: usize,
}

impl ReadQueue {
    /// Takes the reads to send now, in one request.
    fn take(&mut self) -> Vec<PendingRead> {
        let is_full = self.keys >= limits::BATCH_GET_KEYS_MAX;
        if self.under_way >= limits::STRIPE_READS_BEFORE_GATHERING && !is_full {
            return Vec::new();
        }
        let mut room = limits::BATCH_GET_KEYS_MAX;
        let mut taken = Vec::new();
        while let Some(next) = self.wanted.front()
            && next.keys.len() <= room
            // The store rejects a request that names a key twice.
            && taken.iter().all(|other: &PendingRead| other.event != next.event)
        {
            room -= next.keys.len();
            self.keys -= next.keys.len();
            taken.extend(self.wanted.pop_front());
        }
        self.under_way += usize::from(!taken.is_empty());
        taken
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
        let (told, answer) = oneshot::channel();
        {
            let mut gathered = self.inner.gathering.0.borrow_mut();
            gathered.keys += keys.len();
            gathered.wanted.push_back(PendingRead { event: event.clone(), keys, told });
        }
        self.send_queued_reads();
        answer.await.unwrap_or(Err(ReadFailure::Unavailable))
    }

    fn send_queued_reads(&self) {
        loop {
            let wanted = self.inner.gathering.0.borrow_mut().take();
            if wanted.is_empty() {
                return;
            }
            let store = self.clone();
            inventory_runtime::spawn(async move {
                // A panic drops the senders, which the waiting callers see as an unavailable store.
                let read = AssertUnwindSafe(store.read_batch(wanted)).catch_unwind();
                // Waiting for the retries of other reads would couple events to a throttled partition.
                let late = inventory_runtime::sleep(limits::STRIPE_READS_GATHER_MAX);
                let rest = match select(Box::pin(read), Box::pin(late)).await {
                    Either::Left(_) => None,
                    Either::Right((_, read)) => Some(read),
                };
                store.inner.gathering.0.borrow_mut().under_way -= 1;
                store.send_queued_reads();
                if let Some(rest) = rest {
                    let _ = rest.await;
                }
            })
            .detach();
        }
    }

    /// Reads all pending keys and answers each caller as soon as its keys are complete.
    async fn read_batch(&self, wanted: Vec<PendingRead>) {
        let events: Vec<_> = wanted.iter().map(|w| w.event.clone()).collect();
        let key =
            |key: &String| Item::from([(EVENT_ID.to_owned(), AttributeValue::S(key.clone()))]);
        let keys: Vec<_> = wanted.iter().flat_map(|w| &w.keys).map(key).collect();
        let mut wanted: Vec<_> = wanted.into_iter().map(Some).collect();
        let mut found = HashMap::with_capacity(keys.len());
        let tell = |round: BatchProgress<'_>| match round {
            BatchProgress::Found(item) => {
                if let Some(key) = key_of(&item).cloned() {
                    found.insert(key, item);
                }
            }
            BatchProgress::Unprocessed(left) => {
                let left: HashSet<&String> = left.iter().filter_map(key_of).collect();
                for place in &mut wanted {
                    let has_all =
                        |w: &mut PendingRead| !w.keys.iter().any(|key| left.contains(key));
                    if let Some(done) = place.take_if(has_all) {
                        let items = done.keys.iter().map(|key| found.remove(key));
                        // A caller that has gone is ignored.
                        let _ = done.told.send(Ok(items.collect()));
                    }
                }
            }
        };
        let table = &self.tables().inventory;
        let read = self.get_distinct(table, keys, &EventList(&events), tell).await;
        if let Err(why) = read {
            for left in wanted.into_iter().flatten() {
                let _ = left.told.send(Err(why));
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
