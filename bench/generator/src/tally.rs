//! What is measured while a run goes on: latencies by method and outcome, a series by second, and
//! how late the generator itself was.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits;
use crate::outcome::{Class, Method, Outcome};

/// Latencies in microseconds, three digits, up to a minute.
pub type Latencies = Histogram<u32>;

/// # Panics
/// Never: the bounds are constants that hdrhistogram takes.
pub fn latencies() -> Latencies {
    new_histogram(3)
}

fn new_histogram(digits: u8) -> Latencies {
    let made = Histogram::new_with_bounds(1, limits::LATENCY_MAX_US, digits);
    #[allow(clippy::unwrap_used)] // 1 < 2 * 1 <= LATENCY_MAX_US, digits of 2 and 3: always legal.
    made.unwrap()
}

/// Records a latency, cut to the bounds.
pub fn record(histogram: &mut Latencies, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(micros.max(1));
}

/// One second of the run, by when calls were due.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Calls that were due, and of them those that could not be sent.
    pub due: u64,
    pub not_sent: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    /// Of answers that were not shed and no errors: checks, and all other calls.
    pub checks: Option<Box<Latencies>>,
    pub writes: Option<Box<Latencies>>,
    /// Of answers that were shed.
    pub sheds: Option<Box<Latencies>>,
}

/// One worker's measurements, or all of them together.
#[derive(Default)]
pub struct Tally {
    /// By method and outcome, of calls due in the measured part.
    cells: Vec<Option<Box<Latencies>>>,
    pub seconds: Vec<Second>,
    /// Scheduled to written, of the measured part.
    pub lateness: Option<Box<Latencies>>,
    /// Calls written in the measured part, repeats left out; with them; and in all.
    pub planned_measured: u64,
    pub sent_measured: u64,
    pub sent: u64,
    pub not_sent: u64,
    /// Repeats among the sent.
    pub repeats: u64,
    /// Commits and releases that found no hold to end and placed one instead.
    pub substituted: u64,
    pub reconnects: u64,
    /// CPU of the worker's thread in the measured part.
    pub cpu_measured: Duration,
    /// Most calls in flight at once.
    pub in_flight_most: usize,
}

fn cell(method: Method, outcome: Outcome) -> usize {
    method as usize * Outcome::ALL.len() + outcome as usize
}

fn merge(into: &mut Option<Box<Latencies>>, from: Option<Box<Latencies>>) {
    match (into, from) {
        (_, None) => {}
        (Some(into), Some(from)) => {
            // The bounds are the same.
            let _ = into.add(&*from);
        }
        (into, from) => *into = from,
    }
}

impl Tally {
    pub fn new() -> Self {
        Self {
            cells: vec![None; Method::ALL.len() * Outcome::ALL.len()],
            ..Self::default()
        }
    }

    fn second(&mut self, due: u64) -> &mut Second {
        let at = usize::try_from(due / 1_000_000_000).unwrap_or(usize::MAX);
        // Later repeats may be due after the curve; the bound is that of a run's length.
        let at = at.min(limits::SECONDS_MAX as usize + 60);
        if at >= self.seconds.len() {
            self.seconds.resize_with(at + 1, Second::default);
        }
        &mut self.seconds[at]
    }

    /// A call was due; `sent`: and is on its way.
    pub fn due(&mut self, due: u64, sent: bool, repeat: bool, measured: bool) {
        let second = self.second(due);
        second.due += 1;
        second.not_sent += u64::from(!sent);
        self.not_sent += u64::from(!sent);
        self.sent += u64::from(sent);
        self.sent_measured += u64::from(sent && measured);
        self.planned_measured += u64::from(sent && measured && !repeat);
        self.repeats += u64::from(sent && repeat);
    }

    /// A call was written this long after it was due.
    pub fn written(&mut self, late: Duration) {
        record(
            self.lateness.get_or_insert_with(|| Box::new(latencies())),
            late,
        );
    }

