//! Keys: their attributes, and their bytes in DynamoDB's order: by the hash of the partition key, then by the
//! sort key.
//!
//! Not here: stored items.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::error::Error;
use crate::limits;
use crate::number;
use crate::packed::{AttributeKind, ItemBuilder, ItemView, PackedItem, ValueView};

/// Constant, so that a key is on the same partition in every run.
const SEED: u64 = 0x5eed_0f7a_b1e5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyAttribute {
    pub(crate) name: Box<str>,
    /// A scalar.
    pub(crate) kind: AttributeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySchema {
    pub(crate) partition: KeyAttribute,
    pub(crate) sort: Option<KeyAttribute>,
}

/// Position of an item: the partition key with its length, then the sort key. The key of an index entry ends
/// with the table's key, because an index may hold many items under one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemKey {
    /// Hash of the partition key.
    pub(crate) hash: u64,
    pub(crate) bytes: Box<[u8]>,
}

/// Why attributes are not a key.
#[derive(Debug)]
pub(crate) enum KeyError {
    /// Rejects the whole request.
    Empty(Error),
    /// Cancels a transaction, and rejects other requests.
    Mismatch(Error),
}

impl From<KeyError> for Error {
    fn from(why: KeyError) -> Self {
        match why {
            KeyError::Empty(error) | KeyError::Mismatch(error) => error,
        }
    }
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    FixedState::with_seed(SEED).hash_one(bytes)
}

/// Appends a sort key whose bytes have the order of the values. Strings and binaries end with two zero bytes,
/// and zeros within them are escaped, so that a prefix sorts first.
fn put_sortable(value: ValueView<'_>, out: &mut Vec<u8>) {
    match value.kind {
        AttributeKind::N => number::sortable(value.content, out),
        _ => {
            put_escaped(value.content, out);
            out.extend_from_slice(&[0, 0]);
        }
    }
}

fn put_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
}

