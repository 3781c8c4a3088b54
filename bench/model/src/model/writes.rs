//! Carrying out writes.

use super::Model;
use super::answers::{Bill, Reason, cancelled, condition_failed, conflict, throttled};
use crate::Micros;
use crate::attribute::{Arena, write_attributes};
use crate::capacity::{Flow, Throttled};
use crate::error::{Code, Error};
use crate::expr;
use crate::key::Key;
use crate::packed::Item;
use crate::request::{Returns, Told, Write, WriteKind};
use crate::table::{Cost, Planned, Table, To, write_units};
use crate::tokens::{Token, Verdict};

/// Transactions pay twice: once to prepare, once to commit.
const TRANSACTION_PRICE: f64 = 2.0;

/// A transaction that will be applied.
#[derive(Debug)]
pub(super) struct Locked {
    writes: Vec<(u32, Planned)>,
    locks: Vec<u64>,
    token: Option<Token>,
    body: Vec<u8>,
}

pub(super) enum Decided {
    Locked(Locked),
    /// It was applied before, under the same token.
    Before(Vec<u8>),
}

/// An item, if there is one and it is asked for.
type Image = Option<Vec<u8>>;

/// Why a write is not made.
enum Refusal {
    /// With the item that is there.
    Condition(Option<Vec<u8>>),
    Invalid(Error),
}

/// What `write` makes of the item at `key`.
fn plan(table: &Table, key: &Key, write: &Write, arena: &Arena) -> Result<To, Refusal> {
    let old = table.get(key);
    if let Some(condition) = &write.condition
        && !expr::holds(&condition.tree, old, &write.bindings, arena)
    {
        let old = old.filter(|_| write.is_old_wanted);
        return Err(Refusal::Condition(old.map(|item| item.0.to_vec())));
    }
    match (write.kind, &write.update) {
        (WriteKind::Put, _) => Ok(To::Item(arena.get(write.target).into())),
        (WriteKind::Delete, _) => Ok(To::Nothing),
        (WriteKind::Check, _) => Ok(To::Same),
        (WriteKind::Update, update) => {
            let base = old.unwrap_or_else(|| arena.item(write.target));
            let new = match update {
                None => base.0.to_vec(),
                Some(update) => {
                    let new = expr::apply(&update.tree, base, &write.bindings, arena);
                    new.map_err(Refusal::Invalid)?
                }
            };
            let too_big = "Item size to update has exceeded the maximum allowed size";
            let checked = table.check(Item(&new), too_big);
            checked.map_err(|why| Refusal::Invalid(why.into()))?;
            Ok(To::Item(new.into()))
        }
    }
}

/// What a write costs that is not made: for what is there, or for what a put would have put.
fn cost_of_refused(table: &Table, key: &Key, write: &Write, arena: &Arena) -> Cost {
    let mut cost = table.cost(key, &To::Same);
    if write.kind == WriteKind::Put {
        cost.units = cost.units.max(write_units(arena.item(write.target).size()));
    }
    cost
}

fn bill(bill: &mut Bill, table: &Table, cost: &Cost, times: f64) {
    bill.write(&table.name, cost.units * times);
    for (at, _, units) in &cost.indexes {
        bill.index(&table.name, &table.indexes[*at].name, *units);
    }
}

impl Model {
    fn note_throttled(&mut self, why: Throttled) {
        match why {
            Throttled::Partition => self.tally.throttled_by_partition += 1,
            Throttled::Table => self.tally.throttled_by_table += 1,
        }
    }

    pub(super) fn throttle(&mut self, why: Throttled) -> Error {
        self.note_throttled(why);
        throttled(why)
    }

    pub(super) fn write(
        &mut self,
        at: Micros,
        write: &Write,
        arena: &Arena,
        told: Told,
    ) -> Result<Vec<u8>, Error> {
        let mut total = Bill::default();
        let (old, new) = self.write_one(at, write, arena, &mut total)?;
        let mut out = b"{".to_vec();
        let shown = match write.returns {
            Returns::Nothing => None,
            Returns::AllOld => old.as_deref().map(Item),
            Returns::AllNew => new.as_deref().map(Item),
            Returns::UpdatedOld => old.as_deref().map(Item),
            Returns::UpdatedNew => new.as_deref().map(Item),
        };
        if let Some(item) = shown {
            let is_partial = matches!(write.returns, Returns::UpdatedOld | Returns::UpdatedNew);
            let targets: Vec<&[u8]> = match &write.update {
                Some(update) => update
                    .tree
                    .targets()
                    .map(|name| write.bindings.name(arena, name))
                    .collect(),
                None => Vec::new(),
            };
            let mut shown = item
                .iter()
                .filter(|(name, _)| !is_partial || targets.contains(name))
                .peekable();
            if !is_partial || shown.peek().is_some() {
                out.extend_from_slice(b"\"Attributes\":");
                write_attributes(shown, &mut out);
            }
        }
        let has_more = out.len() > 1;
        total.write_json(told, false, has_more, &mut out);
        out.push(b'}');
        Ok(out)
    }

