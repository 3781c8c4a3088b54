//! What is called, and what came of it.

use serde::{Deserialize, Serialize};

/// A method of the contract, as far as it is told apart in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Check,
    Hold,
    /// Of a hold.
    Commit,
    DirectCommit,
    Release,
}

impl Method {
    pub const ALL: [Self; 5] = [
        Self::Check,
        Self::Hold,
        Self::Commit,
        Self::DirectCommit,
        Self::Release,
    ];

    /// As in scenario files and reports.
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

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    /// A check that was answered: not available.
    NotAvailable,
    /// Too little stock.
    SoldOut,
    /// A seat is another's.
    SeatTaken,
    /// The reservation is released already.
    Released,
    /// The reservation is confirmed already.
    Committed,
    /// The hold is past its time.
    HoldExpired,
    /// The event takes no new reservations.
    Closed,
    /// The same id with another payload: never right for this client.
    Conflict,
    /// Event, seat or reservation is unknown.
    NotFound,
    Invalid,
    /// RESOURCE_EXHAUSTED: turned away at the door.
    Shed,
    /// UNAVAILABLE.
    Unavailable,
    /// The caller's deadline passed, there or here.
    Deadline,
    /// INTERNAL and whatever else the contract does not know.
    Internal,
    /// The connection or the stream broke.
    Broken,
    /// An answer that is not as the contract says.
    Malformed,
}

/// How an outcome counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Ok,
    /// Decided by the server, and final for this call.
    Refused,
    /// Turned away; whoever repeats it may be served.
    Shed,
    Error,
}

impl Outcome {
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::NotAvailable,
        Self::SoldOut,
        Self::SeatTaken,
        Self::Released,
        Self::Committed,
        Self::HoldExpired,
        Self::Closed,
        Self::Conflict,
        Self::NotFound,
        Self::Invalid,
        Self::Shed,
        Self::Unavailable,
        Self::Deadline,
        Self::Internal,
        Self::Broken,
        Self::Malformed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotAvailable => "not_available",
            Self::SoldOut => "sold_out",
            Self::SeatTaken => "seat_taken",
            Self::Released => "released",
            Self::Committed => "committed",
            Self::HoldExpired => "hold_expired",
            Self::Closed => "closed",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Shed => "shed",
            Self::Unavailable => "unavailable",
            Self::Deadline => "deadline",
            Self::Internal => "internal",
            Self::Broken => "broken",
            Self::Malformed => "malformed",
        }
    }

    pub fn class(self) -> Class {
        match self {
            Self::Ok | Self::NotAvailable => Class::Ok,
            Self::SoldOut
            | Self::SeatTaken
            | Self::Released
            | Self::Committed
            | Self::HoldExpired
            | Self::Closed => Class::Refused,
            Self::Shed | Self::Unavailable => Class::Shed,
            Self::Conflict
            | Self::NotFound
            | Self::Invalid
            | Self::Deadline
            | Self::Internal
            | Self::Broken
            | Self::Malformed => Class::Error,
        }
    }

    /// Whether the call may have taken effect for all the client knows. What was shed should not
    /// have, but is not promised not to.
    pub fn is_open(self) -> bool {
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

/// One call's answer, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    /// Of a commit that was answered: the order, without its `ord_`.
    pub order: Option<Order>,
    /// Of a hold that was answered: low 32 bits of the milliseconds at which it ends.
    pub ends: u32,
}

impl Answer {
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            order: None,
            ends: 0,
        }
    }
}

/// An order id in 16 bytes: the 128 bits behind `ord_`, or of another server's ids 128 bits of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub [u8; 16]);

impl Order {
    /// `None` of an empty id.
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

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ord_{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_any_server_fit_and_stay_apart() {
        let text = "ord_97c42ccd0e7f05c61e74ba7eda007525";
        assert_eq!(Order::of(text).unwrap().to_string(), text);
        assert_eq!(Order::of(""), None);
        let orders: std::collections::HashSet<_> = (0..10_000)
            .map(|n| Order::of(&format!("order-{n}")).unwrap())
            .collect();
        assert_eq!(orders.len(), 10_000);
    }
}
