//! Carrying out reads.

use std::collections::btree_map::Range;
use std::ops::Bound;

use super::Model;
use super::answers::{Bill, Reason, cancelled};
use crate::Micros;
use crate::attribute::{Arena, write_attributes};
use crate::capacity::{Capacity, Flow};
use crate::error::Error;
use crate::expr;
use crate::json::write_string;
use crate::key::{Key, key_attributes, lock_of};
use crate::limits;
use crate::packed::Item;
use crate::request::{BatchTable, Get, Page, Shows, Told};
use crate::table::{Index, Table, read_units};

/// Items of a TransactGetItems as they were at the first look.
#[derive(Debug)]
pub(super) struct Snapshot {
    gets: Vec<Get>,
    seen: Vec<Option<Box<[u8]>>>,
    was_locked: Vec<bool>,
    told: Told,
}

fn write_shown(item: Item<'_>, shows: &Shows, out: &mut Vec<u8>) {
    write_attributes(item.iter().filter(|(name, _)| shows.shows(name)), out);
}

/// Units of a read: half for one that need not be consistent.
fn units(bytes: usize, is_consistent: bool) -> f64 {
    read_units(bytes) * if is_consistent { 1.0 } else { 0.5 }
}

impl Model {
    pub(super) fn get(&mut self, at: Micros, get: &Get, told: Told) -> Result<Vec<u8>, Error> {
        let table = self.tables.get_mut(get.table).ok_or_else(Error::no_table)?;
        if let Err(why) = table.capacity.may(Flow::Read, get.key.hash, at) {
            return Err(self.throttle(why));
        }
        let mut out = b"{".to_vec();
        let mut size = 0;
        if let Some(item) = table.get(&get.key) {
            size = item.size();
            out.extend_from_slice(b"\"Item\":");
            write_shown(item, &get.shows, &mut out);
        }
        let cost = units(size, get.is_consistent);
        table.capacity.charge(Flow::Read, get.key.hash, cost, at);
        let mut bill = Bill::default();
        bill.read(&table.name, cost);
        let has_more = out.len() > 1;
        bill.write_json(told, false, has_more, &mut out);
        out.push(b'}');
        Ok(out)
    }

