//! Execution of reads.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Serialize;
use serde_json::Value as Json;

use super::StoreModel;
use super::output::{CancellationReason, ConsumedCapacity, cancelled, to_body};
use crate::ModelTime;
use crate::attribute::FilteredItem;
use crate::capacity::{Capacity, CapacityKind};
use crate::error::Error;
use crate::expr;
use crate::key::{ItemKey, key_attributes, lock_id};
use crate::limits;
use crate::packed::{ItemView, PackedItem};
use crate::request::{
    BatchReadTable, CapacityDetail, KeysInput, PageRequest, ReadProjection, ReadRequest,
};
use crate::table::{SecondaryIndex, Table, read_units};

/// Items of a TransactGetItems at its first look.
#[derive(Debug)]
pub(super) struct ReadSnapshot {
    reads: Vec<ReadRequest>,
    items: Vec<Option<Box<[u8]>>>,
    was_locked: Vec<bool>,
    detail: CapacityDetail,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetOutput<T: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetOutput<'a, T: Serialize> {
    responses: BTreeMap<&'a str, Vec<T>>,
    unprocessed_keys: BTreeMap<&'a str, KeysInput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TransactGetOutput<T: Serialize> {
    responses: Vec<GetOutput<T>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PageOutput<T: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<T>>,
    count: usize,
    scanned_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_key: Option<PackedItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Json>,
}

fn shown<'a>(item: ItemView<'a>, projection: &'a ReadProjection) -> impl Serialize + 'a {
    FilteredItem(item, |name: &[u8]| projection.shows(name))
}

/// Units of a read: half if it need not be consistent.
fn units(bytes: usize, is_consistent: bool) -> f64 {
    read_units(bytes) * if is_consistent { 1.0 } else { 0.5 }
}

impl StoreModel {
    pub(super) fn get(
        &mut self,
        at: ModelTime,
        read: &ReadRequest,
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let table = self.tables.get_mut(read.table).ok_or_else(Error::no_table)?;
        if let Err(cause) = table.capacity.check(CapacityKind::Read, read.key.hash, at) {
            return Err(self.throttle(cause));
        }
        let size = table.get(&read.key).map_or(0, ItemView::size);
        let cost = units(size, read.is_consistent);
        table.capacity.charge(CapacityKind::Read, read.key.hash, cost, at);
        let mut consumed = ConsumedCapacity::default();
        consumed.read(&table.name, cost);
        to_body(&GetOutput {
            item: table.get(&read.key).map(|item| shown(item, &read.projection)),
            consumed_capacity: consumed.of_table(detail),
        })
    }

    /// Throttled keys, and those beyond 16 MB, are returned unprocessed.
    pub(super) fn batch_get(
        &mut self,
        at: ModelTime,
        tables: &[BatchReadTable],
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let mut consumed = ConsumedCapacity::default();
        let mut throttled = None;
        let mut bytes = 0;
        let mut processed: Vec<&ReadRequest> = Vec::new();
        let mut unprocessed_keys = BTreeMap::new();
        for batch in tables {
            let mut unprocessed = Vec::new();
            for (read, key) in batch.reads.iter().zip(&batch.input.keys) {
                let table = self.tables.get_mut(read.table).ok_or_else(Error::no_table)?;
                let check = table.capacity.check(CapacityKind::Read, read.key.hash, at);
                throttled = check.err().or(throttled);
                let size = table.get(&read.key).map_or(0, ItemView::size);
                if check.is_err() || bytes + size > limits::BATCH_GET_BYTES_MAX {
                    unprocessed.push(key.clone());
                    continue;
                }
                bytes += size;
                processed.push(read);
                let cost = units(size, read.is_consistent);
                table.capacity.charge(CapacityKind::Read, read.key.hash, cost, at);
                consumed.read(&table.name, cost);
            }
            if !unprocessed.is_empty() {
                let keys = KeysInput { keys: unprocessed, ..batch.input.clone() };
                unprocessed_keys.insert(&*batch.name, keys);
            }
        }
        if let Some(cause) = throttled {
            let error = self.throttle(cause);
            if processed.is_empty() {
                return Err(error);
            }
        }
        let mut responses: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for batch in tables {
            responses.insert(&batch.name, Vec::new());
        }
        for read in processed {
            let table = self.tables.get(read.table).ok_or_else(Error::no_table)?;
            if let Some(item) = table.get(&read.key) {
                let items = responses.entry(&table.name).or_default();
                items.push(shown(item, &read.projection));
            }
        }
        to_body(&BatchGetOutput {
            responses,
            unprocessed_keys,
            consumed_capacity: consumed.of_tables(detail),
        })
    }

