//! Tests that need a paused clock or internals; all other tests use a socket (`tests/control_plane`).
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::telemetry::membership::MembershipReport;
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::query::EventStatus;
use inventory_core::seats::{SeatFacts, SeatItem};
use inventory_core::time::Micros;
use inventory_store::{EventAbout, NewEvent, SeatComparison, SeatOutcome};

/// A backend with a seated event without seats. Writes complete when notified; all other calls hang.
#[derive(Default)]
struct ManualBackend {
    writing: AtomicUsize,
    most_writing: AtomicUsize,
    written: Mutex<Vec<SeatId>>,
    changed: AtomicUsize,
    go: Notify,
    /// Writes need no notification and take this long, one after the other.
    write_time: Option<Duration>,
    turns: tokio::sync::Mutex<()>,
    stuck: bool,
}

#[tonic::async_trait]
impl AdminBackend for ManualBackend {
    async fn create_event(&self, _: NewEvent) -> Result<EventCreation, AdminError> {
        std::future::pending().await
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        if self.stuck {
            std::future::pending::<()>().await;
        }
        let about = EventAbout {
            event,
            stripes: 1,
            seat_keys: 3,
            closed: false,
            name: String::new(),
            venue: String::new(),
        };
        let stock = Stock::Seats(EventStatus::default());
        Ok(EventStock { about, stock })
    }

    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError> {
        Ok(self.get_event(event).await?.about)
    }

    fn list_events(&self) -> Pages<EventAbout> {
        stream::pending().boxed()
    }

    async fn set_total(&self, _: EventId, _: u64) -> Result<EventStock, AdminError> {
        std::future::pending().await
    }

    async fn close_event(&self, _: EventId) -> Result<EventStock, AdminError> {
        std::future::pending().await
    }

    async fn count_new_seats(&self, _: EventId, seats: Vec<SeatId>) -> Result<usize, AdminError> {
        Ok(seats.len())
    }

    async fn put_seats(
        &self,
        _: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
        _: bool,
    ) -> Result<SeatComparison, AdminError> {
        assert_eq!(seat_keys, 3);
        assert!(seats.len() <= limits::SEATS_WRITTEN_AT_ONCE_MAX);
        let writing = self.writing.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_writing.fetch_max(writing, Ordering::Relaxed);
        let turn = async {
            // The store of a slow import executes one write after the other.
            let _turn = self.turns.lock().await;
            tokio::time::sleep(self.write_time.unwrap_or_default()).await;
        };
        match self.write_time {
            None => self.go.notified().await,
            Some(_) => turn.await,
        }
        self.writing.fetch_sub(1, Ordering::Relaxed);
        let ids = seats.iter().map(|(id, _)| id.clone());
        self.written.lock().unwrap().extend(ids);
        Ok(SeatComparison::of_new_seats(seats))
    }

    async fn list_seats(&self, _: EventId) -> Result<Vec<SeatItem>, AdminError> {
        std::future::pending().await
    }

    async fn seats_changed(&self, _: EventId) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    async fn block_seats(
        &self,
        _: EventId,
        _: Vec<SeatId>,
        _: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError> {
        std::future::pending().await
    }

    async fn refund(&self, _: ReservationId) -> Result<Refund, AdminError> {
        std::future::pending().await
    }

    async fn get_reservation(&self, _: ReservationId) -> Result<StoredRecord, AdminError> {
        std::future::pending().await
    }

    fn members(&self) -> (MembershipReport, Micros) {
        unreachable!("the tests list no members")
    }

    fn list_reservations(&self, _: EventId) -> Pages<StoredRecord> {
        stream::pending().boxed()
    }
}

fn seats(from: usize, count: usize) -> Result<pb::ImportSeatsRequest, Status> {
    let seat = |n| pb::NewSeat { seat_id: format!("S{n}"), ..pb::NewSeat::default() };
    Ok(pb::ImportSeatsRequest {
        event_id: "evt".to_owned(),
        seats: (from..from + count).map(seat).collect(),
    })
}

fn assert_late(error: &Status, began: Instant, limit: Duration) {
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert_eq!(began.elapsed().as_secs(), limit.as_secs());
    let info = error.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.reason, "DEADLINE_EXCEEDED");
}

