//! What a run plays, and the checks that keep it bounded.

use std::time::Duration;

use crate::limits::{
    ADDRESSES_MAX, BUYERS_MAX, CALLS_PER_CONNECTION_MAX, CONNECTIONS_MAX, PAUSE_MIN,
};

/// One sell-out of one event, closed loop. [`Plan::new`] fills in a busy sale; every field can be
/// changed before [`super::run`], which checks them all.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Servers with one store behind them, `host:port`. Connections are spread over them.
    pub addresses: Vec<String>,
    /// An event with `tickets` units unsold, all of them for this run.
    pub event_id: String,
    pub tickets: u64,
    /// Reservations played. Several times what fits, so that most are refused.
    pub buyers: u64,
    /// Quantities and their weights.
    pub quantities: Vec<(i32, u32)>,
    pub connections: usize,
    /// Buyers under way at once on each connection. A duplicate sent at the same time comes on top
    /// on another connection: at most twice this many calls are in flight.
    pub calls_per_connection: usize,
    pub shares: Shares,
    /// Deadline of each attempt; travels as grpc-timeout.
    pub call_timeout: Duration,
    /// How long a call that is turned away or lost is repeated, with the same reservation_id,
    /// before its outcome counts as unknown.
    pub patience: Duration,
    /// Reservation ids are `{prefix}-{number}`: fresh for every run on one store.
    pub prefix: String,
    pub seed: u64,
}

/// Parts of the buyers, in thousandths, that do more than commit once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
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
    /// On top of the others: commits once more when the sale is over. Must be answered as before.
    pub repeated_at_end: u32,
}

impl Default for Shares {
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

/// What is wrong with a plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("{field} is {given}: want {want}")]
    OutOfBounds {
        field: &'static str,
        given: String,
        want: String,
    },
}

impl Plan {
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
            shares: Shares::default(),
            call_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(20),
            prefix: "res".to_owned(),
            seed: 1,
        }
    }

    /// Buyers at the end that want one unit each: more than the largest quantity can leave behind.
    pub(super) fn sweepers(&self) -> u64 {
        let largest = self.quantities.iter().map(|(q, _)| *q).max().unwrap_or(1);
        u64::from(largest.unsigned_abs()) * 2
    }

    pub(super) fn validate(&self) -> Result<(), PlanError> {
        within("addresses", self.addresses.len(), 1, ADDRESSES_MAX)?;
        within("tickets", self.tickets, 1, u64::MAX / 16)?;
        within("buyers", self.buyers, 1, BUYERS_MAX)?;
        within("connections", self.connections, 1, CONNECTIONS_MAX)?;
        within(
            "calls_per_connection",
            self.calls_per_connection,
            1,
            CALLS_PER_CONNECTION_MAX,
        )?;
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
        within(
            "call_timeout in ms",
            self.call_timeout.as_millis(),
            1,
            60_000,
        )?;
        within(
            "patience in ms",
            self.patience.as_millis(),
            PAUSE_MIN.as_millis(),
            600_000,
        )
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    given: T,
    min: T,
    max: T,
) -> Result<(), PlanError> {
    if given >= min && given <= max {
        return Ok(());
    }
    Err(PlanError::OutOfBounds {
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
            let plan = Plan::new(vec!["127.0.0.1:1".to_owned()], "evt", tickets);
            assert_eq!(plan.validate(), Ok(()), "{tickets}");
        }
    }

    #[test]
    fn each_bound_is_checked_and_named() {
        let plan = Plan::new(vec!["127.0.0.1:1".to_owned()], "evt", 100);
        type Damage = fn(&mut Plan);
        let broken: [(&str, Damage); 8] = [
            ("addresses", |p| p.addresses.clear()),
            ("buyers", |p| p.buyers = 0),
            ("connections", |p| p.connections = 1),
            ("calls_per_connection", |p| {
                p.calls_per_connection = CALLS_PER_CONNECTION_MAX + 1
            }),
            ("quantity", |p| p.quantities = vec![(0, 1)]),
            ("weight", |p| p.quantities = vec![(1, 0)]),
            ("shares", |p| p.shares.released_first = 1_001),
            ("patience", |p| p.patience = Duration::ZERO),
        ];
        for (name, damage) in broken {
            let mut plan = plan.clone();
            damage(&mut plan);
            let message = plan.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
            assert!(message.contains("want"), "{message}");
        }
    }
}
