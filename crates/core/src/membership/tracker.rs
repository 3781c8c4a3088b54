//! Beats: announces this process, and judges which of the others are alive.
//!
//! A state machine without I/O. [`BeatTracker::poll_update`] returns the update to send, [`BeatTracker::handle_read`]
//! and [`BeatTracker::handle_failure`] take its outcome, [`BeatTracker::poll_members`] returns the members if they
//! changed.
//!
//! Clocks are never compared. A member is alive while the number of its beat changes, timed by the monotonic clock of
//! the observer:
//!
//! 1. An entry whose beat is new counts as changed when the answer arrived (`changed_at`).
//! 2. An entry whose beat is the same was unchanged when the request was sent. If that is [`limits::MISSED_BEATS_MAX`]
//!    announced intervals after `changed_at`, the member is forgotten, and the next beat removes the entry.
//! 3. An observer that did not read the item for some intervals cannot tell who missed beats: it starts again with
//!    every entry, as a new observer does.
//!
//! An observer that cannot read the item keeps the members of its last read.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use super::{
    Announcement, ClockOffset, Member, MemberEntry, Members, MembersRead, MembershipUpdate,
    ProcessId,
};
use crate::fault::{Fault, planted};
use crate::limits;
use crate::time::{Micros, Now};

/// A process as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub entry: MemberEntry,
    pub is_own: bool,
    /// Whether the process counts as a member.
    pub is_alive: bool,
    /// When this process saw the latest change of the beat, by its own clock.
    pub changed_at: Micros,
}

/// What an observer knows of another process.
#[derive(Clone, Debug)]
struct Observed {
    entry: MemberEntry,
    changed_at: Micros,
    is_alive: bool,
}

/// Whether this process announces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Announcing,
    /// The item is full: the process reads the item, and announces itself when there is space.
    Unlisted {
        has_entry: bool,
    },
    Leaving,
    Left,
}

/// An update whose outcome is not known yet.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    sent: Micros,
    /// Whether it removes the entry of this process for good.
    is_leave: bool,
}

/// See the head of the file.
#[derive(Debug)]
pub struct BeatTracker {
    own: Member,
    announcement: Announcement,
    rng: SmallRng,
    stage: Stage,
    beat: u64,
    /// When the next beat is due.
    due: Micros,
    in_flight: Option<InFlight>,
    /// When the item was read last.
    read_at: Option<Micros>,
    /// The own entry as it was sent last.
    own_entry: Option<(MemberEntry, Micros)>,
    others: BTreeMap<ProcessId, Observed>,
    /// Attributes that cannot be read, and since when they have been there.
    unreadable: BTreeMap<String, Micros>,
    members: Rc<Members>,
    is_changed: bool,
}

impl BeatTracker {
    /// The first beat is due at once.
    pub fn new(id: ProcessId, announcement: Announcement, rng: SmallRng) -> Self {
        let announcement = announcement.bounded();
        let own = Member { id, shards: announcement.shards };
        Self {
            own,
            announcement,
            rng,
            stage: Stage::Announcing,
            beat: 0,
            due: Micros(0),
            in_flight: None,
            read_at: None,
            own_entry: None,
            others: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            members: Rc::new(Members::single(own)),
            is_changed: false,
        }
    }

    /// When [`BeatTracker::poll_update`] has an update; `None` while one is in flight, and after the process has left.
    pub fn poll_timeout(&self) -> Option<Micros> {
        let is_over = self.in_flight.is_some() || self.stage == Stage::Left;
        (!is_over).then_some(self.due)
    }

    /// The update to send, if it is due. `clock` is the offset of the local clock, as far as it is known.
    pub fn poll_update(
        &mut self,
        now: Now,
        clock: Option<ClockOffset>,
    ) -> Option<MembershipUpdate> {
        if self.poll_timeout().is_none_or(|due| due > now.mono) {
            return None;
        }
        let is_leave = self.stage == Stage::Leaving;
        self.in_flight = Some(InFlight { sent: now.mono, is_leave });
        let mut update = MembershipUpdate { own: None, remove: self.removable(now.mono) };
        match self.stage {
            Stage::Announcing => {
                self.beat += 1;
                self.announcement.clock = clock;
                let entry = MemberEntry {
                    id: self.own.id,
                    beat: self.beat,
                    interval: self.interval(),
                    beat_at: now.unix,
                    announcement: self.announcement.clone(),
                };
                self.own_entry = Some((entry.clone(), now.mono));
                update.own = Some(entry);
            }
            Stage::Unlisted { has_entry: false } => {}
            Stage::Leaving if planted(Fault::LeaveKeepsEntry) => {}
            Stage::Unlisted { has_entry: true } | Stage::Leaving => {
                update.remove.insert(0, self.own.id.to_string());
            }
            Stage::Left => return None,
        }
        update.remove.truncate(limits::MEMBERS_REMOVED_AT_ONCE);
        Some(update)
    }

