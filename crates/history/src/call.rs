//! One attempt of a call: what was requested, when, and what the client observed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Number of an attempt in its history, from 0. A retry is a new attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u32);

/// Units or seats that a call names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StockSelection {
    /// Units of a quantity event.
    Units(u32),
    /// Seats by id.
    Seats(BTreeSet<String>),
    /// That many seats of a seated event, chosen by the server.
    AnySeats(u32),
    /// Nothing named: what the reservation has. Only `reservation.v1` allows it.
    AsRecorded,
}

impl StockSelection {
    /// Seats by id.
    pub fn seats<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::Seats(ids.into_iter().map(Into::into).collect())
    }
}

/// What a call requests. Times are milliseconds since the Unix epoch, as in the contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallOperation {
    /// PlaceHold or ReserveSeat. `expires_at_ms` is `None` if the server chooses the end of the hold.
    Hold { selection: StockSelection, expires_at_ms: Option<u64> },
    /// CommitReservation, with or without a hold.
    Commit { selection: StockSelection },
    /// ReleaseHold, for any reason.
    Release { selection: StockSelection },
    /// RefundReservation of the admin API.
    Refund,
    /// GetReservation: a strong read.
    Read,
}

/// What the client observed at the end of an attempt.
///
/// The decision between [`CallEffect::Refused`] and [`CallEffect::Unknown`] is the client's. When in doubt,
/// `Unknown` is right: it allows everything that `Refused` allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallEffect {
    /// No answer, deadline, broken connection, or an error after which the write may have happened or may still happen.
    Unknown,
    /// Certainly never executed: not sent, or refused before any write.
    Refused,
    /// OK of a commit.
    Confirmed { order_id: String },
    /// OK of a hold, with the end of the hold and the seats that the answer names (none for units).
    Held { expires_at_ms: u64, seats: BTreeSet<String> },
    /// OK of a release, also of one that found the reservation released or expired.
    Released,
    /// OK of a refund, also of one that found the reservation refunded.
    Refunded,
    /// INSUFFICIENT_INVENTORY.
    SoldOut,
    /// SEAT_UNAVAILABLE, with the seats that the answer names.
    SeatUnavailable { seats: BTreeSet<String> },
    /// HOLD_EXPIRED.
    HoldExpired,
    /// RESERVATION_RELEASED: released or refunded.
    ReservationReleased,
    /// RESERVATION_COMMITTED.
    ReservationCommitted,
    /// RESERVATION_NOT_CONFIRMED: answer to a refund.
    ReservationNotConfirmed,
    /// RESERVATION_NOT_FOUND.
    ReservationNotFound,
    /// IDEMPOTENCY_CONFLICT.
    IdempotencyConflict,
    /// EVENT_CLOSED.
    EventClosed,
    /// EVENT_NOT_FOUND, SEAT_NOT_FOUND, SECTION_NOT_FOUND.
    StockNotFound,
    /// OK of a read.
    Read { status: super::FinalStatus },
}

impl CallEffect {
    /// The effect of a final refusal by the reason in its `ErrorInfo`; `seats` is `seat_ids` of its metadata, for
    /// SEAT_UNAVAILABLE. `None` for any other reason: the caller decides between [`Self::Refused`] and [`Self::Unknown`].
    pub fn of_reason(reason: &str, seats: &[&str]) -> Option<Self> {
        Some(match reason {
            "INSUFFICIENT_INVENTORY" => Self::SoldOut,
            "SEAT_UNAVAILABLE" => {
                Self::SeatUnavailable { seats: seats.iter().map(|&seat| seat.to_owned()).collect() }
            }
            "HOLD_EXPIRED" => Self::HoldExpired,
            "RESERVATION_RELEASED" => Self::ReservationReleased,
            "RESERVATION_COMMITTED" => Self::ReservationCommitted,
            "RESERVATION_NOT_CONFIRMED" => Self::ReservationNotConfirmed,
            "RESERVATION_NOT_FOUND" => Self::ReservationNotFound,
            "IDEMPOTENCY_CONFLICT" => Self::IdempotencyConflict,
            "EVENT_CLOSED" => Self::EventClosed,
            "EVENT_NOT_FOUND" | "SEAT_NOT_FOUND" | "SECTION_NOT_FOUND" => Self::StockNotFound,
            _ => return None,
        })
    }
}

/// One attempt. Times count from the start of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    pub id: AttemptId,
    /// Number of the client, for readers.
    pub client: u32,
    pub reservation_id: String,
    /// Empty for a refund or a read, which name no event.
    pub event_id: String,
    pub operation: CallOperation,
    /// Before the first byte was sent.
    pub started: Duration,
    /// After the answer was read, or when the client gave up; `None` if the attempt was not ended.
    pub ended: Option<Duration>,
    /// [`CallEffect::Unknown`] until the attempt ends.
    pub effect: CallEffect,
}

impl RecordedCall {
    /// Whether the call may take effect at any time after its start, or never.
    pub fn is_unknown(&self) -> bool {
        self.ended.is_none() || self.effect == CallEffect::Unknown
    }
}

impl fmt::Display for StockSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Units(units) => write!(f, "{units} unit(s)"),
            Self::Seats(seats) => write!(f, "{}", join(seats)),
            Self::AnySeats(seats) => write!(f, "any {seats} seat(s)"),
            Self::AsRecorded => write!(f, "as recorded"),
        }
    }
}

impl fmt::Display for CallOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { selection, expires_at_ms: Some(at) } => {
                write!(f, "hold {selection} until {at}")
            }
            Self::Hold { selection, expires_at_ms: None } => write!(f, "hold {selection}"),
            Self::Commit { selection } => write!(f, "commit {selection}"),
            Self::Release { selection } => write!(f, "release {selection}"),
            Self::Refund => write!(f, "refund"),
            Self::Read => write!(f, "read"),
        }
    }
}

impl fmt::Display for CallEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "unknown"),
            Self::Refused => write!(f, "refused, not executed"),
            Self::Confirmed { order_id } => write!(f, "CONFIRMED {order_id}"),
            Self::Held { expires_at_ms, seats } if seats.is_empty() => {
                write!(f, "HELD until {expires_at_ms}")
            }
            Self::Held { expires_at_ms, seats } => {
                write!(f, "HELD {} until {expires_at_ms}", join(seats))
            }
            Self::Released => write!(f, "RELEASED"),
            Self::Refunded => write!(f, "REFUNDED"),
            Self::SoldOut => write!(f, "INSUFFICIENT_INVENTORY"),
            Self::SeatUnavailable { seats } => write!(f, "SEAT_UNAVAILABLE {}", join(seats)),
            Self::HoldExpired => write!(f, "HOLD_EXPIRED"),
            Self::ReservationReleased => write!(f, "RESERVATION_RELEASED"),
            Self::ReservationCommitted => write!(f, "RESERVATION_COMMITTED"),
            Self::ReservationNotConfirmed => write!(f, "RESERVATION_NOT_CONFIRMED"),
            Self::ReservationNotFound => write!(f, "RESERVATION_NOT_FOUND"),
            Self::IdempotencyConflict => write!(f, "IDEMPOTENCY_CONFLICT"),
            Self::EventClosed => write!(f, "EVENT_CLOSED"),
            Self::StockNotFound => write!(f, "NOT_FOUND"),
            Self::Read { status } => write!(f, "read {status}"),
        }
    }
}

/// The ids in one line.
fn join(ids: &BTreeSet<String>) -> String {
    ids.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
