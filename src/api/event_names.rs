//! A cache of event names, one per shard.
//!
//! A name is an optional part of a response: a failed read returns no name and is not cached. One read per
//! event is in flight at a time, and the read continues if its caller disconnects.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;
use lru::LruCache;

use super::store_reads;
use crate::limits;
use inventory_core::ids::EventId;
use inventory_core::time::Micros;
use inventory_store::Store;

/// `Ok(None)`: the event has no name. `Err`: the name could not be read.
pub(super) type EventName = Shared<oneshot::Receiver<Option<Rc<str>>>>;

struct EventNameEntry {
    read_at: Micros,
    name: EventName,
}

/// One per shard.
pub(super) struct EventNames {
    store: Rc<Store>,
    cache: RefCell<LruCache<EventId, EventNameEntry, foldhash::fast::RandomState>>,
}

impl EventNames {
    pub(super) fn new(store: Rc<Store>) -> Rc<Self> {
        let capacity =
            NonZeroUsize::new(limits::EVENT_NAMES_KNOWN_MAX).unwrap_or(NonZeroUsize::MIN);
        let hasher = foldhash::fast::RandomState::default();
        Rc::new(Self { store, cache: RefCell::new(LruCache::with_hasher(capacity, hasher)) })
    }

    /// The cached name of an event, or the read in flight.
    pub(super) fn of(self: &Rc<Self>, event: &EventId, now: Micros) -> EventName {
        let age_max = Micros(limits::EVENT_NAME_AGE_MAX.as_micros() as u64);
        if let Some(entry) = self.cache.borrow_mut().get(event)
            && now.since(entry.read_at) < age_max
        {
            return entry.name.clone();
        }
        let (sender, name) = oneshot::channel();
        let name = name.shared();
        let entry = EventNameEntry { read_at: now, name: name.clone() };
        self.cache.borrow_mut().put(event.clone(), entry);
        let (names, event) = (Rc::clone(self), event.clone());
        inventory_runtime::spawn(async move {
            let read =
                AssertUnwindSafe(store_reads::event_name(&names.store, &event)).catch_unwind();
            match read.await {
                Ok(Ok(name)) => drop(sender.send(name.map(Rc::from))),
                Ok(Err(_)) | Err(_) => {
                    names.cache.borrow_mut().pop(&event);
                }
            }
        })
        .detach();
        name
    }
}