    /// Keys that are throttled, or beyond 16 MB, come back unprocessed.
    pub(super) fn batch_get(
        &mut self,
        at: Micros,
        tables: &[BatchTable],
        arena: &Arena,
        told: Told,
    ) -> Result<Vec<u8>, Error> {
        let mut bill = Bill::default();
        let mut out = b"{\"Responses\":{".to_vec();
        let mut unprocessed = Vec::new();
        let mut throttled = None;
        let (mut bytes, mut served) = (0, 0);
        for (nth, batch) in tables.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            write_string(batch.name.as_bytes(), &mut out);
            out.extend_from_slice(b":[");
            let mut left = Vec::new();
            let mut is_first = true;
            for get in &batch.gets {
                let table = self.tables.get_mut(get.table).ok_or_else(Error::no_table)?;
                let may = table.capacity.may(Flow::Read, get.key.hash, at);
                if let Err(why) = may {
                    throttled = Some(why);
                }
                let size = table.get(&get.key).map_or(0, Item::size);
                if may.is_err() || bytes + size > limits::BATCH_GET_BYTES_MAX {
                    left.push(get);
                    continue;
                }
                bytes += size;
                served += 1;
                let cost = units(size, get.is_consistent);
                table.capacity.charge(Flow::Read, get.key.hash, cost, at);
                bill.read(&table.name, cost);
                if let Some(item) = table.get(&get.key) {
                    if !std::mem::take(&mut is_first) {
                        out.push(b',');
                    }
                    write_shown(item, &get.shows, &mut out);
                }
            }
            out.push(b']');
            write_unprocessed(batch, &left, arena, &mut unprocessed);
        }
        if let Some(why) = throttled {
            let error = self.throttle(why);
            if served == 0 {
                return Err(error);
            }
        }
        out.extend_from_slice(b"},\"UnprocessedKeys\":{");
        out.extend_from_slice(&unprocessed);
        out.push(b'}');
        bill.write_json(told, true, true, &mut out);
        out.push(b'}');
        Ok(out)
    }

    /// The first look of a TransactGetItems.
    pub(super) fn look(&self, gets: Vec<Get>, told: Told) -> Snapshot {
        let seen = gets.iter().map(|get| {
            let item = self.tables.get(get.table)?.get(&get.key)?;
            Some(item.0.into())
        });
        let locked = gets
            .iter()
            .map(|get| self.locks.contains(&lock_of(get.table, &get.key)));
        Snapshot {
            seen: seen.collect(),
            was_locked: locked.collect(),
            gets,
            told,
        }
    }

    pub(super) fn transact_read(
        &mut self,
        at: Micros,
        snapshot: &Snapshot,
    ) -> Result<Vec<u8>, Error> {
        let mut reasons = Vec::with_capacity(snapshot.gets.len());
        let looks = snapshot.seen.iter().zip(&snapshot.was_locked);
        for (get, (seen, was_locked)) in snapshot.gets.iter().zip(looks) {
            let is_locked = self.locks.contains(&lock_of(get.table, &get.key));
            let table = self.tables.get_mut(get.table).ok_or_else(Error::no_table)?;
            let has_changed = table.get(&get.key).map(|item| item.0) != seen.as_deref();
            let may = table.capacity.may(Flow::Read, get.key.hash, at);
            reasons.push(match may {
                Err(why) => {
                    self.throttle(why);
                    Reason::Throttled
                }
                Ok(()) if *was_locked || is_locked || has_changed => {
                    self.tally.conflicts += 1;
                    Reason::TransactionConflict
                }
                Ok(()) => Reason::None,
            });
        }
        if reasons.iter().any(|reason| !matches!(reason, Reason::None)) {
            return Err(cancelled(&reasons));
        }
        let mut bill = Bill::default();
        let mut out = b"{\"Responses\":[".to_vec();
        for (nth, get) in snapshot.gets.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            let table = self.tables.get_mut(get.table).ok_or_else(Error::no_table)?;
            let mut size = 0;
            out.push(b'{');
            if let Some(item) = table.get(&get.key) {
                size = item.size();
                out.extend_from_slice(b"\"Item\":");
                write_shown(item, &get.shows, &mut out);
            }
            out.push(b'}');
            let cost = 2.0 * read_units(size);
            table.capacity.charge(Flow::Read, get.key.hash, cost, at);
            bill.read(&table.name, cost);
        }
        out.push(b']');
        bill.write_json(snapshot.told, true, true, &mut out);
        out.push(b'}');
        Ok(out)
    }

    pub(super) fn page(
        &mut self,
        at: Micros,
        page: &Page,
        arena: &Arena,
        told: Told,
    ) -> Result<Vec<u8>, Error> {
        let table = self
            .tables
            .get_mut(page.table)
            .ok_or_else(Error::no_table)?;
        if page.index.is_some_and(|index| index >= table.indexes.len()) {
            return Err(Error::no_table());
        }
        // A scan is charged where its first item lies.
        let hash = page.hash.or_else(|| first_hash(table, page)).unwrap_or(0);
        if let Err(why) = capacity(table, page.index).may(Flow::Read, hash, at) {
            return Err(self.throttle(why));
        }
        let found = Found::of(table, page, arena);
        let cost = units(found.bytes, page.is_consistent);
        let mut out = b"{".to_vec();
        if !matches!(page.shows, Shows::Count) {
            out.extend_from_slice(b"\"Items\":[");
            out.extend_from_slice(&found.items);
            out.extend_from_slice(b"],");
        }
        let counts = format!(
            "\"Count\":{},\"ScannedCount\":{}",
            found.count, found.examined
        );
        out.extend_from_slice(counts.as_bytes());
        if let Some(key) = &found.last {
            out.extend_from_slice(b",\"LastEvaluatedKey\":");
            write_attributes(Item(key).iter(), &mut out);
        }
        capacity(table, page.index).charge(Flow::Read, hash, cost, at);
        let mut bill = Bill::default();
        match page.index {
            None => bill.read(&table.name, cost),
            Some(index) => bill.index(&table.name, &table.indexes[index].name, cost),
        }
        bill.write_json(told, false, true, &mut out);
        out.push(b'}');
        Ok(out)
    }
}

