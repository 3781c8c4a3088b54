//! Trackers that share a model of the membership item, each with clocks of its own.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use rand::SeedableRng;

use super::*;
use crate::membership::ClockOffset;
use crate::time::UnixMillis;

const INTERVAL: u64 = limits::BEAT_INTERVAL.as_micros() as u64;
const SECOND: u64 = 1_000_000;

/// The membership item: entries, and attributes that nobody can read.
#[derive(Default)]
struct ModelItem {
    entries: BTreeMap<ProcessId, MemberEntry>,
    unreadable: Vec<String>,
}

impl ModelItem {
    fn apply(&mut self, update: &MembershipUpdate) -> MembersRead {
        for name in &update.remove {
            if let Ok(id) = name.parse() {
                self.entries.remove(&id);
            }
            self.unreadable.retain(|unreadable| unreadable != name);
        }
        if let Some(own) = &update.own {
            self.entries.insert(own.id, own.clone());
        }
        self.read()
    }

    fn read(&self) -> MembersRead {
        let entries = self.entries.values().cloned().collect();
        MembersRead { entries, unreadable: self.unreadable.clone() }
    }

    fn ids(&self) -> Vec<u64> {
        self.entries.keys().map(|id| id.0).collect()
    }
}

/// One process: its tracker, and how far its clocks are from those of the test.
struct TestProcess {
    tracker: BeatTracker,
    mono_ahead: u64,
    unix: u64,
    /// Neither sends nor receives.
    is_stopped: bool,
    /// Its updates fail.
    is_cut_off: bool,
}

impl TestProcess {
    fn new(id: u64) -> Self {
        let announcement = Announcement {
            shards: 2,
            version: "1.0.0".to_owned(),
            address: format!("host-{id}:8080"),
            started_at: UnixMillis(1_000),
            clock: None,
        };
        let rng = SmallRng::seed_from_u64(id);
        Self {
            tracker: BeatTracker::new(ProcessId(id), announcement, rng),
            // No two clocks are alike.
            mono_ahead: id * 7_919,
            unix: 1_700_000_000_000 + id * 86_400_000,
            is_stopped: false,
            is_cut_off: false,
        }
    }

    fn now(&self, at: u64) -> Now {
        Now { mono: Micros(at + self.mono_ahead), unix: UnixMillis(self.unix + at / 1_000) }
    }

    fn step(&mut self, item: &mut ModelItem, at: u64) {
        if self.is_stopped {
            return;
        }
        let now = self.now(at);
        let Some(update) = self.tracker.poll_update(now, None) else { return };
        match self.is_cut_off {
            true => self.tracker.handle_failure(now),
            false => self.tracker.handle_read(item.apply(&update), now),
        }
    }

    fn sees(&self) -> Vec<u64> {
        self.tracker.members().all().iter().map(|member| member.id.0).collect()
    }
}

/// Processes on one item, in virtual time.
struct Fleet {
    item: ModelItem,
    processes: BTreeMap<u64, TestProcess>,
    at: u64,
}

impl Fleet {
    fn of(ids: impl IntoIterator<Item = u64>) -> Self {
        let processes = ids.into_iter().map(|id| (id, TestProcess::new(id))).collect();
        Self { item: ModelItem::default(), processes, at: 0 }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.at + (seconds * SECOND as f64) as u64;
        while self.at < end {
            self.at += SECOND / 20;
            for process in self.processes.values_mut() {
                process.step(&mut self.item, self.at);
            }
        }
    }

    fn process(&mut self, id: u64) -> &mut TestProcess {
        self.processes.get_mut(&id).unwrap()
    }

    #[track_caller]
    fn assert_all_see(&self, ids: &[u64]) {
        for id in ids {
            assert_eq!(self.processes[id].sees(), ids, "process {id} at {} s", self.at / SECOND);
        }
    }
}

#[test]
fn processes_see_each_other_after_their_next_beat() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(4.0);
    fleet.assert_all_see(&[1, 2, 3]);
    // A view is reported once, when it changed.
    let changed = fleet.process(1).tracker.poll_members();
    assert_eq!(changed.unwrap().count(), 3);
    assert_eq!(fleet.process(1).tracker.poll_members(), None);
    fleet.run(60.0);
    assert_eq!(fleet.process(1).tracker.poll_members(), None, "nobody came or went");
    fleet.processes.insert(9, TestProcess::new(9));
    fleet.run(0.1);
    assert_eq!(fleet.processes[&9].sees(), [1, 2, 3, 9], "a new process takes everybody as alive");
    fleet.run(4.0);
    fleet.assert_all_see(&[1, 2, 3, 9]);
}