    /// A call was answered at `now`, nanoseconds as `due`.
    pub fn answered(
        &mut self,
        method: Method,
        outcome: Outcome,
        due: u64,
        now: u64,
        measured: bool,
    ) {
        let latency = Duration::from_nanos(now.saturating_sub(due));
        if measured {
            let cell = &mut self.cells[cell(method, outcome)];
            record(cell.get_or_insert_with(|| Box::new(latencies())), latency);
        }
        let second = self.second(due);
        let class = outcome.class();
        let histogram = match class {
            Class::Ok | Class::Refused if method == Method::Check => &mut second.checks,
            Class::Ok | Class::Refused => &mut second.writes,
            Class::Shed => &mut second.sheds,
            Class::Error => &mut None,
        };
        if class != Class::Error {
            record(
                histogram.get_or_insert_with(|| Box::new(new_histogram(2))),
                latency,
            );
        }
        match class {
            Class::Ok => second.ok += 1,
            Class::Refused => second.refused += 1,
            Class::Shed => second.shed += 1,
            Class::Error => second.errors += 1,
        }
    }

    /// Latencies of one method and outcome.
    pub fn of(&self, method: Method, outcome: Outcome) -> Option<&Latencies> {
        self.cells.get(cell(method, outcome))?.as_deref()
    }

    /// Latencies of one method over outcomes that `wanted` picks.
    pub fn over(&self, method: Method, wanted: impl Fn(Outcome) -> bool) -> Latencies {
        let mut sum = latencies();
        for outcome in Outcome::ALL.into_iter().filter(|outcome| wanted(*outcome)) {
            if let Some(of) = self.of(method, outcome) {
                let _ = sum.add(of);
            }
        }
        sum
    }

    /// Adds another worker's.
    pub fn absorb(&mut self, other: Self) {
        for (into, from) in self.cells.iter_mut().zip(other.cells) {
            merge(into, from);
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds
                .resize_with(other.seconds.len(), Second::default);
        }
        for (into, from) in self.seconds.iter_mut().zip(other.seconds) {
            into.due += from.due;
            into.not_sent += from.not_sent;
            into.ok += from.ok;
            into.refused += from.refused;
            into.shed += from.shed;
            into.errors += from.errors;
            merge(&mut into.checks, from.checks);
            merge(&mut into.writes, from.writes);
            merge(&mut into.sheds, from.sheds);
        }
        merge(&mut self.lateness, other.lateness);
        self.sent_measured += other.sent_measured;
        self.planned_measured += other.planned_measured;
        self.sent += other.sent;
        self.not_sent += other.not_sent;
        self.repeats += other.repeats;
        self.substituted += other.substituted;
        self.reconnects += other.reconnects;
        self.cpu_measured += other.cpu_measured;
        self.in_flight_most += other.in_flight_most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_from_when_the_call_was_due() {
        let mut tally = Tally::new();
        tally.answered(
            Method::Check,
            Outcome::Ok,
            1_500_000_000,
            1_700_000_000,
            true,
        );
        tally.answered(
            Method::Check,
            Outcome::Shed,
            1_600_000_000,
            1_601_000_000,
            true,
        );
        tally.answered(Method::Check, Outcome::Ok, 10, 20, false);
        let all = tally.over(Method::Check, |_| true);
        assert_eq!(all.len(), 2, "the warm-up does not count");
        assert!((199_000..=201_000).contains(&all.max()));
        assert_eq!(
            (
                tally.seconds[0].ok,
                tally.seconds[1].ok,
                tally.seconds[1].shed
            ),
            (1, 1, 1)
        );
        assert_eq!(tally.seconds[1].checks.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn workers_add_up() {
        let mut all = Tally::new();
        for part in 0..3_u64 {
            let mut tally = Tally::new();
            for n in 0..10 {
                tally.due(part * 1_000_000_000, n > 0, false, true);
                tally.answered(
                    Method::Hold,
                    Outcome::Ok,
                    part * 1_000_000_000,
                    5_000_000_000,
                    true,
                );
            }
            all.absorb(tally);
        }
        assert_eq!((all.sent, all.not_sent), (27, 3));
        assert_eq!(all.over(Method::Hold, |_| true).len(), 30);
        assert!(
            all.seconds
                .iter()
                .take(3)
                .all(|second| second.due == 10 && second.ok == 10)
        );
    }
}
