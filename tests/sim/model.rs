//! The store as a map: all-or-nothing conditional writes, every failing condition told in order
//! with what is stored, and a memory of request tokens. What DynamoDB promises, and no more.
//!
//! What a client must be told about a record is written out here once more, from the rules clients
//! rely on and not from the domain, so that a mistake in the domain's table shows.
//!
//! It also checks what every transaction sent must obey, and remembers each event's stock over
//! time, so that "sold out" can be held against what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::ids::{EventId, Fingerprint, OrderId, ReservationId};
use inventory_api::domain::operation::Verb;
use inventory_api::domain::time::Micros;
use inventory_api::domain::transaction::{
    Draw, EventRead, NewRecord, Outcome, Reason, RecordView, ReservationState, StripeUpdate,
    StripeView, Transaction,
};
use inventory_api::limits;

use super::broken::{Broken, must};

/// DynamoDB remembers a request token for ten minutes.
pub(crate) const TOKEN_MEMORY: Micros = Micros::from_millis(600_000);

/// A reservation of this prefix makes the store refuse the whole body without saying why.
pub(crate) const POISON: &str = "poison-";
/// One of this prefix makes the store call its own action invalid.
pub(crate) const INVALID: &str = "invalid-";
/// One of this prefix has a record that nobody here wrote.
pub(crate) const ALIEN: &str = "alien-";

#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    pub(crate) view: RecordView,
    pub(crate) event: EventId,
    pub(crate) qty: u32,
    pub(crate) draws: Vec<Draw>,
    pub(crate) written: Micros,
}

#[derive(Debug)]
struct Event {
    stripes: Vec<StripeView>,
    /// Units of confirmed records, per stripe.
    sold: Vec<u64>,
    /// The sum of `remaining` from each instant on.
    history: Vec<(Micros, u64)>,
}

impl Event {
    fn remaining(&self) -> u64 {
        self.stripes.iter().map(|s| s.remaining).sum()
    }