    /// The first look of a TransactGetItems.
    pub(super) fn snapshot(&self, reads: Vec<ReadRequest>, detail: CapacityDetail) -> ReadSnapshot {
        let items = reads.iter().map(|read| {
            let item = self.tables.get(read.table)?.get(&read.key)?;
            Some(item.0.into())
        });
        let is_locked = |read: &ReadRequest| self.locks.contains(&lock_id(read.table, &read.key));
        ReadSnapshot {
            items: items.collect(),
            was_locked: reads.iter().map(is_locked).collect(),
            reads,
            detail,
        }
    }

    pub(super) fn transact_get(
        &mut self,
        at: ModelTime,
        snapshot: &ReadSnapshot,
    ) -> Result<Vec<u8>, Error> {
        let mut reasons = Vec::with_capacity(snapshot.reads.len());
        let looks = snapshot.items.iter().zip(&snapshot.was_locked);
        for (read, (seen, was_locked)) in snapshot.reads.iter().zip(looks) {
            let is_locked = self.locks.contains(&lock_id(read.table, &read.key));
            let table = self.tables.get_mut(read.table).ok_or_else(Error::no_table)?;
            let has_changed = table.get(&read.key).map(|item| item.0) != seen.as_deref();
            let check = table.capacity.check(CapacityKind::Read, read.key.hash, at);
            reasons.push(match check {
                Err(cause) => {
                    self.throttle(cause);
                    CancellationReason::Throttled
                }
                Ok(()) if *was_locked || is_locked || has_changed => {
                    self.counters.conflicts += 1;
                    CancellationReason::TransactionConflict
                }
                Ok(()) => CancellationReason::None,
            });
        }
        if reasons.iter().any(|reason| !matches!(reason, CancellationReason::None)) {
            return Err(cancelled(&reasons));
        }
        let mut consumed = ConsumedCapacity::default();
        for read in &snapshot.reads {
            let table = self.tables.get_mut(read.table).ok_or_else(Error::no_table)?;
            let size = table.get(&read.key).map_or(0, ItemView::size);
            let cost = 2.0 * read_units(size);
            table.capacity.charge(CapacityKind::Read, read.key.hash, cost, at);
            consumed.read(&table.name, cost);
        }
        let responses = snapshot.reads.iter().map(|read| {
            let table = self.tables.get(read.table);
            let item = table.and_then(|table| table.get(&read.key));
            GetOutput {
                item: item.map(|item| shown(item, &read.projection)),
                consumed_capacity: None,
            }
        });
        to_body(&TransactGetOutput {
            responses: responses.collect(),
            consumed_capacity: consumed.of_tables(snapshot.detail),
        })
    }