    /// What was there before and what is after, if that is to be told.
    fn write_one(
        &mut self,
        at: Micros,
        write: &Write,
        arena: &Arena,
        total: &mut Bill,
    ) -> Result<(Image, Image), Error> {
        let key = write.key.as_ref().map_err(Clone::clone)?;
        if self.locks.contains(&write.lock) {
            self.tally.conflicts += 1;
            return Err(conflict());
        }
        let table = self
            .tables
            .get_mut(write.table)
            .ok_or_else(Error::no_table)?;
        let planned = plan(table, key, write, arena);
        let cost = match &planned {
            Ok(to) => table.cost(key, to),
            Err(_) => cost_of_refused(table, key, write, arena),
        };
        if let Err(why) = table.may_write(&cost, at) {
            return Err(self.throttle(why));
        }
        table.charge(&cost, 1.0, at);
        bill(total, table, &cost, 1.0);
        let to = match planned {
            Ok(to) => to,
            Err(Refusal::Invalid(error)) => return Err(error),
            Err(Refusal::Condition(old)) => {
                self.tally.failed_conditions += 1;
                self.tally.wasted_wcu += cost.units;
                return Err(condition_failed(old.as_deref()));
            }
        };
        let is_told = write.returns != Returns::Nothing;
        let old = table
            .get(key)
            .filter(|_| is_told)
            .map(|item| item.0.to_vec());
        let new = match &to {
            To::Item(bytes) if is_told => Some(bytes.to_vec()),
            _ => None,
        };
        let key = key.clone();
        table.apply(Planned { key, to });
        Ok((old, new))
    }

    /// Each on its own; what is throttled or meets a transaction comes back unprocessed.
    pub(super) fn batch_write(
        &mut self,
        at: Micros,
        writes: &[Write],
        arena: &Arena,
        told: Told,
    ) -> Result<Vec<u8>, Error> {
        let mut total = Bill::default();
        let mut left: Vec<&Write> = Vec::new();
        let mut last = None;
        for write in writes {
            match self.write_one(at, write, arena, &mut total) {
                Ok(_) => {}
                Err(error) => {
                    let passing = [
                        Code::ProvisionedThroughputExceeded,
                        Code::Throttling,
                        Code::TransactionConflict,
                    ];
                    if !passing.contains(&error.code()) {
                        return Err(error);
                    }
                    last = Some(error);
                    left.push(write);
                }
            }
        }
        if let Some(error) = last.filter(|_| left.len() == writes.len()) {
            return Err(error);
        }
        let mut out = b"{\"UnprocessedItems\":{".to_vec();
        let mut table = None;
        // Grouped by table, in the order of the tables' ids.
        left.sort_by_key(|write| write.table);
        for write in left {
            if table != Some(write.table) {
                if table.is_some() {
                    out.extend_from_slice(b"],");
                }
                let name = self
                    .tables
                    .get(write.table)
                    .map_or("", |table| &*table.name);
                crate::json::write_string(name.as_bytes(), &mut out);
                out.extend_from_slice(b":[");
                table = Some(write.table);
            } else {
                out.push(b',');
            }
            out.extend_from_slice(match write.kind {
                WriteKind::Put => b"{\"PutRequest\":{\"Item\":",
                _ => b"{\"DeleteRequest\":{\"Key\":",
            });
            write_attributes(arena.item(write.target).iter(), &mut out);
            out.extend_from_slice(b"}}");
        }
        if table.is_some() {
            out.push(b']');
        }
        out.push(b'}');
        total.write_json(told, true, true, &mut out);
        out.push(b'}');
        Ok(out)
    }

