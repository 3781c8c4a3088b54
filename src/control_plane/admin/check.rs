//! Validation of admin requests. Reports all invalid fields of a request at once.

use std::collections::HashSet;

use inventory_proto::inventory::v1 as pb;
use tonic::Status;
use tonic_types::ErrorDetails;

use super::status::invalid;
use crate::currency;
use crate::limits;
use crate::telemetry::log::LogLevel;
use crate::text::{self, control_character};
use inventory_core::ids::{EventId, IdError, ReservationId, SeatId};
use inventory_core::seats::{Price, SeatFacts};
use inventory_core::transaction::ReservationState;
use inventory_store::NewEvent;

/// Invalid fields of one request.
#[derive(Default)]
pub(super) struct Check {
    details: ErrorDetails,
    /// Text of the problems.
    bytes: usize,
}

impl Check {
    fn wrong(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        // Bounds the size of the response to a request with many invalid fields, or with long values in them.
        let (field, problem) = (field.into(), problem.into());
        let problem = text::clip(&problem, limits::PROBLEM_BYTES_MAX);
        self.bytes += field.len() + problem.len();
        let count = self.details.bad_request().map_or(0, |bad| bad.field_violations.len());
        let fits =
            count < limits::FIELD_VIOLATIONS_MAX && self.bytes <= limits::ERROR_TEXT_BYTES_MAX;
        if count == 0 || fits {
            self.details.add_bad_request_violation(field, problem);
        }
    }

    fn id<T>(&mut self, field: impl Into<String>, id: Result<T, IdError>) -> Option<T> {
        id.map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    /// Returns `value` if all fields are valid.
    fn done<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if !self.details.has_bad_request_violations() => Ok(value),
            _ => Err(invalid(self.details)),
        }
    }

    /// Checks a display text: bounded, without control characters.
    fn text(&mut self, field: impl Into<String>, text: &str, bytes_max: usize) {
        if let Some(problem) = text_problem(text, bytes_max) {
            self.wrong(field, problem);
        }
    }
}

/// Why a display text is not valid; `None` if it is valid.
pub(crate) fn text_problem(text: &str, bytes_max: usize) -> Option<String> {
    if text.len() > bytes_max {
        let bytes = text.len();
        return Some(format!("has {bytes} bytes; want at most {bytes_max}"));
    }
    let bad = control_character(text)?;
    Some(format!("has {bad}; want no control characters"))
}

pub(super) fn event_id(text: String) -> Result<EventId, Status> {
    let mut check = Check::default();
    let id = check.id("event_id", EventId::try_from(text));
    check.done(id)
}

/// `None` if the text is empty.
pub(super) fn log_level(text: &str) -> Result<Option<LogLevel>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut check = Check::default();
    let level = text.parse::<LogLevel>();
    let level = level.map_err(|error| check.wrong("level", error.to_string()));
    let level = level.ok();
    check.done(level).map(Some)
}

pub(super) fn reservation_id(text: String) -> Result<ReservationId, Status> {
    let mut check = Check::default();
    let id = check.id("reservation_id", ReservationId::try_from(text));
    check.done(id)
}

pub(super) fn new_event(request: pb::CreateEventRequest) -> Result<NewEvent, Status> {
    let mut check = Check::default();
    let event = check.id("event_id", EventId::try_from(request.event_id));
    check.text("name", &request.name, limits::EVENT_TEXT_BYTES_MAX);
    check.text("venue", &request.venue, limits::EVENT_TEXT_BYTES_MAX);
    let shape = match request.seat_keys {
        0 => quantity(&mut check, request.total, request.stripes),
        keys => seated(&mut check, keys, request.total, request.stripes),
    };
    let event = event.zip(shape).map(|(event, (total, stripes, seat_keys))| NewEvent {
        event,
        total,
        stripes,
        seat_keys,
        name: request.name,
        venue: request.venue,
    });
    check.done(event)
}

/// Total, stripes and seat keys of a quantity event.
fn quantity(check: &mut Check, total: i64, stripes: i32) -> Option<(u64, u16, u16)> {
    let units = units(check, total);
    let stripes = match (stripes, units) {
        (0, Some(units)) => limits::stripes_for(units).into(),
        (0, None) => 1,
        (given, _) => given,
    };
    if !(1..=i32::from(limits::STRIPES_MAX)).contains(&stripes) {
        let max = limits::STRIPES_MAX;
        check.wrong(
            "stripes",
            format!("is {stripes}; want 1 to {max}, or 0 to let the server choose"),
        );
    } else if units.is_some() && i64::from(stripes) > total {
        let wrong = format!("is {stripes}; want at most total, which is {total}");
        check.wrong("stripes", wrong);
    }
    Some((units?, u16::try_from(stripes).ok()?, 0))
}

/// Total, stripes and seat keys of a seated event.
fn seated(check: &mut Check, keys: i32, total: i64, stripes: i32) -> Option<(u64, u16, u16)> {
    let max = limits::SEAT_KEYS_MAX;
    if !(1..=i32::from(max)).contains(&keys) {
        let wrong = format!("is {keys}; want 1 to {max}, or 0 for a quantity event");
        check.wrong("seat_keys", wrong);
    }
    for (field, given) in [("total", total), ("stripes", stripes.into())] {
        if given != 0 {
            check.wrong(field, format!("is {given}; want 0 with seat_keys"));
        }
    }
    Some((0, 1, u16::try_from(keys).ok()?))
}

