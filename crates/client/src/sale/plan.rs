//! Parameters of a sale, and their bounds.

use std::time::Duration;

use crate::limits::{
    ADDRESSES_MAX, BUYERS_MAX, CALLS_PER_CONNECTION_MAX, CONNECTIONS_MAX, RETRY_DELAY_MIN,
};

/// A sale of one event in a closed loop. [`SalePlan::new`] fills in a busy sale; [`super::run`] checks
/// every field.
#[derive(Clone, Debug)]
pub struct SalePlan {
    /// Servers with one store behind them, `host:port`. Connections are spread over them.
    pub addresses: Vec<String>,
    /// An event with `tickets` unsold units, all of them reserved for this sale.
    pub event_id: String,
    pub tickets: u64,
    /// Number of reservations. Several times what fits, so that most are refused.
    pub buyers: u64,
    /// Quantities and their weights.
    pub quantities: Vec<(i32, u32)>,
    pub connections: usize,
    /// Concurrent buyers per connection. A duplicate sent at the same time uses another connection in
    /// addition: at most twice this many calls are in flight.
    pub calls_per_connection: usize,
    pub shares: BuyerShares,
    /// Deadline of each attempt, sent as grpc-timeout.
    pub call_timeout: Duration,
    /// How long a rejected or lost call is retried with the same reservation_id before its outcome counts
    /// as unknown.
    pub retry_for: Duration,
    /// Reservation ids are `{prefix}-{number}`: must be new for every sale on one store.
    pub prefix: String,
    pub seed: u64,
}

/// Shares of buyers, in thousandths, that do more than commit once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuyerShares {
    /// The same reservation on two connections at the same time.
    pub duplicated_at_once: u32,
    /// The same reservation again on another connection, after the answer.
    pub duplicated_later: u32,
    /// A release of an id that was never committed, then its commit, which must be refused.
    pub released_first: u32,
    /// A commit, then its release, which must be refused.
    pub released_after: u32,
    /// A commit, then another quantity under the same id, which must be refused.
    pub other_payload: u32,
    /// In addition to the others: commits once more after the sale. Must be answered as before.
    pub repeated_at_end: u32,
}

impl Default for BuyerShares {
    fn default() -> Self {
        Self {
            duplicated_at_once: 100,
            duplicated_later: 50,
            released_first: 30,
            released_after: 30,
            other_payload: 20,
            repeated_at_end: 20,
        }
    }
}

/// An invalid plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SalePlanError {
    #[error("{field} is {given}: must be {want}")]
    OutOfBounds { field: &'static str, given: String, want: String },
}

impl SalePlan {
    /// A sale with four times as much demand as tickets.
    pub fn new(addresses: Vec<String>, event_id: &str, tickets: u64) -> Self {
        let quantities = vec![(1, 50), (2, 30), (4, 15), (10, 5)];
        // 2.2 units on average.
        let buyers = (tickets.saturating_mul(4) * 10 / 22).clamp(100, BUYERS_MAX);
        Self {
            addresses,
            event_id: event_id.to_owned(),
            tickets,
            buyers,
            quantities,
            connections: 8,
            calls_per_connection: 64,
            shares: BuyerShares::default(),
            call_timeout: Duration::from_secs(5),
            retry_for: Duration::from_secs(20),
            prefix: "res".to_owned(),
            seed: 1,
        }
    }

    /// Buyers at the end that ask for one unit each: more than the largest quantity can leave over.
    pub(super) fn single_unit_buyers(&self) -> u64 {
        let largest = self.quantities.iter().map(|(q, _)| *q).max().unwrap_or(1);
        u64::from(largest.unsigned_abs()) * 2
    }

    pub(super) fn validate(&self) -> Result<(), SalePlanError> {
        within("addresses", self.addresses.len(), 1, ADDRESSES_MAX)?;
        within("tickets", self.tickets, 1, u64::MAX / 16)?;
        within("buyers", self.buyers, 1, BUYERS_MAX)?;
        within("connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("calls_per_connection", self.calls_per_connection, 1, CALLS_PER_CONNECTION_MAX)?;
        within("quantities", self.quantities.len(), 1, 100)?;
        for (quantity, weight) in &self.quantities {
            within("quantity", *quantity, 1, 1_000)?;
            within("weight of a quantity", *weight, 1, 1_000_000)?;
        }
        let shares = &self.shares;
        let parts = [
            shares.duplicated_at_once,
            shares.duplicated_later,
            shares.released_first,
            shares.released_after,
            shares.other_payload,
        ];
        let sum = parts.iter().map(|part| u64::from(*part)).sum::<u64>();
        within("sum of shares, in thousandths,", sum, 0, 1_000)?;
        within("repeated_at_end", shares.repeated_at_end, 0, 1_000)?;
        if sum + u64::from(shares.repeated_at_end) > 0 {
            within(
                "connections (repeats go to another one)",
                self.connections,
                2,
                CONNECTIONS_MAX,
            )?;
        }
        within("call_timeout in ms", self.call_timeout.as_millis(), 1, 60_000)?;
        within("retry_for in ms", self.retry_for.as_millis(), RETRY_DELAY_MIN.as_millis(), 600_000)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    given: T,
    min: T,
    max: T,
) -> Result<(), SalePlanError> {
    if given >= min && given <= max {
        return Ok(());
    }
    Err(SalePlanError::OutOfBounds {
        field,
        given: given.to_string(),
        want: format!("{min} to {max}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_is_valid_at_any_size() {
        for tickets in [1, 7, 1_000, 1_000_000, 1_000_000_000] {
            let plan = SalePlan::new(vec!["127.0.0.1:1".to_owned()], "evt", tickets);
            assert_eq!(plan.validate(), Ok(()), "{tickets}");
        }
    }

    #[test]
    fn each_bound_is_checked_and_named() {
        let plan = SalePlan::new(vec!["127.0.0.1:1".to_owned()], "evt", 100);
        type PlanChange = fn(&mut SalePlan);
        let broken: [(&str, PlanChange); 8] = [
            ("addresses", |p| p.addresses.clear()),
            ("buyers", |p| p.buyers = 0),
            ("connections", |p| p.connections = 1),
            ("calls_per_connection", |p| p.calls_per_connection = CALLS_PER_CONNECTION_MAX + 1),
            ("quantity", |p| p.quantities = vec![(0, 1)]),
            ("weight", |p| p.quantities = vec![(1, 0)]),
            ("shares", |p| p.shares.released_first = 1_001),
            ("retry_for", |p| p.retry_for = Duration::ZERO),
        ];
        for (name, change) in broken {
            let mut plan = plan.clone();
            change(&mut plan);
            let message = plan.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
            assert!(message.contains("must be"), "{message}");
        }
    }
}
