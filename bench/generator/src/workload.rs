//! The calls of a run, drawn from the shares of the scenario. One workload per worker.
//!
//! Commits and releases refer to holds that this worker placed. A seat picker tracks which seats are known to
//! be taken, as a buyer in front of a seat map does.

use std::time::Duration;

use rand::distr::{Distribution, weighted::WeightedIndex};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rand_distr::Exp1;

use crate::ledger::{ReservationEntry, ReservationStep, WorkerLedger};
use crate::limits;
use crate::outcome::{CallAnswer, CallMethod, OutcomeKind};
use crate::scenario::{RepeatTiming, Scenario, SeatPick};

/// One call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedCall {
    pub(crate) method: CallMethod,
    /// Place of the reservation in the ledger; meaningless for a check.
    pub(crate) place: u32,
    pub(crate) event: u16,
    pub(crate) qty: u8,
    /// Number of the first seat, if the call names seats.
    pub(crate) seat: Option<u32>,
    pub(crate) repeat: bool,
}

/// Whether and when a call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepeatDecision {
    Never,
    Now,
    After(Duration),
}

pub(crate) struct Workload {
    rng: SmallRng,
    /// Shares of the methods, in the order of [`CallMethod::ALL`].
    methods: WeightedIndex<f64>,
    /// Shares of the events.
    events: WeightedIndex<f64>,
    /// Holds are committed or released.
    uses_holds: bool,
    qty: (u32, u32),
    repeat_share: f64,
    when: RepeatTiming,
    crowd: f64,
    /// By event; empty unless calls name seats.
    pickers: Vec<SeatPicker>,
    holds: Vec<(u32, u64)>,
    /// Nanoseconds after which a hold is left to expire.
    usable_for: u64,
    pub(crate) substituted: u64,
}

impl Workload {
    pub(crate) fn new(scenario: &Scenario, part: u32) -> Self {
        let exact = scenario.seats.filter(|seats| seats.pick == SeatPick::Exact);
        let picker =
            || SeatPicker::new(u32::try_from(scenario.events.seats.unwrap_or(0)).unwrap_or(0));
        let pickers = exact.map_or(0, |_| scenario.events.count);
        let reserving = 100.0 - scenario.mix.check;
        let hold = match scenario.hold_seconds {
            0 => 60,
            seconds => seconds,
        };
        Self {
            rng: SmallRng::seed_from_u64(!scenario.seed ^ u64::from(part).rotate_left(40)),
            methods: weighted(CallMethod::ALL.map(|method| scenario.mix.share(method))),
            events: weighted(scenario.events.weights()),
            uses_holds: scenario.mix.commit + scenario.mix.release > 0.0,
            qty: (scenario.qty.min, scenario.qty.max),
            repeat_share: match reserving > 0.0 {
                true => scenario.duplicates.percent / reserving,
                false => 0.0,
            },
            when: scenario.duplicates.when,
            crowd: exact.map_or(0.0, |seats| seats.crowd),
            pickers: (0..pickers).map(|_| picker()).collect(),
            holds: Vec::new(),
            usable_for: hold * 400_000_000,
            substituted: 0,
        }
    }

    /// The next call, at `now` nanoseconds since the start.
    pub(crate) fn next(&mut self, ledger: &mut WorkerLedger, now: u64) -> PlannedCall {
        let mut method = CallMethod::ALL[self.methods.sample(&mut self.rng)];
        if matches!(method, CallMethod::Commit | CallMethod::Release) {
            if let Some(place) = self.take_recent_hold(now) {
                return self.call_for_hold(ledger, method, place);
            }
            self.substituted += 1;
            method = CallMethod::Hold;
        }
        let event = u16::try_from(self.events.sample(&mut self.rng)).unwrap_or(u16::MAX);
        let qty = self.rng.random_range(self.qty.0..=self.qty.1);
        let seat = self.pickers.get(usize::from(event));
        let seat = seat.map(|picker| picker.pick(&mut self.rng, self.crowd, qty));
        let qty = u8::try_from(qty).unwrap_or(u8::MAX);
        let place = match method {
            CallMethod::Check => 0,
            _ => ledger.add_entry(ReservationEntry::new(event, qty, seat.unwrap_or(0))),
        };
        PlannedCall { method, place, event, qty, seat, repeat: false }
    }

