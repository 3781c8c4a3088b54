//! What a hold, a commit or a release ended with, as a response. Pure: answer in, message out.
//!
//! A refusal that is a gRPC error comes back as its status, so that every refusal has its place.

use inventory_proto::common::v1::Seat;
use inventory_proto::reservation::v1::{
    CommitReservationResponse, CommitStatus, HoldStatus, ReleaseHoldResponse, ReleaseStatus,
    ReserveSeatResponse,
};

use super::in_band_error::{error_of, is_business};
use crate::api::convert::timestamp;
use crate::api::rejection::{self, ErrorSubject};
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
    why: &Rejection,
    trace: String,
) -> Result<ReserveSeatResponse, Status> {
    let status = match why {
        Rejection::ReservationCommitted => HoldStatus::Committed,
        Rejection::ReservationReleased => HoldStatus::Released,
        Rejection::HoldExpired => HoldStatus::Expired,
        why if is_business(why) => HoldStatus::Unspecified,
        why => return Err(status_of(why)),
    };
    Ok(ReserveSeatResponse {
        // Where there is a hold, or was one.
        hold_id: match status {
            HoldStatus::Unspecified => String::new(),
            _ => hold,
        },
        status: status.into(),
        error: Some(error_of(why, trace)),
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
    why: &Rejection,
    trace: String,
) -> Result<CommitReservationResponse, Status> {
    let status = match why {
        Rejection::HoldExpired => CommitStatus::FailedExpired,
        why if is_business(why) => CommitStatus::FailedConflict,
        why => return Err(status_of(why)),
    };
    Ok(CommitReservationResponse {
        status: status.into(),
        error: Some(error_of(why, trace)),
        ..CommitReservationResponse::default()
    })
}

/// The seats that this very call gave back. Those of an earlier release may be another's by now.
pub(super) fn gave_back(how: ReleaseOutcome, seats: Option<&Seats>) -> Option<&Seats> {
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

pub(super) fn not_released(why: &Rejection, trace: String) -> Result<ReleaseHoldResponse, Status> {
    let status = match why {
        Rejection::EventNotFound | Rejection::ReservationNotFound => ReleaseStatus::NotFound,
        why if is_business(why) => ReleaseStatus::Failed,
        why => return Err(status_of(why)),
    };
    Ok(ReleaseHoldResponse {
        status: status.into(),
        error: Some(error_of(why, trace)),
        ..ReleaseHoldResponse::default()
    })
}

fn status_of(why: &Rejection) -> Status {
    rejection::status_of(why, &ErrorSubject::default())
}
