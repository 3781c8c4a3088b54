//! Kinds of calls, and their outcomes.

use serde::{Deserialize, Serialize};

/// A method of the contract. Reports distinguish direct commits from commits of holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallMethod {
    Check,
    Hold,
    /// Commit of a hold.
    Commit,
    DirectCommit,
    Release,
}

impl CallMethod {
    pub const ALL: [Self; 5] =
        [Self::Check, Self::Hold, Self::Commit, Self::DirectCommit, Self::Release];

    /// The name in scenario files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Hold => "hold",
            Self::Commit => "commit",
            Self::DirectCommit => "direct_commit",
            Self::Release => "release",
        }
    }
}

/// Outcome of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    Ok,
    /// A check answered with "not available".
    NotAvailable,
    /// Insufficient stock.
    SoldOut,
    /// A seat belongs to another reservation.
    SeatTaken,
    /// The reservation is already released.
    Released,
    /// The reservation is already confirmed.
    Committed,
    /// The hold has expired.
    HoldExpired,
    /// The event is closed for new reservations.
    Closed,
    /// The same id with a different payload: never correct for this client.
    Conflict,
    /// Unknown event, seat or reservation.
    NotFound,
    Invalid,
    /// RESOURCE_EXHAUSTED: rejected by admission control.
    Shed,
    /// UNAVAILABLE.
    Unavailable,
    /// The deadline passed, at the server or at the client.
    Deadline,
    /// INTERNAL, and statuses that the contract does not define.
    Internal,
    /// The connection or the stream broke.
    Broken,
    /// An answer that violates the contract.
    Malformed,
}

/// Class of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeClass {
    Ok,
    /// Decided by the server and final for this call.
    Refused,
    /// Rejected as overload; a retry may succeed.
    Shed,
    Error,
}

impl OutcomeKind {
    /// Each outcome with its name in reports and its class, in the order of the variants.
    const TABLE: [(Self, &'static str, OutcomeClass); 17] = [
        (Self::Ok, "ok", OutcomeClass::Ok),
        (Self::NotAvailable, "not_available", OutcomeClass::Ok),
        (Self::SoldOut, "sold_out", OutcomeClass::Refused),
        (Self::SeatTaken, "seat_taken", OutcomeClass::Refused),
        (Self::Released, "released", OutcomeClass::Refused),
        (Self::Committed, "committed", OutcomeClass::Refused),
        (Self::HoldExpired, "hold_expired", OutcomeClass::Refused),
        (Self::Closed, "closed", OutcomeClass::Refused),
        (Self::Conflict, "conflict", OutcomeClass::Error),
        (Self::NotFound, "not_found", OutcomeClass::Error),
        (Self::Invalid, "invalid", OutcomeClass::Error),
        (Self::Shed, "shed", OutcomeClass::Shed),
        (Self::Unavailable, "unavailable", OutcomeClass::Shed),
        (Self::Deadline, "deadline", OutcomeClass::Error),
        (Self::Internal, "internal", OutcomeClass::Error),
        (Self::Broken, "broken", OutcomeClass::Error),
        (Self::Malformed, "malformed", OutcomeClass::Error),
    ];

    pub(crate) const COUNT: usize = Self::TABLE.len();

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.into_iter().map(|(outcome, ..)| outcome)
    }

    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    pub(crate) fn class(self) -> OutcomeClass {
        Self::TABLE[self as usize].2
    }

    /// Whether the client cannot know if the call took effect. A shed call normally has no effect, but the
    /// contract does not guarantee that.
    pub fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::Shed
                | Self::Unavailable
                | Self::Deadline
                | Self::Internal
                | Self::Broken
                | Self::Malformed
        )
    }
}

/// Answer to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallAnswer {
    pub outcome: OutcomeKind,
    /// Order id of a successful commit.
    pub order: Option<OrderId>,
    /// Expiry of a successful hold: the low 32 bits of its Unix time in milliseconds.
    pub hold_expiry: u32,
}

impl CallAnswer {
    pub fn of(outcome: OutcomeKind) -> Self {
        Self { outcome, order: None, hold_expiry: 0 }
    }
}

/// An order id in 16 bytes: the 128 bits after `ord_`, or a 128-bit hash of an id in another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

impl OrderId {
    /// `None` for an empty id.
    pub fn of(id: &str) -> Option<Self> {
        if id.is_empty() {
            return None;
        }
        let digits = id.strip_prefix("ord_").unwrap_or("");
        let canonical = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() == 32
            && digits.bytes().all(canonical)
            && let Ok(number) = u128::from_str_radix(digits, 16)
        {
            return Some(Self(number.to_be_bytes()));
        }
        let half = |offset: u64| {
            id.bytes().fold(0xcbf2_9ce4_8422_2325 ^ offset, |hash, b| {
                (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        let number = u128::from(half(0)) << 64 | u128::from(half(0x9e37_79b9_7f4a_7c15));
        Some(Self(number.to_be_bytes()))
    }
}

impl std::fmt::Display for OrderId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ord_{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_listed_in_the_order_of_their_variants() {
        let places = OutcomeKind::all().map(|outcome| outcome as usize);
        assert!(places.eq(0..OutcomeKind::COUNT));
    }

    #[test]
    fn order_ids_of_any_format_stay_distinct() {
        let text = "ord_97c42ccd0e7f05c61e74ba7eda007525";
        assert_eq!(OrderId::of(text).unwrap().to_string(), text);
        assert_eq!(OrderId::of(""), None);
        let orders: std::collections::HashSet<_> =
            (0..10_000).map(|n| OrderId::of(&format!("order-{n}")).unwrap()).collect();
        assert_eq!(orders.len(), 10_000);
    }
}
