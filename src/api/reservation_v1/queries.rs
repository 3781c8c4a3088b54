//! The responses to availability and status queries: query result in, message out, no I/O.

use inventory_proto::common::v1::{Error, ErrorCode, ErrorDetail, Event, SeatStatus};
use inventory_proto::reservation::v1::{
    CheckAvailabilityResponse, GetInventoryStatusResponse, InventoryStats, SectionInventory,
};

use super::in_band_error::{error_of, is_business};
use crate::api::convert::{count, is_free, money, seat, timestamp};
use crate::api::rejection::{self, ErrorSubject};
use inventory_core::answer::Rejection;
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

pub(super) fn unavailable(
    rejection: &Rejection,
    trace: String,
) -> Result<CheckAvailabilityResponse, Status> {
    Ok(CheckAvailabilityResponse {
        error: Some(refused(rejection, trace)?),
        ..CheckAvailabilityResponse::default()
    })
}

/// `found` covers the whole event; `section` selects the part in the response.
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
    let EventStatus { counts, mut sections, as_of, .. } = *found;
    let mut error = None;
    let mut shown_counts = counts;
    if let Some(section) = section {
        sections.retain(|of| of.section == section);
        shown_counts = sections.first().map_or_else(StockCounts::default, |of| of.counts);
        error = sections.is_empty().then(|| no_such_section(section, trace));
    }
    Ok(GetInventoryStatusResponse {
        event: Some(Event {
            id: event.into_string(),
            name,
            total_seats: count(counts.total),
            remaining_seats: count(counts.available),
            ..Event::default()
        }),
        sections: sections.into_iter().map(section_inventory).collect(),
        stats: error.is_none().then(|| stats(&shown_counts, as_of)),
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
    let (min_price, max_price) =
        of.price.as_ref().map(|(min, max)| (money(min), money(max))).unzip();
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

fn no_such_section(section: &str, trace_id: String) -> Error {
    Error {
        code: ErrorCode::NotFound.into(),
        message: "the event has no such section".to_owned(),
        trace_id,
        details: vec![ErrorDetail {
            field: "section".to_owned(),
            reason: "SECTION_NOT_FOUND".to_owned(),
            value: section.to_owned(),
        }],
    }
}

fn refused(rejection: &Rejection, trace: String) -> Result<Error, Status> {
    match is_business(rejection) {
        true => Ok(error_of(rejection, trace)),
        false => Err(rejection::status_of(rejection, &ErrorSubject::default())),
    }
}
