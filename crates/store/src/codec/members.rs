//! The membership item: one attribute per process, named by its id, beside the key.
//!
//! Attributes with other names belong to other programs or later versions and are ignored.

use aws_sdk_dynamodb::types::AttributeValue;

use super::EVENT_ID;
use super::fields::{
    Item, maybe_number, maybe_text, number, read_number, read_timestamp, text, timestamp, values,
};
use crate::limits;
use inventory_core::membership::{
    Announcement, ClockOffset, MemberEntry, MembersRead, MembershipUpdate, ProcessId,
};
use inventory_core::time::Micros;

/// Key of the item in the inventory table. No event has this id, and no stripe this key: an id has no `#`, and a
/// stripe's key has an id before it.
pub(crate) const MEMBERS_KEY: &str = "#members";

const BEAT: &str = "beat";
const INTERVAL_MS: &str = "interval_ms";
const BEAT_AT: &str = "beat_at";
const SHARDS: &str = "shards";
const ADDRESS: &str = "address";
const STARTED_AT: &str = "started_at";
const CLOCK_AHEAD_MS: &str = "clock_ahead_ms";
const CLOCK_ERROR_MS: &str = "clock_error_ms";
/// Of the program, not of an item.
const PROGRAM_VERSION: &str = "version";

/// An update expression with its names and values.
pub(crate) struct MembersExpression {
    pub(crate) update: String,
    pub(crate) names: std::collections::HashMap<String, String>,
    pub(crate) values: Option<Item>,
}

pub(crate) fn members_key() -> Item {
    values([(EVENT_ID, text(MEMBERS_KEY))])
}

/// `None` if the update changes nothing.
pub(crate) fn members_expression(update: &MembershipUpdate) -> Option<MembersExpression> {
    let mut expression = MembersExpression {
        update: String::new(),
        names: std::collections::HashMap::new(),
        values: None,
    };
    if let Some(own) = &update.own {
        expression.update.push_str("SET #o = :o");
        expression.names.insert("#o".to_owned(), own.id.to_string());
        expression.values = Some(values([(":o", AttributeValue::M(entry(own)))]));
    }
    for (index, name) in update.remove.iter().enumerate() {
        let separator = if index == 0 { " REMOVE" } else { "," };
        expression.update.push_str(&format!("{separator} #r{index}"));
        expression.names.insert(format!("#r{index}"), name.clone());
    }
    (!expression.names.is_empty()).then_some(expression)
}

fn entry(own: &MemberEntry) -> Item {
    let Announcement { shards, version, address, started_at, clock } = &own.announcement;
    let mut entry = values([
        (BEAT, number(own.beat)),
        (INTERVAL_MS, number(own.interval.0 / 1_000)),
        (BEAT_AT, text(timestamp(own.beat_at))),
        (SHARDS, number(shards)),
        (PROGRAM_VERSION, text(version)),
        (ADDRESS, text(address)),
        (STARTED_AT, text(timestamp(*started_at))),
    ]);
    if let Some(ClockOffset { ahead_ms, error_ms }) = clock {
        entry.insert(CLOCK_AHEAD_MS.to_owned(), number(ahead_ms));
        entry.insert(CLOCK_ERROR_MS.to_owned(), number(error_ms));
    }
    entry
}

/// Reads the item: by id, at most [`limits::MEMBERS_READ_MAX`] attributes. `None`: there is no item.
pub(crate) fn members(item: Option<&Item>) -> MembersRead {
    let mut attributes: Vec<(ProcessId, &str, &AttributeValue)> = item
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.parse().ok()?, name.as_str(), value)))
        .collect();
    attributes.sort_unstable_by_key(|(id, ..)| *id);
    let mut read = MembersRead::default();
    for (id, name, value) in attributes.into_iter().take(limits::MEMBERS_READ_MAX) {
        match value.as_m().ok().and_then(|entry| member(id, entry).ok()) {
            Some(entry) => read.entries.push(entry),
            None => read.unreadable.push(name.to_owned()),
        }
    }
    read
}

