//! An event as it is stored: stripes and reservation records, read back through a store client of their own.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use inventory_core::ids::EventId;
use inventory_core::transaction::{ReservationState, StripeView, StripesRead};
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{NoObserver, Store, StoreSettings, StoredRecord};

/// Runs `work` with a client of the store at `address`, on a thread and an executor of its own.
pub(crate) fn on_store<T: Send + 'static>(
    address: SocketAddr,
    work: impl AsyncFnOnce(Store) -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(move || {
        inventory_runtime::run_unpinned(async {
            let settings = StoreSettings {
                attempt_timeout: Duration::from_secs(20),
                ..StoreSettings::local(address)
            };
            let store = Store::connect(settings, Rc::new(NoObserver)).await;
            work(store.unwrap()).await
        })
    });
    thread.join().unwrap().unwrap()
}

/// Reads an event back from the store.
pub(crate) struct StoredEvent {
    pub(crate) stripes: Vec<StripeView>,
    records: BTreeMap<String, StoredRecord>,
}

impl StoredEvent {
    /// Reads all of an event and checks that its stock is conserved.
    pub(crate) fn read(store: SocketAddr, event: &str) -> Self {
        let event: EventId = event.parse().unwrap();
        let (stripes, records) = on_store(store, async move |store| {
            let StripesRead::Found(stripes) = store.read_event_with_counters(&event, None).await
            else {
                panic!("the event cannot be read");
            };
            let mut records = Vec::new();
            let mut from = None;
            loop {
                let page = store.scan_reservations(&event, from.as_ref()).await;
                let page = page.unwrap();
                records.extend(page.items);
                from = page.next;
                if from.is_none() {
                    return (stripes, records);
                }
            }
        });
        let by_id = |record: StoredRecord| (record.reservation.to_string(), record);
        let stored = Self { stripes, records: records.into_iter().map(by_id).collect() };
        stored.assert_conserved();
        stored
    }

    /// Reads an event from the data directory of a server that has exited.
    pub(crate) fn in_directory(directory: &Path, event: &str) -> Self {
        let engine = EmbeddedEngine::start(EngineStorage::Dir(directory.to_owned())).unwrap();
        Self::read(engine.address(), event)
    }

    /// Checks that the capacity of each stripe is its remaining units plus the units that live records drew from the
    /// stripe, that the held units are those of holds, and that no two records have the same order.
    fn assert_conserved(&self) {
        let held = self
            .records
            .values()
            .filter(|record| record.view.state == ReservationState::Held && record.view.counted);
        let held: u64 = held.map(|record| u64::from(record.qty)).sum();
        let counted: i64 = self.stripes.iter().map(|stripe| stripe.held).sum();
        let confirmed = self.stripes[0].confirmed_holds.unwrap();
        assert_eq!(counted - confirmed, held as i64, "held units by stripes and counters");
        let mut drawn = vec![0; self.stripes.len()];
        let mut orders = HashSet::new();
        for record in self.records.values() {
            match record.view.state {
                ReservationState::Confirmed => {
                    let order = record.view.order.unwrap().to_string();
                    assert!(orders.insert(order), "order id used twice: {record:?}");
                }
                ReservationState::Held => {}
                // The units of ended reservations were returned.
                _ => continue,
            }
            let units: u32 = record.draws.iter().map(|draw| draw.units).sum();
            match &record.view.seats {
                Some(seats) => assert_eq!((units, seats.len() as u32), (0, record.qty)),
                None => assert_eq!(units, record.qty, "{record:?}"),
            }
            for draw in &record.draws {
                drawn[usize::from(draw.stripe)] += u64::from(draw.units);
            }
        }
        for (stripe, drawn) in self.stripes.iter().zip(drawn) {
            assert_eq!(stripe.capacity, stripe.remaining + drawn, "{stripe:?}");
        }
    }

    /// Number of records.
    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Ids of all reservations, in order.
    pub(crate) fn reservation_ids(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    fn count(&self, state: ReservationState) -> usize {
        let records = self.records.values();
        records.filter(|record| record.view.state == state).count()
    }

    /// Number of holds.
    pub(crate) fn held_count(&self) -> usize {
        self.count(ReservationState::Held)
    }

    /// Number of confirmed reservations.
    pub(crate) fn confirmed_count(&self) -> usize {
        self.count(ReservationState::Confirmed)
    }

    /// The order id of a confirmed reservation.
    pub(crate) fn order_of(&self, reservation: &str) -> Option<String> {
        let order = self.records.get(reservation)?.view.order?;
        Some(order.to_string())
    }

    /// Available units of all stripes.
    pub(crate) fn remaining(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.remaining).sum()
    }

    /// Number of stripes that hold units of a reservation.
    pub(crate) fn stripes_of(&self, reservation: &str) -> usize {
        self.records[reservation].draws.len()
    }
}
