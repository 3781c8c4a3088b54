//! The search for overdue holds alone, in virtual time: processes with clocks of their own read one expiry index while
//! holds are placed, the store is away, clocks jump, and processes freeze and restart.
//!
//! Rule: a process whose store answers and whose clock does not jump finds every overdue hold by itself, whatever the
//! other processes do and whichever members it sees, within a bound that depends on its turn alone.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::expiry_search::{
    ExpiryBucket, ExpirySearch, IndexRead, IndexReadResult, ReadTurn, SearchSettings,
};
use inventory_core::limits;
use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::time::{Micros, Now, UnixMillis};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::scenario::pick;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;

/// Wall-clock time at the start of a run, in milliseconds.
const EPOCH: u64 = 1_760_000_000_000;

/// How far the index is behind the table.
const LAG: u64 = SECOND;

/// An outage that is recognised as one, however the reads fall.
const OUTAGE: u64 = 15 * SECOND;

/// A hold is found within this time if nothing fails, and if reads fail at random.
const FOUND_WITHIN: u64 = 8 * SECOND;
const FOUND_WITHIN_FAULTS: u64 = 40 * SECOND;

/// How much later a process finds a hold that is another's turn: its patience and its interval.
fn delay_of(turn: ReadTurn) -> u64 {
    match turn {
        ReadTurn::First => 0,
        ReadTurn::Second => 11 * SECOND,
        ReadTurn::Later => 43 * SECOND,
    }
}

#[derive(Debug)]
struct IndexedHold {
    bucket: ExpiryBucket,
    expires_at: UnixMillis,
    /// When the write was applied.
    placed: u64,
    expired: Option<u64>,
    /// Cannot be expired.
    is_stuck: bool,
    /// Processes whose reads have found it.
    found_by: BTreeSet<usize>,
}

struct SearchProcess {
    /// The members by its own view, and when that last changed.
    members: Rc<Members>,
    members_since: u64,
    searches: Vec<ExpirySearch>,
    /// The scheduled poll of each shard.
    polls: Vec<Option<u64>>,
    /// Distinguishes the restarts.
    life: u32,
    /// Error of its wall clock, in milliseconds.
    error: i64,
    /// Time that its monotonic clock has missed while the machine was suspended.
    missed: u64,
    frozen_until: u64,
    /// End of its last disturbance, however short.
    undisturbed: u64,
    /// End of the last one after which it scans the whole index.
    scans_from: u64,
    reads: u64,
}

#[derive(Clone, Debug)]
enum SearchStep {
    Poll(usize, usize, u32),
    AtIndex(usize, usize, u32, IndexRead),
    Returned(usize, usize, u32, IndexRead, Option<Vec<usize>>),
    Place {
        expires_at: UnixMillis,
        is_stuck: bool,
    },
    Jump(usize, i64),
    Freeze {
        process: usize,
        length: u64,
        is_suspended: bool,
    },
    Restart(usize),
    /// The members that a process sees from now on, by id.
    See(usize, Vec<u64>),
    Check,
}

struct SearchWorld {
    processes: Vec<SearchProcess>,
    shards: usize,
    parts: u16,
    segments: u16,
    holds: Vec<IndexedHold>,
    /// Start and end of each outage, of one process or of all.
    outages: Vec<(u64, u64, Option<usize>)>,
    /// Reads that fail, in thousandths.
    faults: u32,
    /// Records in each segment that are not overdue.
    background: u64,
    now: u64,
    made: u64,
    agenda: BTreeMap<(u64, u64), SearchStep>,
    rng: SmallRng,
}

impl SearchWorld {
    fn new(seed: u64, processes: usize, shards: usize) -> Self {
        let mut world = Self {
            processes: Vec::new(),
            shards,
            parts: 4,
            segments: 2,
            holds: Vec::new(),
            outages: Vec::new(),
            faults: 0,
            background: 0,
            now: 0,
            made: 0,
            agenda: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(seed),
        };
        for process in 0..processes {
            world.processes.push(SearchProcess {
                members: members(process, &[]),
                members_since: 0,
                searches: Vec::new(),
                polls: vec![None; shards],
                life: 0,
                error: 0,
                missed: 0,
                frozen_until: 0,
                undisturbed: 0,
                scans_from: 0,
                reads: 0,
            });
        }
        world
    }