    fn call_for_hold(&self, ledger: &WorkerLedger, method: CallMethod, place: u32) -> PlannedCall {
        let entry = ledger.entries[place as usize];
        PlannedCall {
            method,
            place,
            event: entry.event,
            qty: entry.qty,
            seat: (!self.pickers.is_empty()).then_some(entry.seat),
            repeat: false,
        }
    }

    fn take_recent_hold(&mut self, now: u64) -> Option<u32> {
        for _ in 0..limits::HOLD_PICKS_MAX {
            if self.holds.is_empty() {
                return None;
            }
            let at = self.rng.random_range(0..self.holds.len());
            let (place, since) = self.holds.swap_remove(at);
            if now.saturating_sub(since) < self.usable_for {
                return Some(place);
            }
        }
        None
    }

    /// Decides whether and when `call` is repeated.
    pub(crate) fn repeat(&mut self, call: &PlannedCall) -> RepeatDecision {
        if call.method == CallMethod::Check || self.repeat_share <= 0.0 {
            return RepeatDecision::Never;
        }
        if self.rng.random::<f64>() >= self.repeat_share {
            return RepeatDecision::Never;
        }
        let now = match self.when {
            RepeatTiming::Immediately => true,
            RepeatTiming::Later => false,
            RepeatTiming::Mixed => self.rng.random(),
        };
        match now {
            true => RepeatDecision::Now,
            false => RepeatDecision::After(
                self.rng.random_range(limits::REPEAT_AFTER_MIN..=limits::REPEAT_AFTER_MAX),
            ),
        }
    }

    /// Updates holds and seats from an answer. Must be called before the ledger records the answer.
    pub(crate) fn on_answer(
        &mut self,
        call: &PlannedCall,
        answer: &CallAnswer,
        ledger: &WorkerLedger,
        now: u64,
    ) {
        let ok = answer.outcome == OutcomeKind::Ok;
        if call.method == CallMethod::Hold && ok && self.uses_holds {
            let first = !ledger.entries[call.place as usize].is_ok(ReservationStep::Hold);
            if first && self.holds.len() < limits::HOLDS_REMEMBERED_MAX {
                self.holds.push((call.place, now));
            }
        }
        let (Some(picker), Some(seat)) = (self.pickers.get_mut(usize::from(call.event)), call.seat)
        else {
            return;
        };
        match (call.method, answer.outcome) {
            (CallMethod::Hold | CallMethod::DirectCommit, OutcomeKind::Ok) => {
                picker.mark(seat, u32::from(call.qty), true);
            }
            // Which of several seats is taken is unknown.
            (CallMethod::Hold | CallMethod::DirectCommit, OutcomeKind::SeatTaken) => {
                picker.mark(seat, 1, true)
            }
            (CallMethod::Release, OutcomeKind::Ok) => picker.mark(seat, u32::from(call.qty), false),
            _ => {}
        }
    }
}

/// # Panics
/// Never for a checked scenario: its weights are finite, not negative, and not all zero.
fn weighted(weights: impl IntoIterator<Item = f64>) -> WeightedIndex<f64> {
    #[allow(clippy::unwrap_used)]
    WeightedIndex::new(weights).unwrap()
}

/// The seats of an event, and which of them are known to be taken.
struct SeatPicker {
    seats: u32,
    taken: Vec<u64>,
    /// All seats before this one are taken.
    front: u32,
}

impl SeatPicker {
    fn new(seats: u32) -> Self {
        Self { seats, taken: vec![0; (seats as usize).div_ceil(64)], front: 0 }
    }

    fn is_taken(&self, seat: u32) -> bool {
        self.taken[seat as usize / 64] >> (seat % 64) & 1 == 1
    }

    /// The first of `qty` adjacent seats near the front of the free seats.
    fn pick(&self, rng: &mut SmallRng, crowd: f64, qty: u32) -> u32 {
        let last = self.seats.saturating_sub(qty);
        let mut offset = (rng.sample::<f64, _>(Exp1) * crowd) as u32;
        let mut free = None;
        for seat in self.front..self.seats {
            if !self.is_taken(seat) {
                free = Some(seat);
                if offset == 0 {
                    break;
                }
                offset -= 1;
            }
        }
        // No seat is known to be free: try any seat.
        free.unwrap_or_else(|| rng.random_range(0..=last)).min(last)
    }