    /// The item as it was after the update in flight.
    pub fn handle_read(&mut self, read: MembersRead, now: Now) {
        let Some(InFlight { sent, is_leave }) = self.in_flight.take() else { return };
        match self.stage {
            Stage::Leaving if is_leave => self.stage = Stage::Left,
            // An update that was in flight when the process began to leave: the entry is removed now.
            Stage::Leaving => self.due = now.mono,
            _ => self.due = now.mono.plus(self.jittered()),
        }
        if is_leave {
            return;
        }
        let unobserved = Micros(self.interval().0 * limits::UNOBSERVED_INTERVALS_MAX);
        let is_gap = self.read_at.is_none_or(|at| sent.since(at) > unobserved);
        self.read_at = Some(now.mono);
        self.update_stage(&read);
        self.observe(read, is_gap, sent, now);
        self.refresh_members();
    }

    /// The update in flight failed, or its outcome is unknown. The members stay those of the last read.
    pub fn handle_failure(&mut self, now: Now) {
        let Some(InFlight { is_leave, .. }) = self.in_flight.take() else { return };
        self.due = now.mono.plus(match self.stage {
            Stage::Leaving if is_leave => micros(limits::LEAVE_RETRY_PAUSE),
            Stage::Leaving => Micros(0),
            _ => self.jittered(),
        });
    }

    /// The process drains: the next update removes its entry. It is due at once, or after the outcome of the update in
    /// flight, which would otherwise write the entry again.
    pub fn handle_leave(&mut self, now: Now) {
        if matches!(self.stage, Stage::Leaving | Stage::Left) {
            return;
        }
        self.stage = Stage::Leaving;
        self.due = now.mono;
    }