impl KeySchema {
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.attributes().any(|attribute| attribute.name.as_bytes() == name)
    }

    /// The key of an item.
    pub(crate) fn item_key(&self, item: ItemView<'_>) -> Result<ItemKey, KeyError> {
        let part = |attribute: &KeyAttribute| {
            let name = &attribute.name;
            let Some(value) = item.get(name.as_bytes()) else {
                return Err(KeyError::Mismatch(Error::validation(format!(
                    "One or more parameter values were invalid: Missing the key {name} in the item"
                ))));
            };
            match value.kind == attribute.kind {
                true => Ok(value),
                false => Err(KeyError::Mismatch(Error::validation(format!(
                    "One or more parameter values were invalid: Type mismatch for key {name} expected: {} \
                     actual: {}",
                    attribute.kind.name(),
                    value.kind.name()
                )))),
            }
        };
        let partition = part(&self.partition)?;
        let sort = self.sort.as_ref().map(part).transpose()?;
        self.build(partition, sort)
    }

    /// A key that is given by itself: exactly the key's attributes.
    pub(crate) fn key(&self, key: ItemView<'_>) -> Result<ItemKey, KeyError> {
        let mismatch = || {
            KeyError::Mismatch(Error::validation(
                "The provided key element does not match the schema",
            ))
        };
        if key.iter().count() != self.attributes().count() {
            return Err(mismatch());
        }
        let part = |attribute: &KeyAttribute| {
            let value = key.get(attribute.name.as_bytes());
            value.filter(|value| value.kind == attribute.kind).ok_or_else(mismatch)
        };
        let partition = part(&self.partition)?;
        let sort = self.sort.as_ref().map(part).transpose()?;
        self.build(partition, sort)
    }

    fn build(
        &self,
        partition: ValueView<'_>,
        sort: Option<ValueView<'_>>,
    ) -> Result<ItemKey, KeyError> {
        let mut bytes = Vec::with_capacity(
            partition.content.len() + 2 + sort.map_or(0, |s| s.content.len() + 4),
        );
        self.check(&self.partition, partition, limits::PARTITION_KEY_BYTES_MAX)?;
        let hash = put_partition(partition, &mut bytes);
        if let (Some(attribute), Some(value)) = (&self.sort, sort) {
            self.check(attribute, value, limits::SORT_KEY_BYTES_MAX)?;
            put_sortable(value, &mut bytes);
        }
        Ok(ItemKey { hash, bytes: bytes.into() })
    }

    fn check(
        &self,
        attribute: &KeyAttribute,
        value: ValueView<'_>,
        max: usize,
    ) -> Result<(), KeyError> {
        let name = &attribute.name;
        if value.content.is_empty() {
            let kind = if value.kind == AttributeKind::B { "binary" } else { "string" };
            return Err(KeyError::Empty(Error::validation(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot \
                 contain an empty {kind} value. Key: {name}"
            ))));
        }
        match value.content.len() > max {
            true => Err(KeyError::Mismatch(Error::validation(format!(
                "One or more parameter values were invalid: the key {name} has {} bytes, more than {max}",
                value.content.len()
            )))),
            false => Ok(()),
        }
    }

    /// The key of an item in an index with this schema; `None` if the index does not contain the item.
    pub(crate) fn index_key(&self, item: ItemView<'_>, table_key: &ItemKey) -> Option<ItemKey> {
        let partition = item.get(self.partition.name.as_bytes())?;
        let sort = match &self.sort {
            None => None,
            Some(attribute) => Some(item.get(attribute.name.as_bytes())?),
        };
        let mut bytes = Vec::new();
        let hash = put_partition(partition, &mut bytes);
        if let Some(value) = sort {
            put_sortable(value, &mut bytes);
        }
        bytes.extend_from_slice(&table_key.bytes);
        Some(ItemKey { hash, bytes: bytes.into() })
    }

    /// Checks the kinds of index key attributes that the item has.
    pub(crate) fn check_index_key(&self, item: ItemView<'_>, index: &str) -> Result<(), KeyError> {
        for attribute in self.attributes() {
            let Some(value) = item.get(attribute.name.as_bytes()) else {
                continue;
            };
            if value.kind != attribute.kind {
                return Err(KeyError::Mismatch(Error::validation(format!(
                    "One or more parameter values were invalid: Type mismatch for Index Key {} Expected: {} \
                     Actual: {} IndexName: {index}",
                    attribute.name,
                    attribute.kind.name(),
                    value.kind.name()
                ))));
            }
            if value.content.is_empty() {
                return Err(KeyError::Mismatch(Error::validation(format!(
                    "One or more parameter values are not valid. A value specified for a secondary index \
                     key is not supported. The AttributeValue for a key attribute cannot contain an empty \
                     string value. IndexName: {index}, IndexKey: {}",
                    attribute.name
                ))));
            }
        }
        Ok(())
    }
}

/// Appends the partition key and returns its hash.
fn put_partition(value: ValueView<'_>, out: &mut Vec<u8>) -> u64 {
    let len = u16::try_from(value.content.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value.content);
    hash(value.content)
}