    fn make(&mut self, at: u64, step: SearchStep) {
        self.made += 1;
        self.agenda.insert((at.max(self.now), self.made), step);
    }

    fn start(&mut self) {
        for process in 0..self.processes.len() {
            self.restart(process);
        }
        self.make(SECOND, SearchStep::Check);
    }

    fn restart(&mut self, process: usize) {
        let (shards, parts, segments) = (self.shards, self.parts, self.segments);
        let every = Micros(limits::RECLAIM_EVERY.as_micros() as u64);
        let rng = &mut self.rng;
        let searches = (0..shards).map(|shard| {
            let settings = SearchSettings { shard, shards, parts, segments, every };
            ExpirySearch::new(settings, SmallRng::seed_from_u64(rng.random()))
        });
        let at = &mut self.processes[process];
        at.searches = searches.collect();
        for search in &mut at.searches {
            search.handle_membership(&at.members, Micros(self.now));
        }
        at.life += 1;
        at.polls.fill(None);
        self.disturb(process, self.now, true);
        for shard in 0..shards {
            self.schedule_poll(process, shard, self.now);
        }
    }

    fn schedule_poll(&mut self, process: usize, shard: usize, at: u64) {
        let of = &mut self.processes[process];
        if of.polls[shard].is_none_or(|scheduled| at < scheduled) {
            of.polls[shard] = Some(at);
            let life = of.life;
            self.make(at, SearchStep::Poll(process, shard, life));
        }
    }

    fn see(&mut self, process: usize, ids: &[u64]) {
        let now = self.clock(process).mono;
        let at = &mut self.processes[process];
        at.members = members(process, ids);
        at.members_since = self.now;
        for search in &mut at.searches {
            search.handle_membership(&at.members, now);
        }
        for shard in 0..self.shards {
            self.schedule_poll(process, shard, self.now);
        }
    }

    /// The last of the turns of a process for the reads that find a hold.
    fn turn(&self, process: usize, hold: &IndexedHold) -> ReadTurn {
        let (part, segment) = (hold.bucket.part % self.parts, hold.bucket.part % self.segments);
        let bucket = IndexRead::Bucket(ExpiryBucket { part, ..hold.bucket });
        let search = &self.processes[process].searches[0];
        search.turn(bucket).max(search.turn(IndexRead::Segment(segment)))
    }

    fn clock(&self, process: usize) -> Now {
        let of = &self.processes[process];
        let unix = (EPOCH + self.now / 1_000).saturating_add_signed(of.error);
        Now { mono: Micros(self.now.saturating_sub(of.missed)), unix: UnixMillis(unix) }
    }

    fn is_away(&self, process: usize) -> bool {
        let now = self.now;
        self.outages
            .iter()
            .any(|(from, to, of)| (*from..*to).contains(&now) && of.is_none_or(|of| of == process))
    }

