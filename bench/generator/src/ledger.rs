//! What every reservation was told, and which of it cannot be true together.
//!
//! One [`Ledger`] per worker, numbered locally; [`Books`] is all of them. Entries are 32 bytes: a
//! reservation's id follows from its number, and an order is 16 bytes.
//!
//! Here only answers are held against answers. What the store says is `store::verify`'s part.

use std::collections::BTreeMap;

use crate::limits;
use crate::outcome::{Answer, Class, Method, Order, Outcome};

/// What is known of one reservation.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    order: [u8; 16],
    /// The first of its seats; of no meaning without seats.
    pub seat: u32,
    /// Low 32 bits of the milliseconds at which its hold ends.
    ends: u32,
    pub event: u16,
    flags: u16,
    pub qty: u8,
}

const _: () = assert!(size_of::<Entry>() <= 32);

/// Per step of a reservation: it was answered with success, refused, or left open.
const OK: u16 = 1;
const NO: u16 = 2;
const OPEN: u16 = 4;

/// Steps, as shifts of the three bits above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hold = 0,
    Commit = 3,
    Release = 6,
}

/// The read-back has found its record.
const SEEN: u16 = 1 << 15;

impl Entry {
    pub fn new(event: u16, qty: u8, seat: u32) -> Self {
        Self {
            order: [0; 16],
            seat,
            ends: 0,
            event,
            flags: 0,
            qty,
        }
    }

    fn has(&self, step: Step, bit: u16) -> bool {
        self.flags & (bit << step as u16) != 0
    }

    fn set(&mut self, step: Step, bit: u16) {
        self.flags |= bit << step as u16;
    }

    /// Some call of this step was answered with success.
    pub fn is_ok(&self, step: Step) -> bool {
        self.has(step, OK)
    }

    /// Some call of this step may have taken effect: success, or nobody knows.
    pub fn may_be(&self, step: Step) -> bool {
        self.has(step, OK | OPEN)
    }

    pub fn was_refused(&self, step: Step) -> bool {
        self.has(step, NO)
    }

    /// The order it was answered with.
    pub fn order(&self) -> Option<Order> {
        self.is_ok(Step::Commit).then_some(Order(self.order))
    }

    /// Marks that its record was found; false when it was found before.
    pub fn see(&mut self) -> bool {
        let first = self.flags & SEEN == 0;
        self.flags |= SEEN;
        first
    }

    pub fn forget_seen(&mut self) {
        self.flags &= !SEEN;
    }

    pub fn is_seen(&self) -> bool {
        self.flags & SEEN != 0
    }
}

/// What one event's buyers were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTold {
    /// Units of the reservations that were answered with success, each once.
    pub taken: u64,
    /// When the last of them was answered: nanoseconds since the start.
    pub last_taken: u64,
    /// Calls refused for too little stock, and the fewest units of one; 0: none.
    pub refused: u64,
    pub refused_least: u32,
    /// When the first of them was answered.
    pub first_refused: u64,
}

/// Broken promises: all are counted by kind, the first are quoted.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    pub counts: BTreeMap<&'static str, u64>,
    pub quoted: Vec<String>,
}

impl Broken {
    pub fn add(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.quoted.len() < limits::QUOTED_MAX {
            self.quoted.push(format!("{kind}: {}", text()));
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn absorb(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.quoted.extend(other.quoted);
        self.quoted.truncate(limits::QUOTED_MAX);
    }
}

/// One worker's reservations.
#[derive(Debug)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    pub events: Vec<EventTold>,
    pub broken: Broken,
    /// Stock can come back during the run: a refusal for too little stock is then not final.
    gives_back: bool,
    /// Numbers are `local * parts + part`.
    part: u32,
    parts: u32,
    run: String,
}

impl Ledger {
    pub fn new(run: &str, events: u32, gives_back: bool, part: u32, parts: u32) -> Self {
        Self {
            entries: Vec::new(),
            events: vec![EventTold::default(); events as usize],
            broken: Broken::default(),
            gives_back,
            part,
            parts,
            run: run.to_owned(),
        }
    }

