//! What a run, or many together, went through: shown, and held against zero, so that a simulation
//! that has stopped reaching its hard cases fails instead of passing.

use std::collections::BTreeMap;
use std::fmt;

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::counters::Counters;

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    fn add(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Report) {
        self.runs += other.runs;
        self.steps += other.steps;
        for (what, times) in &other.counts {
            self.add(what, *times);
        }
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        self.count(name_of(answer));
    }

    pub(crate) fn counters(&mut self, counters: &Counters) {
        self.add("cache hits", counters.cache_hits);
        self.add("joined calls", counters.joined);
        self.add("forwarded calls", counters.forwarded);
        self.add("transactions", counters.transactions);
        self.add("members", counters.members);
        self.add("resends", counters.resends);
        self.add("unknown outcomes", counters.unknown_outcomes);
        self.add("conflicts", counters.conflicts);
        self.add("throttles", counters.throttles);
        self.add("splits", counters.splits);
        self.add("duplicates", counters.duplicates);
        self.add("short members", counters.short);
        self.add("expired members", counters.expired);
        self.add("event reads", counters.event_reads);
    }
}

pub(crate) fn name_of(answer: &Answer) -> &'static str {
    match answer {
        Answer::Confirmed { .. } => "Confirmed",
        Answer::Released => "Released",
        Answer::Refused(refusal) => match refusal {
            Refusal::InsufficientInventory { .. } => "InsufficientInventory",
            Refusal::EventNotFound => "EventNotFound",
            Refusal::IdempotencyConflict => "IdempotencyConflict",
            Refusal::ReservationReleased => "ReservationReleased",
            Refusal::ReservationCommitted => "ReservationCommitted",
            Refusal::DeadlineExceeded => "DeadlineExceeded",
            Refusal::Overloaded { .. } => "Overloaded",
            Refusal::StoreBusy { .. } => "StoreBusy",
            Refusal::StoreUnavailable { .. } => "StoreUnavailable",
            Refusal::Internal => "Internal",
        },
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs, {} steps", self.runs, self.steps)?;
        for (what, times) in &self.counts {
            write!(f, ", {what} {times}")?;
        }
        Ok(())
    }
}
