//! Converts types of the core and the store to messages of the admin API.

use inventory_proto::inventory::v1 as pb;

use super::backend::{EventStock, Stock};
use crate::telemetry::membership::{MemberReport, MembershipReport, MembershipSource};
use inventory_core::ids::{SeatId, Seats};
use inventory_core::natural_order;
use inventory_core::query::{EventStatus, SectionStatus, StockCounts};
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{ReservationState, StripeAllocation, StripeView};
use inventory_store::{EventAbout, SeatOutcome, StoredRecord};

/// Stored numbers are within bounds; a corrupt one is shown as the maximum.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn summary(about: &EventAbout) -> pb::EventSummary {
    pb::EventSummary {
        event_id: about.event.to_string(),
        name: about.name.clone(),
        venue: about.venue.clone(),
        seated: about.seat_keys > 0,
        closed: about.closed,
        stripes: about.stripes.into(),
        seat_keys: about.seat_keys.into(),
    }
}

pub(super) fn stock(event: &EventStock) -> pb::EventStock {
    let EventAbout { event: id, stripes: _, seat_keys, closed, name, venue } = &event.about;
    let base = pb::EventStock {
        event_id: id.to_string(),
        seated: *seat_keys > 0,
        name: name.clone(),
        venue: venue.clone(),
        closed: *closed,
        seat_keys: (*seat_keys).into(),
        ..pb::EventStock::default()
    };
    match &event.stock {
        Stock::Units { stripes, as_of } => {
            let counts = StockCounts::of_units(stripes);
            pb::EventStock {
                total: signed(counts.total),
                remaining: signed(counts.available),
                confirmed: signed(counts.sold),
                held: signed(counts.held),
                stripes: stripes.iter().enumerate().map(stripe).collect(),
                as_of_ms: signed(as_of.0),
                ..base
            }
        }
        Stock::Seats(EventStatus { counts, sections, as_of, .. }) => pb::EventStock {
            total: signed(counts.total),
            remaining: signed(counts.available),
            confirmed: signed(counts.sold),
            held: signed(counts.held),
            blocked: signed(counts.blocked),
            sections: sections.iter().map(section).collect(),
            as_of_ms: signed(as_of.0),
            ..base
        },
    }
}

fn stripe((index, view): (usize, &StripeView)) -> pb::StripeStock {
    pb::StripeStock {
        index: index as i32,
        capacity: signed(view.capacity),
        remaining: signed(view.remaining),
        version: signed(view.version),
    }
}

fn section(section: &SectionStatus) -> pb::SectionStock {
    let price =
        |price: &Price| pb::Price { amount: price.amount, currency: price.currency.clone() };
    let range = |(least, most): &(Price, Price)| pb::PriceRange {
        min: Some(price(least)),
        max: Some(price(most)),
    };
    pb::SectionStock {
        section: section.section.clone(),
        total: signed(section.counts.total),
        available: signed(section.counts.available),
        held: signed(section.counts.held),
        sold: signed(section.counts.sold),
        blocked: signed(section.counts.blocked),
        min_price: section.price().map(|(least, _)| price(least)),
        max_price: section.price().map(|(_, most)| price(most)),
        prices: section.prices.iter().map(range).collect(),
    }
}

pub(super) fn seat_result((seat, outcome): (SeatId, SeatOutcome)) -> pb::SeatResult {
    let outcome = match outcome {
        SeatOutcome::Changed => pb::SeatOutcome::Changed,
        SeatOutcome::Unchanged => pb::SeatOutcome::Unchanged,
        SeatOutcome::Held => pb::SeatOutcome::Held,
        SeatOutcome::Sold => pb::SeatOutcome::Sold,
        SeatOutcome::NotFound => pb::SeatOutcome::NotFound,
    };
    pb::SeatResult { seat_id: seat.into_string(), outcome: outcome.into() }
}

/// The seats in this state by section, row and number, the empty texts first.
pub(super) fn seats(
    mut seats: Vec<SeatItem>,
    state: pb::SeatState,
    now: UnixMillis,
) -> Vec<pb::StoredSeat> {
    seats.sort_by(|a, b| {
        let order = |text: fn(&SeatFacts) -> &str| natural_order(text(&a.facts), text(&b.facts));
        order(|facts| &facts.section)
            .then_with(|| order(|facts| &facts.row))
            .then_with(|| order(|facts| &facts.number))
            .then_with(|| natural_order(a.id.as_str(), b.id.as_str()))
    });
    let seats = seats.into_iter().map(|item| seat(item, now));
    let all = state == pb::SeatState::Unspecified;
    seats.filter(|seat| all || seat.state() == state).collect()
}

