//! A store of the test's own: an engine in this process, tables, a proxy in front, and an audit of
//! what the store holds against what callers were told.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use inventory_core::ids::EventId;
use inventory_core::transaction::{ReservationState, StripeView, StripesRead};
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{NewEvent, NoObserver, Store, StoreSettings, StoredRecord, tables};

use crate::proxy::Proxy;
use crate::server::{Launch, Server};

pub(crate) struct Stage {
    pub(crate) engine: EmbeddedEngine,
    pub(crate) proxy: Proxy,
}

impl Stage {
    /// An engine in memory with the tables made.
    pub(crate) fn new() -> Self {
        let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
        let address = engine.address();
        on_store(address, async |store| {
            tables::create(&store).await.map(drop)
        })
        .unwrap();
        let proxy = Proxy::start(address);
        Self { engine, proxy }
    }

    /// A server whose store is reached through the proxy.
    pub(crate) fn launch(&self) -> Launch {
        Launch::serve(self.proxy.address)
    }

    #[track_caller]
    pub(crate) fn server(&self) -> Server {
        self.launch().start()
    }

    /// Reads back one event, past the proxy.
    pub(crate) fn book(&self, event: &str) -> Book {
        Book::read(self.engine.address(), event)
    }
}

/// Makes an event of an engine without a server.
pub(crate) fn create_at(engine: SocketAddr, event: &str, total: u64, stripes: u16) {
    let event: EventId = event.parse().unwrap();
    on_store(engine, async move |store| {
        let event = NewEvent::of_quantity(event, total, stripes);
        store.create_event(&event).await.unwrap();
    });
}

/// Runs `work` with a store on an executor and a thread of its own.
fn on_store<T: Send + 'static>(
    engine: SocketAddr,
    work: impl AsyncFnOnce(Store) -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(move || {
        inventory_runtime::run_unpinned(async {
            let settings = StoreSettings {
                attempt_timeout: Duration::from_secs(20),
                ..StoreSettings::local(engine)
            };
            let store = Store::connect(settings, Rc::new(NoObserver)).await;
            work(store.unwrap()).await
        })
    });
    thread.join().unwrap().unwrap()
}

/// All that the store holds of one event.
pub(crate) struct Book {
    pub(crate) stripes: Vec<StripeView>,
    records: BTreeMap<String, StoredRecord>,
}

impl Book {
    pub(crate) fn read(engine: SocketAddr, event: &str) -> Self {
        let event: EventId = event.parse().unwrap();
        let (stripes, records) = on_store(engine, async move |store| {
            let StripesRead::Found(stripes) = store.read_event(&event, None).await else {
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
        let book = Self {
            stripes,
            records: records.into_iter().map(by_id).collect(),
        };
        book.assert_conserved();
        book
    }

    /// Of a server's data directory; nobody may run on it.
    pub(crate) fn of_dir(dir: &Path, event: &str) -> Self {
        let engine = EmbeddedEngine::start(EngineStorage::Dir(dir.to_owned())).unwrap();
        Self::read(engine.address(), event)
    }

    /// Per stripe: capacity = remaining + what live records drew from it; every order once.
    fn assert_conserved(&self) {
        let mut drawn = vec![0; self.stripes.len()];
        let mut orders = HashSet::new();
        for record in self.records.values() {
            match record.view.state {
                ReservationState::Confirmed => {
                    let order = record.view.order.unwrap().to_string();
                    assert!(orders.insert(order), "an order twice: {record:?}");
                }
                ReservationState::Held => {}
                // What it drew has gone back.
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

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    fn count(&self, state: ReservationState) -> usize {
        let records = self.records.values();
        records.filter(|record| record.view.state == state).count()
    }

    /// Reservations that hold something.
    pub(crate) fn held(&self) -> usize {
        self.count(ReservationState::Held)
    }

    pub(crate) fn confirmed(&self) -> usize {
        self.count(ReservationState::Confirmed)
    }

    /// The order of a confirmed reservation.
    pub(crate) fn order(&self, reservation: &str) -> Option<String> {
        let order = self.records.get(reservation)?.view.order?;
        Some(order.to_string())
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.remaining).sum()
    }

    /// How many stripes a reservation drew on.
    pub(crate) fn draws(&self, reservation: &str) -> usize {
        self.records[reservation].draws.len()
    }
}
