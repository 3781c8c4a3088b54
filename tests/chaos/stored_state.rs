//! The events of a round, written before it and read after it, past the servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use inventory_core::ids::{EventId, SeatId};
use inventory_core::seats::{SeatFacts, SeatState};
use inventory_core::transaction::{ReservationState, SeatsRead, StripesRead};
use inventory_history::{
    FinalEvent, FinalReservation, FinalSeat, FinalSeatState, FinalState, FinalStatus,
};
use inventory_store::{NewEvent, NoObserver, Store, StoreSettings, StoredRecord, tables};
use tokio::sync::oneshot;

use crate::load::{HALL, HALL_SEATS, PROBE, SCARCE, UNITS, seat_id};

/// Partition keys of the halls.
pub(crate) const SEAT_KEYS: u16 = 2;

/// Time limit of a read or write of all events: some calls, with the attempt timeout of each.
const STORE_WORK_MAX: Duration = Duration::from_secs(120);

/// Seats of one write.
const SEATS_AT_ONCE: usize = 60;

/// Quantity events: total and stripes.
const QUANTITY_EVENTS: [(&str, u64, u16); 4] =
    [(UNITS, 500_000, 6), (SCARCE, 40, 3), (PROBE, 500_000, 3), (MOVED_UNITS, 200, 2)];

/// Halls: number of seats.
const HALLS: [(&str, usize); 2] = [(HALL, HALL_SEATS), (MOVED_HALL, 24)];

/// Events whose holds are moved into the past. They are verified, and are not part of the history.
pub(crate) const MOVED_UNITS: &str = "evt_moved";
pub(crate) const MOVED_HALL: &str = "evt_moved_hall";

/// All events of a round.
pub(crate) const EVENTS: [&str; 6] = [UNITS, SCARCE, PROBE, HALL, MOVED_UNITS, MOVED_HALL];

/// Runs `work` with a store client on a thread and an executor of its own, while the tasks of other rounds go on.
///
/// # Panics
/// If it takes longer than [`STORE_WORK_MAX`].
async fn on_store<T: Send + 'static>(
    address: SocketAddr,
    work: impl AsyncFnOnce(Store) -> T + Send + 'static,
) -> T {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        let worked = inventory_runtime::run_unpinned(async {
            let attempt_timeout = Duration::from_secs(20);
            let settings = StoreSettings { attempt_timeout, ..StoreSettings::local(address) };
            work(Store::connect(settings, Rc::new(NoObserver)).await.unwrap()).await
        });
        let _ = done.send(worked.unwrap());
    });
    let worked = tokio::time::timeout(STORE_WORK_MAX, result).await;
    worked.expect("the store answers in time").expect("the work has not panicked")
}

/// Creates the tables and the events.
pub(crate) async fn create_events(store: SocketAddr) {
    on_store(store, async |store| {
        tables::create(&store).await.unwrap();
        for (event, total, stripes) in QUANTITY_EVENTS {
            let event = NewEvent::of_quantity(event.parse().unwrap(), total, stripes);
            store.create_event(&event).await.unwrap();
        }
        for (event, count) in HALLS {
            let event: EventId = event.parse().unwrap();
            let hall = NewEvent::of_seats(event.clone(), SEAT_KEYS);
            store.create_event(&hall).await.unwrap();
            let seats: Vec<(SeatId, SeatFacts)> = (0..count).map(new_seat).collect();
            for seats in seats.chunks(SEATS_AT_ONCE) {
                store.put_seats(&event, SEAT_KEYS, seats).await.unwrap();
            }
        }
    })
    .await;
}

fn new_seat(number: usize) -> (SeatId, SeatFacts) {
    let id = seat_id(number);
    let (row, seat) = id.trim_start_matches("S-").split_once('-').unwrap();
    let facts = SeatFacts {
        section: "S".into(),
        row: row.into(),
        number: seat.into(),
        ..SeatFacts::default()
    };
    (id.parse().unwrap(), facts)
}

