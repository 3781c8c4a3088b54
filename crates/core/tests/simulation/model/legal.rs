//! What every transaction must obey, whatever becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::ids::OrderId;
use inventory_core::limits;
use inventory_core::transaction::{
    ExpiryCondition, RecordWrite, ReservationState, StripeAllocation, StripeUpdate, Transaction,
};

use super::super::broken::{Broken, must};
use super::{Moves, Store, moves, seats_of};

/// What every transaction may do with slips: one takes what the expired holds of the same
/// transaction give, and the stripes are left alone.
fn is_bundle(sent: &Transaction) -> Result<bool, Broken> {
    let slips = sent.records.iter().filter(|r| r.reservation.is_slip());
    let made = slips.filter(|r| r.from.is_none()).count();
    let others = sent.records.iter().filter(|r| r.from.is_some());
    let mut expired = others.map(|r| r.to == ReservationState::Expired);
    must!(
        made == 0 || (made == 1 && sent.stripes.is_empty() && expired.all(|is| is)),
        "an illegal bundle: {sent:?}"
    );
    Ok(made == 1)
}

impl Store {
    /// Whether it is a new body, and not one that breaks a rule.
    pub(crate) fn inspect(&mut self, sent: &Rc<Transaction>) -> Result<bool, Broken> {
        if let Some(first) = self.bodies.get(&sent.token.0) {
            must!(first == sent, "a token was used for two bodies: {sent:?}");
            return Ok(false);
        }
        self.bodies.insert(sent.token.0, Rc::clone(sent));
        let seats = sent.records.iter().map(|r| seats_of(r).len());
        let actions = sent.stripes.len() + sent.records.len() + seats.sum::<usize>();
        must!(
            actions <= limits::TRANSACTION_ACTIONS_MAX,
            "{actions} actions in one transaction"
        );
        must!(
            actions == sent.action_count(),
            "counts {} of {actions} actions",
            sent.action_count()
        );
        must!(!sent.records.is_empty(), "a transaction without a record");
        if let Some(event) = self.events.get(&sent.event) {
            let keys = event.stripes[0].seat_keys;
            must!(
                sent.seat_keys == keys,
                "seats of {} over {} keys, there are {keys}",
                sent.event,
                sent.seat_keys
            );
        }
        let mut ids = BTreeSet::new();
        let mut seats = BTreeSet::new();
        for record in &sent.records {
            let id = &record.reservation;
            must!(ids.insert(id), "{id} twice in one transaction");
            is_legal(record)?;
            for seat in seats_of(record) {
                must!(seats.insert(seat), "seat {seat} twice in one transaction");
            }
        }
        adds_up(sent)?;
        Ok(true)
    }
}

fn is_legal(record: &RecordWrite) -> Result<(), Broken> {
    let Some(moves) = moves(record) else {
        return Err(Broken(format!("there is no such step: {record:?}")));
    };
    let order = match record.to {
        ReservationState::Confirmed | ReservationState::Refunded => {
            Some(OrderId::of(&record.reservation))
        }
        _ => None,
    };
    must!(record.order == order, "an illegal order: {record:?}");
    let due = match (record.from, record.to) {
        (_, ReservationState::Expired) => record.due == ExpiryCondition::Over,
        (Some(ReservationState::Held), ReservationState::Confirmed) => {
            record.due != ExpiryCondition::Over
        }
        _ => record.due == ExpiryCondition::Any,
    };
    must!(due, "asks for the wrong time: {record:?}");
    must!(
        record.to != ReservationState::Held || record.expires_at.is_some(),
        "a hold without an end: {record:?}"
    );
    let units: u32 = record.draws.iter().map(|d| d.units).sum();
    let distinct: BTreeSet<u16> = record.draws.iter().map(|d| d.stripe).collect();
    must!(
        distinct.len() == record.draws.len() && record.draws.iter().all(|d| d.units > 0),
        "illegal draws: {record:?}"
    );
    let sound = match (moves, &record.seats) {
        (Moves::Nothing, seats) => units == 0 && seats.is_none(),
        (_, Some(seats)) => units == 0 && seats.len() == record.qty as usize,
        (_, None) => units == record.qty && units > 0,
    };
    must!(sound, "units or seats that do not add up: {record:?}");
    Ok(())
}

/// The stripes change by what the records take and give, or the slip has what they give.
fn adds_up(sent: &Transaction) -> Result<(), Broken> {
    let is_bundle = is_bundle(sent)?;
    let mut drawn: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    for record in &sent.records {
        for StripeAllocation { stripe, units } in &record.draws {
            let units = u64::from(*units);
            match moves(record) {
                Some(Moves::Takes) => drawn.entry(*stripe).or_default().0 += units,
                Some(Moves::Gives) => drawn.entry(*stripe).or_default().1 += units,
                _ => {}
            }
        }
    }
    if is_bundle {
        let balanced = drawn.values().all(|(take, give)| take == give);
        must!(balanced, "a slip that does not add up: {sent:?}");
        return Ok(());
    }
    let change = |s: &StripeUpdate| (s.stripe, (s.take, s.give));
    let changes: BTreeMap<u16, (u64, u64)> = sent.stripes.iter().map(change).collect();
    must!(
        changes.len() == sent.stripes.len(),
        "a stripe twice in one transaction"
    );
    must!(changes == drawn, "changes {changes:?} but draws {drawn:?}");
    Ok(())
}