fn seat(item: SeatItem, now: UnixMillis) -> pb::StoredSeat {
    let (state, reservation, until) = match item.state {
        SeatState::Hold { until, .. } if until <= now => (pb::SeatState::Available, None, None),
        SeatState::Available => (pb::SeatState::Available, None, None),
        SeatState::Hold { reservation, until } => {
            (pb::SeatState::Held, Some(reservation), Some(until))
        }
        SeatState::Sold { reservation } => (pb::SeatState::Sold, Some(reservation), None),
        SeatState::Blocked => (pb::SeatState::Blocked, None, None),
    };
    let SeatFacts { section, row, number, price } = item.facts;
    pb::StoredSeat {
        seat_id: item.id.into_string(),
        section,
        row,
        number,
        price: price.map(|Price { amount, currency }| pb::Price { amount, currency }),
        state: state.into(),
        reservation_id: reservation.map_or_else(String::new, |id| id.to_string()),
        hold_expires_at_ms: until.map_or(0, |at| signed(at.0)),
    }
}

pub(super) fn status(state: ReservationState) -> pb::ReservationStatus {
    match state {
        ReservationState::Held => pb::ReservationStatus::Held,
        ReservationState::Confirmed => pb::ReservationStatus::Confirmed,
        ReservationState::Released => pb::ReservationStatus::Released,
        ReservationState::Expired => pb::ReservationStatus::Expired,
        ReservationState::Refunded => pb::ReservationStatus::Refunded,
    }
}

fn seat_prices(seats: &Seats) -> Option<Vec<pb::Price>> {
    let price = |price: Option<Price>| match price {
        Some(Price { amount, currency }) => pb::Price { amount, currency },
        None => pb::Price::default(),
    };
    Some(seats.prices.as_ref()?.iter().map(price).collect())
}

pub(super) fn reservation(stored: &StoredRecord) -> pb::Reservation {
    let record = &stored.view;
    let seats = record.seats.as_deref().unwrap_or_default();
    let units = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let draw = |draw: &StripeAllocation| pb::StripeDraw {
        stripe: draw.stripe.into(),
        units: units(draw.units),
    };
    pb::Reservation {
        reservation_id: stored.reservation.to_string(),
        event_id: stored.event.to_string(),
        status: status(record.state).into(),
        quantity: units(record.qty),
        seat_ids: seats.iter().map(SeatId::to_string).collect(),
        order_id: record.order.map_or_else(String::new, |id| id.to_text()),
        expires_at_ms: record.expires_at.map_or(0, |at| signed(at.0)),
        changed_at_ms: signed(record.at.0),
        draws: record.draws.iter().map(draw).collect(),
        payment_intent_id: stored.payment_intent.clone(),
        created_at_ms: signed(stored.created_at.0),
        seat_prices: record.seats.as_ref().and_then(seat_prices).unwrap_or_default(),
    }
}

pub(super) fn members(report: &MembershipReport, now: Micros) -> pb::ListMembersResponse {
    let source = match report.source {
        MembershipSource::Store => pb::MembershipSource::Store,
        MembershipSource::Off => pb::MembershipSource::Off,
        MembershipSource::Static => pb::MembershipSource::Static,
    };
    let (own, others): (Vec<_>, Vec<_>) = report.members.iter().partition(|one| one.is_own);
    let beats = report.beats.as_ref();
    pb::ListMembersResponse {
        source: source.into(),
        members: own.into_iter().chain(others).map(|one| member(one, now)).collect(),
        own_share: report.own_share,
        unlisted: beats.is_some_and(|beats| beats.is_unlisted),
        unreadable_entries: beats.map_or(0, |beats| beats.unreadable as i32),
        last_success_ms: beats.map(|beats| millis_since(beats.succeeded_at, now)),
    }
}

fn member(report: &MemberReport, now: Micros) -> pb::Member {
    let entry = &report.entry;
    let announced = &entry.announcement;
    let state = match (report.is_own, report.is_alive) {
        (true, _) => pb::MemberState::Self_,
        (false, true) => pb::MemberState::Alive,
        (false, false) => pb::MemberState::Forgotten,
    };
    pb::Member {
        process_id: entry.id.to_string(),
        state: state.into(),
        shards: announced.shards.into(),
        version: announced.version.clone(),
        address: announced.address.clone(),
        started_at_ms: signed(announced.started_at.0),
        beat_at_ms: signed(entry.beat_at.0),
        beat_age_ms: report.seen_at.map(|at| millis_since(at, now)),
        clock_ahead_ms: announced.clock.map(|clock| clock.ahead_ms),
        clock_error_ms: announced.clock.map(|clock| signed(clock.error_ms)),
    }
}

fn millis_since(at: Micros, now: Micros) -> i64 {
    signed(now.since(at).0 / 1_000)
}