    fn run(&mut self, until: u64) -> Result<(), String> {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), step) = entry.remove_entry();
            self.now = at;
            self.run_step(step)?;
        }
        self.now = until;
        Ok(())
    }

    fn run_step(&mut self, step: SearchStep) -> Result<(), String> {
        // A frozen process goes on where it stopped.
        let of = match &step {
            SearchStep::Poll(process, _, life) | SearchStep::Returned(process, _, life, ..) => {
                Some((*process, *life))
            }
            _ => None,
        };
        if let Some((process, life)) = of {
            if self.processes[process].life != life {
                return Ok(());
            }
            let thaw = self.processes[process].frozen_until;
            if thaw > self.now {
                self.make(thaw, step);
                return Ok(());
            }
        }
        match step {
            SearchStep::Poll(process, shard, life) => {
                // Unless an earlier one was scheduled later.
                if self.processes[process].polls[shard].is_some_and(|at| at <= self.now) {
                    self.poll(process, shard, life);
                }
            }
            SearchStep::AtIndex(process, shard, life, read) => {
                self.at_index(process, shard, life, read);
            }
            SearchStep::Returned(process, shard, _, read, found) => {
                self.returned(process, shard, read, found);
                self.schedule_poll(process, shard, self.now);
            }
            SearchStep::Place { expires_at, is_stuck } => {
                let id = format!("r{}", self.holds.len()).parse().unwrap();
                let bucket = ExpiryBucket::of(&id, expires_at);
                let placed = self.now;
                let hold = IndexedHold {
                    bucket,
                    expires_at,
                    placed,
                    expired: None,
                    is_stuck,
                    found_by: BTreeSet::new(),
                };
                self.holds.push(hold);
            }
            SearchStep::Jump(process, by) => {
                self.processes[process].error += by;
                self.disturb(process, self.now, true);
            }
            SearchStep::Freeze { process, length, is_suspended } => {
                let thaw = self.now + length;
                let at = &mut self.processes[process];
                if at.frozen_until <= self.now {
                    at.frozen_until = thaw;
                    at.missed += if is_suspended { length } else { 0 };
                    self.disturb(process, thaw, is_suspended || length >= OUTAGE);
                }
            }
            SearchStep::Restart(process) => {
                if self.processes[process].frozen_until <= self.now {
                    self.restart(process);
                }
            }
            SearchStep::See(process, ids) => self.see(process, &ids),
            SearchStep::Check => {
                self.check()?;
                self.make(self.now + SECOND, SearchStep::Check);
            }
        }
        Ok(())
    }

    fn disturb(&mut self, process: usize, until: u64, scans: bool) {
        let at = &mut self.processes[process];
        at.undisturbed = until.max(at.undisturbed);
        if scans {
            at.scans_from = until.max(at.scans_from);
        }
    }

    fn poll(&mut self, process: usize, shard: usize, life: u32) {
        let now = self.clock(process);
        self.processes[process].polls[shard] = None;
        while let Some(read) = self.processes[process].searches[shard].poll_read(now) {
            self.processes[process].reads += 1;
            let at = self.now + self.rng.random_range(1_000..10_000);
            self.make(at, SearchStep::AtIndex(process, shard, life, read));
        }
        let next = self.processes[process].searches[shard].poll_timeout(now.mono);
        let wait = next.since(now.mono).0.max(1_000);
        self.schedule_poll(process, shard, self.now + wait);
    }

    fn at_index(&mut self, process: usize, shard: usize, life: u32, read: IndexRead) {
        let fails = self.is_away(process) || self.rng.random_range(0..1_000) < self.faults;
        let at = self.now + if fails { 200_000 } else { self.rng.random_range(1_000..50_000) };
        let found = (!fails).then(|| self.listed(process, shard, read));
        self.make(at, SearchStep::Returned(process, shard, life, read, found));
    }

    /// The overdue holds that the index lists for this read.
    fn listed(&self, process: usize, shard: usize, read: IndexRead) -> Vec<usize> {
        let search = &self.processes[process].searches[shard];
        let now = search.expired_by(read, self.clock(process).unix);
        let seen = self.now.saturating_sub(LAG);
        let is_listed = |hold: &IndexedHold| {
            let is_there = hold.placed <= seen && hold.expired.is_none_or(|at| at > seen);
            let is_of = match read {
                IndexRead::Bucket(ExpiryBucket { minute, part }) => {
                    hold.bucket.minute == minute && hold.bucket.part % self.parts == part
                }
                IndexRead::Segment(segment) => hold.bucket.part % self.segments == segment,
            };
            is_there && is_of && hold.expires_at <= now
        };
        let listed = self.holds.iter().enumerate().filter(|(_, hold)| is_listed(hold));
        listed.map(|(hold, _)| hold).collect()
    }

    fn returned(
        &mut self,
        process: usize,
        shard: usize,
        read: IndexRead,
        found: Option<Vec<usize>>,
    ) {
        let now = self.clock(process);
        let is_away = self.is_away(process);
        let result = found.map_or(IndexReadResult::Failed, |found| {
            for hold in &found {
                let hold = &mut self.holds[*hold];
                hold.found_by.insert(process);
                if !hold.is_stuck && !is_away {
                    hold.expired.get_or_insert(self.now);
                }
            }
            let left: Vec<_> = found.iter().map(|hold| &self.holds[*hold]).collect();
            let left = left.into_iter().filter(|hold| hold.expired.is_none());
            let left: Vec<_> = left.map(|hold| hold.expires_at).collect();
            let examined = self.background + found.len() as u64;
            let oldest = left.iter().min().copied();
            let (found, unexpired) = (found.len(), left.len());
            IndexReadResult::Complete { examined, found, unexpired, oldest }
        });
        self.processes[process].searches[shard].handle_read(read, result, now);
    }

    /// No hold is overdue for longer than a bound once the store answers.
    fn check(&self) -> Result<(), String> {
        for (number, process) in self.processes.iter().enumerate() {
            let (mut undisturbed, mut scans_from) = (process.undisturbed, process.scans_from);
            for (from, to, of) in &self.outages {
                if *from <= self.now && of.is_none_or(|of| of == number) {
                    undisturbed = undisturbed.max(*to);
                    scans_from = scans_from.max(if to - from >= OUTAGE { *to } else { 0 });
                }
            }
            if undisturbed > self.now {
                continue;
            }
            for hold in self.holds.iter().filter(|hold| !hold.is_stuck && hold.expired.is_none()) {
                let due =
                    hold.expires_at.0.saturating_sub(EPOCH).saturating_add_signed(-process.error);
                let due = due.saturating_mul(1_000);
                let is_late_write = hold.placed + LAG > due.max(scans_from);
                let due = due.max(undisturbed).max(process.members_since);
                let base = if self.faults > 0 { FOUND_WITHIN_FAULTS } else { FOUND_WITHIN };
                let base = base + delay_of(self.turn(number, hold));
                let bound = match is_late_write && self.background > 0 {
                    true => base + limits::RECLAIM_SCAN_EVERY_MAX.as_micros() as u64,
                    false => base,
                };
                let waited = self.now.saturating_sub(due.max(hold.placed + LAG));
                if waited > bound {
                    return Err(format!(
                        "process {number} does not find a hold: {hold:?}, overdue for {} s at {} s, \
                         clock {} ms ahead, outages {:?}, undisturbed since {undisturbed}, {} faults, \
                         {} in the background",
                        waited / SECOND,
                        self.now / SECOND,
                        process.error,
                        self.outages,
                        self.faults,
                        self.background
                    ));
                }
            }
        }
        Ok(())
    }

    fn reads(&self) -> u64 {
        self.processes.iter().map(|process| process.reads).sum()
    }
}

