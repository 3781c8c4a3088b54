//! Keys: which attributes they are, and their bytes in the order that DynamoDB keeps items in: by the
//! hash of the partition key, then by the sort key.
//!
//! Must not live here: what is stored under a key.

use std::hash::BuildHasher;

use crate::error::Error;
use crate::limits;
use crate::number;
use crate::packed::{Item, Kind, Value, put_bytes};

/// Fixed: which partition a key lies on is the same in every run.
const SEED: u64 = 0x5eed_0f7a_b1e5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyAttribute {
    pub(crate) name: Box<str>,
    /// S, N or B.
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) partition: KeyAttribute,
    pub(crate) sort: Option<KeyAttribute>,
}

/// Where an item is. Of a table: the partition key with its length, then the sort key. Of an index: the
/// same of the index, then the bytes of the table's key, for an index may have many items under one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Of the partition key alone.
    pub(crate) hash: u64,
    pub(crate) bytes: Box<[u8]>,
}

/// Why attributes are no key.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// Refused before anything else is looked at.
    Empty(Error),
    /// Of a transaction it cancels.
    Mismatch(Error),
}

impl From<NoKey> for Error {
    fn from(why: NoKey) -> Self {
        match why {
            NoKey::Empty(error) | NoKey::Mismatch(error) => error,
        }
    }
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(SEED).hash_one(bytes)
}

