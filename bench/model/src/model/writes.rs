//! Execution of writes.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::StoreModel;
use super::output::{
    CancellationReason, ConsumedCapacity, cancelled, condition_failed, conflict, throttled, to_body,
};
use crate::ModelTime;
use crate::attribute::FilteredItem;
use crate::capacity::{CapacityKind, ThrottleCause};
use crate::error::{Code, Error};
use crate::expr;
use crate::key::ItemKey;
use crate::packed::ItemView;
use crate::request::{BatchWriteEntry, CapacityDetail, ReturnValues, WriteKind, WriteRequest};
use crate::table::{ItemChange, PlannedWrite, Table, WriteCost, write_units};
use crate::tokens::{RequestToken, TokenStatus};

/// Transactions pay twice: once to prepare, once to commit.
const TRANSACTION_PRICE: f64 = 2.0;

/// A transaction that will be applied.
#[derive(Debug)]
pub(super) struct PreparedTransaction {
    writes: Vec<(u32, PlannedWrite)>,
    locks: Vec<u64>,
    token: Option<RequestToken>,
    body: Vec<u8>,
}

pub(super) enum TransactionDecision {
    Prepared(PreparedTransaction),
    /// Applied before under the same token; the response's body.
    Repeated(Vec<u8>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WriteOutput<T: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchWriteOutput {
    unprocessed_items: BTreeMap<String, Vec<BatchWriteEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

/// An item before or after a write, if the response returns it.
type Image = Option<Box<[u8]>>;

/// Why a write is not executed.
enum WriteError {
    /// A failed condition, with the stored item if the request asks for it.
    Condition(Image),
    Invalid(Error),
}

/// Effect of `write` on the item at `key`.
fn plan(table: &Table, key: &ItemKey, write: &WriteRequest) -> Result<ItemChange, WriteError> {
    let old = table.get(key);
    if let Some(condition) = &write.condition
        && !expr::holds(&condition.tree, old, &write.bindings)
    {
        let old = old.filter(|_| write.returns_item_on_failure);
        return Err(WriteError::Condition(old.map(|item| item.0.into())));
    }
    let target = write.target.view();
    match (write.kind, &write.update) {
        (WriteKind::Put, _) => Ok(ItemChange::Put(target.0.into())),
        (WriteKind::Delete, _) => Ok(ItemChange::Delete),
        (WriteKind::Check, _) => Ok(ItemChange::None),
        (WriteKind::Update, None) => Ok(ItemChange::Put(old.unwrap_or(target).0.into())),
        (WriteKind::Update, Some(update)) => {
            let new = expr::apply(&update.tree, old.unwrap_or(target), &write.bindings);
            let new = new.map_err(WriteError::Invalid)?;
            let too_big = "Item size to update has exceeded the maximum allowed size";
            let checked = table.check(ItemView(&new), too_big);
            checked.map_err(|error| WriteError::Invalid(error.into()))?;
            Ok(ItemChange::Put(new.into()))
        }
    }
}

/// Cost of a write. A failed one pays for the stored item, or for the item of a put.
fn cost(
    table: &Table,
    key: &ItemKey,
    write: &WriteRequest,
    plan: &Result<ItemChange, WriteError>,
) -> WriteCost {
    match plan {
        Ok(change) => table.cost(key, change),
        Err(_) => {
            let mut cost = table.cost(key, &ItemChange::None);
            if write.kind == WriteKind::Put {
                cost.units = cost.units.max(write_units(write.target.view().size()));
            }
            cost
        }
    }
}

fn consume(consumed: &mut ConsumedCapacity, table: &Table, cost: &WriteCost, price: f64) {
    consumed.write(&table.name, cost.units * price);
    for (at, _, units) in &cost.indexes {
        consumed.index(&table.name, &table.indexes[*at].name, *units);
    }
}

fn transaction_body(consumed: &ConsumedCapacity, detail: CapacityDetail) -> Result<Vec<u8>, Error> {
    to_body(&WriteOutput::<()> { attributes: None, consumed_capacity: consumed.of_tables(detail) })
}

impl StoreModel {
    fn count_throttled(&mut self, cause: ThrottleCause) {
        match cause {
            ThrottleCause::Partition => self.counters.throttled_by_partition += 1,
            ThrottleCause::Table => self.counters.throttled_by_table += 1,
        }
    }

    pub(super) fn throttle(&mut self, cause: ThrottleCause) -> Error {
        self.count_throttled(cause);
        throttled(cause)
    }

    pub(super) fn write(
        &mut self,
        at: ModelTime,
        write: &WriteRequest,
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let mut consumed = ConsumedCapacity::default();
        let (old, new) = self.write_one(at, write, &mut consumed)?;
        let image = match write.returns {
            ReturnValues::None => None,
            ReturnValues::AllOld | ReturnValues::UpdatedOld => old.as_deref(),
            ReturnValues::AllNew | ReturnValues::UpdatedNew => new.as_deref(),
        };
        let targets: Option<Vec<&[u8]>> = match (write.returns, &write.update) {
            (ReturnValues::UpdatedOld | ReturnValues::UpdatedNew, update) => {
                let targets = update.iter().flat_map(|update| update.tree.targets());
                Some(targets.map(|name| write.bindings.name(name)).collect())
            }
            _ => None,
        };
        let is_shown = |name: &[u8]| targets.as_ref().is_none_or(|names| names.contains(&name));
        // Updated attributes that the item does not have are omitted, and with them an empty member.
        let image = image
            .map(ItemView)
            .filter(|item| targets.is_none() || item.iter().any(|(name, _)| is_shown(name)));
        to_body(&WriteOutput {
            attributes: image.map(|item| FilteredItem(item, is_shown)),
            consumed_capacity: consumed.of_table(detail),
        })
    }

    /// Executes one write and returns the images that its response needs.
    fn write_one(
        &mut self,
        at: ModelTime,
        write: &WriteRequest,
        consumed: &mut ConsumedCapacity,
    ) -> Result<(Image, Image), Error> {
        let key = write.key.as_ref().map_err(Clone::clone)?;
        if self.locks.contains(&write.lock) {
            self.counters.conflicts += 1;
            return Err(conflict());
        }
        let table = self.tables.get_mut(write.table).ok_or_else(Error::no_table)?;
        let plan = plan(table, key, write);
        let cost = cost(table, key, write, &plan);
        if let Err(cause) = table.check_write(&cost, at) {
            return Err(self.throttle(cause));
        }
        table.charge(&cost, 1.0, at);
        consume(consumed, table, &cost, 1.0);
        let change = match plan {
            Ok(change) => change,
            Err(WriteError::Invalid(error)) => return Err(error),
            Err(WriteError::Condition(stored)) => {
                self.counters.failed_conditions += 1;
                self.counters.wasted_wcu += cost.units;
                return Err(condition_failed(stored.as_deref().map(ItemView)));
            }
        };
        let returns = write.returns != ReturnValues::None;
        let old = table.get(key).filter(|_| returns);
        let old = old.map(|item| item.0.into());
        let new = match &change {
            ItemChange::Put(bytes) if returns => Some(bytes.clone()),
            _ => None,
        };
        let key = key.clone();
        table.apply(PlannedWrite { key, change });
        Ok((old, new))
    }

    /// Each write is independent. Throttled and conflicting ones are returned unprocessed.
    pub(super) fn batch_write(
        &mut self,
        at: ModelTime,
        writes: &[WriteRequest],
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let mut consumed = ConsumedCapacity::default();
        let mut unprocessed_items: BTreeMap<String, Vec<BatchWriteEntry>> = BTreeMap::new();
        let mut failed = Vec::new();
        for write in writes {
            let Err(error) = self.write_one(at, write, &mut consumed) else {
                continue;
            };
            let transient =
                [Code::ProvisionedThroughputExceeded, Code::Throttling, Code::TransactionConflict];
            if !transient.contains(&error.code()) {
                return Err(error);
            }
            failed.push(error);
            let target = write.target.clone();
            let entry = match write.kind {
                WriteKind::Put => BatchWriteEntry::PutRequest { item: target },
                _ => BatchWriteEntry::DeleteRequest { key: target },
            };
            let table = self.tables.get(write.table).ok_or_else(Error::no_table)?;
            let entries = unprocessed_items.entry(table.name.to_string());
            entries.or_default().push(entry);
        }
        if failed.len() == writes.len()
            && let Some(error) = failed.pop()
        {
            return Err(error);
        }
        to_body(&BatchWriteOutput {
            unprocessed_items,
            consumed_capacity: consumed.of_tables(detail),
        })
    }

    /// Decides a transaction at this instant. Its items are locked if no action prevents it.
    pub(super) fn decide(
        &mut self,
        at: ModelTime,
        writes: Vec<WriteRequest>,
        token: Option<RequestToken>,
        detail: CapacityDetail,
    ) -> Result<TransactionDecision, Error> {
        let status = token.map_or(TokenStatus::New, |token| self.tokens.begin(token, at));
        match status {
            TokenStatus::New => {}
            TokenStatus::Applied => {
                let body = self.repeat(at, &writes, detail)?;
                return Ok(TransactionDecision::Repeated(body));
            }
            TokenStatus::InProgress => {
                return Err(Error::new(
                    Code::TransactionInProgress,
                    "The transaction with the given request token is already in progress.",
                ));
            }
            TokenStatus::Mismatch => {
                return Err(Error::new(
                    Code::IdempotentParameterMismatch,
                    "The request uses the same client token as a previous, but non-identical request. Do not \
                     reuse a client token with different requests, unless the requests are identical",
                ));
            }
        }
        let mut consumed = ConsumedCapacity::default();
        let changes = match self.evaluate(at, &writes, &mut consumed) {
            Ok(changes) => changes,
            Err(error) => {
                if let Some(token) = token {
                    self.tokens.cancelled(token);
                }
                return Err(error);
            }
        };
        let body = transaction_body(&consumed, detail)?;
        let locks: Vec<u64> = writes.iter().map(|write| write.lock).collect();
        self.locks.extend(&locks);
        let writes = writes.into_iter().zip(changes);
        let writes = writes.filter_map(|(write, change)| {
            let key = write.key.ok()?;
            Some((write.table, PlannedWrite { key, change }))
        });
        Ok(TransactionDecision::Prepared(PreparedTransaction {
            writes: writes.collect(),
            locks,
            token,
            body,
        }))
    }

    /// Evaluates all actions. If any prevents the transaction, the error has a reason for each.
    fn evaluate(
        &mut self,
        at: ModelTime,
        writes: &[WriteRequest],
        consumed: &mut ConsumedCapacity,
    ) -> Result<Vec<ItemChange>, Error> {
        let mut reasons = vec![CancellationReason::None; writes.len()];
        let mut changes = Vec::with_capacity(writes.len());
        let mut costs = Vec::with_capacity(writes.len());
        let mut throttled = None;
        for (reason, write) in reasons.iter_mut().zip(writes) {
            let key = match &write.key {
                Ok(key) => key,
                Err(error) => {
                    *reason = CancellationReason::Validation(error.message().to_owned());
                    continue;
                }
            };
            let table = self.tables.get_mut(write.table).ok_or_else(Error::no_table)?;
            let plan = plan(table, key, write);
            let cost = cost(table, key, write, &plan);
            let check = table.check_write(&cost, at);
            costs.push((write.table, cost));
            match (check, plan) {
                (Err(cause), _) => {
                    throttled = Some(cause);
                    *reason = CancellationReason::Throttled;
                }
                _ if self.locks.contains(&write.lock) => {
                    self.counters.conflicts += 1;
                    *reason = CancellationReason::TransactionConflict;
                }
                (_, Err(WriteError::Condition(stored))) => {
                    self.counters.failed_conditions += 1;
                    *reason = CancellationReason::ConditionalCheckFailed(stored);
                }
                (_, Err(WriteError::Invalid(error))) => {
                    *reason = CancellationReason::Validation(error.message().to_owned());
                }
                (_, Ok(change)) => changes.push(change),
            }
        }
        let conflicted =
            |reason: &CancellationReason| matches!(reason, CancellationReason::TransactionConflict);
        self.counters.conflicted_transactions += u64::from(reasons.iter().any(conflicted));
        // A throttled transaction costs nothing; one that is cancelled for another reason pays in full.
        if let Some(cause) = throttled {
            self.count_throttled(cause);
            return Err(cancelled(&reasons));
        }
        for (id, cost) in &costs {
            if let Some(table) = self.tables.get_mut(*id) {
                table.charge(cost, TRANSACTION_PRICE, at);
                consume(consumed, table, cost, TRANSACTION_PRICE);
            }
        }
        if changes.len() == writes.len() {
            return Ok(changes);
        }
        let units = |(_, cost): &(u32, WriteCost)| cost.units * TRANSACTION_PRICE;
        self.counters.wasted_wcu += costs.iter().map(units).sum::<f64>();
        Err(cancelled(&reasons))
    }

    /// The response of a transaction that was applied before; it costs two read units per item.
    fn repeat(
        &mut self,
        at: ModelTime,
        writes: &[WriteRequest],
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let mut consumed = ConsumedCapacity::default();
        for write in writes {
            if let (Ok(key), Some(table)) = (&write.key, self.tables.get_mut(write.table)) {
                let capacity = &mut table.capacity;
                capacity.charge(CapacityKind::Read, key.hash, TRANSACTION_PRICE, at);
                consumed.read(&table.name, TRANSACTION_PRICE);
            }
        }
        transaction_body(&consumed, detail)
    }

    /// Applies all writes of a transaction at once and releases its locks.
    pub(super) fn apply(&mut self, at: ModelTime, transaction: PreparedTransaction) -> Vec<u8> {
        for lock in &transaction.locks {
            self.locks.remove(lock);
        }
        for (id, write) in transaction.writes {
            // The table may have been deleted meanwhile.
            if let Some(table) = self.tables.get_mut(id) {
                table.apply(write);
            }
        }
        if let Some(token) = transaction.token {
            self.tokens.applied(token, at);
        }
        transaction.body
    }
}