/// The view of a process, whose own id is its number plus one.
fn members(process: usize, ids: &[u64]) -> Rc<Members> {
    let member = |id: u64| Member { id: ProcessId(id), shards: 1 };
    Rc::new(Members::new(member(process as u64 + 1), ids.iter().map(|id| member(*id))))
}

/// Any view: of all processes, of some, of processes that are gone.
fn any_view(rng: &mut SmallRng, processes: usize) -> Vec<u64> {
    let all = 1..=processes as u64;
    match rng.random_range(0..3) {
        0 => all.collect(),
        1 => all.filter(|_| rng.random()).collect(),
        _ => all.chain(100..rng.random_range(101..108)).collect(),
    }
}

/// Twenty minutes of a sale with disturbances, and an hour and a half for outages.
fn run(seed: u64) -> Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x00ee_d0e5);
    let rng = &mut rng;
    let (processes, shards) = (rng.random_range(1..=3), rng.random_range(1..=2));
    let mut world = SearchWorld::new(seed, processes, shards);
    // A scan of an index with so many holds is slow.
    world.background = *pick(rng, &[0, 0, 10_000_000]);
    world.faults = *pick(rng, &[0, 0, 100]);
    for process in 0..processes {
        world.processes[process].error = *pick(rng, &[0, 0, -45_000, 45_000, 400_000]);
    }
    let span = 20 * MINUTE;
    for _ in 0..rng.random_range(0..3) {
        let from = rng.random_range(0..span);
        let length = *pick(rng, &[3, 30, 200, 2_700, 4_000]) * SECOND;
        let of = rng.random::<bool>().then(|| rng.random_range(0..processes));
        world.outages.push((from, from + length, of));
    }
    let mut of_views = SmallRng::seed_from_u64(seed ^ 0x0055_1e35);
    for process in 0..processes {
        let view = any_view(&mut of_views, processes);
        world.processes[process].members = members(process, &view);
        for _ in 0..of_views.random_range(0..4) {
            let at = of_views.random_range(0..span);
            let view = any_view(&mut of_views, processes);
            world.make(at, SearchStep::See(process, view));
        }
    }
    world.start();
    for _ in 0..rng.random_range(0..4) {
        let (at, process) = (rng.random_range(0..span), rng.random_range(0..processes));
        let step = match rng.random_range(0..5) {
            0 => SearchStep::Restart(process),
            1 | 2 => {
                let length = *pick(rng, &[5, 40, 900, 3_000]) * SECOND;
                SearchStep::Freeze { process, length, is_suspended: rng.random() }
            }
            _ => {
                let by = *pick(rng, &[-3_600_000, -300_000, -20_000, 20_000, 300_000, 86_400_000]);
                SearchStep::Jump(process, by)
            }
        };
        world.make(at, step);
    }
    for _ in 0..100 {
        let at = rng.random_range(0..span);
        let process = rng.random_range(0..processes);
        let ttl = *pick(rng, &[1_000, 2_000, 60_000, 300_000]);
        let unix = (EPOCH + at / 1_000).saturating_add_signed(world.processes[process].error);
        let expires_at = UnixMillis(unix + ttl);
        // A write that hangs is applied long after its hold has expired.
        let hangs = rng.random_range(0..20) == 0;
        let mut placed = at + if hangs { rng.random_range(0..600) * SECOND } else { 0 };
        // Nothing is written during an outage; what was being sent is applied after it.
        while let Some((_, to, _)) = world
            .outages
            .iter()
            .find(|(from, to, of)| of.is_none() && (*from..*to).contains(&placed))
        {
            placed = *to + rng.random_range(0..3 * SECOND);
        }
        let is_stuck = rng.random_range(0..30) == 0;
        world.make(placed, SearchStep::Place { expires_at, is_stuck });
    }
    world.run(95 * MINUTE)
}

