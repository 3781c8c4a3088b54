//! The answers to every reservation of a run, and the contradictions between them.
//!
//! One [`WorkerLedger`] per worker, numbered locally; a [`RunLedger`] holds all of them. Entries are 32 bytes:
//! the reservation id follows from the number, and an order id is 16 bytes. This module compares answers with
//! answers; comparing answers with the store belongs to `store::judge`.

use std::collections::BTreeMap;

use crate::limits;
use crate::outcome::{CallAnswer, CallMethod, OrderId, OutcomeClass, OutcomeKind};

/// One reservation and the answers to its calls.
#[derive(Clone, Copy, Debug)]
pub struct ReservationEntry {
    order: [u8; 16],
    /// Number of its first seat; meaningless without seats.
    pub seat: u32,
    /// Hold expiry: the low 32 bits of its Unix time in milliseconds.
    hold_expiry: u32,
    pub event: u16,
    flags: u16,
    pub qty: u8,
}

const _: () = assert!(size_of::<ReservationEntry>() <= 32);

/// Flags of a step: some call succeeded, was refused, or has an unknown outcome.
const OK: u16 = 1;
const REFUSED: u16 = 2;
const UNKNOWN: u16 = 4;

/// Step of a reservation. The value is the shift of its three flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationStep {
    Hold = 0,
    Commit = 3,
    Release = 6,
}

/// The record was found in the store.
const SEEN: u16 = 1 << 15;

impl ReservationEntry {
    pub fn new(event: u16, qty: u8, seat: u32) -> Self {
        Self { order: [0; 16], seat, hold_expiry: 0, event, flags: 0, qty }
    }

    fn has(&self, step: ReservationStep, bit: u16) -> bool {
        self.flags & (bit << step as u16) != 0
    }

    fn set(&mut self, step: ReservationStep, bit: u16) {
        self.flags |= bit << step as u16;
    }

    /// A call of this step succeeded.
    pub fn is_ok(&self, step: ReservationStep) -> bool {
        self.has(step, OK)
    }

    /// A call of this step succeeded or has an unknown outcome.
    pub fn may_have_happened(&self, step: ReservationStep) -> bool {
        self.has(step, OK | UNKNOWN)
    }

    pub fn was_refused(&self, step: ReservationStep) -> bool {
        self.has(step, REFUSED)
    }

    /// The order id of the first successful commit.
    pub fn order(&self) -> Option<OrderId> {
        self.is_ok(ReservationStep::Commit).then_some(OrderId(self.order))
    }

    /// Marks the record as found. False: it was found before.
    pub fn mark_seen(&mut self) -> bool {
        let first = self.flags & SEEN == 0;
        self.flags |= SEEN;
        first
    }

    pub fn clear_seen(&mut self) {
        self.flags &= !SEEN;
    }

    pub fn is_seen(&self) -> bool {
        self.flags & SEEN != 0
    }
}

/// Sales of one event according to the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSales {
    /// Units of successful reservations, each counted once.
    pub taken: u64,
    /// When the last of them was answered, in nanoseconds since the start.
    pub last_taken: u64,
    /// Calls refused for insufficient stock.
    pub refused: u64,
    /// Smallest quantity refused; 0 if none was.
    pub refused_least: u32,
    /// When the first refusal was answered, in nanoseconds since the start.
    pub first_refused: u64,
}

/// Broken promises: all are counted by kind, the first are kept as examples.
#[derive(Clone, Debug, Default)]
pub struct ViolationLog {
    pub counts: BTreeMap<&'static str, u64>,
    pub examples: Vec<String>,
}