#[test]
fn beats_of_one_process_come_every_three_seconds_with_jitter() {
    let mut process = TestProcess::new(1);
    let mut item = ModelItem::default();
    let (mut at, mut sent) = (0, Vec::new());
    while at < 600 * SECOND {
        at = process
            .tracker
            .poll_timeout()
            .unwrap()
            .0
            .saturating_sub(process.mono_ahead)
            .max(at + 1);
        process.step(&mut item, at);
        sent.push(at);
    }
    let spans: Vec<u64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let part = INTERVAL / 10;
    assert!(spans.iter().all(|span| span.abs_diff(INTERVAL) <= part + 1), "{spans:?}");
    assert!(spans.iter().any(|span| span.abs_diff(INTERVAL) > part / 2), "{spans:?}");
    assert_eq!(item.entries[&ProcessId(1)].beat, sent.len() as u64);
}

#[test]
fn a_killed_process_is_forgotten_after_three_missed_beats_and_its_entry_removed() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(20.0);
    fleet.processes.remove(&2);
    // The latest beat may have been seen up to an interval after it was sent, so never before two intervals.
    fleet.run(5.5);
    assert_eq!(fleet.processes[&1].sees(), [1, 2, 3], "forgotten too soon");
    fleet.run(11.0);
    fleet.assert_all_see(&[1, 3]);
    fleet.run(4.0);
    assert_eq!(fleet.item.ids(), [1, 3]);
}

#[test]
fn single_lost_beats_change_nothing() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    fleet.process(1).tracker.poll_members();
    for _ in 0..20 {
        fleet.process(2).is_cut_off = true;
        // One beat at most is due in this time.
        fleet.run(2.6);
        fleet.process(2).is_cut_off = false;
        fleet.run(3.4);
    }
    assert_eq!(fleet.process(1).tracker.poll_members(), None);
    fleet.assert_all_see(&[1, 2, 3]);
}

#[test]
fn a_process_that_leaves_is_gone_with_the_next_beat_of_the_others() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    let at = fleet.at;
    let leaving = fleet.process(2);
    let now = leaving.now(at);
    leaving.tracker.handle_leave(now);
    fleet.run(0.1);
    assert_eq!(fleet.item.ids(), [1, 3], "the entry is removed at once");
    assert!(fleet.processes[&2].tracker.has_left());
    assert_eq!(fleet.processes[&2].tracker.poll_timeout(), None, "and never written again");
    fleet.run(3.4);
    fleet.assert_all_see(&[1, 3]);
    fleet.run(60.0);
    assert_eq!(fleet.item.ids(), [1, 3]);
}

#[test]
fn a_beat_in_flight_at_the_leave_is_removed_after_its_outcome() {
    for fails in [false, true] {
        let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
        let now = process.now(0);
        let update = process.tracker.poll_update(now, None).unwrap();
        process.tracker.handle_leave(now);
        assert_eq!(process.tracker.poll_update(now, None), None, "one update at a time");
        // Also when its answer is lost, the update may have been applied.
        let read = item.apply(&update);
        match fails {
            true => process.tracker.handle_failure(now),
            false => process.tracker.handle_read(read, now),
        }
        assert!(!process.tracker.has_left());
        process.step(&mut item, 0);
        assert!(process.tracker.has_left() && item.ids().is_empty(), "fails: {fails}");
    }
}

#[test]
fn a_leave_that_fails_is_tried_again_soon() {
    let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
    process.step(&mut item, 0);
    let now = process.now(SECOND);
    process.tracker.handle_leave(now);
    process.is_cut_off = true;
    process.step(&mut item, SECOND);
    process.is_cut_off = false;
    process.step(&mut item, SECOND + SECOND / 2);
    assert!(process.tracker.has_left() && item.ids().is_empty());
}

#[test]
fn a_stopped_process_is_forgotten_and_comes_back_with_its_next_beat() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    fleet.process(2).is_stopped = true;
    fleet.run(30.0);
    assert_eq!((fleet.processes[&1].sees(), fleet.item.ids()), (vec![1, 3], vec![1, 3]));
    fleet.process(2).is_stopped = false;
    fleet.run(4.0);
    fleet.assert_all_see(&[1, 2, 3]);
}

