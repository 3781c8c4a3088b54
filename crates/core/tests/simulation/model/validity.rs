//! What every transaction must satisfy, whatever its outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::ids::OrderId;
use inventory_core::limits;
use inventory_core::transaction::{
    ExpiryCondition, RecordWrite, ReservationState, StripeAllocation, StripeUpdate, Transaction,
};

use super::super::violation::{Violation, ensure};
use super::{StockEffect, Store, seats_of, stock_effect};

/// Whether the transaction is a valid expiry batch: one release record takes what the expired holds of the same
/// transaction return, and no stripe changes.
fn is_bundle(sent: &Transaction) -> Result<bool, Violation> {
    let release_records = sent.records.iter().filter(|r| r.reservation().is_release_record());
    let made = release_records.filter(|r| r.from.is_none()).count();
    let others = sent.records.iter().filter(|r| r.from.is_some());
    let mut expired = others.map(|r| r.to == ReservationState::Expired);
    ensure!(
        made == 0 || (made == 1 && sent.stripes.is_empty() && expired.all(|is| is)),
        "an invalid expiry batch: {sent:?}"
    );
    Ok(made == 1)
}

impl Store {
    /// Whether the body is new; fails if it breaks a rule.
    pub(crate) fn check_transaction(&mut self, sent: &Rc<Transaction>) -> Result<bool, Violation> {
        if let Some(first) = self.bodies.get(&sent.token.0) {
            ensure!(first == sent, "one token for two bodies: {sent:?}");
            return Ok(false);
        }
        self.bodies.insert(sent.token.0, Rc::clone(sent));
        let seats = sent.records.iter().map(|r| seats_of(r).len());
        let actions = sent.stripes.len() + sent.records.len() + seats.sum::<usize>();
        let actions = actions + usize::from(sent.counter.is_some());
        ensure!(
            actions <= limits::TRANSACTION_ACTIONS_MAX,
            "too many actions in one transaction: {actions}"
        );
        ensure!(
            actions == sent.action_count(),
            "a wrong count of actions: {} of {actions}",
            sent.action_count()
        );
        let is_move = sent.stripes.iter().any(|update| update.moved != 0);
        ensure!(!sent.records.is_empty() || is_move, "a transaction without a record");
        if let Some(event) = self.events.get(&sent.event) {
            let keys = event.stripes[0].seat_keys;
            ensure!(
                sent.seat_keys == keys,
                "a wrong number of seat keys: {} over {}, there are {keys}",
                sent.event,
                sent.seat_keys
            );
            let counters = limits::confirmation_counters(event.stripes.len() as u16);
            ensure!(
                sent.counter.is_none_or(|update| update.counter < counters),
                "a confirmation counter that no read includes: {sent:?}"
            );
        }
        let mut ids = BTreeSet::new();
        let mut seats = BTreeSet::new();
        for record in &sent.records {
            let id = record.reservation();
            ensure!(ids.insert(id), "a reservation twice in one transaction: {id}");
            check_record(record)?;
            for seat in seats_of(record) {
                ensure!(seats.insert(seat), "a seat twice in one transaction: {seat}");
            }
        }
        check_sums(sent)?;
        Ok(true)
    }
}

fn check_record(record: &RecordWrite) -> Result<(), Violation> {
    let Some(stock_effect) = stock_effect(record) else {
        return Err(Violation(format!("an invalid transition: {record:?}")));
    };
    let order = match record.to {
        ReservationState::Confirmed | ReservationState::Refunded => {
            Some(OrderId::of(record.reservation()))
        }
        _ => None,
    };
    ensure!(record.order == order, "a wrong order id: {record:?}");
    let due = match (record.from, record.to) {
        (_, ReservationState::Expired) => record.due == ExpiryCondition::Expired,
        (Some(ReservationState::Held), ReservationState::Confirmed) => {
            record.due != ExpiryCondition::Expired
        }
        _ => record.due == ExpiryCondition::Any,
    };
    ensure!(due, "a wrong expiry condition: {record:?}");
    ensure!(
        record.to != ReservationState::Held || record.expires_at.is_some(),
        "a hold without an expiry time: {record:?}"
    );
    let is_new_hold = (record.from, record.to) == (None, ReservationState::Held)
        && !record.reservation().is_release_record();
    ensure!(
        !is_new_hold || record.counted == record.seats.is_none(),
        "a hold of units that is not counted, or one of seats that is: {record:?}"
    );
    let units: u32 = record.draws.iter().map(|d| d.units).sum();
    let distinct: BTreeSet<u16> = record.draws.iter().map(|d| d.stripe).collect();
    ensure!(
        distinct.len() == record.draws.len() && record.draws.iter().all(|d| d.units > 0),
        "invalid stripe allocations: {record:?}"
    );
    let sound = match (stock_effect, &record.seats) {
        (StockEffect::Nothing, _) if record.payment_added_to.is_some() => {
            !record.operation.payment_intent.is_empty()
        }
        (StockEffect::Nothing, seats) => units == 0 && seats.is_none(),
        (_, Some(seats)) => units == 0 && seats.len() == record.qty as usize,
        (_, None) => units == record.qty && units > 0,
    };
    ensure!(sound, "units or seats that do not add up: {record:?}");
    Ok(())
}

/// The stripes change by what the records take and return, or the release record has what they return.
fn check_sums(sent: &Transaction) -> Result<(), Violation> {
    let is_bundle = is_bundle(sent)?;
    let mut drawn: BTreeMap<u16, (u64, u64, i64)> = BTreeMap::new();
    let mut confirmed = 0;
    for record in &sent.records {
        let was_held = record.counted && record.from == Some(ReservationState::Held);
        let is_held = record.counted && record.to == ReservationState::Held;
        for StripeAllocation { stripe, units } in &record.draws {
            let units = u64::from(*units);
            match stock_effect(record) {
                Some(StockEffect::Takes) => {
                    let sums = drawn.entry(*stripe).or_default();
                    sums.0 += units;
                    sums.2 += i64::from(is_held) * units as i64;
                }
                Some(StockEffect::Gives) => {
                    let sums = drawn.entry(*stripe).or_default();
                    sums.1 += units;
                    sums.2 -= i64::from(was_held) * units as i64;
                }
                Some(StockEffect::Keeps) if was_held => confirmed += units,
                _ => {}
            }
        }
    }
    let counted = sent.counter.map_or(0, |update| update.units);
    ensure!(
        counted == confirmed && (counted > 0) == sent.counter.is_some(),
        "a confirmation counter that differs from the confirmed holds: {sent:?}"
    );
    if is_bundle {
        let balanced = drawn.values().all(|(take, give, held)| take == give && *held == 0);
        ensure!(balanced, "a release record that does not add up: {sent:?}");
        return Ok(());
    }
    let distinct: BTreeSet<u16> = sent.stripes.iter().map(|s| s.stripe).collect();
    ensure!(distinct.len() == sent.stripes.len(), "a stripe twice in one transaction");
    let moved: i64 = sent.stripes.iter().map(|s| s.moved).sum();
    ensure!(moved == 0, "a move that loses or makes units: {:?}", sent.stripes);
    let only_moves = |s: &&StripeUpdate| s.moved != 0 && (s.take, s.give, s.held) == (0, 0, 0);
    let change = |s: &StripeUpdate| (s.stripe, (s.take, s.give, s.held));
    let changes: BTreeMap<u16, (u64, u64, i64)> =
        sent.stripes.iter().filter(|s| !only_moves(s)).map(change).collect();
    ensure!(
        changes == drawn,
        "a stripe changes by another amount than its records: {changes:?}, records {drawn:?}"
    );
    Ok(())
}