fn member(id: ProcessId, entry: &Item) -> Result<MemberEntry, String> {
    let clock = match (maybe_number(entry, CLOCK_AHEAD_MS)?, maybe_number(entry, CLOCK_ERROR_MS)?) {
        (Some(ahead_ms), Some(error_ms)) => Some(ClockOffset { ahead_ms, error_ms }),
        _ => None,
    };
    let label = |name| Ok::<_, String>(maybe_text(entry, name)?.unwrap_or_default().to_owned());
    let interval_ms: u64 = read_number(entry, INTERVAL_MS)?;
    Ok(MemberEntry {
        id,
        beat: read_number(entry, BEAT)?,
        interval: Micros(interval_ms.saturating_mul(1_000)),
        beat_at: read_timestamp(entry, BEAT_AT)?,
        announcement: Announcement {
            shards: maybe_number(entry, SHARDS)?.unwrap_or(1).max(1),
            version: label(PROGRAM_VERSION)?,
            address: label(ADDRESS)?,
            started_at: read_timestamp(entry, STARTED_AT)?,
            clock,
        }
        .bounded(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use inventory_core::time::UnixMillis;

    use super::*;

    fn of(id: u64) -> MemberEntry {
        MemberEntry {
            id: ProcessId(id),
            beat: 7,
            interval: Micros(3_000_000),
            beat_at: UnixMillis(1_704_110_400_250),
            announcement: Announcement {
                shards: 4,
                version: "0.1.0".to_owned(),
                address: "host:8080".to_owned(),
                started_at: UnixMillis(1_704_110_400_000),
                clock: Some(ClockOffset { ahead_ms: -1_200, error_ms: 80 }),
            },
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let written = of(0xab);
        let item = values([
            (EVENT_ID, text(MEMBERS_KEY)),
            ("00000000000000ab", AttributeValue::M(entry(&written))),
        ]);
        let read = members(Some(&item));
        assert_eq!(read, MembersRead { entries: vec![written], unreadable: Vec::new() });
        assert_eq!(members(None), MembersRead::default());
    }

    #[test]
    fn optional_attributes_may_be_missing_and_unknown_ones_are_ignored() {
        let mut sparse = entry(&of(1));
        for name in [SHARDS, PROGRAM_VERSION, ADDRESS, STARTED_AT, BEAT_AT, CLOCK_AHEAD_MS] {
            sparse.remove(name);
        }
        sparse.insert("zone".to_owned(), text("a"));
        let item = values([("0000000000000001", AttributeValue::M(sparse)), ("format", number(2))]);
        let read = members(Some(&item));
        assert_eq!((read.entries.len(), read.unreadable.len()), (1, 0));
        assert_eq!(read.entries[0].announcement.shards, 1);
        assert_eq!(read.entries[0].announcement.clock, None);
    }

    #[test]
    fn what_another_program_wrote_is_unreadable_and_hides_no_entry() {
        let mut no_beat = entry(&of(3));
        no_beat.remove(BEAT);
        let mut wrong = entry(&of(4));
        wrong.insert(INTERVAL_MS.to_owned(), text("soon"));
        let item = values([
            ("0000000000000001", text("nonsense")),
            ("0000000000000002", AttributeValue::M(entry(&of(2)))),
            ("0000000000000003", AttributeValue::M(no_beat)),
            ("0000000000000004", AttributeValue::M(wrong)),
            ("remaining", number(5)),
        ]);
        let read = members(Some(&item));
        assert_eq!(read.entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [2]);
        let unreadable = ["0000000000000001", "0000000000000003", "0000000000000004"];
        assert_eq!(read.unreadable, unreadable);
    }

    #[test]
    fn a_read_is_bounded_to_the_lowest_ids() {
        let more = limits::MEMBERS_READ_MAX + 20;
        let attribute = |id| (ProcessId(id).to_string(), AttributeValue::M(entry(&of(id))));
        let item: Item = (0..more as u64).map(attribute).collect();
        let read = members(Some(&item));
        assert_eq!(read.entries.len(), limits::MEMBERS_READ_MAX);
        assert_eq!(read.entries.last().unwrap().id.0, limits::MEMBERS_READ_MAX as u64 - 1);
    }

    #[test]
    fn one_expression_sets_the_own_entry_and_removes_others() {
        let remove = vec!["0000000000000002".to_owned(), "0000000000000003".to_owned()];
        let update = MembershipUpdate { own: Some(of(1)), remove: remove.clone() };
        let expression = members_expression(&update).unwrap();
        assert_eq!(expression.update, "SET #o = :o REMOVE #r0, #r1");
        assert_eq!(expression.names["#o"], "0000000000000001");
        assert_eq!(expression.names["#r1"], "0000000000000003");
        let update = MembershipUpdate { own: None, remove };
        let expression = members_expression(&update).unwrap();
        assert_eq!((expression.update.trim(), expression.values), ("REMOVE #r0, #r1", None));
        assert!(members_expression(&MembershipUpdate::default()).is_none());
    }

    #[test]
    fn an_item_with_the_most_members_stays_far_below_what_an_item_may_have() {
        let mut long = of(u64::MAX);
        long.announcement.version = "v".repeat(200);
        long.announcement.address = "a".repeat(200);
        long.announcement = long.announcement.bounded();
        let bytes = |item: &Item| -> usize {
            let value = |value: &AttributeValue| match value {
                AttributeValue::S(text) => text.len(),
                // Two digits take a byte.
                AttributeValue::N(digits) => digits.len().div_ceil(2) + 2,
                _ => 0,
            };
            item.iter().map(|(name, of)| name.len() + value(of) + 1).sum()
        };
        // What docs/operating.md calculates with.
        let usual = bytes(&entry(&of(1))) + 16 + 3;
        assert!((160..200).contains(&usual), "{usual}");
        assert!((bytes(&entry(&long)) + 16 + 3) * limits::MEMBERS_MAX < 40 * 1024);
    }
}
