//! Results of a sale as numbers and as a table.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;

use super::ledger::SaleLedger;

/// Progress of a running sale, for a status line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaleProgress {
    pub elapsed: Duration,
    pub tickets: u64,
    pub units_sold: u64,
    pub buyers: u64,
    pub buyers_done: u64,
    /// Reservations refused as sold out.
    pub sold_out: u64,
    /// Repeats answered identically.
    pub duplicates: u64,
    pub violations: u64,
    /// Calls answered or given up.
    pub calls: u64,
}

impl fmt::Display for SaleProgress {
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

/// Result of a sale, as its clients saw it.
#[derive(Clone, Debug)]
pub struct SaleReport {
    pub tickets: u64,
    /// The whole sale, with the repeats at the end.
    pub elapsed: Duration,
    /// Without the repeats at the end.
    pub sale: Duration,
    /// Calls answered or given up; retries of one call are not counted again.
    pub calls: u64,
    /// Calls that moved to another server because they were never processed.
    pub moved: u64,
    /// Attempts that were retried with the same reservation_id, by cause.
    pub retries: BTreeMap<String, u64>,
    /// Statuses that the contract does not list, and calls that were never answered.
    pub errors: BTreeMap<String, u64>,
    /// The first few errors with their messages.
    pub error_examples: Vec<String>,
    /// Latency of each call in microseconds, from first attempt to last answer.
    pub latency_us: Histogram<u64>,
    /// Every reservation and its outcome, to be compared with the store.
    pub ledger: SaleLedger,
}

impl SaleReport {
    pub fn sold_units(&self) -> u64 {
        self.ledger.sold_units()
    }

    pub fn oversold_units(&self) -> u64 {
        self.ledger.oversold_units(self.tickets)
    }

    /// See [`SaleLedger::undersold_units`].
    pub fn undersold_units(&self) -> u64 {
        self.ledger.undersold_units(self.tickets)
    }

    pub fn requests_per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Latency at a percentile from 0 to 100, in microseconds.
    pub fn latency_us_at(&self, percentile: f64) -> u64 {
        self.latency_us.value_at_percentile(percentile)
    }

    pub(crate) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn retries_total(&self) -> u64 {
        self.retries.values().sum()
    }

    /// No broken rule, nothing oversold or undersold, no error, no unknown outcome.
    pub fn is_clean(&self) -> bool {
        let counts = self.ledger.counts();
        counts.violations == 0
            && counts.unknown == 0
            && self.errors.is_empty()
            && self.oversold_units() == 0
            && self.undersold_units() == 0
    }
}

impl fmt::Display for SaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.ledger.counts();
        let mut row = |name: &str, value: String| writeln!(f, "{name:<32}{value:>14}");
        row("tickets", self.tickets.to_string())?;
        row("buyers", self.ledger.len().to_string())?;
        row("units sold", self.sold_units().to_string())?;
        row("reservations confirmed", counts.confirmed.to_string())?;
        row("reservations refused as sold out", counts.sold_out.to_string())?;
        row("released before any commit", counts.released.to_string())?;
        row("outcome unknown", counts.unknown.to_string())?;
        row("duplicates answered identically", counts.duplicates_identical.to_string())?;
        row("duplicates answered differently", counts.duplicates_different.to_string())?;
        row("commits after release refused", counts.late_commits_refused.to_string())?;
        row("releases after commit refused", counts.late_releases_refused.to_string())?;
        row("other payloads refused", counts.conflicts_refused.to_string())?;
        row("quantities refused too early", counts.refused_too_early.to_string())?;
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
        row("latency max, ms", format!("{:.2}", self.latency_us.max() as f64 / 1_000.0))?;
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
