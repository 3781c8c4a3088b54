//! What other processes and operators do to the store meanwhile.

use std::rc::Rc;

use inventory_core::ids::{Fingerprint, OrderId, ReservationId};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::time::Micros;
use inventory_core::transaction::{
    ExpiryCondition, RecordWrite, RequestToken, ReservationState, StripeAllocation, StripeUpdate,
    Transaction,
};

use super::{PoolHarness, unix};
use crate::violation::Violation;

impl PoolHarness {
    /// Another process sells from a stripe, if it has that much.
    pub(crate) fn rival(&mut self, stripe: u16, units: u64) -> Result<(), Violation> {
        if self.share.is_none() || stripe >= self.shape.stripes || units == 0 {
            return Ok(());
        }
        self.rivals += 1;
        let reservation: ReservationId = format!("rival-{}", self.rivals).parse().expect("legal");
        let units = units as u32;
        let operation = self.rival_operation(Verb::Commit, &reservation);
        let write = RecordWrite {
            operation,
            fingerprint: Fingerprint::of_quantity(&self.event, units),
            from: None,
            due: ExpiryCondition::Any,
            to: ReservationState::Confirmed,
            qty: units,
            draws: smallvec::smallvec![StripeAllocation { stripe, units }],
            seats: None,
            order: Some(OrderId::of(&reservation)),
            expires_at: None,
            payment_added_to: None,
            counted: false,
        };
        let update = StripeUpdate { stripe, take: u64::from(units), ..StripeUpdate::default() };
        self.rivals_write(vec![update], write)
    }

    /// Another process expires (`over`) or releases a hold.
    pub(crate) fn rival_ends(&mut self, which: usize, over: bool) -> Result<(), Violation> {
        let held = |entry: &super::Entry| {
            let id = &entry.operation.reservation;
            let record = self.store.record(id)?;
            (record.view.state == ReservationState::Held).then(|| (id.clone(), record.view.clone()))
        };
        let held: Vec<_> = self.entries.iter().filter_map(held).collect();
        if held.is_empty() {
            return Ok(());
        }
        let (reservation, view) = held[which % held.len()].clone();
        self.rivals += 1;
        let updates = view.draws.iter().map(|draw| StripeUpdate {
            stripe: draw.stripe,
            give: u64::from(draw.units),
            held: if view.counted { -i64::from(draw.units) } else { 0 },
            ..StripeUpdate::default()
        });
        let updates = updates.collect();
        let verb = if over { Verb::Expire } else { Verb::Release };
        let write = RecordWrite {
            operation: self.rival_operation(verb, &reservation),
            fingerprint: view.fingerprint,
            from: Some(ReservationState::Held),
            due: if over { ExpiryCondition::Expired } else { ExpiryCondition::Any },
            to: match over {
                true => ReservationState::Expired,
                false => ReservationState::Released,
            },
            qty: view.qty,
            draws: view.draws,
            seats: view.seats,
            order: None,
            expires_at: view.expires_at,
            payment_added_to: None,
            counted: view.counted,
        };
        self.rivals_write(updates, write)
    }

    fn rival_operation(&self, verb: Verb, reservation: &ReservationId) -> Operation {
        let (id, event) = (reservation.clone(), self.event.clone());
        Operation::new(verb, id, event, Selection::AsRecorded, Micros(0))
    }

    /// An operator blocks or unblocks a seat.
    pub(crate) fn rival_blocks(&mut self, which: usize) {
        if !self.seats.is_empty() {
            let seat = &self.seats[which % self.seats.len()];
            self.store.block(&self.event, seat, self.now);
        }
    }

    pub(crate) fn close(&mut self) {
        self.store.close(&self.event, self.now);
    }

    fn rivals_write(
        &mut self,
        stripes: Vec<StripeUpdate>,
        write: RecordWrite,
    ) -> Result<(), Violation> {
        let sent = Transaction {
            token: RequestToken(u128::from(self.rivals)),
            event: self.event.clone(),
            seat_keys: self.shape.seat_keys,
            stripes,
            records: vec![write],
            counter: None,
            at: unix(self.now),
        };
        self.store.apply(&Rc::new(sent), self.now, |_| None)?;
        Ok(())
    }
}