    pub(super) fn page(
        &mut self,
        at: ModelTime,
        page: &PageRequest,
        detail: CapacityDetail,
    ) -> Result<Vec<u8>, Error> {
        let table = self.tables.get_mut(page.table).ok_or_else(Error::no_table)?;
        if page.index.is_some_and(|index| index >= table.indexes.len()) {
            return Err(Error::no_table());
        }
        // A scan is charged to the partition of its first item.
        let hash = page.hash.or_else(|| first_hash(table, page)).unwrap_or(0);
        if let Err(cause) = capacity(table, page.index).check(CapacityKind::Read, hash, at) {
            return Err(self.throttle(cause));
        }
        let found = PageItems::collect(table, page);
        let cost = units(found.bytes, page.is_consistent);
        let mut consumed = ConsumedCapacity::default();
        let index = page.index.map(|at| &table.indexes[at]);
        match index {
            None => consumed.read(&table.name, cost),
            Some(index) => consumed.index(&table.name, &index.name, cost),
        }
        let is_shown = |name: &[u8]| is_visible(table, index, name) && page.projection.shows(name);
        let items = found.items.iter().map(|item| FilteredItem(*item, is_shown));
        let is_count = matches!(page.projection, ReadProjection::Count);
        let body = to_body(&PageOutput {
            items: (!is_count).then(|| items.collect()),
            count: found.items.len(),
            scanned_count: found.examined,
            last_evaluated_key: found.last_key,
            consumed_capacity: consumed.of_table(detail),
        });
        capacity(table, page.index).charge(CapacityKind::Read, hash, cost, at);
        body
    }
}

fn capacity(table: &mut Table, index: Option<usize>) -> &mut Capacity {
    match index {
        None => &mut table.capacity,
        Some(at) => &mut table.indexes[at].capacity,
    }
}

/// Whether a read of the table or index sees an attribute.
fn is_visible(table: &Table, index: Option<&SecondaryIndex>, name: &[u8]) -> bool {
    index.is_none_or(|index| index.shows(name) || index.schema.has(name) || table.schema.has(name))
}

/// The range of a page; `None` if it is empty, which a `BTreeMap` rejects.
fn bounds(page: &PageRequest) -> Option<(Bound<&ItemKey>, Bound<&ItemKey>)> {
    let (from, to) = (page.from.as_ref(), page.to.as_ref());
    let is_empty = match (from, to) {
        (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Excluded(b)) => {
            a >= b
        }
        _ => false,
    };
    (!is_empty).then_some((from, to))
}

/// Items of a page's range with their keys in the table or index, in the page's direction.
fn range<'a>(
    table: &'a Table,
    page: &PageRequest,
) -> Box<dyn Iterator<Item = (&'a ItemKey, ItemView<'a>)> + 'a> {
    let Some(bounds) = bounds(page) else {
        return Box::new(std::iter::empty());
    };
    match page.index {
        None => {
            let items = table.items.range(bounds);
            let items = items.map(|(key, bytes)| (key, ItemView(bytes)));
            directed(items, page.is_backward)
        }
        Some(at) => {
            let entries = table.indexes[at].entries.range(bounds);
            let items = entries.filter_map(|(entry, key)| Some((entry, table.get(key)?)));
            directed(items, page.is_backward)
        }
    }
}

fn directed<'a, T>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    is_backward: bool,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match is_backward {
        false => Box::new(items),
        true => Box::new(items.rev()),
    }
}

fn first_hash(table: &Table, page: &PageRequest) -> Option<u64> {
    range(table, page).next().map(|(key, _)| key.hash)
}

/// Result of a page.
#[derive(Default)]
struct PageItems<'a> {
    items: Vec<ItemView<'a>>,
    examined: usize,
    bytes: usize,
    /// Key of the last item examined, if more may follow.
    last_key: Option<PackedItem>,
}

impl<'a> PageItems<'a> {
    fn collect(table: &'a Table, page: &PageRequest) -> Self {
        let mut found = Self::default();
        let index = page.index.map(|at| &table.indexes[at]);
        for (_, item) in range(table, page) {
            found.examined += 1;
            found.bytes += item
                .iter()
                .filter(|(name, _)| is_visible(table, index, name))
                .map(|(name, value)| name.len() + value.size())
                .sum::<usize>();
            let filter = page.filter.as_ref();
            if filter.is_none_or(|filter| expr::holds(&filter.tree, Some(item), &page.bindings)) {
                found.items.push(item);
            }
            if found.examined >= page.limit || found.bytes >= limits::PAGE_BYTES_MAX {
                let schemas = std::iter::once(&table.schema);
                let schemas: Vec<_> = schemas.chain(index.map(|index| &index.schema)).collect();
                found.last_key = Some(key_attributes(item, &schemas));
                break;
            }
        }
        found
    }
}