#[test]
fn every_process_finds_every_overdue_hold() {
    for seed in 0..super::number("SEARCH_SEEDS").unwrap_or(60) {
        if let Err(violation) = run(seed) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn hold_moved_into_the_past_is_found_within_seconds() {
    for background in [0, 100] {
        let mut world = SearchWorld::new(1, 1, 2);
        world.background = background;
        world.start();
        let long_ago = UnixMillis(EPOCH - 40 * 60_000);
        world.make(10 * MINUTE, SearchStep::Place { expires_at: long_ago, is_stuck: false });
        world.run(10 * MINUTE + FOUND_WITHIN).unwrap();
        assert!(world.holds[0].expired.is_some());
    }
}

/// The server's search in one process.
fn server(processes: usize) -> SearchWorld {
    let mut world = SearchWorld::new(3, processes, 1);
    (world.parts, world.segments) = (limits::EXPIRY_PARTS, limits::EXPIRY_SEGMENTS);
    world
}

/// Docs: the reads per second of a process at rest are in docs/operating.md.
#[test]
fn reads_at_rest_are_few_and_do_not_depend_on_the_number_of_holds() {
    for (background, most) in [(0, 22), (1_000_000, 19)] {
        let mut world = server(1);
        world.background = background;
        world.start();
        world.run(10 * MINUTE).unwrap();
        let before = world.reads();
        world.run(20 * MINUTE).unwrap();
        let per_second = (world.reads() - before) as f64 / 600.0;
        assert!(per_second < f64::from(most), "{per_second} reads/s with {background}");
        println!("{background} holds per segment: {per_second:.1} reads/s");
    }
}

/// 400 holds of ten minutes over `processes` processes with these views. Returns the reads per second of all processes,
/// and how many holds were found by more than one.
fn shared_search(views: &[Vec<u64>]) -> (f64, usize) {
    let mut world = server(views.len());
    for (process, view) in views.iter().enumerate() {
        world.processes[process].members = members(process, view);
    }
    for n in 0..400 {
        let expires_at = UnixMillis(EPOCH + 120_000 + n * 1_500);
        world.make(MINUTE, SearchStep::Place { expires_at, is_stuck: false });
    }
    world.start();
    world.run(2 * MINUTE).unwrap();
    let before = world.reads();
    world.run(12 * MINUTE).unwrap();
    let per_second = (world.reads() - before) as f64 / 600.0;
    world.run(15 * MINUTE).unwrap();
    assert!(world.holds.iter().all(|hold| hold.expired.is_some()));
    (per_second, world.holds.iter().filter(|hold| hold.found_by.len() > 1).count())
}

#[test]
fn members_share_the_reads_and_rarely_find_the_same_hold() {
    let alone: Vec<Vec<u64>> = vec![vec![]; 3];
    let together: Vec<Vec<u64>> = vec![vec![1, 2, 3]; 3];
    let (reads_before, twice_before) = shared_search(&alone);
    let (reads, twice) = shared_search(&together);
    println!(
        "3 processes, unknown to each other: {reads_before:.1} reads/s, {twice_before} of 400 holds found twice; members: \
         {reads:.1} reads/s, {twice} of 400 found twice"
    );
    assert!(reads < 0.6 * reads_before, "{reads} of {reads_before}");
    assert!(twice <= 4, "{twice} of {twice_before}");
}

#[test]
fn parts_of_a_process_that_is_gone_are_read_by_the_second_in_line() {
    // Four members: one is gone, and another one is frozen.
    let mut world = server(3);
    for process in 0..3 {
        world.processes[process].members = members(process, &[1, 2, 3, 100]);
    }
    let freeze = SearchStep::Freeze { process: 2, length: 4 * MINUTE, is_suspended: false };
    world.make(MINUTE, freeze);
    for n in 0..100 {
        let expires_at = UnixMillis(EPOCH + 90_000 + n * 600);
        world.make(MINUTE / 2, SearchStep::Place { expires_at, is_stuck: false });
    }
    world.start();
    world.run(4 * MINUTE).unwrap();
    let waited = world.holds.iter().map(|hold| {
        let due = (hold.expires_at.0 - EPOCH) * 1_000;
        hold.expired.expect("expired").saturating_sub(due) / SECOND
    });
    let waited: Vec<u64> = waited.collect();
    let within = |seconds: u64| waited.iter().filter(|waited| **waited <= seconds).count();
    println!(
        "of 100 holds {} within 5 s, {} within 12 s, {} within 45 s",
        within(5),
        within(12),
        within(45)
    );
    assert!(within(12) >= 60 && within(45) == 100, "{waited:?}");
}

#[test]
fn reads_during_and_after_an_outage_do_not_depend_on_its_length() {
    for hours in [1, 24] {
        let mut world = server(1);
        let (from, to) = (MINUTE, MINUTE + hours * 60 * MINUTE);
        world.outages.push((from, to, None));
        world.start();
        world.run(from + MINUTE).unwrap();
        let before = world.reads();
        world.run(to).unwrap();
        let per_second = (world.reads() - before) as f64 / (hours * 3_600) as f64;
        assert!(per_second < 1.0, "{per_second} reads/s during {hours} h");
        let before = world.reads();
        world.run(to + 10 * SECOND).unwrap();
        let after = world.reads() - before;
        assert!(after < 400, "{after} reads in ten seconds after {hours} h");
        println!("{hours} h: {per_second:.2} reads/s during, {after} in ten seconds after");
    }
}

#[test]
fn holds_that_cannot_be_expired_are_read_ever_less_often() {
    let mut world = server(1);
    world.start();
    let stuck = |n: u64| SearchStep::Place {
        expires_at: UnixMillis(EPOCH + 60_000 + n * 1_000),
        is_stuck: true,
    };
    for n in 0..200 {
        world.make(MINUTE + n * SECOND, stuck(n));
    }
    world.run(10 * MINUTE).unwrap();
    let before = world.reads();
    world.run(20 * MINUTE).unwrap();
    let per_second = (world.reads() - before) as f64 / 600.0;
    assert!(per_second < 22.0, "{per_second} reads/s");
    let oldest = world.processes[0].searches[0].status().oldest_overdue;
    assert_eq!(oldest, Some(UnixMillis(EPOCH + 60_000)));
}