    fn note(&mut self, now: Micros) {
        let remaining = self.remaining();
        self.history.push((now, remaining));
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Store {
    events: BTreeMap<EventId, Event>,
    records: BTreeMap<ReservationId, StoredRecord>,
    /// Tokens of applied transactions, until when they are remembered.
    applied: BTreeMap<u128, Micros>,
    /// Every body ever sent, to hold a repeat against.
    bodies: BTreeMap<u128, Rc<Transaction>>,
    /// Tries still on their way although their sender has given up, by token.
    in_progress: BTreeMap<u128, u32>,
    token_memory: Micros,
}

impl Store {
    /// `token_memory` is [`TOKEN_MEMORY`], or less for an engine that forgets at a restart.
    pub(crate) fn new(token_memory: Micros) -> Self {
        Self {
            events: BTreeMap::new(),
            records: BTreeMap::new(),
            applied: BTreeMap::new(),
            bodies: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            token_memory,
        }
    }

    /// An event with one stripe per capacity given.
    pub(crate) fn create(&mut self, event: &EventId, capacities: &[u64]) {
        let stripes: Vec<StripeView> = capacities
            .iter()
            .enumerate()
            .map(|(index, capacity)| StripeView {
                capacity: *capacity,
                remaining: *capacity,
                version: 1,
                stripes: (index == 0).then_some(capacities.len() as u16),
            })
            .collect();
        let mut created = Event {
            sold: vec![0; stripes.len()],
            stripes,
            history: Vec::new(),
        };
        created.note(Micros(0));
        self.events.insert(event.clone(), created);
    }

    /// What an operator's restock does.
    pub(crate) fn restock(&mut self, event: &EventId, stripe: u16, units: u64, now: Micros) {
        if let Some(event) = self.events.get_mut(event)
            && let Some(item) = event.stripes.get_mut(usize::from(stripe))
        {
            item.capacity += units;
            item.remaining += units;
            item.version += 1;
            event.note(now);
        }
    }

    pub(crate) fn begin(&mut self, token: u128) {
        *self.in_progress.entry(token).or_default() += 1;
    }

    pub(crate) fn end(&mut self, token: u128) {
        if let Some(tries) = self.in_progress.get_mut(&token) {
            *tries = tries.saturating_sub(1);
        }
    }

    pub(crate) fn is_in_progress(&self, token: u128) -> bool {
        self.in_progress.get(&token).is_some_and(|tries| *tries > 0)
    }

    /// Whether a transaction of this token was applied, as far as the store still knows.
    pub(crate) fn remembers(&self, token: u128, now: Micros) -> bool {
        self.applied.get(&token).is_some_and(|until| *until > now)
    }

    pub(crate) fn record(&self, reservation: &ReservationId) -> Option<&StoredRecord> {
        self.records.get(reservation)
    }

    /// What a caller must be told because of the record that exists, if one does.
    pub(crate) fn answer_due(
        &self,
        verb: Verb,
        reservation: &ReservationId,
        fingerprint: Fingerprint,
    ) -> Option<Answer> {
        let record = self.records.get(reservation)?.view;
        if record.fingerprint != fingerprint {
            return Some(Answer::Refused(Refusal::IdempotencyConflict));
        }
        Some(match (verb, record.state) {
            (Verb::Commit, ReservationState::Confirmed) => Answer::Confirmed {
                order: OrderId::of(reservation),
            },
            (Verb::Release, ReservationState::Released) => Answer::Released,
            (Verb::Commit, _) => Answer::Refused(Refusal::ReservationReleased),
            (Verb::Release, _) => Answer::Refused(Refusal::ReservationCommitted),
        })
    }

    pub(crate) fn exists(&self, event: &EventId) -> bool {
        self.events.contains_key(event)
    }

    pub(crate) fn remaining(&self, event: &EventId) -> u64 {
        self.events.get(event).map_or(0, Event::remaining)
    }

    /// Every sum of `remaining` that held at some instant of the span.
    pub(crate) fn remaining_during(
        &self,
        event: &EventId,
        from: Micros,
        to: Micros,
    ) -> impl Iterator<Item = u64> + '_ {
        let history = self.events.get(event).map_or(&[][..], |e| &e.history);
        let first = history.partition_point(|(at, _)| *at < from);
        let last = history.partition_point(|(at, _)| *at <= to);
        history[first.saturating_sub(1)..last]
            .iter()
            .map(|(_, remaining)| *remaining)
    }

    /// All stripes at this instant.
    pub(crate) fn read(&self, event: &EventId) -> EventRead {
        match self.events.get(event) {
            Some(event) => EventRead::Found(event.stripes.clone()),
            None => EventRead::NotFound,
        }
    }

    /// Applies the transaction, or tells why not. `meddle` may put a reason of its own in the
    /// place of an action's, which then cancels.
    pub(crate) fn apply(
        &mut self,
        transaction: &Rc<Transaction>,
        now: Micros,
        mut meddle: impl FnMut(usize) -> Option<Reason>,
    ) -> Result<Outcome, Broken> {
        self.inspect(transaction)?;
        let token = transaction.token.0;
        if self.remembers(token, now) {
            return Ok(Outcome::Committed);
        }
        if transaction.records.iter().any(|r| is(r, POISON)) {
            return Ok(Outcome::Rejected);
        }
        let mut reasons = self.reasons(transaction);
        for (action, reason) in reasons.iter_mut().enumerate() {
            if let Some(other) = meddle(action) {
                *reason = other;
            }
        }
        if reasons.iter().any(|reason| *reason != Reason::Fine) {
            return Ok(Outcome::Cancelled(reasons));
        }
        self.write(transaction, now)?;
        self.applied.insert(token, now.plus(self.token_memory));
        Ok(Outcome::Committed)
    }

    /// What the store would say to each action.
    fn reasons(&self, transaction: &Transaction) -> Vec<Reason> {
        let stripe = |update: &StripeUpdate| {
            let item = self
                .events
                .get(&transaction.event)
                .and_then(|event| event.stripes.get(usize::from(update.stripe)));
            match item {
                Some(item) if item.remaining >= update.take => Reason::Fine,
                other => Reason::Stripe(other.copied()),
            }
        };
        let record = |record: &NewRecord| match self.records.get(&record.reservation) {
            _ if is(record, INVALID) => Reason::Invalid,
            _ if is(record, ALIEN) => Reason::RecordUnreadable,
            Some(stored) => Reason::Record(stored.view),
            None => Reason::Fine,
        };
        let stripes = transaction.stripes.iter().map(stripe);
        stripes
            .chain(transaction.records.iter().map(record))
            .collect()
    }

    fn write(&mut self, transaction: &Transaction, now: Micros) -> Result<(), Broken> {
        if let Some(event) = self.events.get_mut(&transaction.event) {
            for update in &transaction.stripes {
                let at = usize::from(update.stripe);
                event.stripes[at].remaining -= update.take;
                event.stripes[at].version += 1;
            }
            for draw in transaction.records.iter().flat_map(|r| &r.draws) {
                event.sold[usize::from(draw.stripe)] += u64::from(draw.units);
            }
            event.note(now);
        }
        for record in &transaction.records {
            let stored = StoredRecord {
                view: RecordView {
                    fingerprint: record.fingerprint,
                    state: record.state,
                    order: record.order,
                },
                event: transaction.event.clone(),
                qty: record.qty,
                draws: record.draws.clone(),
                written: now,
            };
            self.records.insert(record.reservation.clone(), stored);
        }
        self.conserved(&transaction.event)
    }

    /// Per stripe: capacity = remaining + units drawn by confirmed records. The running sums are
    /// cheap enough for every write.
    fn conserved(&self, event: &EventId) -> Result<(), Broken> {
        let Some(found) = self.events.get(event) else {
            return Ok(());
        };
        for (index, (item, sold)) in found.stripes.iter().zip(&found.sold).enumerate() {
            must!(
                item.capacity == item.remaining + sold,
                "{event}#{index} oversold or leaked: capacity {} != remaining {} + sold {sold}",
                item.capacity,
                item.remaining
            );
        }
        Ok(())
    }

    /// The same from the records themselves, not from running sums.
    pub(crate) fn conserved_in_full(&self) -> Result<(), Broken> {
        let mut sold: BTreeMap<(&EventId, u16), u64> = BTreeMap::new();
        for (id, record) in &self.records {
            let drawn: u32 = record.draws.iter().map(|d| d.units).sum();
            let due = match record.view.state {
                ReservationState::Confirmed => record.qty,
                ReservationState::Released => 0,
            };
            must!(
                drawn == due,
                "{id} drew {drawn} units, its state wants {due}"
            );
            for draw in &record.draws {
                *sold.entry((&record.event, draw.stripe)).or_default() += u64::from(draw.units);
            }
        }
        for (id, event) in &self.events {
            self.conserved(id)?;
            for (index, item) in event.stripes.iter().enumerate() {
                let sold = sold.get(&(id, index as u16)).copied().unwrap_or(0);
                must!(
                    item.capacity == item.remaining + sold,
                    "{id}#{index}: capacity {} != remaining {} + records {sold}",
                    item.capacity,
                    item.remaining
                );
            }
        }
        Ok(())
    }

    /// What every transaction must obey, whatever becomes of it. Whether it is a new body.
    pub(crate) fn inspect(&mut self, sent: &Rc<Transaction>) -> Result<bool, Broken> {
        if let Some(first) = self.bodies.get(&sent.token.0) {
            must!(first == sent, "a token was used for two bodies: {sent:?}");
            return Ok(false);
        }
        self.bodies.insert(sent.token.0, Rc::clone(sent));
        let actions = sent.action_count();
        must!(
            actions <= limits::TRANSACTION_ACTIONS_MAX,
            "{actions} actions in one transaction"
        );
        must!(!sent.records.is_empty(), "a transaction without a record");
        let mut drawn: BTreeMap<u16, u64> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for record in &sent.records {
            let id = &record.reservation;
            must!(ids.insert(id), "{id} twice in one transaction");
            let units: u32 = record.draws.iter().map(|d| d.units).sum();
            let legal = match record.state {
                ReservationState::Confirmed => {
                    units == record.qty && record.order == Some(OrderId::of(id))
                }
                ReservationState::Released => units == 0 && record.order.is_none(),
            };
            must!(legal, "an illegal record: {record:?}");
            let distinct: BTreeSet<u16> = record.draws.iter().map(|d| d.stripe).collect();
            must!(
                distinct.len() == record.draws.len() && record.draws.iter().all(|d| d.units > 0),
                "illegal draws: {record:?}"
            );
            for draw in &record.draws {
                *drawn.entry(draw.stripe).or_default() += u64::from(draw.units);
            }
        }
        let taken: BTreeMap<u16, u64> = sent.stripes.iter().map(|s| (s.stripe, s.take)).collect();
        must!(
            taken.len() == sent.stripes.len(),
            "a stripe twice in one transaction"
        );
        must!(taken == drawn, "takes {taken:?} but draws {drawn:?}");
        Ok(true)
    }
}

fn is(record: &NewRecord, prefix: &str) -> bool {
    record.reservation.as_str().starts_with(prefix)
}
