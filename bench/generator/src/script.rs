//! What each arrival is: drawn from the scenario's shares, one script per worker.
//!
//! Commits and releases end holds that this worker placed; a hall remembers which seats it has heard
//! to be taken, as a buyer in front of a seat map would.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::ledger::{Entry, Ledger, Step};
use crate::limits;
use crate::outcome::{Answer, Method, Outcome};
use crate::scenario::{Pick, Scenario, When};
use crate::zipf::Zipf;

/// One call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Of the ledger; of a check without meaning.
    pub(crate) place: u32,
    pub(crate) event: u16,
    pub(crate) qty: u8,
    /// The first seat, if the call names seats.
    pub(crate) seat: Option<u32>,
    pub(crate) repeat: bool,
}

/// When a call is made once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Never,
    Now,
    After(Duration),
}

pub(crate) struct Script {
    rng: SmallRng,
    /// Upper ends of the methods' shares, in percent.
    ends: [f64; 5],
    zipf: Zipf,
    qty: (u32, u32),
    repeat_share: f64,
    when: When,
    crowd: f64,
    /// By event; empty unless seats are asked for by id.
    halls: Vec<Hall>,
    holds: Vec<(u32, u64)>,
    /// Nanoseconds after which a hold is left to expire.
    young: u64,
    pub(crate) substituted: u64,
}

impl Script {
    pub(crate) fn new(scenario: &Scenario, part: u32) -> Self {
        let mut end = 0.0;
        let ends = Method::ALL.map(|method| {
            end += scenario.mix.share(method);
            end
        });
        let exact = scenario.seats.filter(|seats| seats.pick == Pick::Exact);
        let hall = || Hall::new(u32::try_from(scenario.events.seats.unwrap_or(0)).unwrap_or(0));
        let halls = exact.map_or(0, |_| scenario.events.count);
        let reserving = 100.0 - scenario.mix.check;
        let hold = match scenario.hold_seconds {
            0 => 60,
            seconds => seconds,
        };
        Self {
            rng: SmallRng::seed_from_u64(!scenario.seed ^ u64::from(part).rotate_left(40)),
            ends,
            zipf: Zipf::new(scenario.events.count, scenario.events.zipf),
            qty: (scenario.qty.min, scenario.qty.max),
            repeat_share: match reserving > 0.0 {
                true => scenario.duplicates.percent / reserving,
                false => 0.0,
            },
            when: scenario.duplicates.when,
            crowd: exact.map_or(0.0, |seats| seats.crowd),
            halls: (0..halls).map(|_| hall()).collect(),
            holds: Vec::new(),
            young: hold * 400_000_000,
            substituted: 0,
        }
    }

    /// The next call, at `now` nanoseconds.
    pub(crate) fn next(&mut self, ledger: &mut Ledger, now: u64) -> Call {
        let draw = self.rng.random::<f64>() * 100.0;
        let at = self.ends.iter().position(|end| draw < *end);
        // Rounding may leave the last end a little short.
        let last = || self.ends.iter().rposition(|end| *end > 0.0).unwrap_or(0);
        let mut method = Method::ALL[at.unwrap_or_else(last)];
        if matches!(method, Method::Commit | Method::Release) {
            if let Some(place) = self.young_hold(now) {
                return self.about(ledger, method, place);
            }
            self.substituted += 1;
            method = Method::Hold;
        }
        let event = u16::try_from(self.zipf.pick(self.rng.random())).unwrap_or(u16::MAX);
        let qty = self.rng.random_range(self.qty.0..=self.qty.1);
        let seat = self.halls.get(usize::from(event));
        let seat = seat.map(|hall| hall.pick(&mut self.rng, self.crowd, qty));
        let qty = u8::try_from(qty).unwrap_or(u8::MAX);
        let place = match method {
            Method::Check => 0,
            _ => ledger.open(Entry::new(event, qty, seat.unwrap_or(0))),
        };
        Call {
            method,
            place,
            event,
            qty,
            seat,
            repeat: false,
        }
    }

