//! A table: its items in the order of their keys, its indexes, its capacity.
//!
//! Must not live here: conditions, who may write when, answers.

use std::collections::BTreeMap;

use crate::Micros;
use crate::capacity::{Capacity, Flow, Throttled};
use crate::error::Error;
use crate::key::{Key, NoKey, Schema};
use crate::limits;
use crate::packed::Item;

/// What of an item an index shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    All,
    KeysOnly,
    Include(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) name: Box<str>,
    pub(crate) schema: Schema,
    pub(crate) shown: Shown,
    /// To the table's keys.
    pub(crate) entries: BTreeMap<Key, Key>,
    pub(crate) capacity: Capacity,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: u32,
    pub(crate) name: Box<str>,
    pub(crate) schema: Schema,
    pub(crate) indexes: Vec<Index>,
    pub(crate) items: BTreeMap<Key, Box<[u8]>>,
    pub(crate) capacity: Capacity,
    /// The attribute of its time to live. Nothing is ever purged.
    pub(crate) ttl: Option<String>,
    pub(crate) created: Micros,
    /// As DynamoDB bills them.
    pub(crate) bytes: u64,
}

/// A write worked out and not yet made.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) key: Key,
    pub(crate) to: To,
}

#[derive(Debug)]
pub(crate) enum To {
    Item(Box<[u8]>),
    Nothing,
    /// A check: leaves all as it is.
    Same,
}

/// Units of a write: the table's, and each index's with where.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    pub(crate) hash: u64,
    pub(crate) units: f64,
    /// By the index's place in the table: the partition's hash, and units.
    pub(crate) indexes: Vec<(usize, u64, f64)>,
}

/// Write units of so many bytes; at least one.
pub(crate) fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(limits::WRITE_UNIT_BYTES).max(1) as f64
}

/// Read units of so many bytes, strongly consistent; at least one.
pub(crate) fn read_units(bytes: usize) -> f64 {
    bytes.div_ceil(limits::READ_UNIT_BYTES).max(1) as f64
}

impl Table {
    pub(crate) fn get(&self, key: &Key) -> Option<Item<'_>> {
        self.items.get(key).map(|bytes| Item(bytes))
    }

    /// Refuses an item that cannot be stored here.
    pub(crate) fn check(&self, item: Item<'_>, too_big: &str) -> Result<(), NoKey> {
        for index in &self.indexes {
            index.schema.check_entry(item, &index.name)?;
        }
        match item.size() > limits::ITEM_BYTES_MAX {
            true => Err(NoKey::Mismatch(Error::validation(too_big))),
            false => Ok(()),
        }
    }

    /// What it costs that the item at `key` becomes `new`, without transactions' double price. A check
    /// or a failed condition is charged for what is there.
    pub(crate) fn cost(&self, key: &Key, to: &To) -> Cost {
        let old = self.get(key);
        let new = match to {
            To::Item(bytes) => Some(Item(bytes)),
            To::Nothing => None,
            To::Same => old,
        };
        let size = |item: Option<Item<'_>>| item.map_or(0, Item::size);
        let mut cost = Cost {
            hash: key.hash,
            units: write_units(size(old).max(size(new))),
            indexes: Vec::new(),
        };
        if matches!(to, To::Same) {
            return cost;
        }
        for (at, index) in self.indexes.iter().enumerate() {
            let entry =
                |item: Option<Item<'_>>| item.and_then(|item| index.schema.of_entry(item, key));
            let units = |item| write_units(size(item));
            match (entry(old), entry(new)) {
                (None, None) => {}
                (Some(before), Some(after)) if before == after => {
                    if old != new {
                        let units = units(old).max(units(new));
                        cost.indexes.push((at, after.hash, units));
                    }
                }
                (before, after) => {
                    for (entry, item) in [(before, old), (after, new)] {
                        if let Some(entry) = entry {
                            cost.indexes.push((at, entry.hash, units(item)));
                        }
                    }
                }
            }
        }
        cost
    }

    /// Whether the table's and its indexes' partitions take the write.
    pub(crate) fn may_write(&mut self, cost: &Cost, now: Micros) -> Result<(), Throttled> {
        self.capacity.may(Flow::Write, cost.hash, now)?;
        cost.indexes.iter().try_for_each(|(at, hash, _)| {
            let capacity = &mut self.indexes[*at].capacity;
            capacity.may(Flow::Write, *hash, now)
        })
    }

    /// `times`: 2 in a transaction. Indexes are written after it, at the single price.
    pub(crate) fn charge(&mut self, cost: &Cost, times: f64, now: Micros) {
        self.capacity
            .charge(Flow::Write, cost.hash, cost.units * times, now);
        for (at, hash, units) in &cost.indexes {
            let capacity = &mut self.indexes[*at].capacity;
            capacity.charge(Flow::Write, *hash, *units, now);
        }
    }

    pub(crate) fn apply(&mut self, planned: Planned) {
        let Planned { key, to } = planned;
        let new = match to {
            To::Same => return,
            To::Nothing => None,
            To::Item(bytes) => Some(bytes),
        };
        if !self.indexes.is_empty() {
            let old = self.items.get(&key).map(|bytes| Item(bytes));
            let new = new.as_deref().map(Item);
            for index in &mut self.indexes {
                let entry = |item: Option<Item<'_>>| {
                    item.and_then(|item| index.schema.of_entry(item, &key))
                };
                let (before, after) = (entry(old), entry(new));
                if before == after {
                    continue;
                }
                if let Some(before) = before {
                    index.entries.remove(&before);
                }
                if let Some(after) = after {
                    index.entries.insert(after, key.clone());
                }
            }
        }
        let size = |item: Option<&Box<[u8]>>| item.map_or(0, |bytes| Item(bytes).size() as u64);
        self.bytes += size(new.as_ref());
        let old = match new {
            Some(bytes) => self.items.insert(key, bytes),
            None => self.items.remove(&key),
        };
        self.bytes -= size(old.as_ref());
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.indexes.iter().position(|index| *index.name == *name)
    }

    /// Adds an index and everything that belongs in it.
    pub(crate) fn add_index(&mut self, mut index: Index) {
        for (key, bytes) in &self.items {
            if let Some(entry) = index.schema.of_entry(Item(bytes), key) {
                index.entries.insert(entry, key.clone());
            }
        }
        self.indexes.push(index);
    }
}

impl Index {
    /// Whether the index shows the attribute `name`, apart from keys, which it always does.
    pub(crate) fn shows(&self, name: &[u8]) -> bool {
        match &self.shown {
            Shown::All => true,
            Shown::KeysOnly => false,
            Shown::Include(names) => names.iter().any(|shown| shown.as_bytes() == name),
        }
    }
}
