//! A table: items in key order, indexes, capacity.
//!
//! Not here: conditions, locks, responses.

use std::collections::BTreeMap;

use crate::ModelTime;
use crate::capacity::{Capacity, CapacityKind, ThrottleCause};
use crate::error::Error;
use crate::key::{ItemKey, KeyError, KeySchema};
use crate::limits;
use crate::packed::ItemView;

/// Attributes that an index contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexProjection {
    All,
    KeysOnly,
    Include(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct SecondaryIndex {
    pub(crate) name: Box<str>,
    pub(crate) schema: KeySchema,
    pub(crate) projection: IndexProjection,
    /// Keys of the table by key of the index.
    pub(crate) entries: BTreeMap<ItemKey, ItemKey>,
    pub(crate) capacity: Capacity,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: u32,
    pub(crate) name: Box<str>,
    pub(crate) schema: KeySchema,
    pub(crate) indexes: Vec<SecondaryIndex>,
    pub(crate) items: BTreeMap<ItemKey, Box<[u8]>>,
    pub(crate) capacity: Capacity,
    /// Attribute of the time to live. The model never purges.
    pub(crate) ttl: Option<String>,
    pub(crate) created: ModelTime,
    /// Billed size of all items.
    pub(crate) bytes: u64,
}

/// A write that is evaluated and not yet applied.
#[derive(Debug)]
pub(crate) struct PlannedWrite {
    pub(crate) key: ItemKey,
    pub(crate) change: ItemChange,
}

#[derive(Debug)]
pub(crate) enum ItemChange {
    Put(Box<[u8]>),
    Delete,
    /// A condition check.
    None,
}

/// Units of a write to the table and its indexes.
#[derive(Debug, Default)]
pub(crate) struct WriteCost {
    pub(crate) hash: u64,
    pub(crate) units: f64,
    /// Position of the index in the table, hash of the partition, units.
    pub(crate) indexes: Vec<(usize, u64, f64)>,
}

/// Write units of an item of this size; at least one.
pub(crate) fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(limits::WRITE_UNIT_BYTES).max(1) as f64
}

/// Read units of an item of this size, strongly consistent; at least one.
pub(crate) fn read_units(bytes: usize) -> f64 {
    bytes.div_ceil(limits::READ_UNIT_BYTES).max(1) as f64
}

impl Table {
    pub(crate) fn get(&self, key: &ItemKey) -> Option<ItemView<'_>> {
        self.items.get(key).map(|bytes| ItemView(bytes))
    }

    /// Rejects an item that cannot be stored in this table.
    pub(crate) fn check(&self, item: ItemView<'_>, too_big: &str) -> Result<(), KeyError> {
        for index in &self.indexes {
            index.schema.check_index_key(item, &index.name)?;
        }
        match item.size() > limits::ITEM_BYTES_MAX {
            true => Err(KeyError::Mismatch(Error::validation(too_big))),
            false => Ok(()),
        }
    }

    /// Cost of a change at the single price. A check or a failed condition pays for the stored item.
    pub(crate) fn cost(&self, key: &ItemKey, change: &ItemChange) -> WriteCost {
        let old = self.get(key);
        let new = match change {
            ItemChange::Put(bytes) => Some(ItemView(bytes)),
            ItemChange::Delete => None,
            ItemChange::None => old,
        };
        let size = |item: Option<ItemView<'_>>| item.map_or(0, ItemView::size);
        let mut cost = WriteCost {
            hash: key.hash,
            units: write_units(size(old).max(size(new))),
            indexes: Vec::new(),
        };
        if matches!(change, ItemChange::None) {
            return cost;
        }
        for (at, index) in self.indexes.iter().enumerate() {
            let entry = |item: Option<ItemView<'_>>| {
                item.and_then(|item| index.schema.index_key(item, key))
            };
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

    /// Whether the partitions of the table and its indexes admit the write.
    pub(crate) fn check_write(
        &mut self,
        cost: &WriteCost,
        now: ModelTime,
    ) -> Result<(), ThrottleCause> {
        self.capacity.check(CapacityKind::Write, cost.hash, now)?;
        cost.indexes.iter().try_for_each(|(at, hash, _)| {
            let capacity = &mut self.indexes[*at].capacity;
            capacity.check(CapacityKind::Write, *hash, now)
        })
    }

    /// `price`: 2 in a transaction. Index writes always cost the single price.
    pub(crate) fn charge(&mut self, cost: &WriteCost, price: f64, now: ModelTime) {
        self.capacity.charge(CapacityKind::Write, cost.hash, cost.units * price, now);
        for (at, hash, units) in &cost.indexes {
            let capacity = &mut self.indexes[*at].capacity;
            capacity.charge(CapacityKind::Write, *hash, *units, now);
        }
    }

    pub(crate) fn apply(&mut self, write: PlannedWrite) {
        let PlannedWrite { key, change } = write;
        let new = match change {
            ItemChange::None => return,
            ItemChange::Delete => None,
            ItemChange::Put(bytes) => Some(bytes),
        };
        if !self.indexes.is_empty() {
            let old = self.items.get(&key).map(|bytes| ItemView(bytes));
            let new = new.as_deref().map(ItemView);
            for index in &mut self.indexes {
                let entry = |item: Option<ItemView<'_>>| {
                    item.and_then(|item| index.schema.index_key(item, &key))
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
        let size = |item: Option<&Box<[u8]>>| item.map_or(0, |bytes| ItemView(bytes).size() as u64);
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

    /// Adds an index with entries for the stored items.
    pub(crate) fn add_index(&mut self, mut index: SecondaryIndex) {
        for (key, bytes) in &self.items {
            if let Some(entry) = index.schema.index_key(ItemView(bytes), key) {
                index.entries.insert(entry, key.clone());
            }
        }
        self.indexes.push(index);
    }
}

impl SecondaryIndex {
    /// Whether the index contains the non-key attribute `name`.
    pub(crate) fn shows(&self, name: &[u8]) -> bool {
        match &self.projection {
            IndexProjection::All => true,
            IndexProjection::KeysOnly => false,
            IndexProjection::Include(names) => names.iter().any(|shown| shown.as_bytes() == name),
        }
    }
}
