//! Measurements of a run: latencies by method and outcome, counts by second, and the lateness of the generator.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits;
use crate::outcome::{CallMethod, OutcomeClass, OutcomeKind};

/// Latencies in microseconds, three digits, up to a minute.
pub(crate) type LatencyHistogram = Histogram<u32>;

pub(crate) fn new_latencies() -> LatencyHistogram {
    new_histogram(3)
}

fn new_histogram(digits: u8) -> LatencyHistogram {
    let made = Histogram::new_with_bounds(1, limits::LATENCY_MAX_US, digits);
    #[allow(clippy::unwrap_used)]
    // The bounds are constants that hdrhistogram accepts; digits are 2 or 3.
    made.unwrap()
}

/// Records a latency, clamped to the bounds.
pub(crate) fn record(histogram: &mut LatencyHistogram, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(micros.max(1));
}

/// One second of the run. Calls belong to the second in which they were due.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecondStats {
    /// Calls that were due, and the part of them that could not be sent.
    pub due: u64,
    pub not_sent: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    /// Latencies of successful and refused checks, and of all other calls.
    pub checks: Option<Box<LatencyHistogram>>,
    pub writes: Option<Box<LatencyHistogram>>,
    /// Latencies of shed calls.
    pub sheds: Option<Box<LatencyHistogram>>,
}

/// Measurements of one worker, or of all workers.
#[derive(Default)]
pub(crate) struct RunStats {
    /// Latencies by method and outcome, for calls due in the measured part.
    cells: Vec<Option<Box<LatencyHistogram>>>,
    pub seconds: Vec<SecondStats>,
    /// Time from due to written, in the measured part.
    pub lateness: Option<Box<LatencyHistogram>>,
    /// Calls sent in the measured part, without repeats.
    pub planned_measured: u64,
    /// Calls sent in the measured part.
    pub sent_measured: u64,
    pub sent: u64,
    pub not_sent: u64,
    /// Repeats among the calls sent.
    pub repeats: u64,
    /// Holds placed in place of a commit or release because no hold was available.
    pub substituted: u64,
    pub reconnects: u64,
    /// CPU time of the worker threads in the measured part.
    pub cpu_measured: Duration,
    /// Maximum number of calls in flight.
    pub in_flight_most: usize,
}

fn cell(method: CallMethod, outcome: OutcomeKind) -> usize {
    method as usize * OutcomeKind::COUNT + outcome as usize
}

fn merge_histogram(into: &mut Option<Box<LatencyHistogram>>, from: Option<Box<LatencyHistogram>>) {
    match (into, from) {
        (_, None) => {}
        (Some(into), Some(from)) => {
            // Cannot fail: all histograms have the same bounds.
            let _ = into.add(&*from);
        }
        (into, from) => *into = from,
    }
}

impl RunStats {
    pub(crate) fn new() -> Self {
        Self { cells: vec![None; CallMethod::ALL.len() * OutcomeKind::COUNT], ..Self::default() }
    }

    fn second(&mut self, due: u64) -> &mut SecondStats {
        let at = usize::try_from(due / 1_000_000_000).unwrap_or(usize::MAX);
        // Delayed repeats may be due after the end of the curve.
        let at = at.min(limits::SECONDS_MAX as usize + 60);
        if at >= self.seconds.len() {
            self.seconds.resize_with(at + 1, SecondStats::default);
        }
        &mut self.seconds[at]
    }

    /// Records that a call was due and whether it was sent.
    pub(crate) fn record_due(&mut self, due: u64, sent: bool, repeat: bool, measured: bool) {
        let second = self.second(due);
        second.due += 1;
        second.not_sent += u64::from(!sent);
        self.not_sent += u64::from(!sent);
        self.sent += u64::from(sent);
        self.sent_measured += u64::from(sent && measured);
        self.planned_measured += u64::from(sent && measured && !repeat);
        self.repeats += u64::from(sent && repeat);
    }

    /// Records how late a call was written.
    pub(crate) fn record_written(&mut self, late: Duration) {
        record(self.lateness.get_or_insert_with(|| Box::new(new_latencies())), late);
    }