#[test]
fn a_stopped_observer_does_not_remove_those_that_went_on() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    // Stopped between an update and its answer, which it reads after thirty seconds.
    let (late, update) = {
        let at = fleet.at + 2 * INTERVAL;
        let process = fleet.process(2);
        let now = process.now(at);
        (now, process.tracker.poll_update(now, None).unwrap())
    };
    let answer = fleet.item.apply(&update);
    fleet.process(2).is_stopped = true;
    fleet.run(30.0);
    let after = Now { mono: late.mono.plus(Micros(30 * SECOND)), ..late };
    fleet.process(2).tracker.handle_read(answer, after);
    assert_eq!(fleet.processes[&2].sees(), [1, 2, 3]);
    fleet.process(2).is_stopped = false;
    fleet.at += 3 * INTERVAL;
    fleet.run(0.1);
    assert_eq!(fleet.item.ids(), [1, 2, 3]);
}

#[test]
fn an_outage_of_the_item_for_all_makes_nobody_forgotten() {
    let mut fleet = Fleet::of([1, 2, 3, 4]);
    fleet.run(10.0);
    for id in 1..=4 {
        fleet.process(id).is_cut_off = true;
        fleet.process(id).tracker.poll_members();
    }
    fleet.run(300.0);
    fleet.assert_all_see(&[1, 2, 3, 4]);
    // The first one that reads the item again sees no new beats.
    for id in 1..=4 {
        fleet.process(id).is_cut_off = false;
        fleet.run(0.9);
        let seen = fleet.processes[&id].sees();
        assert_eq!(seen, [1, 2, 3, 4], "process {id}");
    }
    fleet.run(30.0);
    for id in 1..=4 {
        assert_eq!(fleet.process(id).tracker.poll_members(), None, "process {id}");
    }
}

#[test]
fn a_process_that_cannot_reach_the_item_keeps_its_last_members() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    fleet.process(2).is_cut_off = true;
    fleet.run(600.0);
    // They disagree, which costs conflicts and nothing else.
    assert_eq!(fleet.processes[&2].sees(), [1, 2, 3]);
    assert_eq!(fleet.processes[&1].sees(), [1, 3]);
    fleet.process(2).is_cut_off = false;
    fleet.run(4.0);
    fleet.assert_all_see(&[1, 2, 3]);
}

#[test]
fn a_member_that_died_during_an_outage_is_forgotten_after_it() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    for id in [1, 3] {
        fleet.process(id).is_cut_off = true;
    }
    fleet.processes.remove(&2);
    fleet.run(300.0);
    for id in [1, 3] {
        fleet.process(id).is_cut_off = false;
    }
    fleet.run(17.0);
    fleet.assert_all_see(&[1, 3]);
}

#[test]
fn jumps_of_wall_clocks_change_nothing() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    for id in 1..=3 {
        fleet.process(id).tracker.poll_members();
    }
    for jump in [-3_600_000_i64, 86_400_000, -1_000_000_000_000, 1_000_000_000_000] {
        let unix = fleet.process(2).unix;
        fleet.process(2).unix = unix.saturating_add_signed(jump);
        fleet.run(20.0);
        for id in 1..=3 {
            assert_eq!(fleet.process(id).tracker.poll_members(), None, "process {id}, {jump} ms");
        }
    }
    fleet.assert_all_see(&[1, 2, 3]);
}

#[test]
fn a_restarted_process_is_a_new_member_and_the_old_one_is_forgotten() {
    let mut fleet = Fleet::of([1, 2]);
    fleet.run(10.0);
    fleet.processes.remove(&2);
    fleet.processes.insert(7, TestProcess::new(7));
    fleet.run(1.0);
    assert_eq!(fleet.processes[&7].sees(), [1, 2, 7], "the new one cannot tell yet");
    fleet.run(16.0);
    fleet.assert_all_see(&[1, 7]);
}

#[test]
fn an_item_that_was_deleted_is_written_again() {
    let mut fleet = Fleet::of([1, 2, 3]);
    fleet.run(10.0);
    fleet.item = ModelItem::default();
    fleet.run(7.0);
    fleet.assert_all_see(&[1, 2, 3]);
}

#[test]
fn a_full_item_lists_the_bound_and_the_others_go_on_unlisted() {
    let most = limits::MEMBERS_MAX as u64;
    let mut fleet = Fleet::of(1..=most + 3);
    fleet.run(60.0);
    assert_eq!(fleet.item.entries.len(), limits::MEMBERS_MAX);
    let unlisted: Vec<u64> = fleet
        .processes
        .values()
        .filter(|p| p.tracker.is_unlisted())
        .map(|p| p.tracker.own.id.0)
        .collect();
    assert_eq!(unlisted, [most + 1, most + 2, most + 3]);
    // An unlisted process takes its part beside the others, because alone it would conflict with all of them.
    assert_eq!(fleet.processes[&(most + 1)].sees().len(), limits::MEMBERS_MAX + 1);
    fleet.processes.remove(&5);
    fleet.run(240.0);
    assert_eq!(fleet.item.entries.len(), limits::MEMBERS_MAX, "one of them takes the free place");
    let unlisted = fleet.processes.values().filter(|p| p.tracker.is_unlisted()).count();
    assert_eq!(unlisted, 2);
}

