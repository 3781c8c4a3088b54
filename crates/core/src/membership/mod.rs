//! The server processes that sell from one store (the members), as one process sees them.
//!
//! Membership is a hint. It decides which stripes and seats a process prefers, and how often it reads the expiry index.
//! It never decides whether a write is valid, or the answer to a caller: processes that disagree about the members
//! conflict more often, and nothing else happens.
//!
//! `tracker.rs` keeps the members up to date by beats: each process announces itself in one item of the store.

mod tracker;

use std::fmt;
use std::str::FromStr;

use crate::limits::{MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX};
use crate::time::{Micros, UnixMillis};

pub use tracker::{BeatTracker, MemberStatus};

/// Identifier of one run of a process: random and new at each start, so that a restarted process is a new member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    /// 16 hexadecimal digits, as stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ProcessId {
    type Err = NotAProcessId;

    fn from_str(text: &str) -> Result<Self, NotAProcessId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(NotAProcessId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAProcessId)
    }
}

/// A text is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not 16 hexadecimal digits")]
pub struct NotAProcessId;

/// Offset of a process's clock from the store's, as the process measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Milliseconds by which the clock is ahead of the store's; negative: behind.
    pub ahead_ms: i64,
    /// How far `ahead_ms` may be wrong, in milliseconds.
    pub error_ms: u64,
}

impl ClockOffset {
    /// The least difference in milliseconds between the clocks of two processes that agrees with both measurements.
    pub fn least_difference_ms(self, other: Self) -> u64 {
        let difference = self.ahead_ms.abs_diff(other.ahead_ms);
        difference.saturating_sub(self.error_ms.saturating_add(other.error_ms))
    }
}

/// What a process announces of itself. The number of shards has an effect; everything else is shown to operators only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// At least 1.
    pub shards: u16,
    /// At most [`MEMBER_TEXT_BYTES_MAX`] bytes, as `address`; longer texts are cut.
    pub version: String,
    pub address: String,
    pub started_at: UnixMillis,
    /// `None`: not measured yet.
    pub clock: Option<ClockOffset>,
}

impl Announcement {
    /// With the texts cut to their bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        cut(&mut self.version);
        cut(&mut self.address);
        self
    }
}

fn cut(text: &mut String) {
    let end = (0..=MEMBER_TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// One entry of the membership item: a process and its latest beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    pub id: ProcessId,
    /// Number of the beat. A change proves that the process was alive; the value has no other meaning.
    pub beat: u64,
    /// Announced time until the next beat.
    pub interval: Micros,
    /// Wall-clock time of the beat by the process's own clock. Shown to operators; nothing is decided by it.
    pub beat_at: UnixMillis,
    pub announcement: Announcement,
}

/// What a process changes in the membership item with one beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipUpdate {
    /// The entry of this process; `None` if it is not listed: the item is full, or the process leaves.
    pub own: Option<MemberEntry>,
    /// Attributes to remove: entries of processes that stopped beating, and entries that cannot be read.
    pub remove: Vec<String>,
}

/// The membership item after a beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersRead {
    pub entries: Vec<MemberEntry>,
    /// Names of the attributes that should be entries and cannot be read.
    pub unreadable: Vec<String>,
}

/// A process that sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ProcessId,
    /// Number of its shards, at least 1.
    pub shards: u16,
}

/// All members, this process among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// By id, without duplicates; never empty.
    members: Vec<Member>,
    /// Position of this process.
    own: usize,
}

impl Members {
    /// This process alone.
    pub fn single(own: Member) -> Self {
        Self { members: vec![own], own: 0 }
    }

    /// This process and others. Of several entries with one id the first counts; an entry with the id of this process
    /// is ignored.
    pub fn new(own: Member, others: impl IntoIterator<Item = Member>) -> Self {
        // The sort is stable, so this process comes first among entries with its id.
        let mut members: Vec<Member> = std::iter::once(own).chain(others).collect();
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let position = members.iter().position(|member| member.id == own.id).unwrap_or(0);
        Self { members, own: position }
    }

    /// Configured members: this is process `index` of `count`, and all have as many shards as this one. `count` is 1 to
    /// [`MEMBERS_MAX`], `index` is below `count`. Every process derives the same members.
    pub fn fixed(index: u16, count: u16, shards: u16) -> Self {
        let member = |index| Member { id: ProcessId(u64::from(index) + 1), shards };
        let count = count.clamp(1, MEMBERS_MAX as u16);
        Self::new(member(index.min(count - 1)), (0..count).map(member))
    }

    /// By id.
    pub fn all(&self) -> &[Member] {
        &self.members
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Position of this process among the members, from 0.
    pub fn own_position(&self) -> usize {
        self.own
    }

    pub fn own(&self) -> Option<Member> {
        self.members.get(self.own).copied()
    }

    /// Fraction of the stripes of an event that this process owns, above 0 and at most 1: equal for all processes,
    /// whatever their numbers of shards.
    pub fn own_share(&self) -> f64 {
        1.0 / self.members.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, shards: u16) -> Member {
        Member { id: ProcessId(id), shards }
    }

    #[test]
    fn members_are_ordered_by_id_and_this_process_is_always_among_them() {
        let members = Members::new(member(5, 2), [member(9, 1), member(5, 7), member(1, 4)]);
        assert_eq!(members.all(), [member(1, 4), member(5, 2), member(9, 1)]);
        assert_eq!((members.own_position(), members.own()), (1, Some(member(5, 2))));
        assert_eq!(Members::single(member(3, 1)).count(), 1);
    }

    #[test]
    fn configured_processes_derive_the_same_members() {
        let views: Vec<Members> = (0..3).map(|index| Members::fixed(index, 3, 2)).collect();
        for (index, view) in views.iter().enumerate() {
            assert_eq!(view.all(), views[0].all());
            assert_eq!((view.count(), view.own_position()), (3, index));
        }
    }

    #[test]
    fn processes_have_equal_shares() {
        let members = Members::new(member(5, 2), [member(9, 1), member(1, 5), member(7, 5)]);
        assert_eq!(members.own_share(), 0.25);
        assert_eq!(Members::single(member(3, 1)).own_share(), 1.0);
    }

    #[test]
    fn process_ids_are_sixteen_hexadecimal_digits() {
        assert_eq!(ProcessId(0xab).to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(ProcessId(0xab)));
        for wrong in [
            "",
            "ab",
            "00000000000000AB",
            "+0000000000000ab",
            "00000000000000abc",
            "é000000000000000",
        ] {
            assert_eq!(wrong.parse::<ProcessId>(), Err(NotAProcessId), "{wrong}");
        }
    }

    #[test]
    fn clocks_differ_only_beyond_the_errors_of_both_measurements() {
        let clock = |ahead_ms, error_ms| ClockOffset { ahead_ms, error_ms };
        assert_eq!(clock(700, 50).least_difference_ms(clock(-700, 50)), 1_300);
        assert_eq!(clock(700, 800).least_difference_ms(clock(-700, 800)), 0);
        assert_eq!(clock(i64::MAX, 0).least_difference_ms(clock(i64::MIN, 0)), u64::MAX);
    }

    #[test]
    fn announced_texts_are_cut_between_characters() {
        let long = "é".repeat(MEMBER_TEXT_BYTES_MAX);
        let announcement = Announcement {
            shards: 1,
            version: long,
            address: "a".to_owned(),
            started_at: UnixMillis(0),
            clock: None,
        };
        let bounded = announcement.bounded();
        assert_eq!(bounded.version.len(), MEMBER_TEXT_BYTES_MAX);
        assert_eq!(bounded.address, "a");
    }
}