/// Reads the events of the history while no call is in flight.
pub(crate) async fn read_state(store: SocketAddr, read_at: Duration) -> FinalState {
    on_store(store, async move |store| {
        let mut state = FinalState { read_at, ..FinalState::default() };
        for (event, ..) in QUANTITY_EVENTS.iter().filter(|(event, ..)| *event != MOVED_UNITS) {
            state.events.insert((*event).to_owned(), read_quantity_event(&store, event).await);
            read_reservations(&store, event, &mut state.reservations).await;
        }
        state.events.insert(HALL.to_owned(), read_hall(&store).await);
        read_reservations(&store, HALL, &mut state.reservations).await;
        state
    })
    .await
}

/// Number of reservations of the event that are held.
pub(crate) async fn held_reservations(store: SocketAddr, event: &'static str) -> usize {
    on_store(store, async move |store| {
        let mut reservations = BTreeMap::new();
        read_reservations(&store, event, &mut reservations).await;
        reservations.values().filter(|one| one.status == FinalStatus::Held).count()
    })
    .await
}

async fn read_quantity_event(store: &Store, event: &str) -> FinalEvent {
    let read = store.read_event_with_counters(&event.parse().unwrap(), None).await;
    let StripesRead::Found(stripes) = read else { panic!("{event} cannot be read") };
    let total: i64 = stripes.iter().map(|stripe| stripe.capacity as i64).sum();
    let available: i64 = stripes.iter().map(|stripe| stripe.remaining as i64).sum();
    let counted: i64 = stripes.iter().map(|stripe| stripe.held).sum();
    let held = counted - stripes[0].confirmed_holds.unwrap();
    FinalEvent { total, available, held, sold: total - available - held, ..FinalEvent::default() }
}

async fn read_hall(store: &Store) -> FinalEvent {
    let SeatsRead::Found(seats) = store.read_seats(&HALL.parse().unwrap(), SEAT_KEYS).await else {
        panic!("{HALL} cannot be read");
    };
    let mut event = FinalEvent { total: seats.len() as i64, ..FinalEvent::default() };
    for seat in seats {
        let (state, holder) = match &seat.state {
            SeatState::Available => (FinalSeatState::Available, String::new()),
            SeatState::Hold { reservation, .. } => (FinalSeatState::Hold, reservation.to_string()),
            SeatState::Sold { reservation } => (FinalSeatState::Sold, reservation.to_string()),
            SeatState::Blocked => (FinalSeatState::Blocked, String::new()),
        };
        *match state {
            FinalSeatState::Available => &mut event.available,
            FinalSeatState::Hold => &mut event.held,
            FinalSeatState::Sold => &mut event.sold,
            FinalSeatState::Blocked => &mut event.blocked,
        } += 1;
        event.seats.insert(seat.id.to_string(), FinalSeat { state, reservation_id: holder });
    }
    event
}

async fn read_reservations(
    store: &Store,
    event: &str,
    found: &mut BTreeMap<String, FinalReservation>,
) {
    let event: EventId = event.parse().unwrap();
    let mut from = None;
    loop {
        let page = store.scan_reservations(&event, from.as_ref()).await.unwrap();
        for record in page.items {
            // No call makes one: expired holds share it while their stock returns.
            let is_done_release_record = record.reservation.is_release_record()
                && record.view.state == ReservationState::Expired;
            if !is_done_release_record {
                found.insert(record.reservation.to_string(), final_reservation(&record));
            }
        }
        from = page.next;
        if from.is_none() {
            return;
        }
    }
}

fn final_reservation(record: &StoredRecord) -> FinalReservation {
    let view = &record.view;
    let seats = view.seats.iter().flat_map(|seats| seats.iter()).map(ToString::to_string);
    FinalReservation {
        event_id: record.event.to_string(),
        status: match view.state {
            ReservationState::Held => FinalStatus::Held,
            ReservationState::Confirmed => FinalStatus::Confirmed,
            ReservationState::Released => FinalStatus::Released,
            ReservationState::Expired => FinalStatus::Expired,
            ReservationState::Refunded => FinalStatus::Refunded,
        },
        qty: record.qty,
        seats: seats.collect(),
        order_id: view.order.map(|order| order.to_string()).unwrap_or_default(),
        expires_at_ms: view.expires_at.map(|expiry| expiry.0),
    }
}