/// Text and binaries end with two zero bytes, and a zero within is told from the end: so the shorter
/// comes first, and what follows does not matter.
fn put_sortable(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind {
        Kind::N => number::sortable(value.content, out),
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

impl Schema {
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.attributes()
            .any(|attribute| attribute.name.as_bytes() == name)
    }

    /// The key of an item.
    pub(crate) fn of_item(&self, item: Item<'_>) -> Result<Key, NoKey> {
        let part = |attribute: &KeyAttribute| {
            let name = &attribute.name;
            let Some(value) = item.get(name.as_bytes()) else {
                return Err(NoKey::Mismatch(Error::validation(format!(
                    "One or more parameter values were invalid: Missing the key {name} in the item"
                ))));
            };
            match value.kind == attribute.kind {
                true => Ok(value),
                false => Err(NoKey::Mismatch(Error::validation(format!(
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

    /// A key by itself: these attributes and no others.
    pub(crate) fn of_key(&self, key: Item<'_>) -> Result<Key, NoKey> {
        let mismatch = || {
            NoKey::Mismatch(Error::validation(
                "The provided key element does not match the schema",
            ))
        };
        if key.iter().count() != self.attributes().count() {
            return Err(mismatch());
        }
        let part = |attribute: &KeyAttribute| {
            let value = key.get(attribute.name.as_bytes());
            value
                .filter(|value| value.kind == attribute.kind)
                .ok_or_else(mismatch)
        };
        let partition = part(&self.partition)?;
        let sort = self.sort.as_ref().map(part).transpose()?;
        self.build(partition, sort)
    }

    fn build(&self, partition: Value<'_>, sort: Option<Value<'_>>) -> Result<Key, NoKey> {
        let mut bytes = Vec::with_capacity(
            partition.content.len() + 2 + sort.map_or(0, |s| s.content.len() + 4),
        );
        self.check(&self.partition, partition, limits::PARTITION_KEY_BYTES_MAX)?;
        let hash = put_partition(partition, &mut bytes);
        if let (Some(attribute), Some(value)) = (&self.sort, sort) {
            self.check(attribute, value, limits::SORT_KEY_BYTES_MAX)?;
            put_sortable(value, &mut bytes);
        }
        Ok(Key {
            hash,
            bytes: bytes.into(),
        })
    }

    fn check(&self, attribute: &KeyAttribute, value: Value<'_>, max: usize) -> Result<(), NoKey> {
        let name = &attribute.name;
        if value.content.is_empty() {
            let kind = if value.kind == Kind::B {
                "binary"
            } else {
                "string"
            };
            return Err(NoKey::Empty(Error::validation(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot \
                 contain an empty {kind} value. Key: {name}"
            ))));
        }
        match value.content.len() > max {
            true => Err(NoKey::Mismatch(Error::validation(format!(
                "One or more parameter values were invalid: the key {name} has {} bytes, more than {max}",
                value.content.len()
            )))),
            false => Ok(()),
        }
    }

    /// The key of an item in an index with this schema; `None`: the item is not in it.
    pub(crate) fn of_entry(&self, item: Item<'_>, table_key: &Key) -> Option<Key> {
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
        Some(Key {
            hash,
            bytes: bytes.into(),
        })
    }

    /// Attributes of an index's key must be of its types where they are there at all.
    pub(crate) fn check_entry(&self, item: Item<'_>, index: &str) -> Result<(), NoKey> {
        for attribute in self.attributes() {
            let Some(value) = item.get(attribute.name.as_bytes()) else {
                continue;
            };
            if value.kind != attribute.kind {
                return Err(NoKey::Mismatch(Error::validation(format!(
                    "One or more parameter values were invalid: Type mismatch for Index Key {} Expected: {} \
                     Actual: {} IndexName: {index}",
                    attribute.name,
                    attribute.kind.name(),
                    value.kind.name()
                ))));
            }
            if value.content.is_empty() {
                return Err(NoKey::Mismatch(Error::validation(format!(
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

/// The hash of what was put.
fn put_partition(value: Value<'_>, out: &mut Vec<u8>) -> u64 {
    let len = u16::try_from(value.content.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value.content);
    hash(value.content)
}

/// What a sort key must be, for a query.
pub(crate) enum SortRange<'a> {
    All,
    Equal(Value<'a>),
    Less(Value<'a>),
    AtMost(Value<'a>),
    More(Value<'a>),
    AtLeast(Value<'a>),
    Between(Value<'a>, Value<'a>),
    BeginsWith(Value<'a>),
}

/// From the first key on, up to the second one, exclusive.
pub(crate) fn range(partition: Value<'_>, sort: &SortRange<'_>) -> (Key, Key) {
    let mut prefix = Vec::new();
    let hash = put_partition(partition, &mut prefix);
    let with = |value: &Value<'_>| {
        let mut bytes = prefix.clone();
        put_sortable(*value, &mut bytes);
        bytes
    };
    let (from, to) = match sort {
        SortRange::All => (prefix.clone(), after(&prefix)),
        SortRange::Equal(value) => (with(value), after(&with(value))),
        SortRange::Less(value) => (prefix.clone(), with(value)),
        SortRange::AtMost(value) => (prefix.clone(), after(&with(value))),
        SortRange::More(value) => (after(&with(value)), after(&prefix)),
        SortRange::AtLeast(value) => (with(value), after(&prefix)),
        SortRange::Between(low, high) => (with(low), after(&with(high))),
        SortRange::BeginsWith(value) => {
            let mut start = prefix.clone();
            put_escaped(value.content, &mut start);
            let end = after(&start);
            (start, end)
        }
    };
    let key = |bytes: Vec<u8>| Key {
        hash,
        bytes: bytes.into(),
    };
    (key(from), key(to))
}

/// The least bytes above all that begin with `prefix`. Its first byte is a length's, below 255.
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

/// The attributes of `item` that make up these schemas' keys, as an item.
pub(crate) fn key_attributes(item: Item<'_>, schemas: &[&Schema]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in item.iter() {
        if schemas.iter().any(|schema| schema.has(name)) {
            put_bytes(name, &mut out);
            out.extend_from_slice(value.bytes());
        }
    }
    out
}

/// For locks: a table and a key in it as one number. Two that collide would conflict for nothing, once
/// in 2^64.
pub(crate) fn lock_of(table: u32, key: &Key) -> u64 {
    foldhash::quality::FixedState::with_seed(SEED ^ u64::from(table)).hash_one(&*key.bytes)
}

/// For a request's fingerprint: `parts` under a mark that says what they are.
pub(crate) fn fingerprint(mark: u8, parts: &[&[u8]]) -> u64 {
    foldhash::quality::FixedState::with_seed(SEED ^ (u64::from(mark) << 48)).hash_one(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::put_value;

    fn value(kind: Kind, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_value(kind, content, &mut out);
        out
    }

    #[test]
    fn ranges_hold_exactly_the_sort_keys_they_should() {
        let partition = value(Kind::S, b"p");
        let partition = Value::of(&partition).unwrap();
        let keys: [&[u8]; 6] = [b"a", b"a\0", b"aa", b"ab", b"b", b"\xff"];
        let key = |sort: &[u8]| {
            let sort = value(Kind::S, sort);
            range(partition, &SortRange::Equal(Value::of(&sort).unwrap())).0
        };
        let within = |range_of: &dyn Fn(Value<'_>) -> (Key, Key), of: &[u8]| {
            let of = value(Kind::S, of);
            let (from, to) = range_of(Value::of(&of).unwrap());
            keys.iter()
                .map(|k| u8::from(key(k) >= from && key(k) < to))
                .collect::<Vec<_>>()
        };
        assert!(keys.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert_eq!(
            within(&|v| range(partition, &SortRange::Equal(v)), b"aa"),
            [0, 0, 1, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::Less(v)), b"aa"),
            [1, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::AtMost(v)), b"aa"),
            [1, 1, 1, 0, 0, 0]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::More(v)), b"aa"),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::AtLeast(v)), b"aa"),
            [0, 0, 1, 1, 1, 1]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::BeginsWith(v)), b"a"),
            [1, 1, 1, 1, 0, 0]
        );
        assert_eq!(
            within(&|v| range(partition, &SortRange::Between(v, v)), b"b"),
            [0, 0, 0, 0, 1, 0]
        );
    }
}
