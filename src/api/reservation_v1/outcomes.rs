//! The responses to hold, commit and release: answer in, message out, no I/O.
//!
//! A rejection that is a gRPC error is returned as its status.

use inventory_proto::common::v1::Seat;
use inventory_proto::reservation::v1::{
    CommitReservationResponse, CommitStatus, HoldStatus, ReleaseHoldResponse, ReleaseStatus,
    ReserveSeatResponse,
};

use super::in_band_error::{error_of, is_business};
use crate::api::convert::timestamp;
use crate::api::rejection::{self, ErrorSubject};
use crate::api::validate::RESERVATION_V1;
use inventory_core::answer::{Rejection, ReleaseOutcome};
use inventory_core::ids::{OrderId, Seats};
use inventory_core::time::UnixMillis;
use inventory_grpc::Status;

pub(super) fn held(hold: String, seats: Vec<Seat>, expires_at: UnixMillis) -> ReserveSeatResponse {
    ReserveSeatResponse {
        hold_id: hold,
        reserved_seats: seats,
        hold_expires_at: Some(timestamp(expires_at)),
        status: HoldStatus::Active.into(),
        error: None,
    }
}

pub(super) fn not_held(
    hold: String,
    rejection: &Rejection,
    trace: String,
) -> Result<ReserveSeatResponse, Status> {
    let status = match rejection {
        Rejection::ReservationCommitted => HoldStatus::Committed,
        Rejection::ReservationReleased => HoldStatus::Released,
        Rejection::HoldExpired => HoldStatus::Expired,
        rejection if is_business(rejection) => HoldStatus::Unspecified,
        rejection => return Err(status_of(rejection)),
    };
    Ok(ReserveSeatResponse {
        // Only if the hold exists or existed.
        hold_id: match status {
            HoldStatus::Unspecified => String::new(),
            _ => hold,
        },
        status: status.into(),
        error: Some(error_of(rejection, trace)),
        ..ReserveSeatResponse::default()
    })
}

pub(super) fn confirmed(
    order: OrderId,
    seats: Vec<Seat>,
    at: UnixMillis,
) -> CommitReservationResponse {
    CommitReservationResponse {
        order_id: order.to_text(),
        sold_seats: seats,
        status: CommitStatus::Success.into(),
        committed_at: Some(timestamp(at)),
        error: None,
    }
}

pub(super) fn not_confirmed(
    rejection: &Rejection,
    trace: String,
) -> Result<CommitReservationResponse, Status> {
    let status = match rejection {
        Rejection::HoldExpired => CommitStatus::FailedExpired,
        rejection if is_business(rejection) => CommitStatus::FailedConflict,
        rejection => return Err(status_of(rejection)),
    };
    Ok(CommitReservationResponse {
        // The order that the other payment paid for.
        order_id: match rejection {
            Rejection::PaymentConflict { order } => order.to_text(),
            _ => String::new(),
        },
        status: status.into(),
        error: Some(error_of(rejection, trace)),
        ..CommitReservationResponse::default()
    })
}

/// The seats that this call returned to stock. Those of an earlier release may have a new holder.
pub(super) fn returned_seats(how: ReleaseOutcome, seats: Option<&Seats>) -> Option<&Seats> {
    match how {
        ReleaseOutcome::Released => seats,
        ReleaseOutcome::AlreadyReleased | ReleaseOutcome::NoReservation => None,
    }
}

pub(super) fn released(
    how: ReleaseOutcome,
    seats: Vec<Seat>,
    at: UnixMillis,
) -> ReleaseHoldResponse {
    let (status, released_at) = match how {
        ReleaseOutcome::Released => (ReleaseStatus::Success, Some(at)),
        ReleaseOutcome::AlreadyReleased => (ReleaseStatus::AlreadyReleased, Some(at)),
        ReleaseOutcome::NoReservation => (ReleaseStatus::NotFound, None),
    };
    ReleaseHoldResponse {
        released_seats: seats,
        status: status.into(),
        released_at: released_at.map(timestamp),
        error: None,
    }
}

pub(super) fn not_released(
    rejection: &Rejection,
    trace: String,
) -> Result<ReleaseHoldResponse, Status> {
    let status = match rejection {
        Rejection::EventNotFound | Rejection::ReservationNotFound => ReleaseStatus::NotFound,
        rejection if is_business(rejection) => ReleaseStatus::Failed,
        rejection => return Err(status_of(rejection)),
    };
    Ok(ReleaseHoldResponse {
        status: status.into(),
        error: Some(error_of(rejection, trace)),
        ..ReleaseHoldResponse::default()
    })
}

fn status_of(rejection: &Rejection) -> Status {
    rejection::status_of(rejection, &ErrorSubject::default(), RESERVATION_V1)
}