#[tokio::test(start_paused = true)]
async fn hanging_backend_ends_with_deadline_exceeded() {
    let admin = Admin::new(Arc::new(ManualBackend { stuck: true, ..ManualBackend::default() }));
    let event_id = "evt".to_owned();
    let began = Instant::now();
    let request = Request::new(pb::GetEventRequest { event_id });
    let error = admin.get_event(request).await.unwrap_err();
    assert_late(&error, began, limits::ADMIN_CALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn hanging_listing_ends_with_deadline_exceeded() {
    let admin = Admin::new(Arc::new(ManualBackend::default()));
    let began = Instant::now();
    let request = Request::new(pb::ListEventsRequest {});
    let mut pages = admin.list_events(request).await.unwrap().into_inner();
    let error = pages.next().await.unwrap().unwrap_err();
    assert_late(&error, began, limits::ADMIN_CALL_TIMEOUT);
    assert!(pages.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn silent_import_client_gets_an_error_and_shards_are_notified() {
    let backend_state = Arc::new(ManualBackend::default());
    backend_state.go.notify_one();
    let backend: Arc<dyn AdminBackend> = backend_state.clone();
    let began = Instant::now();
    let messages = stream::iter([seats(0, 1)]).chain(stream::pending());
    let error = import::run(&backend, Box::pin(messages), |_| {}).await.unwrap_err();
    assert_late(&error, began, limits::ADMIN_CHUNK_WAIT_MAX);
    tokio::task::yield_now().await;
    assert_eq!(backend_state.changed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_import_notifies_the_shards() {
    let backend_state = Arc::new(ManualBackend::default());
    let backend: Arc<dyn AdminBackend> = backend_state.clone();
    let messages = stream::iter([seats(0, 1)]).chain(stream::pending());
    let import = import::run(&backend, Box::pin(messages), |_| {});
    let cut = tokio::time::timeout(Duration::from_secs(1), import).await;
    assert!(cut.is_err(), "{cut:?}");
    tokio::task::yield_now().await;
    assert_eq!(backend_state.changed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn import_keeps_a_bounded_number_of_writes_in_flight() {
    let backend_state = Arc::new(ManualBackend::default());
    let backend: Arc<dyn AdminBackend> = backend_state.clone();
    let count = 3 * limits::SEATS_PER_CHUNK_MAX - 50;
    let messages: Vec<_> = (0..count)
        .step_by(limits::SEATS_PER_CHUNK_MAX)
        .map(|from| seats(from, limits::SEATS_PER_CHUNK_MAX.min(count - from)))
        .collect();
    let import = import::run(&backend, stream::iter(messages), |_| {});
    let notifying = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            backend_state.go.notify_one();
        }
    };
    let done = tokio::select! {
        done = import => done.unwrap(),
        () = notifying => unreachable!("endless loop"),
    };
    assert_eq!(done.written, count as i64);
    let most = backend_state.most_writing.load(Ordering::Relaxed);
    assert_eq!(most, limits::SEAT_WRITES_IN_FLIGHT_MAX);
    let mut written = backend_state.written.lock().unwrap().clone();
    written.sort();
    written.dedup();
    assert_eq!(written.len(), count);
    // Exactly once, since each notification makes the shards read all seats.
    tokio::task::yield_now().await;
    assert_eq!(backend_state.changed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn import_beyond_the_maximum_number_of_seats_is_refused() {
    let backend_state = Arc::new(ManualBackend::default());
    let backend: Arc<dyn AdminBackend> = backend_state.clone();
    let chunk = limits::SEATS_PER_CHUNK_MAX;
    let messages = (0..).map(move |n| seats(n * chunk, chunk));
    let notifying = async {
        loop {
            tokio::time::sleep(Duration::from_micros(100)).await;
            backend_state.go.notify_waiters();
        }
    };
    let error = tokio::select! {
        done = import::run(&backend, stream::iter(messages), |_| {}) => done.unwrap_err(),
        () = notifying => unreachable!("endless loop"),
    };
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let info = error.get_details_error_info().unwrap();
    assert_eq!(info.reason, "TOO_MANY_SEATS");
    assert!(backend_state.written.lock().unwrap().len() <= limits::SEATS_PER_EVENT_MAX);
}

#[tokio::test(start_paused = true)]
async fn slow_store_slows_an_import_down_and_does_not_end_it() {
    for (seconds, writes_max) in [(0.1, limits::SEAT_WRITES_IN_FLIGHT_MAX), (1.5, 5), (25.0, 2)] {
        let backend_state = Arc::new(ManualBackend {
            write_time: Some(Duration::from_secs_f64(seconds)),
            ..ManualBackend::default()
        });
        let backend: Arc<dyn AdminBackend> = backend_state.clone();
        let (count, chunk) = (2_000, limits::SEATS_PER_CHUNK_MAX);
        let messages = (0..count).step_by(chunk).map(|from| seats(from, chunk));
        let reported = Mutex::new(Vec::new());
        let report = |stored: pb::ImportSeatsResponse| {
            // What is reported is durable.
            let durable = backend_state.written.lock().unwrap().len();
            assert!(stored.written <= durable as i64, "{durable} seats are stored");
            reported.lock().unwrap().push(stored.written);
        };
        let done = import::run(&backend, stream::iter(messages), report).await.unwrap();
        assert_eq!(done.written, count as i64);
        let reported = reported.into_inner().unwrap();
        // The event first, then each write.
        assert!(reported.len() == 21 && reported.is_sorted(), "{reported:?}");
        // Fewer writes wait in a store that is slow: each one ends within the time-out of a store call.
        let most = backend_state.most_writing.load(Ordering::Relaxed);
        assert!(most <= writes_max, "{most} writes of {seconds} s");
    }
}

/// The audit log line of a client that disconnects has what was reported last.
#[tokio::test(start_paused = true)]
async fn import_reports_what_is_stored_while_it_waits_for_a_message() {
    let backend: Arc<dyn AdminBackend> = Arc::new(ManualBackend {
        write_time: Some(Duration::from_millis(100)),
        ..ManualBackend::default()
    });
    let messages = stream::iter([seats(0, 100)]).chain(stream::pending());
    let reported = Mutex::new(Vec::new());
    let report = |stored: pb::ImportSeatsResponse| {
        reported.lock().unwrap().push((stored.event_id, stored.written));
    };
    let import = import::run(&backend, messages, report);
    assert!(tokio::time::timeout(Duration::from_secs(1), import).await.is_err(), "it waits");
    let expected = [0, 100].map(|written| ("evt".to_owned(), written));
    assert_eq!(reported.into_inner().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn import_into_a_store_that_stores_nothing_ends() {
    let backend: Arc<dyn AdminBackend> = Arc::new(ManualBackend::default());
    let began = Instant::now();
    let error = import::run(&backend, stream::iter([seats(0, 500)]), |_| {}).await.unwrap_err();
    assert_late(&error, began, limits::SEAT_WRITE_WAIT_MAX);
}

#[test]
fn an_error_about_many_or_long_values_fits_into_the_trailers() {
    let seat = |n: usize| pb::NewSeat {
        seat_id: format!("{n:0>128}"),
        price: Some(pb::Price { amount: 1, currency: "\u{200b}".repeat(5_000) }),
        ..pb::NewSeat::default()
    };
    let mut seats: Vec<_> = (0..500).map(seat).collect();
    let error = check::new_seats(seats.clone()).unwrap_err();
    // Once as the text, twice in the details, which are sent in base64.
    let trailers = |error: &Status| error.message().len() + error.details().len() * 4 / 3;
    assert!(trailers(&error) < 8_000, "{} bytes", trailers(&error));
    assert!(error.message().contains("seats[0].price.currency is "), "{}", error.message());
    // The same seat five hundred times.
    seats.iter_mut().for_each(|seat| seat.seat_id = "A".repeat(128));
    seats.iter_mut().for_each(|seat| seat.price = None);
    let error = check::new_seats(seats).unwrap_err();
    assert!(trailers(&error) < 8_000, "{} bytes", trailers(&error));
    let error = check::log_level(&"x".repeat(60_000)).unwrap_err();
    assert!(trailers(&error) < 2_000, "{} bytes", trailers(&error));
}