    fn about(&self, ledger: &Ledger, method: Method, place: u32) -> Call {
        let entry = ledger.entries[place as usize];
        Call {
            method,
            place,
            event: entry.event,
            qty: entry.qty,
            seat: (!self.halls.is_empty()).then_some(entry.seat),
            repeat: false,
        }
    }

    fn young_hold(&mut self, now: u64) -> Option<u32> {
        for _ in 0..limits::HOLD_PICKS_MAX {
            if self.holds.is_empty() {
                return None;
            }
            let at = self.rng.random_range(0..self.holds.len());
            let (place, since) = self.holds.swap_remove(at);
            if now.saturating_sub(since) < self.young {
                return Some(place);
            }
        }
        None
    }

    /// Whether and when `call` is made once more.
    pub(crate) fn repeat(&mut self, call: &Call) -> Repeat {
        if call.method == Method::Check || self.repeat_share <= 0.0 {
            return Repeat::Never;
        }
        if self.rng.random::<f64>() >= self.repeat_share {
            return Repeat::Never;
        }
        let now = match self.when {
            When::Immediately => true,
            When::Later => false,
            When::Mixed => self.rng.random(),
        };
        match now {
            true => Repeat::Now,
            false => Repeat::After(
                self.rng
                    .random_range(limits::REPEAT_AFTER_MIN..=limits::REPEAT_AFTER_MAX),
            ),
        }
    }

    /// Learns from an answer, before the ledger has it.
    pub(crate) fn hear(&mut self, call: &Call, answer: &Answer, ledger: &Ledger, now: u64) {
        let ok = answer.outcome == Outcome::Ok;
        if call.method == Method::Hold && ok && self.ends_holds() {
            let first = !ledger.entries[call.place as usize].is_ok(Step::Hold);
            if first && self.holds.len() < limits::HOLDS_REMEMBERED_MAX {
                self.holds.push((call.place, now));
            }
        }
        let (Some(hall), Some(seat)) = (self.halls.get_mut(usize::from(call.event)), call.seat)
        else {
            return;
        };
        match (call.method, answer.outcome) {
            (Method::Hold | Method::DirectCommit, Outcome::Ok) => {
                hall.mark(seat, u32::from(call.qty), true);
            }
            // Of several seats it is not known which.
            (Method::Hold | Method::DirectCommit, Outcome::SeatTaken) => hall.mark(seat, 1, true),
            (Method::Release, Outcome::Ok) => hall.mark(seat, u32::from(call.qty), false),
            _ => {}
        }
    }

    /// Whether holds are ever committed or released.
    fn ends_holds(&self) -> bool {
        let [_, hold, commit, direct, release] = self.ends;
        commit > hold || release > direct
    }
}

/// Which seats of an event are known to be taken.
struct Hall {
    seats: u32,
    taken: Vec<u64>,
    /// No seat before this one is free.
    front: u32,
}

impl Hall {
    fn new(seats: u32) -> Self {
        Self {
            seats,
            taken: vec![0; (seats as usize).div_ceil(64)],
            front: 0,
        }
    }

    fn is_taken(&self, seat: u32) -> bool {
        self.taken[seat as usize / 64] >> (seat % 64) & 1 == 1
    }