    fn mark(&mut self, seat: u32, qty: u32, taken: bool) {
        for seat in seat..(seat + qty).min(self.seats) {
            let bit = 1 << (seat % 64);
            let word = &mut self.taken[seat as usize / 64];
            match taken {
                true => *word |= bit,
                false => *word &= !bit,
            }
        }
        match taken {
            true => {
                while self.front < self.seats && self.is_taken(self.front) {
                    self.front += 1;
                }
            }
            false => self.front = self.front.min(seat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::OrderId;

    fn scenario(tables: &str) -> Scenario {
        let text = format!("title = \"t\"\nrate = 1000\nduration = 10\n{tables}");
        let scenario = Scenario::parse(&text).unwrap();
        scenario.check().unwrap();
        scenario
    }

    #[test]
    fn calls_follow_the_shares_of_the_mix() {
        let scenario = scenario(
            "events = { count = 5, prefix = \"e\", stock = 9 }\nqty = { min = 1, max = 3 }\n\
             mix = { check = 50, hold = 25, commit = 15, direct_commit = 5, release = 5 }\n\
             duplicates = { percent = 10 }",
        );
        let mut workload = Workload::new(&scenario, 0);
        let mut ledger = WorkerLedger::new("r", 5, true, 0, 1);
        let (mut counts, mut repeats, mut quantities) = ([0_u32; 5], 0, [0_u32; 4]);
        let n = 100_000;
        for _ in 0..n {
            let call = workload.next(&mut ledger, 1);
            counts[call.method as usize] += 1;
            quantities[usize::from(call.qty)] += 1;
            repeats += u32::from(workload.repeat(&call) != RepeatDecision::Never);
            let ok =
                CallAnswer { order: Some(OrderId([1; 16])), ..CallAnswer::of(OutcomeKind::Ok) };
            workload.on_answer(&call, &ok, &ledger, 1);
            ledger.record(call.place, call.method, &ok, 1);
        }
        for (method, share) in CallMethod::ALL.into_iter().zip([50.0, 25.0, 15.0, 5.0, 5.0]) {
            let got = f64::from(counts[method as usize]) / f64::from(n) * 100.0;
            assert!((got - share).abs() < 0.6, "{method:?}: {got}");
        }
        assert!((f64::from(repeats) / f64::from(n) - 0.1).abs() < 0.006, "{repeats}");
        assert_eq!(quantities[0], 0);
        assert!(quantities[1..].iter().all(|count| *count > n / 4));
        assert!(workload.substituted < 50, "{}", workload.substituted);
        assert_eq!(ledger.violations.total(), 0, "no hold was used twice: {:?}", ledger.violations);
    }

    #[test]
    fn only_recent_holds_are_used() {
        let scenario = scenario(
            "hold_seconds = 10\nevents = { prefix = \"e\", stock = 9 }\nmix = { hold = 50, commit = 50 }",
        );
        let mut workload = Workload::new(&scenario, 0);
        let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
        let hold = loop {
            let call = workload.next(&mut ledger, 0);
            if call.method == CallMethod::Hold {
                break call;
            }
        };
        workload.on_answer(&hold, &CallAnswer::of(OutcomeKind::Ok), &ledger, 0);
        assert_eq!(workload.take_recent_hold(4_000_000_000), None, "too old");
        workload.on_answer(&hold, &CallAnswer::of(OutcomeKind::Ok), &ledger, 0);
        assert_eq!(workload.take_recent_hold(3_999_999_999), Some(hold.place));
        assert_eq!(workload.take_recent_hold(0), None, "only once");
    }

    #[test]
    fn buyers_prefer_the_front_rows_until_all_seats_are_taken() {
        let scenario = scenario(
            "events = { prefix = \"e\", seats = 500 }\nseats = { pick = \"exact\", crowd = 20 }\nmix = { hold = 100 }",
        );
        let mut workload = Workload::new(&scenario, 0);
        let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
        let first: Vec<_> =
            (0..1_000).map(|_| workload.next(&mut ledger, 0).seat.unwrap()).collect();
        let mean = first.iter().sum::<u32>() as f64 / 1_000.0;
        assert!((15.0..25.0).contains(&mean), "{mean}");
        let mut taken = std::collections::HashSet::new();
        for _ in 0..500 {
            let call = workload.next(&mut ledger, 0);
            assert!(taken.insert(call.seat.unwrap()), "a taken seat was picked");
            workload.on_answer(&call, &CallAnswer::of(OutcomeKind::Ok), &ledger, 0);
        }
        assert!(workload.next(&mut ledger, 0).seat.unwrap() < 500);
    }
}
