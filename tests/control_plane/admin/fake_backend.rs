//! An admin backend in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use inventory_api::control_plane::admin::{
    AdminBackend, AdminError, EventCreation, EventStock, Pages, Refund, Stock,
};
use inventory_api::telemetry::membership::{
    BeatReport, MemberReport, MembershipReport, MembershipSource,
};
use inventory_core::ids::{EventId, Fingerprint, OrderId, ReservationId, SeatId};
use inventory_core::membership::{Announcement, ClockOffset, MemberEntry, ProcessId};
use inventory_core::query::{EventStatus, SectionStatus, StockCounts};
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{RecordView, ReservationState, StripeAllocation, StripeView};
use inventory_store::{EventAbout, NewEvent, SeatComparison, SeatOutcome, StoredRecord};

/// Events in memory; some event ids cause errors. Every stripe has one unit sold.
#[derive(Default)]
pub(crate) struct Events(Mutex<BTreeMap<EventId, FakeEvent>>);

#[derive(Clone)]
struct FakeEvent {
    new: NewEvent,
    closed: bool,
    /// Attributes, and whether the seat is blocked.
    seats: BTreeMap<SeatId, (SeatFacts, bool)>,
}

fn injected_error(event: &EventId) -> Result<(), AdminError> {
    let retry_after = Duration::from_millis(100);
    match event.as_str() {
        "busy" => Err(AdminError::Busy { retry_after }),
        "down" => Err(AdminError::Unavailable { retry_after }),
        "broken" => Err(AdminError::Internal),
        _ => Ok(()),
    }
}

impl FakeEvent {
    fn about(&self) -> EventAbout {
        EventAbout {
            event: self.new.event.clone(),
            stripes: self.new.stripes,
            seat_keys: self.new.seat_keys,
            closed: self.closed,
            name: self.new.name.clone(),
            venue: self.new.venue.clone(),
        }
    }

    fn stock(&self) -> EventStock {
        let NewEvent { total, stripes, seat_keys, .. } = self.new;
        let about = self.about();
        if seat_keys > 0 {
            let total = self.seats.len() as u64;
            let blocked = self.seats.values().filter(|(_, blocked)| *blocked).count() as u64;
            let counts = StockCounts {
                total,
                blocked,
                available: total - blocked,
                ..StockCounts::default()
            };
            let prices = self.seats.values().filter_map(|(facts, _)| facts.price.clone());
            let prices: Vec<Price> = prices.collect();
            let section = SectionStatus {
                section: "A".to_owned(),
                counts,
                prices: Vec::from_iter(
                    prices.iter().min().cloned().zip(prices.iter().max().cloned()),
                ),
            };
            let status = EventStatus {
                counts,
                sections: vec![section],
                as_of: UnixMillis(1_704_110_400_000),
                seated: true,
                closed: self.closed,
            };
            let stock = Stock::Seats(status);
            return EventStock { about, stock };
        }
        let count = u64::from(stripes);
        let share = |index| total / count + u64::from(index < total % count);
        let view = |index| StripeView {
            capacity: share(index),
            remaining: share(index) - 1,
            version: 1,
            stripes: (index == 0).then_some(stripes),
            closed: self.closed,
            held: 1,
            // All but one of the holds were confirmed.
            confirmed_holds: (index == 0).then_some(count as i64 - 1),
            ..StripeView::default()
        };
        let stock = Stock::Units {
            stripes: (0..count).map(view).collect(),
            as_of: UnixMillis(1_704_110_400_000),
        };
        EventStock { about, stock }
    }
}

impl Events {
    fn with<T>(
        &self,
        event: &EventId,
        act: impl FnOnce(&mut FakeEvent) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        injected_error(event)?;
        let mut events = self.0.lock().unwrap();
        act(events.get_mut(event).ok_or(AdminError::EventNotFound)?)
    }
}

/// A record in the state that its id names.
fn reservation(id: &str) -> Result<StoredRecord, AdminError> {
    let state = match id {
        "held" => ReservationState::Held,
        "confirmed" => ReservationState::Confirmed,
        "refunded" => ReservationState::Refunded,
        _ => return Err(AdminError::ReservationNotFound),
    };
    let id: ReservationId = id.parse().unwrap();
    let event: EventId = "evt".parse().unwrap();
    let view = RecordView {
        fingerprint: Fingerprint::of_quantity(&event, 3),
        state,
        order: (state != ReservationState::Held).then(|| OrderId::of(&id)),
        payment: None,
        qty: 3,
        draws: [StripeAllocation { stripe: 2, units: 3 }].into_iter().collect(),
        seats: Some(["A-1".parse().unwrap(), "A-2".parse().unwrap()].into()),
        expires_at: (state == ReservationState::Held).then_some(UnixMillis(1_704_110_460_000)),
        counted: false,
        at: UnixMillis(1_704_110_400_000),
    };
    Ok(StoredRecord {
        reservation: id,
        event,
        qty: view.qty,
        draws: view.draws.clone(),
        view,
        payment_intent: "pi_1".to_owned(),
        created_at: UnixMillis(1_704_110_300_000),
    })
}

#[tonic::async_trait]
impl AdminBackend for Events {
    async fn create_event(&self, event: NewEvent) -> Result<EventCreation, AdminError> {
        injected_error(&event.event)?;
        let mut events = self.0.lock().unwrap();
        let created = !events.contains_key(&event.event);
        let current = events.entry(event.event.clone()).or_insert(FakeEvent {
            new: event.clone(),
            closed: false,
            seats: BTreeMap::new(),
        });
        if current.new != event {
            return Err(AdminError::EventExists(Box::new(current.new.clone())));
        }
        let stock = current.stock();
        Ok(EventCreation { stock, created })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        self.with(&event, |current| Ok(current.stock()))
    }

    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError> {
        self.with(&event, |current| Ok(current.about()))
    }