fn units(check: &mut Check, total: i64) -> Option<u64> {
    let max = limits::EVENT_TOTAL_MAX;
    if !(1..=max).contains(&total) {
        check.wrong("total", format!("is {total}; want 1 to {max}"));
        return None;
    }
    u64::try_from(total).ok()
}

pub(super) fn set_total(request: pb::SetTotalRequest) -> Result<(EventId, u64), Status> {
    let mut check = Check::default();
    let event = check.id("event_id", EventId::try_from(request.event_id));
    let total = units(&mut check, request.total);
    check.done(event.zip(total))
}

/// An event and some of its seats.
pub(super) fn seats_of(
    event_id: String,
    seat_ids: Vec<String>,
) -> Result<(EventId, Vec<SeatId>), Status> {
    let mut check = Check::default();
    let event = check.id("event_id", EventId::try_from(event_id));
    let (count, most) = (seat_ids.len(), limits::SEATS_PER_CHUNK_MAX);
    if !(1..=most).contains(&count) {
        check.wrong("seat_ids", format!("has {count} seats; want 1 to {most}"));
        return check.done(None);
    }
    let mut seats = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    for (at, text) in seat_ids.into_iter().enumerate() {
        let field = format!("seat_ids[{at}]");
        if let Some(seat) = check.id(field.as_str(), SeatId::try_from(text)) {
            if !seen.insert(seat.clone()) {
                check.wrong(field, format!("is {seat}, named before; want distinct seats"));
            }
            seats.push(seat);
        }
    }
    check.done(event.map(|event| (event, seats)))
}

/// The seats of one import message.
pub(crate) fn new_seats(seats: Vec<pb::NewSeat>) -> Result<Vec<(SeatId, SeatFacts)>, Status> {
    let mut check = Check::default();
    let (count, most) = (seats.len(), limits::SEATS_PER_CHUNK_MAX);
    if count > most {
        check.wrong("seats", format!("has {count} seats; want at most {most}"));
        return check.done(None);
    }
    let mut good = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    for (at, seat) in seats.into_iter().enumerate() {
        let Some((id, facts)) = new_seat(&mut check, at, seat) else {
            continue;
        };
        if !seen.insert(id.clone()) {
            let wrong = format!("is {id}, named before; want distinct seats");
            check.wrong(format!("seats[{at}].seat_id"), wrong);
        }
        good.push((id, facts));
    }
    check.done(Some(good))
}

fn new_seat(check: &mut Check, at: usize, seat: pb::NewSeat) -> Option<(SeatId, SeatFacts)> {
    let field = |name: &str| format!("seats[{at}].{name}");
    let id = check.id(field("seat_id"), SeatId::try_from(seat.seat_id));
    for (name, text) in [("section", &seat.section), ("row", &seat.row), ("number", &seat.number)] {
        check.text(field(name), text, limits::SEAT_TEXT_BYTES_MAX);
    }
    if let Some(price) = &seat.price {
        if !(0..=limits::PRICE_AMOUNT_MAX).contains(&price.amount) {
            let (amount, max) = (price.amount, limits::PRICE_AMOUNT_MAX);
            check.wrong(field("price.amount"), format!("is {amount}; want 0 to {max}"));
        }
        if !currency::is_currency(&price.currency) {
            let wrong = format!("is {:?}; want {}", price.currency, currency::WANTED);
            check.wrong(field("price.currency"), wrong);
        }
    }
    let facts = SeatFacts {
        section: seat.section,
        row: seat.row,
        number: seat.number,
        price: seat.price.map(|price| Price { amount: price.amount, currency: price.currency }),
    };
    Some((id?, facts))
}

/// Of which event, and in which state, seats are to be listed; [`pb::SeatState::Unspecified`] for all.
pub(super) fn seat_listing(
    request: pb::ListSeatsRequest,
) -> Result<(EventId, pb::SeatState), Status> {
    let mut check = Check::default();
    let event = check.id("event_id", EventId::try_from(request.event_id));
    let state = pb::SeatState::try_from(request.state).unwrap_or_else(|_unknown| {
        check.wrong("state", format!("is {}; want 0 to 4", request.state));
        pb::SeatState::Unspecified
    });
    check.done(event.map(|event| (event, state)))
}

/// Of which event, and in which state, reservations are to be listed.
pub(super) fn listing(
    request: pb::ListReservationsRequest,
) -> Result<(EventId, Option<ReservationState>), Status> {
    let mut check = Check::default();
    let event = check.id("event_id", EventId::try_from(request.event_id));
    let state = match pb::ReservationStatus::try_from(request.status) {
        Ok(pb::ReservationStatus::Unspecified) => None,
        Ok(pb::ReservationStatus::Held) => Some(ReservationState::Held),
        Ok(pb::ReservationStatus::Confirmed) => Some(ReservationState::Confirmed),
        Ok(pb::ReservationStatus::Released) => Some(ReservationState::Released),
        Ok(pb::ReservationStatus::Expired) => Some(ReservationState::Expired),
        Ok(pb::ReservationStatus::Refunded) => Some(ReservationState::Refunded),
        Err(_unknown) => {
            check.wrong("status", format!("is {}; want 0 to 5", request.status));
            None
        }
    };
    check.done(event.map(|event| (event, state)))
}
