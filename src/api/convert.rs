//! Conversions between core types and the messages of both contracts: times, seats, counts.
//!
//! Not here: decisions.

use inventory_proto::common::v1 as common;
use inventory_proto::inventory::v1::SeatRef;
use prost_types::Timestamp;

use inventory_core::ids::SeatId;
use inventory_core::seats::{Price, SeatItem, SeatState};
use inventory_core::time::UnixMillis;

const MILLIS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MILLI: i32 = 1_000_000;

pub(super) fn timestamp(at: UnixMillis) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(at.0 / MILLIS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: (at.0 % MILLIS_PER_SECOND) as i32 * NANOS_PER_MILLI,
    }
}

/// Truncated to the millisecond. `None` for an invalid timestamp or one before 1970.
pub(super) fn millis(at: &Timestamp) -> Option<UnixMillis> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u32::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    let millis = u64::from(nanos) / NANOS_PER_MILLI as u64;
    let seconds = seconds.saturating_mul(MILLIS_PER_SECOND);
    Some(UnixMillis(seconds.saturating_add(millis)))
}

/// A count as 32 bits, saturated at the maximum.
pub(super) fn count(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn money(price: &Price) -> common::Money {
    common::Money { amount: price.amount, currency: price.currency.clone() }
}

/// A seat with its details, in the state that the response reports.
pub(super) fn seat(seat: SeatItem, status: common::SeatStatus) -> common::Seat {
    common::Seat {
        id: seat.id.into_string(),
        price: seat.facts.price.as_ref().map(money),
        section: seat.facts.section,
        row: seat.facts.row,
        number: seat.facts.number,
        status: status.into(),
    }
}

/// A seat without details.
pub(super) fn bare_seat(id: &SeatId, status: common::SeatStatus) -> common::Seat {
    common::Seat { id: id.to_string(), status: status.into(), ..common::Seat::default() }
}

/// Whether the seat is available at `now`.
pub(super) fn is_free(seat: &SeatItem, now: UnixMillis) -> bool {
    match &seat.state {
        SeatState::Available => true,
        SeatState::Hold { until, .. } => *until <= now,
        SeatState::Sold { .. } | SeatState::Blocked => false,
    }
}

pub(super) fn seat_refs(seats: &[SeatId]) -> Vec<SeatRef> {
    let seat = |id: &SeatId| SeatRef { seat_id: id.to_string() };
    seats.iter().map(seat).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_survive_the_round_trip_to_the_millisecond() {
        for ms in [0, 1, 999, 1_000, 1_795_362_000_123] {
            assert_eq!(millis(&timestamp(UnixMillis(ms))), Some(UnixMillis(ms)));
        }
        let finer = Timestamp { seconds: 1, nanos: 1_999_999 };
        assert_eq!(millis(&finer), Some(UnixMillis(1_001)));
    }

    #[test]
    fn counts_saturate_at_32_bits() {
        assert_eq!(count(7), 7);
        assert_eq!(count(u64::MAX), i32::MAX);
    }

    #[test]
    fn the_seat_of_an_expired_hold_is_free() {
        let state =
            |state| SeatItem { id: "A-1".parse().unwrap(), facts: Default::default(), state };
        let held =
            state(SeatState::Hold { reservation: "r1".parse().unwrap(), until: UnixMillis(10) });
        assert!(!is_free(&held, UnixMillis(9)));
        assert!(is_free(&held, UnixMillis(10)));
        assert!(is_free(&state(SeatState::Available), UnixMillis(0)));
        assert!(!is_free(&state(SeatState::Blocked), UnixMillis(99)));
        let sold = SeatState::Sold { reservation: "r1".parse().unwrap() };
        assert!(!is_free(&state(sold), UnixMillis(99)));
    }
}