    /// Makes room for this many entries, so that none is moved while calls are due.
    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve_exact(entries);
    }

    /// Opens an entry and returns its place.
    pub fn open(&mut self, entry: Entry) -> u32 {
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// The number, unique in the run, of an entry of this ledger.
    pub fn number(&self, place: u32) -> u32 {
        place * self.parts + self.part
    }

    fn id(&self, place: u32) -> String {
        let mut id = String::new();
        crate::wire::request::reservation_id(&self.run, self.number(place), &mut id);
        id
    }

    /// Enters the answer to a call about the entry at `place`, at `now` nanoseconds.
    pub fn enter(&mut self, place: u32, method: Method, answer: &Answer, now: u64) {
        let Some(entry) = self.entries.get(place as usize).copied() else {
            return;
        };
        let step = match method {
            Method::Check => return,
            Method::Hold => Step::Hold,
            Method::Commit | Method::DirectCommit => Step::Commit,
            Method::Release => Step::Release,
        };
        if let Some((kind, text)) = self.contradiction(&entry, method, answer) {
            let id = self.id(place);
            self.broken.add(kind, || format!("{id} {text}"));
        }
        self.tell_event(&entry, method, answer, now);
        let entry = &mut self.entries[place as usize];
        if answer.outcome == Outcome::Ok {
            if let Some(Order(order)) = answer.order
                && !entry.is_ok(Step::Commit)
            {
                entry.order = order;
            }
            if step == Step::Hold && !entry.is_ok(Step::Hold) {
                entry.ends = answer.ends;
            }
            entry.set(step, OK);
        } else if answer.outcome.is_open() {
            entry.set(step, OPEN);
        } else {
            entry.set(step, NO);
        }
    }

    fn tell_event(&mut self, entry: &Entry, method: Method, answer: &Answer, now: u64) {
        let Some(told) = self.events.get_mut(usize::from(entry.event)) else {
            return;
        };
        let takes = matches!(method, Method::Hold | Method::DirectCommit);
        match answer.outcome {
            Outcome::Ok if takes && !entry.is_ok(Step::Hold) && !entry.is_ok(Step::Commit) => {
                told.taken += u64::from(entry.qty);
                told.last_taken = told.last_taken.max(now);
            }
            Outcome::SoldOut if takes => {
                let qty = u32::from(entry.qty);
                if told.refused == 0 {
                    (told.refused_least, told.first_refused) = (qty, now);
                }
                told.refused += 1;
                told.refused_least = told.refused_least.min(qty);
                told.first_refused = told.first_refused.min(now);
            }
            _ => {}
        }
    }

    /// Why this answer cannot be true beside the earlier ones.
    fn contradiction(
        &self,
        entry: &Entry,
        method: Method,
        answer: &Answer,
    ) -> Option<(&'static str, String)> {
        let outcome = answer.outcome;
        let name = method.name();
        match (method, outcome) {
            (_, Outcome::Conflict) => {
                let text = format!("{name}: refused as another payload, and it was the same");
                Some(("conflict", text))
            }
            (Method::Commit | Method::DirectCommit, Outcome::Ok) => {
                if let (Some(first), Some(now)) = (entry.order(), answer.order)
                    && first != now
                {
                    let text = format!("was answered {first}, and now {now}");
                    return Some(("repeat", text));
                }
                if entry.is_ok(Step::Release) {
                    return Some(("repeat", "was confirmed after it was released".to_owned()));
                }
                if method == Method::DirectCommit
                    && entry.was_refused(Step::Commit)
                    && !self.gives_back
                {
                    let text = "was refused and then confirmed, though no stock came back";
                    return Some(("repeat", text.to_owned()));
                }
                None
            }
            (Method::Hold, Outcome::Ok) if entry.is_ok(Step::Hold) && entry.ends != answer.ends => {
                let text = format!(
                    "is held until …{} ms, and a repeat says …{} ms",
                    entry.ends, answer.ends
                );
                Some(("repeat", text))
            }
            (
                Method::Hold | Method::DirectCommit | Method::Commit,
                Outcome::SoldOut | Outcome::SeatTaken,
            ) if entry.is_ok(Step::Hold) || entry.is_ok(Step::Commit) => {
                let text = format!(
                    "{name}: has its units and was refused as {}",
                    outcome.name()
                );
                Some(("repeat", text))
            }
            (Method::Commit | Method::DirectCommit, refused)
                if entry.is_ok(Step::Commit) && refused.class() == Class::Refused =>
            {
                let text = format!(
                    "was confirmed and a repeat was refused as {}",
                    refused.name()
                );
                Some(("repeat", text))
            }
            (Method::Release, Outcome::Ok) if entry.is_ok(Step::Commit) => {
                Some(("repeat", "was released after it was confirmed".to_owned()))
            }
            _ => None,
        }
    }
}

/// The ledgers of all workers.
#[derive(Debug)]
pub struct Books {
    ledgers: Vec<Ledger>,
}

impl Books {
    /// The ledgers in the order of their parts.
    pub fn new(ledgers: Vec<Ledger>) -> Self {
        Self { ledgers }
    }