#[test]
fn many_members_beat_less_often_and_are_forgotten_by_the_interval_that_they_announce() {
    let mut fleet = Fleet::of(1..=48);
    fleet.run(60.0);
    let interval = fleet.item.entries[&ProcessId(1)].interval;
    assert_eq!(interval, Micros(3 * INTERVAL));
    fleet.processes.remove(&9);
    fleet.run(16.0);
    assert_eq!(fleet.processes[&1].sees().len(), 48, "two intervals of 9 s have not passed");
    fleet.run(34.0);
    assert_eq!(fleet.processes[&1].sees().len(), 47);
}

#[test]
fn a_wrong_interval_keeps_no_member_for_ever() {
    let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
    process.step(&mut item, 0);
    for (id, interval) in [(2, Micros(0)), (3, Micros(u64::MAX))] {
        let mut entry = item.entries[&ProcessId(1)].clone();
        (entry.id, entry.interval) = (ProcessId(id), interval);
        item.entries.insert(entry.id, entry);
    }
    let mut at = 0;
    while at < 200 * SECOND {
        at += SECOND;
        process.step(&mut item, at);
    }
    assert_eq!((process.sees(), item.ids()), (vec![1], vec![1]));
}

#[test]
fn unreadable_entries_are_no_members_and_are_removed_after_a_minute() {
    let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
    item.unreadable = vec!["00000000000000ff".to_owned()];
    let mut at = 0;
    while at < 50 * SECOND {
        process.step(&mut item, at);
        at += SECOND;
    }
    assert_eq!((process.sees(), process.tracker.unreadable()), (vec![1], 1));
    assert_eq!(item.unreadable.len(), 1, "a later version may have written it");
    while at < 80 * SECOND {
        process.step(&mut item, at);
        at += SECOND;
    }
    assert_eq!((item.unreadable.len(), process.tracker.unreadable()), (0, 0));
}

#[test]
fn one_beat_removes_a_bounded_number_of_entries() {
    let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
    item.unreadable = (0..200).map(|n| format!("{n:016x}")).collect();
    process.step(&mut item, 0);
    let now = process.now(100 * SECOND);
    let update = process.tracker.poll_update(now, None).unwrap();
    assert_eq!(update.remove.len(), limits::MEMBERS_REMOVED_AT_ONCE);
}

#[test]
fn statuses_name_the_own_process_and_the_forgotten_ones() {
    let mut fleet = Fleet::of([1, 2]);
    fleet.run(10.0);
    fleet.processes.remove(&2);
    let mut statuses = Vec::new();
    while fleet.item.entries.len() == 2 {
        assert!(fleet.at < 60 * SECOND, "never removed");
        statuses = fleet.processes[&1].tracker.statuses();
        fleet.run(0.05);
    }
    let seen: Vec<_> =
        statuses.iter().map(|one| (one.entry.id.0, one.is_own, one.is_alive)).collect();
    assert_eq!(seen, [(1, true, true), (2, false, false)]);
    assert!(statuses[1].changed_at < statuses[0].changed_at);
}

#[test]
fn the_largest_difference_of_clocks_is_reported() {
    let (mut item, mut process) = (ModelItem::default(), TestProcess::new(1));
    process.step(&mut item, 0);
    let clock = |ahead_ms| Some(ClockOffset { ahead_ms, error_ms: 100 });
    for (id, clock) in [(2, clock(400)), (3, clock(-2_000)), (4, None)] {
        let mut entry = item.entries[&ProcessId(1)].clone();
        (entry.id, entry.announcement.clock) = (ProcessId(id), clock);
        item.entries.insert(entry.id, entry);
    }
    assert_eq!(process.tracker.clock_difference_ms(), None, "the own clock is not measured yet");
    let now = process.now(10 * SECOND);
    let update = process.tracker.poll_update(now, clock(0)).unwrap();
    assert_eq!(update.own.as_ref().unwrap().announcement.clock, clock(0));
    process.tracker.handle_read(item.apply(&update), now);
    assert_eq!(process.tracker.clock_difference_ms(), Some((ProcessId(3), 1_800)));
}