impl ViolationLog {
    pub fn add(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.examples.len() < limits::EXAMPLES_MAX {
            self.examples.push(format!("{kind}: {}", text()));
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn absorb(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(limits::EXAMPLES_MAX);
    }
}

/// Reservations of one worker.
#[derive(Debug)]
pub struct WorkerLedger {
    pub entries: Vec<ReservationEntry>,
    pub events: Vec<EventSales>,
    pub violations: ViolationLog,
    /// Stock may be returned during the run, so that a refusal for insufficient stock is not final.
    returns_stock: bool,
    /// The number of an entry is `place * parts + part`.
    part: u32,
    parts: u32,
    run: String,
}

impl WorkerLedger {
    pub fn new(run: &str, events: u32, returns_stock: bool, part: u32, parts: u32) -> Self {
        Self {
            entries: Vec::new(),
            events: vec![EventSales::default(); events as usize],
            violations: ViolationLog::default(),
            returns_stock,
            part,
            parts,
            run: run.to_owned(),
        }
    }

    /// Allocates memory for this many entries, so that the ledger is not moved while calls are due.
    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve_exact(entries);
    }

    /// Appends an entry and returns its place.
    pub fn add_entry(&mut self, entry: ReservationEntry) -> u32 {
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// The number of the entry at `place`, unique in the run.
    pub fn number(&self, place: u32) -> u32 {
        place * self.parts + self.part
    }

    fn id(&self, place: u32) -> String {
        let mut id = String::new();
        crate::wire::request::reservation_id(&self.run, self.number(place), &mut id);
        id
    }

    /// Records the answer to a call for the entry at `place`, at `now` nanoseconds since the start.
    pub fn record(&mut self, place: u32, method: CallMethod, answer: &CallAnswer, now: u64) {
        let Some(entry) = self.entries.get(place as usize).copied() else {
            return;
        };
        let step = match method {
            CallMethod::Check => return,
            CallMethod::Hold => ReservationStep::Hold,
            CallMethod::Commit | CallMethod::DirectCommit => ReservationStep::Commit,
            CallMethod::Release => ReservationStep::Release,
        };
        if let Some((kind, text)) = self.contradiction(&entry, method, answer) {
            let id = self.id(place);
            self.violations.add(kind, || format!("{id} {text}"));
        }
        self.record_event(&entry, method, answer, now);
        let entry = &mut self.entries[place as usize];
        if answer.outcome == OutcomeKind::Ok {
            if let Some(OrderId(order)) = answer.order
                && !entry.is_ok(ReservationStep::Commit)
            {
                entry.order = order;
            }
            if step == ReservationStep::Hold && !entry.is_ok(ReservationStep::Hold) {
                entry.hold_expiry = answer.hold_expiry;
            }
            entry.set(step, OK);
        } else if answer.outcome.is_unknown() {
            entry.set(step, UNKNOWN);
        } else {
            entry.set(step, REFUSED);
        }
    }

    fn record_event(
        &mut self,
        entry: &ReservationEntry,
        method: CallMethod,
        answer: &CallAnswer,
        now: u64,
    ) {
        let Some(sales) = self.events.get_mut(usize::from(entry.event)) else {
            return;
        };
        let takes = matches!(method, CallMethod::Hold | CallMethod::DirectCommit);
        match answer.outcome {
            OutcomeKind::Ok
                if takes
                    && !entry.is_ok(ReservationStep::Hold)
                    && !entry.is_ok(ReservationStep::Commit) =>
            {
                sales.taken += u64::from(entry.qty);
                sales.last_taken = sales.last_taken.max(now);
            }
            OutcomeKind::SoldOut if takes => {
                let qty = u32::from(entry.qty);
                if sales.refused == 0 {
                    (sales.refused_least, sales.first_refused) = (qty, now);
                }
                sales.refused += 1;
                sales.refused_least = sales.refused_least.min(qty);
                sales.first_refused = sales.first_refused.min(now);
            }
            _ => {}
        }
    }

    /// The contradiction between this answer and earlier ones: its kind and a description.
    fn contradiction(
        &self,
        entry: &ReservationEntry,
        method: CallMethod,
        answer: &CallAnswer,
    ) -> Option<(&'static str, String)> {
        let outcome = answer.outcome;
        let name = method.name();
        match (method, outcome) {
            (_, OutcomeKind::Conflict) => {
                let text = format!(
                    "{name}: refused as a different payload, although the payload is the same"
                );
                Some(("conflict", text))
            }
            (CallMethod::Commit | CallMethod::DirectCommit, OutcomeKind::Ok) => {
                if let (Some(first), Some(now)) = (entry.order(), answer.order)
                    && first != now
                {
                    let text = format!("was answered {first}, then {now}");
                    return Some(("repeat", text));
                }
                if entry.is_ok(ReservationStep::Release) {
                    return Some(("repeat", "was confirmed after it was released".to_owned()));
                }
                if method == CallMethod::DirectCommit
                    && entry.was_refused(ReservationStep::Commit)
                    && !self.returns_stock
                {
                    let text = "was refused, then confirmed, although no stock was returned";
                    return Some(("repeat", text.to_owned()));
                }
                None
            }
            (CallMethod::Hold, OutcomeKind::Ok)
                if entry.is_ok(ReservationStep::Hold)
                    && entry.hold_expiry != answer.hold_expiry =>
            {
                let text = format!(
                    "hold expiry was …{} ms, a repeat returned …{} ms",
                    entry.hold_expiry, answer.hold_expiry
                );
                Some(("repeat", text))
            }
            (
                CallMethod::Hold | CallMethod::DirectCommit | CallMethod::Commit,
                OutcomeKind::SoldOut | OutcomeKind::SeatTaken,
            ) if entry.is_ok(ReservationStep::Hold) || entry.is_ok(ReservationStep::Commit) => {
                let text = format!("{name}: has its units, but was refused as {}", outcome.name());
                Some(("repeat", text))
            }
            (CallMethod::Commit | CallMethod::DirectCommit, refused)
                if entry.is_ok(ReservationStep::Commit)
                    && refused.class() == OutcomeClass::Refused =>
            {
                let text = format!("was confirmed, but a repeat was refused as {}", refused.name());
                Some(("repeat", text))
            }
            (CallMethod::Release, OutcomeKind::Ok) if entry.is_ok(ReservationStep::Commit) => {
                Some(("repeat", "was released after it was confirmed".to_owned()))
            }
            _ => None,
        }
    }
}

/// Ledgers of all workers.
#[derive(Debug)]
pub struct RunLedger {
    ledgers: Vec<WorkerLedger>,
}

impl RunLedger {
    /// `ledgers` in the order of their parts.
    pub fn new(ledgers: Vec<WorkerLedger>) -> Self {
        Self { ledgers }
    }

    pub fn run(&self) -> &str {
        self.ledgers.first().map_or("", |ledger| &ledger.run)
    }

    /// Number of reservations.
    pub fn len(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry with a number returned by [`WorkerLedger::number`].
    pub fn entry(&mut self, number: u32) -> Option<&mut ReservationEntry> {
        let parts = u32::try_from(self.ledgers.len()).ok().filter(|parts| *parts > 0)?;
        let ledger = self.ledgers.get_mut((number % parts) as usize)?;
        ledger.entries.get_mut((number / parts) as usize)
    }

    /// All entries, each with a function that builds its reservation id.
    pub fn entries(&self) -> impl Iterator<Item = (&ReservationEntry, impl Fn() -> String)> {
        self.ledgers.iter().flat_map(|ledger| {
            ledger.entries.iter().enumerate().map(move |(place, entry)| {
                let place = u32::try_from(place).unwrap_or(u32::MAX);
                (entry, move || ledger.id(place))
            })
        })
    }

    pub fn clear_seen(&mut self) {
        for ledger in &mut self.ledgers {
            ledger.entries.iter_mut().for_each(ReservationEntry::clear_seen);
        }
    }

    /// Sales of one event over all workers.
    pub fn event(&self, event: usize) -> EventSales {
        let mut all = EventSales::default();
        for sales in self.ledgers.iter().filter_map(|ledger| ledger.events.get(event)) {
            all.taken += sales.taken;
            all.last_taken = all.last_taken.max(sales.last_taken);
            if sales.refused > 0 {
                if all.refused == 0 {
                    (all.refused_least, all.first_refused) =
                        (sales.refused_least, sales.first_refused);
                }
                all.refused_least = all.refused_least.min(sales.refused_least);
                all.first_refused = all.first_refused.min(sales.first_refused);
                all.refused += sales.refused;
            }
        }
        all
    }

    /// Takes the contradictions between answers of all workers.
    pub fn take_violations(&mut self) -> ViolationLog {
        let mut all = ViolationLog::default();
        for ledger in &mut self.ledgers {
            all.absorb(std::mem::take(&mut ledger.violations));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: u8) -> CallAnswer {
        CallAnswer { order: Some(OrderId([n; 16])), ..CallAnswer::of(OutcomeKind::Ok) }
    }

    fn held(hold_expiry: u32) -> CallAnswer {
        CallAnswer { hold_expiry, ..CallAnswer::of(OutcomeKind::Ok) }
    }

    /// Kinds of violations after these answers for one reservation.
    fn violations_after(
        returns_stock: bool,
        answers: &[(CallMethod, CallAnswer)],
    ) -> Vec<&'static str> {
        let mut ledger = WorkerLedger::new("r", 1, returns_stock, 0, 1);
        let place = ledger.add_entry(ReservationEntry::new(0, 2, 0));
        for (method, answer) in answers {
            ledger.record(place, *method, answer, 1);
        }
        ledger.violations.counts.into_keys().collect()
    }

    #[test]
    fn consistent_answers_violate_nothing() {
        use CallMethod::{Commit, DirectCommit as Direct, Hold, Release};
        use OutcomeKind::{Committed, Deadline, HoldExpired, Ok, Released, Shed, SoldOut};
        let no = CallAnswer::of;
        for answers in [
            &[(Direct, order(1)), (Direct, order(1))][..],
            &[(Direct, no(Deadline)), (Direct, order(1))],
            &[(Direct, no(SoldOut)), (Direct, no(SoldOut))],
            &[(Direct, no(Shed)), (Direct, order(1))],
            &[(Hold, held(5)), (Hold, held(5)), (Commit, order(1)), (Hold, no(Committed))],
            &[(Hold, held(5)), (Release, no(Ok)), (Hold, no(Released))],
            &[(Hold, held(5)), (Commit, no(HoldExpired))],
        ] {
            assert!(violations_after(false, answers).is_empty(), "{answers:?}");
        }
        let regained = [(Direct, no(SoldOut)), (Direct, order(1))];
        assert!(violations_after(true, &regained).is_empty());
    }

    #[test]
    fn every_contradiction_is_found() {
        use CallMethod::{Commit, DirectCommit as Direct, Hold, Release};
        use OutcomeKind::{Conflict, Ok, Released, SoldOut};
        let no = CallAnswer::of;
        for answers in [
            &[(Direct, order(1)), (Direct, order(2))][..],
            &[(Direct, no(SoldOut)), (Direct, order(1))],
            &[(Direct, order(1)), (Direct, no(SoldOut))],
            &[(Direct, order(1)), (Direct, no(Released))],
            &[(Hold, held(5)), (Hold, held(6))],
            &[(Hold, held(5)), (Hold, no(SoldOut))],
            &[(Hold, held(5)), (Commit, no(SoldOut))],
            &[(Hold, held(5)), (Release, no(Ok)), (Commit, order(1))],
            &[(Hold, held(5)), (Commit, order(1)), (Release, no(Ok))],
        ] {
            assert_eq!(violations_after(false, answers), ["repeat"], "{answers:?}");
        }
        let conflict = [(Direct, no(Conflict))];
        assert_eq!(violations_after(false, &conflict), ["conflict"]);
    }

    #[test]
    fn an_event_counts_each_reservation_once_and_the_smallest_refusal() {
        let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
        let places: Vec<_> =
            [2, 5, 3].map(|qty| ledger.add_entry(ReservationEntry::new(0, qty, 0))).into();
        ledger.record(places[0], CallMethod::Hold, &held(1), 10);
        ledger.record(places[0], CallMethod::Hold, &held(1), 11);
        ledger.record(places[0], CallMethod::Commit, &order(1), 12);
        ledger.record(places[1], CallMethod::Hold, &CallAnswer::of(OutcomeKind::SoldOut), 20);
        ledger.record(places[2], CallMethod::Hold, &CallAnswer::of(OutcomeKind::SoldOut), 30);
        let expected = EventSales {
            taken: 2,
            last_taken: 10,
            refused: 2,
            refused_least: 3,
            first_refused: 20,
        };
        assert_eq!(RunLedger::new(vec![ledger]).event(0), expected);
    }

    #[test]
    fn numbers_identify_entries_over_all_workers() {
        let mut ledgers: Vec<_> =
            (0..3).map(|part| WorkerLedger::new("r", 1, true, part, 3)).collect();
        let mut numbers = Vec::new();
        for (part, ledger) in ledgers.iter_mut().enumerate() {
            for n in 0..4 {
                let place = ledger.add_entry(ReservationEntry::new(0, 1, part as u32 * 10 + n));
                numbers.push((ledger.number(place), part as u32 * 10 + n));
            }
        }
        let mut run_ledger = RunLedger::new(ledgers);
        for (number, seat) in numbers {
            assert_eq!(run_ledger.entry(number).unwrap().seat, seat);
        }
        assert!(run_ledger.entry(12).is_none());
    }
}