/// Test of a sort key in a query.
pub(crate) enum SortCondition<'a> {
    All,
    Equal(ValueView<'a>),
    Less(ValueView<'a>),
    LessOrEqual(ValueView<'a>),
    Greater(ValueView<'a>),
    GreaterOrEqual(ValueView<'a>),
    Between(ValueView<'a>, ValueView<'a>),
    BeginsWith(ValueView<'a>),
}

/// The range of keys, end exclusive, that match both conditions.
pub(crate) fn key_range(partition: ValueView<'_>, sort: &SortCondition<'_>) -> (ItemKey, ItemKey) {
    let mut prefix = Vec::new();
    let hash = put_partition(partition, &mut prefix);
    let with = |value: &ValueView<'_>| {
        let mut bytes = prefix.clone();
        put_sortable(*value, &mut bytes);
        bytes
    };
    let (from, to) = match sort {
        SortCondition::All => (prefix.clone(), after(&prefix)),
        SortCondition::Equal(value) => (with(value), after(&with(value))),
        SortCondition::Less(value) => (prefix.clone(), with(value)),
        SortCondition::LessOrEqual(value) => (prefix.clone(), after(&with(value))),
        SortCondition::Greater(value) => (after(&with(value)), after(&prefix)),
        SortCondition::GreaterOrEqual(value) => (with(value), after(&prefix)),
        SortCondition::Between(low, high) => (with(low), after(&with(high))),
        SortCondition::BeginsWith(value) => {
            let mut start = prefix.clone();
            put_escaped(value.content, &mut start);
            let end = after(&start);
            (start, end)
        }
    };
    let key = |bytes: Vec<u8>| ItemKey { hash, bytes: bytes.into() };
    (key(from), key(to))
}

/// The least bytes above all that begin with `prefix`, whose first byte is part of a length and below 255.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = prefix.to_vec();
    while bytes.last() == Some(&0xff) {
        bytes.pop();
    }
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}

/// The attributes of `item` that belong to the keys of these schemas.
pub(crate) fn key_attributes(item: ItemView<'_>, schemas: &[&KeySchema]) -> PackedItem {
    let mut builder = ItemBuilder::default();
    for (name, value) in item.iter() {
        if schemas.iter().any(|schema| schema.has(name)) {
            builder.begin(name).extend_from_slice(value.bytes());
            builder.end_value();
        }
    }
    // Attributes of an item have distinct names.
    builder.build().unwrap_or_default()
}

/// Id of the lock on an item. A collision, one in 2^64, would cause a needless conflict.
pub(crate) fn lock_id(table: u32, key: &ItemKey) -> u64 {
    FixedState::with_seed(SEED ^ u64::from(table)).hash_one(&*key.bytes)
}

/// A hasher whose results are the same in every run; `purpose` separates unrelated uses.
pub(crate) fn seeded_hasher(purpose: u8) -> FixedState {
    FixedState::with_seed(SEED ^ (u64::from(purpose) << 48))
}

impl<'a> SortCondition<'a> {
    pub(crate) fn values(&self) -> Vec<ValueView<'a>> {
        match self {
            Self::All => Vec::new(),
            Self::Between(low, high) => vec![*low, *high],
            Self::Equal(value)
            | Self::Less(value)
            | Self::LessOrEqual(value)
            | Self::Greater(value)
            | Self::GreaterOrEqual(value)
            | Self::BeginsWith(value) => vec![*value],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::put_value;

    fn value(kind: AttributeKind, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_value(kind, content, &mut out);
        out
    }

    #[test]
    fn key_ranges_contain_exactly_the_matching_sort_keys() {
        let partition = value(AttributeKind::S, b"p");
        let partition = ValueView::new(&partition).unwrap();
        let keys: [&[u8]; 6] = [b"a", b"a\0", b"aa", b"ab", b"b", b"\xff"];
        let key = |sort: &[u8]| {
            let sort = value(AttributeKind::S, sort);
            key_range(partition, &SortCondition::Equal(ValueView::new(&sort).unwrap())).0
        };
        let within = |range_of: &dyn Fn(ValueView<'_>) -> (ItemKey, ItemKey), of: &[u8]| {
            let of = value(AttributeKind::S, of);
            let (from, to) = range_of(ValueView::new(&of).unwrap());
            keys.iter().map(|k| u8::from(key(k) >= from && key(k) < to)).collect::<Vec<_>>()
        };
        assert!(keys.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::Equal(v)), b"aa"),
            [0, 0, 1, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::Less(v)), b"aa"),
            [1, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::LessOrEqual(v)), b"aa"),
            [1, 1, 1, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::Greater(v)), b"aa"),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::GreaterOrEqual(v)), b"aa"),
            [0, 0, 1, 1, 1, 1]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::BeginsWith(v)), b"a"),
            [1, 1, 1, 1, 0, 0]
        );
        assert_eq!(
            within(&|v| key_range(partition, &SortCondition::Between(v, v)), b"b"),
            [0, 0, 0, 0, 1, 0]
        );
    }
}
