//! The names of events, remembered by a shard for a while.
//!
//! A name only adorns an answer: a failure is no name, and is forgotten at once. One read per event
//! is under way at a time, and it runs on when whoever wanted it has gone.

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

/// `Ok(None)`: the event has none. `Err`: it could not be read.
pub(super) type EventName = Shared<oneshot::Receiver<Option<Rc<str>>>>;

struct EventNameEntry {
    asked: Micros,
    name: EventName,
}

/// One per shard.
pub(super) struct EventNames {
    store: Rc<Store>,
    known: RefCell<LruCache<EventId, EventNameEntry, foldhash::fast::RandomState>>,
}

impl EventNames {
    pub(super) fn new(store: Rc<Store>) -> Rc<Self> {
        let most = NonZeroUsize::new(limits::EVENT_NAMES_KNOWN_MAX).unwrap_or(NonZeroUsize::MIN);
        let hasher = foldhash::fast::RandomState::default();
        Rc::new(Self {
            store,
            known: RefCell::new(LruCache::with_hasher(most, hasher)),
        })
    }

    /// The event's name as it is known or as it is being read.
    pub(super) fn of(self: &Rc<Self>, event: &EventId, now: Micros) -> EventName {
        let age_max = Micros(limits::EVENT_NAME_AGE_MAX.as_micros() as u64);
        if let Some(entry) = self.known.borrow_mut().get(event)
            && now.since(entry.asked) < age_max
        {
            return entry.name.clone();
        }
        let (found, name) = oneshot::channel();
        let name = name.shared();
        let entry = EventNameEntry {
            asked: now,
            name: name.clone(),
        };
        self.known.borrow_mut().put(event.clone(), entry);
        let (names, event) = (Rc::clone(self), event.clone());
        inventory_runtime::spawn(async move {
            let read =
                AssertUnwindSafe(store_reads::event_name(&names.store, &event)).catch_unwind();
            match read.await {
                Ok(Ok(name)) => drop(found.send(name.map(Rc::from))),
                Ok(Err(_)) | Err(_) => {
                    names.known.borrow_mut().pop(&event);
                }
            }
        })
        .detach();
        name
    }
}