    pub fn run(&self) -> &str {
        self.ledgers.first().map_or("", |ledger| &ledger.run)
    }

    /// Reservations in all.
    pub fn len(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a number that [`Ledger::number`] gave.
    pub fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let parts = u32::try_from(self.ledgers.len())
            .ok()
            .filter(|parts| *parts > 0)?;
        let ledger = self.ledgers.get_mut((number % parts) as usize)?;
        ledger.entries.get_mut((number / parts) as usize)
    }

    /// Every entry with its reservation id, made only if asked for.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, impl Fn() -> String)> {
        self.ledgers.iter().flat_map(|ledger| {
            ledger
                .entries
                .iter()
                .enumerate()
                .map(move |(place, entry)| {
                    let place = u32::try_from(place).unwrap_or(u32::MAX);
                    (entry, move || ledger.id(place))
                })
        })
    }

    pub fn forget_seen(&mut self) {
        for ledger in &mut self.ledgers {
            ledger.entries.iter_mut().for_each(Entry::forget_seen);
        }
    }

    /// What the buyers of one event were told, over all workers.
    pub fn event(&self, event: usize) -> EventTold {
        let mut all = EventTold::default();
        for told in self
            .ledgers
            .iter()
            .filter_map(|ledger| ledger.events.get(event))
        {
            all.taken += told.taken;
            all.last_taken = all.last_taken.max(told.last_taken);
            if told.refused > 0 {
                if all.refused == 0 {
                    (all.refused_least, all.first_refused) =
                        (told.refused_least, told.first_refused);
                }
                all.refused_least = all.refused_least.min(told.refused_least);
                all.first_refused = all.first_refused.min(told.first_refused);
                all.refused += told.refused;
            }
        }
        all
    }

    /// What the answers alone have broken.
    pub fn take_broken(&mut self) -> Broken {
        let mut all = Broken::default();
        for ledger in &mut self.ledgers {
            all.absorb(std::mem::take(&mut ledger.broken));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: u8) -> Answer {
        Answer {
            order: Some(Order([n; 16])),
            ..Answer::of(Outcome::Ok)
        }
    }

    fn held(ends: u32) -> Answer {
        Answer {
            ends,
            ..Answer::of(Outcome::Ok)
        }
    }

    /// Kinds that are broken after these answers about one reservation.
    fn after(gives_back: bool, answers: &[(Method, Answer)]) -> Vec<&'static str> {
        let mut ledger = Ledger::new("r", 1, gives_back, 0, 1);
        let place = ledger.open(Entry::new(0, 2, 0));
        for (method, answer) in answers {
            ledger.enter(place, *method, answer, 1);
        }
        ledger.broken.counts.into_keys().collect()
    }