fn write_unprocessed(batch: &BatchTable, left: &[&Get], arena: &Arena, out: &mut Vec<u8>) {
    if left.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push(b',');
    }
    write_string(batch.name.as_bytes(), out);
    out.extend_from_slice(b":{");
    out.extend_from_slice(&batch.rest);
    out.extend_from_slice(b"\"Keys\":[");
    for (at, get) in left.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_attributes(arena.item(get.target).iter(), out);
    }
    out.extend_from_slice(b"]}");
}

fn capacity(table: &mut Table, index: Option<usize>) -> &mut Capacity {
    match index {
        None => &mut table.capacity,
        Some(at) => &mut table.indexes[at].capacity,
    }
}

fn bounds(page: &Page) -> Option<(Bound<&Key>, Bound<&Key>)> {
    let (from, to) = (page.from.as_ref(), page.to.as_ref());
    // A map refuses ranges that end before they begin; such a range has nothing in it.
    let is_empty = match (from, to) {
        (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Excluded(b)) => {
            a >= b
        }
        _ => false,
    };
    (!is_empty).then_some((from, to))
}

fn first_hash(table: &Table, page: &Page) -> Option<u64> {
    let bounds = bounds(page)?;
    match page.index {
        None => table.items.range(bounds).next().map(|(key, _)| key.hash),
        Some(at) => table.indexes[at]
            .entries
            .range(bounds)
            .next()
            .map(|(key, _)| key.hash),
    }
}

/// The next of a range, from its front or its back.
fn step<'a, V>(range: &mut Range<'a, Key, V>, is_backward: bool) -> Option<(&'a Key, &'a V)> {
    match is_backward {
        false => range.next(),
        true => range.next_back(),
    }
}

/// What a page comes to.
#[derive(Default)]
struct Found {
    items: Vec<u8>,
    count: usize,
    examined: usize,
    bytes: usize,
    /// The key of the last item examined, if there may be more.
    last: Option<Vec<u8>>,
}

impl Found {
    fn of(table: &Table, page: &Page, arena: &Arena) -> Self {
        let mut found = Self::default();
        let Some(bounds) = bounds(page) else {
            return found;
        };
        let index = page.index.map(|at| &table.indexes[at]);
        match index {
            None => {
                let mut range = table.items.range(bounds);
                while let Some((_, bytes)) = step(&mut range, page.is_backward) {
                    if found.take(Item(bytes), table, None, page, arena) {
                        break;
                    }
                }
            }
            Some(index) => {
                let mut range = index.entries.range(bounds);
                while let Some((_, key)) = step(&mut range, page.is_backward) {
                    let Some(item) = table.get(key) else {
                        continue;
                    };
                    if found.take(item, table, Some(index), page, arena) {
                        break;
                    }
                }
            }
        }
        found
    }

    /// Whether that was the last one of the page.
    fn take(
        &mut self,
        item: Item<'_>,
        table: &Table,
        index: Option<&Index>,
        page: &Page,
        arena: &Arena,
    ) -> bool {
        self.examined += 1;
        let seen = |name: &[u8]| {
            index.is_none_or(|index| {
                index.shows(name) || index.schema.has(name) || table.schema.has(name)
            })
        };
        let visible = item.iter().filter(|(name, _)| seen(name));
        self.bytes += visible
            .map(|(name, value)| name.len() + value.size())
            .sum::<usize>();
        let holds = match &page.filter {
            None => true,
            Some(filter) => expr::holds(&filter.tree, Some(item), &page.bindings, arena),
        };
        if holds {
            self.count += 1;
            if !matches!(page.shows, Shows::Count) {
                if !self.items.is_empty() {
                    self.items.push(b',');
                }
                let shown = item
                    .iter()
                    .filter(|(name, _)| seen(name) && page.shows.shows(name));
                write_attributes(shown, &mut self.items);
            }
        }
        let is_over = self.examined >= page.limit || self.bytes >= limits::PAGE_BYTES_MAX;
        if is_over {
            let mut schemas = vec![&table.schema];
            schemas.extend(index.map(|index| &index.schema));
            self.last = Some(key_attributes(item, &schemas));
        }
        is_over
    }
}