    /// Judges a transaction at this instant. Its items are locked if nothing is against it.
    pub(super) fn decide(
        &mut self,
        at: Micros,
        writes: Vec<Write>,
        token: Option<Token>,
        arena: &Arena,
        told: Told,
    ) -> Result<Decided, Error> {
        match token.map_or(Verdict::New, |token| self.tokens.begin(token, at)) {
            Verdict::New => {}
            Verdict::Applied => return Ok(Decided::Before(self.told_again(at, &writes, told))),
            Verdict::InProgress => {
                return Err(Error::new(
                    Code::TransactionInProgress,
                    "The transaction with the given request token is already in progress.",
                ));
            }
            Verdict::Mismatch => {
                return Err(Error::new(
                    Code::IdempotentParameterMismatch,
                    "The request uses the same client token as a previous, but non-identical request. Do not \
                     reuse a client token with different requests, unless the requests are identical",
                ));
            }
        }
        let mut total = Bill::default();
        let judged = self.judge(at, &writes, arena, &mut total);
        let planned = match judged {
            Ok(planned) => planned,
            Err(error) => {
                if let Some(token) = token {
                    self.tokens.cancelled(token);
                }
                return Err(error);
            }
        };
        let locks: Vec<u64> = writes.iter().map(|write| write.lock).collect();
        self.locks.extend(&locks);
        let mut body = b"{".to_vec();
        total.write_json(told, true, false, &mut body);
        body.push(b'}');
        let keyed = writes.into_iter().zip(planned);
        let writes = keyed.filter_map(|(write, to)| {
            Some((
                write.table,
                Planned {
                    key: write.key.ok()?,
                    to,
                },
            ))
        });
        Ok(Decided::Locked(Locked {
            writes: writes.collect(),
            locks,
            token,
            body,
        }))
    }

    /// A reason for every action that stands in the way; all are looked at.
    fn judge(
        &mut self,
        at: Micros,
        writes: &[Write],
        arena: &Arena,
        total: &mut Bill,
    ) -> Result<Vec<To>, Error> {
        let mut reasons = vec![Reason::None; writes.len()];
        let mut planned = Vec::with_capacity(writes.len());
        let mut costs = Vec::with_capacity(writes.len());
        let mut throttle = None;
        for (reason, write) in reasons.iter_mut().zip(writes) {
            let key = match &write.key {
                Ok(key) => key,
                Err(error) => {
                    *reason = Reason::Validation(error.message().to_owned());
                    continue;
                }
            };
            let table = self
                .tables
                .get_mut(write.table)
                .ok_or_else(Error::no_table)?;
            let plan = plan(table, key, write, arena);
            let cost = match &plan {
                Ok(to) => table.cost(key, to),
                Err(_) => cost_of_refused(table, key, write, arena),
            };
            let may = table.may_write(&cost, at);
            costs.push((write.table, cost));
            match (may, plan) {
                (Err(why), _) => {
                    throttle = Some(why);
                    *reason = Reason::Throttled;
                }
                _ if self.locks.contains(&write.lock) => {
                    self.tally.conflicts += 1;
                    *reason = Reason::TransactionConflict;
                }
                (_, Err(Refusal::Condition(old))) => {
                    self.tally.failed_conditions += 1;
                    *reason = Reason::ConditionalCheckFailed(old);
                }
                (_, Err(Refusal::Invalid(error))) => {
                    *reason = Reason::Validation(error.message().to_owned())
                }
                (_, Ok(to)) => planned.push(to),
            }
        }
        // Throttled as a whole it costs nothing; cancelled for another reason it costs all the same.
        match throttle {
            Some(why) => self.note_throttled(why),
            None => {
                for (id, cost) in &costs {
                    if let Some(table) = self.tables.get_mut(*id) {
                        table.charge(cost, TRANSACTION_PRICE, at);
                        bill(total, table, cost, TRANSACTION_PRICE);
                    }
                }
            }
        }
        if planned.len() == writes.len() {
            return Ok(planned);
        }
        if throttle.is_none() {
            let units = |cost: &Cost| cost.units * TRANSACTION_PRICE;
            self.tally.wasted_wcu += costs.iter().map(|(_, cost)| units(cost)).sum::<f64>();
        }
        Err(cancelled(&reasons))
    }

    /// The answer of a transaction that was applied before: it costs reads, two units an item.
    fn told_again(&mut self, at: Micros, writes: &[Write], told: Told) -> Vec<u8> {
        let mut total = Bill::default();
        for write in writes {
            if let (Ok(key), Some(table)) = (&write.key, self.tables.get_mut(write.table)) {
                table
                    .capacity
                    .charge(Flow::Read, key.hash, TRANSACTION_PRICE, at);
                total.read(&table.name, TRANSACTION_PRICE);
            }
        }
        let mut body = b"{".to_vec();
        total.write_json(told, true, false, &mut body);
        body.push(b'}');
        body
    }

    /// All of it at once.
    pub(super) fn apply(&mut self, at: Micros, locked: Locked) -> Result<Vec<u8>, Error> {
        for lock in &locked.locks {
            self.locks.remove(lock);
        }
        for (id, planned) in locked.writes {
            // A table that was dropped meanwhile took its items with it.
            if let Some(table) = self.tables.get_mut(id) {
                table.apply(planned);
            }
        }
        if let Some(token) = locked.token {
            self.tokens.applied(token, at);
        }
        Ok(locked.body)
    }
}