    /// Records an answer. `due` and `now` are nanoseconds since the start.
    pub(crate) fn record_answer(
        &mut self,
        method: CallMethod,
        outcome: OutcomeKind,
        due: u64,
        now: u64,
        measured: bool,
    ) {
        let latency = Duration::from_nanos(now.saturating_sub(due));
        if measured {
            let cell = &mut self.cells[cell(method, outcome)];
            record(cell.get_or_insert_with(|| Box::new(new_latencies())), latency);
        }
        let second = self.second(due);
        let class = outcome.class();
        let histogram = match class {
            OutcomeClass::Ok | OutcomeClass::Refused if method == CallMethod::Check => {
                &mut second.checks
            }
            OutcomeClass::Ok | OutcomeClass::Refused => &mut second.writes,
            OutcomeClass::Shed => &mut second.sheds,
            OutcomeClass::Error => &mut None,
        };
        if class != OutcomeClass::Error {
            record(histogram.get_or_insert_with(|| Box::new(new_histogram(2))), latency);
        }
        match class {
            OutcomeClass::Ok => second.ok += 1,
            OutcomeClass::Refused => second.refused += 1,
            OutcomeClass::Shed => second.shed += 1,
            OutcomeClass::Error => second.errors += 1,
        }
    }

    /// Latencies of one method and outcome.
    pub(crate) fn latencies_of(
        &self,
        method: CallMethod,
        outcome: OutcomeKind,
    ) -> Option<&LatencyHistogram> {
        self.cells.get(cell(method, outcome))?.as_deref()
    }

    /// Latencies of one method over the outcomes that match.
    pub(crate) fn latencies_over(
        &self,
        method: CallMethod,
        matches: impl Fn(OutcomeKind) -> bool,
    ) -> LatencyHistogram {
        let mut sum = new_latencies();
        for outcome in OutcomeKind::all().filter(|outcome| matches(*outcome)) {
            if let Some(of) = self.latencies_of(method, outcome) {
                let _ = sum.add(of);
            }
        }
        sum
    }

    /// Adds the measurements of another worker.
    pub(crate) fn merge(&mut self, other: Self) {
        for (into, from) in self.cells.iter_mut().zip(other.cells) {
            merge_histogram(into, from);
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), SecondStats::default);
        }
        for (into, from) in self.seconds.iter_mut().zip(other.seconds) {
            into.due += from.due;
            into.not_sent += from.not_sent;
            into.ok += from.ok;
            into.refused += from.refused;
            into.shed += from.shed;
            into.errors += from.errors;
            merge_histogram(&mut into.checks, from.checks);
            merge_histogram(&mut into.writes, from.writes);
            merge_histogram(&mut into.sheds, from.sheds);
        }
        merge_histogram(&mut self.lateness, other.lateness);
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
        let mut stats = RunStats::new();
        stats.record_answer(CallMethod::Check, OutcomeKind::Ok, 1_500_000_000, 1_700_000_000, true);
        stats.record_answer(
            CallMethod::Check,
            OutcomeKind::Shed,
            1_600_000_000,
            1_601_000_000,
            true,
        );
        stats.record_answer(CallMethod::Check, OutcomeKind::Ok, 10, 20, false);
        let all = stats.latencies_over(CallMethod::Check, |_| true);
        assert_eq!(all.len(), 2, "the warm-up does not count");
        assert!((199_000..=201_000).contains(&all.max()));
        assert_eq!((stats.seconds[0].ok, stats.seconds[1].ok, stats.seconds[1].shed), (1, 1, 1));
        assert_eq!(stats.seconds[1].checks.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn workers_add_up() {
        let mut all = RunStats::new();
        for part in 0..3_u64 {
            let mut stats = RunStats::new();
            for n in 0..10 {
                stats.record_due(part * 1_000_000_000, n > 0, false, true);
                stats.record_answer(
                    CallMethod::Hold,
                    OutcomeKind::Ok,
                    part * 1_000_000_000,
                    5_000_000_000,
                    true,
                );
            }
            all.merge(stats);
        }
        assert_eq!((all.sent, all.not_sent), (27, 3));
        assert_eq!(all.latencies_over(CallMethod::Hold, |_| true).len(), 30);
        assert!(all.seconds.iter().take(3).all(|second| second.due == 10 && second.ok == 10));
    }
}
