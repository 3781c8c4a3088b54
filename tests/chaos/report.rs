//! What a run prints: a line per round, and tables of faults, calls and checks at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use inventory_history::HistorySummary;

use crate::faults::FaultOutcome;
use crate::schedule::ChaosFault;

/// Prints past the capture of the test harness.
pub(crate) fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What one round has shown.
#[derive(Debug, Default)]
pub(crate) struct RoundReport {
    pub(crate) seed: u64,
    pub(crate) store: &'static str,
    /// Each fault, with the time from its end until all processes were back to normal.
    pub(crate) faults: Vec<(ChaosFault, FaultOutcome, Duration)>,
    /// Answers and connections to the store that a fault has hit.
    pub(crate) affected: u64,
    /// From the end of an outage until the stock of holds that had expired long before was back.
    pub(crate) moved_holds_back: Duration,
    /// From the end of the load until no hold was left.
    pub(crate) last_holds_back: Duration,
    /// Attempts by operation and effect.
    pub(crate) calls: BTreeMap<(&'static str, &'static str), u64>,
    /// Failed attempts by status and reason.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) summary: HistorySummary,
    /// Successful calls that the store was checked against.
    pub(crate) acknowledged: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) took: Duration,
}

impl RoundReport {
    pub(crate) fn line(&self) -> String {
        let hits = self.faults.iter().filter(|(_, outcome, _)| is_hit(outcome)).count();
        let slowest = self.faults.iter().map(|(.., normal)| *normal).max().unwrap_or_default();
        format!(
            "round with seed {} ({}): {hits} faults, {} calls, {} violation(s), slowest return to \
             normal {slowest:.1?}, holds back {:.1?}, {:.0?}",
            self.seed,
            self.store,
            self.calls.values().sum::<u64>(),
            self.violations.len(),
            self.last_holds_back.max(self.moved_holds_back),
            self.took,
        )
    }
}

fn is_hit(outcome: &FaultOutcome) -> bool {
    !matches!(outcome, FaultOutcome::Skipped(_))
}

/// The tables of all rounds.
pub(crate) fn summary(rounds: &[RoundReport]) -> String {
    let mut text =
        String::from("fault                               hits  largest time to normal\n");
    for kind in ChaosFault::ALL {
        let all = rounds.iter().flat_map(|round| &round.faults).filter(|fault| fault.0 == kind);
        let hits: Vec<_> = all.filter(|(_, outcome, _)| is_hit(outcome)).collect();
        let slowest = hits.iter().map(|(.., normal)| *normal).max().unwrap_or_default();
        let killed = hits.iter().filter(|fault| fault.1 == FaultOutcome::HitAndKilled).count();
        let note = if killed > 0 { format!("  ({killed} killed)") } else { String::new() };
        let seconds = format!("{:.2} s", slowest.as_secs_f64());
        let _ = writeln!(text, "{:<34}  {:>4}  {seconds:>22}{note}", kind.name(), hits.len());
    }
    let mut calls = BTreeMap::new();
    for (name, count) in rounds.iter().flat_map(|round| &round.calls) {
        *calls.entry(*name).or_insert(0) += count;
    }
    text += "\ncall      effect                      attempts\n";
    for ((call, effect), count) in calls {
        let _ = writeln!(text, "{call:<8}  {effect:<24}  {count:>10}");
    }
    let mut failures = BTreeMap::new();
    for (name, count) in rounds.iter().flat_map(|round| &round.failures) {
        *failures.entry(name).or_insert(0) += count;
    }
    text += "\nstatus of a failed attempt                attempts\n";
    for (name, count) in failures {
        let _ = writeln!(text, "{name:<38}  {count:>10}");
    }
    let sum = |of: fn(&RoundReport) -> usize| rounds.iter().map(of).sum::<usize>();
    let slowest =
        |of: fn(&RoundReport) -> Duration| rounds.iter().map(of).max().unwrap_or_default();
    let _ = write!(
        text,
        "\nrounds                                        {}\n\
         histories of reservations, of seats           {}, {}\n\
         most calls of one history                     {}\n\
         histories without a decision                  {}\n\
         acknowledged calls checked against the store  {}\n\
         store answers and connections hit             {}\n\
         holds that expired long ago: back after       {:.1?} at most\n\
         last holds: back after                        {:.1?} at most\n\
         violations                                    {}\n",
        rounds.len(),
        sum(|round| round.summary.reservations),
        sum(|round| round.summary.seats),
        rounds.iter().map(|round| round.summary.longest).max().unwrap_or_default(),
        sum(|round| round.summary.not_decided),
        sum(|round| round.acknowledged),
        sum(|round| round.affected as usize),
        slowest(|round| round.moved_holds_back),
        slowest(|round| round.last_holds_back),
        sum(|round| round.violations.len()),
    );
    text
}