    /// The members, if they have changed since the last call.
    pub fn poll_members(&mut self) -> Option<Rc<Members>> {
        std::mem::take(&mut self.is_changed).then(|| Rc::clone(&self.members))
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether the process has removed its entry.
    pub fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    /// Whether the item is full, so that the others do not see this process.
    pub fn is_unlisted(&self) -> bool {
        matches!(self.stage, Stage::Unlisted { .. })
    }

    /// Attributes of the item that should be entries and cannot be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// All processes in the item as it was read last, and this one.
    pub fn statuses(&self) -> Vec<MemberStatus> {
        let own = self.own_entry.iter().map(|(entry, at)| MemberStatus {
            entry: entry.clone(),
            is_own: true,
            is_alive: true,
            changed_at: *at,
        });
        let others = self.others.values().map(|observed| MemberStatus {
            entry: observed.entry.clone(),
            is_own: false,
            is_alive: observed.is_alive,
            changed_at: observed.changed_at,
        });
        own.chain(others).collect()
    }

    /// The largest difference between the clocks of this process and of another member that agrees with the
    /// measurements of both, in milliseconds; `None` if no other member has measured its clock, or this one has not.
    pub fn clock_difference_ms(&self) -> Option<(ProcessId, u64)> {
        let own = self.announcement.clock?;
        let others = self.others.values().filter(|observed| observed.is_alive);
        let differences = others.filter_map(|observed| {
            let other = observed.entry.announcement.clock?;
            Some((observed.entry.id, own.least_difference_ms(other)))
        });
        differences.max_by_key(|(_, difference)| *difference)
    }

    /// Interval of the own beats, without the random part.
    fn interval(&self) -> Micros {
        let base = micros(limits::BEAT_INTERVAL).0;
        let per_interval = limits::MEMBERS_PER_BEAT_INTERVAL as u64;
        let members = (self.members.count() as u64).clamp(per_interval, limits::MEMBERS_MAX as u64);
        Micros(base * members / per_interval)
    }

    fn jittered(&mut self) -> Micros {
        let interval = self.interval().0;
        let part = interval * limits::BEAT_JITTER_PERCENT / 100;
        Micros(self.rng.random_range(interval - part..=interval + part))
    }

    /// Attributes to remove: those of forgotten members, and entries that have been unreadable for long.
    fn removable(&self, now: Micros) -> Vec<String> {
        let forgotten = self.others.values().filter(|observed| !observed.is_alive);
        let age_max = micros(limits::UNREADABLE_MEMBER_AGE);
        let unreadable = self.unreadable.iter().filter(|(_, since)| now.since(**since) > age_max);
        let forgotten = forgotten.map(|observed| observed.entry.id.to_string());
        forgotten.chain(unreadable.map(|(name, _)| name.clone())).collect()
    }

    /// The item has at most [`limits::MEMBERS_MAX`] entries: those with the lowest ids, so that all processes agree.
    /// The other processes remove their entries, and add them again when there is space.
    fn update_stage(&mut self, read: &MembersRead) {
        let is_listed = read.entries.iter().any(|entry| entry.id == self.own.id);
        let lower = read.entries.iter().filter(|entry| entry.id < self.own.id).count();
        let has_space = match self.stage {
            Stage::Announcing => lower + read.unreadable.len() < limits::MEMBERS_MAX,
            // The ids do not matter here, so that a process that adds its entry again displaces no other.
            _ => read.entries.len() + read.unreadable.len() < limits::MEMBERS_MAX,
        };
        self.stage = match (self.stage, has_space) {
            (Stage::Announcing | Stage::Unlisted { .. }, true) => Stage::Announcing,
            (Stage::Announcing | Stage::Unlisted { .. }, false) => {
                Stage::Unlisted { has_entry: is_listed }
            }
            (stage, _) => stage,
        };
    }

    fn observe(&mut self, read: MembersRead, is_gap: bool, sent: Micros, now: Now) {
        let (now, unix) = (now.mono, now.unix);
        let mut before = std::mem::take(&mut self.others);
        for entry in read.entries.into_iter().filter(|entry| entry.id != self.own.id) {
            let known = before.remove(&entry.id);
            let is_same = known.as_ref().is_some_and(|known| known.entry.beat == entry.beat);
            let observed = match known {
                Some(known) if is_same => {
                    let changed_at = if is_gap { now } else { known.changed_at };
                    let has_missed = match planted(Fault::MemberJudgedByClock) {
                        true => {
                            unix.0.abs_diff(entry.beat_at.0)
                                >= forget_after(entry.interval).0 / 1_000
                        }
                        false => sent.since(changed_at) >= forget_after(entry.interval),
                    } && !planted(Fault::MemberNeverForgotten);
                    Observed { is_alive: known.is_alive && !has_missed, entry, changed_at }
                }
                _ => Observed { entry, changed_at: now, is_alive: true },
            };
            self.others.insert(observed.entry.id, observed);
        }
        let since = std::mem::take(&mut self.unreadable);
        let names = read.unreadable.into_iter();
        self.unreadable =
            names.map(|name| (name.clone(), since.get(&name).copied().unwrap_or(now))).collect();
    }

    fn refresh_members(&mut self) {
        let alive = self.others.values().filter(|observed| observed.is_alive);
        let others = alive.map(|observed| Member {
            id: observed.entry.id,
            shards: observed.entry.announcement.shards.max(1),
        });
        // There are more only while several processes join a full item at the same time.
        let members = Members::new(self.own, others.take(limits::MEMBERS_MAX));
        if members != *self.members {
            self.members = Rc::new(members);
            self.is_changed = true;
        }
    }
}

/// How long a beat may stay the same until its process is forgotten.
fn forget_after(announced: Micros) -> Micros {
    let (min, max) =
        (micros(limits::ANNOUNCED_INTERVAL_MIN), micros(limits::ANNOUNCED_INTERVAL_MAX));
    Micros(announced.0.clamp(min.0, max.0) * limits::MISSED_BEATS_MAX)
}

const fn micros(span: Duration) -> Micros {
    Micros(span.as_micros() as u64)
}

#[cfg(test)]
mod tests;
