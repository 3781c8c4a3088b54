//! What a run found, in numbers and as a table.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;

use super::ledger::Ledger;

/// A moment of a run, for a live line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub elapsed: Duration,
    pub tickets: u64,
    pub units_sold: u64,
    pub buyers: u64,
    pub buyers_done: u64,
    /// Buyers who were told "sold out".
    pub sold_out: u64,
    /// Repeats answered identically.
    pub duplicates: u64,
    pub violations: u64,
    /// Calls answered, or given up.
    pub calls: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        write!(
            f,
            "{seconds:5.1} s  {}/{} tickets  {}/{} buyers  {} sold out  {} repeats  {:.0} calls/s",
            self.units_sold,
            self.tickets,
            self.buyers_done,
            self.buyers,
            self.sold_out,
            self.duplicates,
            self.calls as f64 / seconds.max(0.001),
        )
    }
}

/// The result of a run, as its clients saw it.
#[derive(Clone, Debug)]
pub struct Report {
    pub tickets: u64,
    /// The whole run.
    pub elapsed: Duration,
    /// The sale alone, without the repeats at the end.
    pub sale: Duration,
    /// Calls answered or given up; repeats of one call by the retry rule are not counted again.
    pub calls: u64,
    /// Calls that moved to another server because none had processed them.
    pub moved: u64,
    /// Attempts that were repeated with the same reservation_id, by cause.
    pub retries: BTreeMap<String, u64>,
    /// Statuses outside the contract's table, and calls that were never answered.
    pub errors: BTreeMap<String, u64>,
    /// The first few of them with their messages.
    pub error_examples: Vec<String>,
    /// Latency of each call in microseconds, from first attempt to last answer.
    pub latency_us: Histogram<u64>,
    /// Every reservation and what it was told, to be compared with the store.
    pub ledger: Ledger,
}

impl Report {
    pub fn sold_units(&self) -> u64 {
        self.ledger.sold_units()
    }

    pub fn oversold_units(&self) -> u64 {
        self.ledger.oversold_units(self.tickets)
    }

    /// See [`Ledger::undersold_units`].
    pub fn undersold_units(&self) -> u64 {
        self.ledger.undersold_units(self.tickets)
    }

    pub fn requests_per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency in microseconds that `percentile` (0 to 100) of the calls kept within.
    pub fn latency_us_at(&self, percentile: f64) -> u64 {
        self.latency_us.value_at_percentile(percentile)
    }

    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn retries_total(&self) -> u64 {
        self.retries.values().sum()
    }

    /// No rule broken, nothing oversold or undersold, no error, no outcome unknown.
    pub fn is_clean(&self) -> bool {
        let counts = self.ledger.counts();
        counts.violations == 0
            && counts.unknown == 0
            && self.errors.is_empty()
            && self.oversold_units() == 0
            && self.undersold_units() == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.ledger.counts();
        let mut row = |name: &str, value: String| writeln!(f, "{name:<32}{value:>14}");
        row("tickets", self.tickets.to_string())?;
        row("buyers", self.ledger.len().to_string())?;
        row("units sold", self.sold_units().to_string())?;
        row("reservations confirmed", counts.confirmed.to_string())?;
        row("reservations told sold out", counts.sold_out.to_string())?;
        row("released before any commit", counts.released.to_string())?;
        row("outcome unknown", counts.unknown.to_string())?;
        row(
            "duplicates answered identically",
            counts.duplicates_identical.to_string(),
        )?;
        row(
            "duplicates answered differently",
            counts.duplicates_different.to_string(),
        )?;
        row(
            "commits after release refused",
            counts.late_commits_refused.to_string(),
        )?;
        row(
            "releases after commit refused",
            counts.late_releases_refused.to_string(),
        )?;
        row(
            "other payloads refused",
            counts.conflicts_refused.to_string(),
        )?;
        row(
            "quantities refused too early",
            counts.refused_too_early.to_string(),
        )?;
        row("rules broken", counts.violations.to_string())?;
        row("oversold", self.oversold_units().to_string())?;
        row("undersold", self.undersold_units().to_string())?;
        row("calls", self.calls.to_string())?;
        row("retries", self.retries_total().to_string())?;
        row("errors", self.errors_total().to_string())?;
        row("calls/s", format!("{:.0}", self.requests_per_second()))?;
        for (name, percentile) in [("p50", 50.0), ("p95", 95.0), ("p99", 99.0)] {
            row(
                &format!("latency {name}, ms"),
                format!("{:.2}", self.latency_us_at(percentile) as f64 / 1_000.0),
            )?;
        }
        row(
            "latency max, ms",
            format!("{:.2}", self.latency_us.max() as f64 / 1_000.0),
        )?;
        for (name, counts) in [("retried", &self.retries), ("error", &self.errors)] {
            for (cause, count) in counts {
                writeln!(f, "{name}: {count} × {cause}")?;
            }
        }
        for example in &self.error_examples {
            writeln!(f, "for example: {example}")?;
        }
        for violation in self.ledger.violations() {
            writeln!(f, "broken: {violation}")?;
        }
        Ok(())
    }
}