    #[test]
    fn honest_answers_break_nothing() {
        use Method::{Commit, DirectCommit, Hold, Release};
        let no = Answer::of;
        for answers in [
            vec![(DirectCommit, order(1)), (DirectCommit, order(1))],
            vec![
                (DirectCommit, no(Outcome::Deadline)),
                (DirectCommit, order(1)),
            ],
            vec![
                (DirectCommit, no(Outcome::SoldOut)),
                (DirectCommit, no(Outcome::SoldOut)),
            ],
            vec![(DirectCommit, no(Outcome::Shed)), (DirectCommit, order(1))],
            vec![
                (Hold, held(5)),
                (Hold, held(5)),
                (Commit, order(1)),
                (Hold, no(Outcome::Committed)),
            ],
            vec![
                (Hold, held(5)),
                (Release, no(Outcome::Ok)),
                (Hold, no(Outcome::Released)),
            ],
            vec![(Hold, held(5)), (Commit, no(Outcome::HoldExpired))],
        ] {
            assert!(after(false, &answers).is_empty(), "{answers:?}");
        }
        let regained = [
            (DirectCommit, no(Outcome::SoldOut)),
            (DirectCommit, order(1)),
        ];
        assert!(after(true, &regained).is_empty());
    }

    #[test]
    fn every_contradiction_is_found() {
        use Method::{Commit, DirectCommit, Hold, Release};
        let no = Answer::of;
        for (answers, kind) in [
            (
                vec![(DirectCommit, order(1)), (DirectCommit, order(2))],
                "repeat",
            ),
            (
                vec![
                    (DirectCommit, no(Outcome::SoldOut)),
                    (DirectCommit, order(1)),
                ],
                "repeat",
            ),
            (
                vec![
                    (DirectCommit, order(1)),
                    (DirectCommit, no(Outcome::SoldOut)),
                ],
                "repeat",
            ),
            (
                vec![
                    (DirectCommit, order(1)),
                    (DirectCommit, no(Outcome::Released)),
                ],
                "repeat",
            ),
            (vec![(DirectCommit, no(Outcome::Conflict))], "conflict"),
            (vec![(Hold, held(5)), (Hold, held(6))], "repeat"),
            (
                vec![(Hold, held(5)), (Hold, no(Outcome::SoldOut))],
                "repeat",
            ),
            (
                vec![(Hold, held(5)), (Commit, no(Outcome::SoldOut))],
                "repeat",
            ),
            (
                vec![
                    (Hold, held(5)),
                    (Release, no(Outcome::Ok)),
                    (Commit, order(1)),
                ],
                "repeat",
            ),
            (
                vec![
                    (Hold, held(5)),
                    (Commit, order(1)),
                    (Release, no(Outcome::Ok)),
                ],
                "repeat",
            ),
        ] {
            assert_eq!(after(false, &answers), [kind], "{answers:?}");
        }
    }

    #[test]
    fn an_event_counts_each_reservation_once_and_the_least_refusal() {
        let mut ledger = Ledger::new("r", 1, true, 0, 1);
        let places: Vec<_> = [2, 5, 3]
            .map(|qty| ledger.open(Entry::new(0, qty, 0)))
            .into();
        ledger.enter(places[0], Method::Hold, &held(1), 10);
        ledger.enter(places[0], Method::Hold, &held(1), 11);
        ledger.enter(places[0], Method::Commit, &order(1), 12);
        ledger.enter(places[1], Method::Hold, &Answer::of(Outcome::SoldOut), 20);
        ledger.enter(places[2], Method::Hold, &Answer::of(Outcome::SoldOut), 30);
        let expected = EventTold {
            taken: 2,
            last_taken: 10,
            refused: 2,
            refused_least: 3,
            first_refused: 20,
        };
        assert_eq!(Books::new(vec![ledger]).event(0), expected);
    }

    #[test]
    fn numbers_find_their_entry_over_all_workers() {
        let mut ledgers: Vec<_> = (0..3)
            .map(|part| Ledger::new("r", 1, true, part, 3))
            .collect();
        let mut numbers = Vec::new();
        for (part, ledger) in ledgers.iter_mut().enumerate() {
            for n in 0..4 {
                let place = ledger.open(Entry::new(0, 1, part as u32 * 10 + n));
                numbers.push((ledger.number(place), part as u32 * 10 + n));
            }
        }
        let mut books = Books::new(ledgers);
        for (number, seat) in numbers {
            assert_eq!(books.entry(number).unwrap().seat, seat);
        }
        assert!(books.entry(12).is_none());
    }
}
