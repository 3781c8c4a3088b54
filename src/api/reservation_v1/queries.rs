//! The responses to availability and status queries: query result in, message out, no I/O.

use inventory_proto::common::v1::{Error, Event, SeatStatus};
use inventory_proto::reservation::v1::{
    CheckAvailabilityResponse, GetInventoryStatusResponse, InventoryStats, SectionInventory,
};

use super::in_band_error::{error_of, is_business};
use crate::api::convert::{count, is_free, money, seat, timestamp};
use crate::api::rejection::{self, ErrorSubject};
use crate::api::validate::RESERVATION_V1;
use inventory_core::answer::{Rejection, UnknownSection};
use inventory_core::ids::{EventId, SeatId, Seats};
use inventory_core::operation::Selection;
use inventory_core::query::{EventStatus, QueryResult, SectionStatus, StockCounts};
use inventory_core::seats::SeatItem;
use inventory_core::time::UnixMillis;
use inventory_grpc::Status;

/// The response to an availability query.
pub(super) fn availability(
    asked: &Selection,
    found: QueryResult,
    now: UnixMillis,
) -> Result<CheckAvailabilityResponse, Status> {
    match (asked, found) {
        (_, QueryResult::Units { remaining, available }) => Ok(CheckAvailabilityResponse {
            available,
            remaining_in_section: count(remaining),
            ..CheckAvailabilityResponse::default()
        }),
        (Selection::Quantity(qty), QueryResult::Offer { seats, remaining }) => {
            Ok(offer(*qty, seats, remaining))
        }
        (Selection::Seats(asked), QueryResult::Seats { known, .. }) => {
            Ok(by_seats(asked, known, now))
        }
        _ => Err(rejection::unexpected_answer()),
    }
}

/// All or nothing: the client holds exactly the listed seats.
fn offer(qty: u32, seats: Vec<SeatItem>, remaining: u64) -> CheckAvailabilityResponse {
    let available = seats.len() == qty as usize;
    let shown = seats.into_iter().map(|s| seat(s, SeatStatus::Available));
    CheckAvailabilityResponse {
        available,
        available_seats: match available {
            true => shown.collect(),
            false => Vec::new(),
        },
        remaining_in_section: count(remaining),
        ..CheckAvailabilityResponse::default()
    }
}

fn by_seats(asked: &Seats, mut known: Vec<SeatItem>, now: UnixMillis) -> CheckAvailabilityResponse {
    known.retain(|seat| is_free(seat, now));
    let taken = |id: &&SeatId| known.iter().all(|seat| seat.id != **id);
    let unavailable: Vec<String> = asked.iter().filter(taken).map(SeatId::to_string).collect();
    let free = known.into_iter().map(|s| seat(s, SeatStatus::Available));
    CheckAvailabilityResponse {
        available: unavailable.is_empty(),
        available_seats: free.collect(),
        unavailable_seat_ids: unavailable,
        ..CheckAvailabilityResponse::default()
    }
}

/// A closed event has none of the seats that were asked for.
pub(super) fn unavailable(
    asked: &Selection,
    rejection: &Rejection,
    trace: String,
) -> Result<CheckAvailabilityResponse, Status> {
    let unavailable = match (asked, rejection) {
        (Selection::Seats(seats), Rejection::EventClosed) => &seats[..],
        _ => &[],
    };
    Ok(CheckAvailabilityResponse {
        unavailable_seat_ids: unavailable.iter().map(SeatId::to_string).collect(),
        error: Some(refused(rejection, trace)?),
        ..CheckAvailabilityResponse::default()
    })
}

/// `found` covers the whole event; `section` selects the part in the response, and is ignored in a quantity event. The
/// status of an event that sells nothing now has its figures and the error that a hold would get.
pub(super) fn status(
    event: EventId,
    name: String,
    section: Option<&str>,
    found: QueryResult,
    trace: String,
) -> Result<GetInventoryStatusResponse, Status> {
    let QueryResult::Status(found) = found else {
        return Err(rejection::unexpected_answer());
    };
    let EventStatus { counts, mut sections, as_of, seated, closed } = *found;
    let mut shown_counts = counts;
    if let Some(section) = section.filter(|_| seated) {
        match sections.iter().position(|of| of.section == section) {
            Some(at) => {
                sections = vec![sections.swap_remove(at)];
                shown_counts = sections[0].counts;
            }
            None => {
                let known = sections.iter().map(|of| of.section.as_str());
                let unknown = Box::new(UnknownSection::among(known, section));
                return no_status(&Rejection::SectionNotFound(unknown), trace);
            }
        }
    }
    let error = closed.then(|| error_of(&Rejection::EventClosed, trace));
    Ok(GetInventoryStatusResponse {
        event: Some(Event {
            id: event.into_string(),
            name,
            total_seats: count(counts.total),
            remaining_seats: count(counts.available),
            ..Event::default()
        }),
        sections: sections.into_iter().map(section_inventory).collect(),
        stats: Some(stats(&shown_counts, as_of)),
        error,
    })
}

pub(super) fn no_status(
    rejection: &Rejection,
    trace: String,
) -> Result<GetInventoryStatusResponse, Status> {
    Ok(GetInventoryStatusResponse {
        error: Some(refused(rejection, trace)?),
        ..GetInventoryStatusResponse::default()
    })
}

fn section_inventory(of: SectionStatus) -> SectionInventory {
    let (min_price, max_price) = of.price().map(|(min, max)| (money(min), money(max))).unzip();
    SectionInventory {
        section_id: of.section.clone(),
        section_name: of.section,
        total_seats: count(of.counts.total),
        available_seats: count(of.counts.available),
        reserved_seats: count(of.counts.held),
        sold_seats: count(of.counts.sold),
        blocked_seats: count(of.counts.blocked),
        min_price,
        max_price,
    }
}

fn stats(counts: &StockCounts, as_of: UnixMillis) -> InventoryStats {
    let share = match counts.total {
        0 => 0.0,
        total => 100.0 * counts.available as f64 / total as f64,
    };
    InventoryStats {
        total_seats: count(counts.total),
        available_seats: count(counts.available),
        reserved_seats: count(counts.held),
        sold_seats: count(counts.sold),
        blocked_seats: count(counts.blocked),
        availability_percentage: share as f32,
        last_updated: Some(timestamp(as_of)),
    }
}

fn refused(rejection: &Rejection, trace: String) -> Result<Error, Status> {
    match is_business(rejection) {
        true => Ok(error_of(rejection, trace)),
        false => Err(rejection::status_of(rejection, &ErrorSubject::default(), RESERVATION_V1)),
    }
}