    /// Pages of two.
    fn list_events(&self) -> Pages<EventAbout> {
        let all: Vec<_> = self.0.lock().unwrap().values().map(FakeEvent::about).collect();
        let pages: Vec<_> = all.chunks(2).map(|page| Ok(page.to_vec())).collect();
        stream::iter(pages).boxed()
    }

    async fn set_total(&self, event: EventId, total: u64) -> Result<EventStock, AdminError> {
        self.with(&event, |current| {
            let taken = u64::from(current.new.stripes);
            let old = current.new.total;
            if current.new.seat_keys > 0 {
                return Err(AdminError::Seated);
            }
            if total < taken {
                return Err(AdminError::TotalTooSmall { total: old, taken });
            }
            current.new.total = total;
            Ok(current.stock())
        })
    }

    async fn close_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        self.with(&event, |current| {
            current.closed = true;
            Ok(current.stock())
        })
    }

    async fn count_new_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
    ) -> Result<usize, AdminError> {
        self.with(&event, |current| {
            let known = &current.seats;
            Ok(seats.iter().filter(|seat| !known.contains_key(*seat)).count())
        })
    }

    async fn put_seats(
        &self,
        event: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
        may_exist: bool,
    ) -> Result<SeatComparison, AdminError> {
        self.with(&event, |current| {
            assert_eq!(seat_keys, current.new.seat_keys);
            if seats.iter().any(|(id, _)| id.as_str() == "busy") {
                return Err(injected_error(&"busy".parse().unwrap()).unwrap_err());
            }
            let mut found = SeatComparison::default();
            for (id, facts) in seats {
                let blocked = match current.seats.get(&id) {
                    Some((stored, _)) if *stored == facts && may_exist => {
                        found.unchanged += 1;
                        continue;
                    }
                    Some((_, blocked)) => {
                        found.changed += 1;
                        *blocked
                    }
                    None => {
                        found.added += 1;
                        false
                    }
                };
                current.seats.insert(id, (facts, blocked));
            }
            Ok(found)
        })
    }

    async fn list_seats(&self, event: EventId) -> Result<Vec<SeatItem>, AdminError> {
        self.with(&event, |current| {
            let seats = current.seats.iter().map(|(id, (facts, blocked))| SeatItem {
                id: id.clone(),
                facts: facts.clone(),
                state: if *blocked { SeatState::Blocked } else { SeatState::Available },
            });
            Ok(seats.collect())
        })
    }

    async fn seats_changed(&self, _: EventId) {}

    async fn block_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
        block: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError> {
        self.with(&event, |current| {
            if current.new.seat_keys == 0 {
                return Err(AdminError::NotSeated);
            }
            let one = |id: SeatId| {
                let outcome = match current.seats.get_mut(&id) {
                    None => SeatOutcome::NotFound,
                    Some((_, blocked)) if *blocked == block => SeatOutcome::Unchanged,
                    Some(_) if id.as_str() == "sold" => SeatOutcome::Sold,
                    Some(_) if id.as_str() == "held" => SeatOutcome::Held,
                    Some((_, blocked)) => {
                        *blocked = block;
                        SeatOutcome::Changed
                    }
                };
                (id, outcome)
            };
            Ok(seats.into_iter().map(one).collect())
        })
    }

    async fn refund(&self, id: ReservationId) -> Result<Refund, AdminError> {
        let mut record = reservation(id.as_str())?;
        match record.view.state {
            ReservationState::Held => Err(AdminError::ReservationNotConfirmed),
            before => {
                record.view.state = ReservationState::Refunded;
                Ok(Refund { record, refunded: before == ReservationState::Confirmed })
            }
        }
    }

    async fn get_reservation(&self, id: ReservationId) -> Result<StoredRecord, AdminError> {
        reservation(id.as_str())
    }

    /// This process, and one that was forgotten.
    fn members(&self) -> (MembershipReport, Micros) {
        let member = |id, is_own: bool| MemberReport {
            entry: MemberEntry {
                id: ProcessId(id),
                beat: 7,
                interval: Micros(3_000_000),
                beat_at: UnixMillis(1_704_110_400_250),
                announcement: Announcement {
                    shards: 2,
                    version: "1.2.3".to_owned(),
                    address: format!("host-{id}:8080"),
                    started_at: UnixMillis(1_704_110_400_000),
                    clock: is_own.then_some(ClockOffset { ahead_ms: -20, error_ms: 80 }),
                },
            },
            is_own,
            is_alive: is_own,
            seen_at: Some(Micros(5_000_000)),
        };
        let report = MembershipReport {
            source: MembershipSource::Store,
            members: vec![member(1, false), member(2, true)],
            own_share: 1.0,
            beats: Some(BeatReport { succeeded_at: Micros(5_000_000), ..BeatReport::default() }),
        };
        (report, Micros(6_250_000))
    }

    /// Two pages; for the event `half` followed by an error.
    fn list_reservations(&self, event: EventId) -> Pages<StoredRecord> {
        let mut pages = vec![
            Ok(vec![reservation("held").unwrap(), reservation("confirmed").unwrap()]),
            Ok(vec![reservation("refunded").unwrap()]),
        ];
        if event.as_str() == "half" {
            pages.push(Err(AdminError::Internal));
        }
        stream::iter(pages).boxed()
    }
}