    /// The first of `qty` seats that stand side by side, near the front of what is free.
    fn pick(&self, rng: &mut SmallRng, crowd: f64, qty: u32) -> u32 {
        let last = self.seats.saturating_sub(qty);
        let draw = 1.0 - rng.random::<f64>();
        let mut offset = (-draw.ln() * crowd) as u32;
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
        // Nothing free that is known of: somebody tries anyway.
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
    use crate::outcome::Order;

    fn scenario(tables: &str) -> Scenario {
        let text = format!("title = \"t\"\nrate = 1000\nduration = 10\n{tables}");
        let scenario = Scenario::parse(&text).unwrap();
        scenario.check().unwrap();
        scenario
    }

    #[test]
    fn calls_come_in_the_shares_of_the_mix() {
        let scenario = scenario(
            "events = { count = 5, prefix = \"e\", stock = 9 }\nqty = { min = 1, max = 3 }\n\
             mix = { check = 50, hold = 25, commit = 15, direct_commit = 5, release = 5 }\n\
             duplicates = { percent = 10 }",
        );
        let mut script = Script::new(&scenario, 0);
        let mut ledger = Ledger::new("r", 5, true, 0, 1);
        let (mut counts, mut repeats, mut quantities) = ([0_u32; 5], 0, [0_u32; 4]);
        let n = 100_000;
        for _ in 0..n {
            let call = script.next(&mut ledger, 1);
            counts[call.method as usize] += 1;
            quantities[usize::from(call.qty)] += 1;
            repeats += u32::from(script.repeat(&call) != Repeat::Never);
            let ok = Answer {
                order: Some(Order([1; 16])),
                ..Answer::of(Outcome::Ok)
            };
            script.hear(&call, &ok, &ledger, 1);
            ledger.enter(call.place, call.method, &ok, 1);
        }
        for (method, share) in Method::ALL.into_iter().zip([50.0, 25.0, 15.0, 5.0, 5.0]) {
            let got = f64::from(counts[method as usize]) / f64::from(n) * 100.0;
            assert!((got - share).abs() < 0.6, "{method:?}: {got}");
        }
        assert!(
            (f64::from(repeats) / f64::from(n) - 0.1).abs() < 0.006,
            "{repeats}"
        );
        assert_eq!(quantities[0], 0);
        assert!(quantities[1..].iter().all(|count| *count > n / 4));
        assert!(script.substituted < 50, "{}", script.substituted);
        assert_eq!(
            ledger.broken.total(),
            0,
            "no hold was ended twice: {:?}",
            ledger.broken
        );
    }

    #[test]
    fn a_hold_is_ended_while_it_is_young_or_not_at_all() {
        let scenario = scenario(
            "hold_seconds = 10\nevents = { prefix = \"e\", stock = 9 }\nmix = { hold = 50, commit = 50 }",
        );
        let mut script = Script::new(&scenario, 0);
        let mut ledger = Ledger::new("r", 1, true, 0, 1);
        let hold = loop {
            let call = script.next(&mut ledger, 0);
            if call.method == Method::Hold {
                break call;
            }
        };
        script.hear(&hold, &Answer::of(Outcome::Ok), &ledger, 0);
        assert_eq!(script.young_hold(4_000_000_000), None, "too old by then");
        script.hear(&hold, &Answer::of(Outcome::Ok), &ledger, 0);
        assert_eq!(script.young_hold(3_999_999_999), Some(hold.place));
        assert_eq!(script.young_hold(0), None, "only once");
    }

    #[test]
    fn everyone_wants_the_front_and_the_hall_fills_up() {
        let scenario = scenario(
            "events = { prefix = \"e\", seats = 500 }\nseats = { pick = \"exact\", crowd = 20 }\nmix = { hold = 100 }",
        );
        let mut script = Script::new(&scenario, 0);
        let mut ledger = Ledger::new("r", 1, true, 0, 1);
        let first: Vec<_> = (0..1_000)
            .map(|_| script.next(&mut ledger, 0).seat.unwrap())
            .collect();
        let mean = first.iter().sum::<u32>() as f64 / 1_000.0;
        assert!((15.0..25.0).contains(&mean), "{mean}");
        let mut taken = std::collections::HashSet::new();
        for _ in 0..500 {
            let call = script.next(&mut ledger, 0);
            assert!(
                taken.insert(call.seat.unwrap()),
                "a seat known to be taken was asked for"
            );
            script.hear(&call, &Answer::of(Outcome::Ok), &ledger, 0);
        }
        assert!(script.next(&mut ledger, 0).seat.unwrap() < 500);
    }
}
