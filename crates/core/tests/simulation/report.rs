//! Counts of one run or of many: calls, injected faults, and the cases that the runs reached. A case that
//! is never reached fails the sweep, so that the simulation cannot lose its hard cases unnoticed.

use std::collections::BTreeMap;
use std::fmt;

use inventory_core::answer::{Answer, Rejection, ReleaseOutcome};
use inventory_core::counters::Counters;
use inventory_core::transaction::{RecordWrite, ReservationState};

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) calls: u64,
    /// Injected faults, by kind.
    faults: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    fn add(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        let counts = self.counts.get(what).or_else(|| self.faults.get(what));
        counts.copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Report) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.calls += other.calls;
        for (kind, times) in &other.faults {
            *self.faults.entry(kind).or_default() += times;
        }
        for (what, times) in &other.counts {
            self.add(what, *times);
        }
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        self.count(name_of(answer));
    }

    pub(crate) fn write(&mut self, write: &RecordWrite) {
        use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
        if write.reservation().is_release_record() {
            self.count("release records");
            return;
        }
        self.count(match (write.from, write.to) {
            (Some(Held), Confirmed) if write.seats.is_some() => "commits of held seats",
            (Some(Held), Confirmed) => "commits of held units",
            (Some(Held), Released) => "holds released",
            (Some(Held), Expired) => "holds expired",
            (Some(Expired), Confirmed) => "late commits after expiry",
            (Some(Confirmed), Refunded) => "orders refunded",
            (None, Held) => "holds",
            (None, Released) => "tombstones",
            _ => "direct sales",
        });
    }

    pub(crate) fn counters(&mut self, counters: &Counters) {
        self.add("cache hits", counters.cache_hits);
        self.add("coalesced calls", counters.joined);
        self.add("forwarded calls", counters.forwarded);
        self.add("transactions", counters.transactions);
        self.add("entries", counters.entries);
        self.add("resends", counters.resends);
        self.add("unknown outcomes", counters.unknown_outcomes);
        self.add("conflicts", counters.conflicts);
        self.add("throttles", counters.throttles);
        self.add("splits", counters.splits);
        self.add("duplicates", counters.duplicates);
        self.add("short entries", counters.stripe_shortages);
        self.add("stock moves", counters.stock_moves);
        self.add("sold out after a read", counters.sold_out);
        self.add("rejected for the queue", counters.rejected_by_admission);
        self.add("expired entries", counters.deadline_missed);
        self.add("stripe reads", counters.stripe_reads);
        self.add("snapshot refreshes", counters.snapshot_refreshes);
        self.add("record reads", counters.record_reads);
        self.add("seat reads", counters.seat_reads);
        self.add("seat verifications", counters.seat_verifications);
        self.add("seat verifications that differ", counters.seat_verification_mismatches);
        self.add("seats rejected from the cache", counters.seats_rejected_by_map);
        self.add("seats found taken", counters.seats_rejected_by_write);
    }
}

pub(crate) fn name_of(answer: &Answer) -> &'static str {
    match answer {
        Answer::Held { .. } => "Held",
        Answer::Confirmed { .. } => "Confirmed",
        Answer::Released { how, .. } => match how {
            ReleaseOutcome::Released => "Released now",
            ReleaseOutcome::AlreadyReleased => "Released before",
            ReleaseOutcome::NoReservation => "Released, and never was",
        },
        Answer::Expired => "Expired",
        Answer::Refunded => "Refunded",
        Answer::Rejected(refusal) => match refusal {
            Rejection::InsufficientInventory { .. } => "InsufficientInventory",
            Rejection::EventNotFound => "EventNotFound",
            Rejection::EventClosed => "EventClosed",
            Rejection::SeatsUnavailable { .. } => "SeatsUnavailable",
            Rejection::SeatsNotFound { .. } => "SeatsNotFound",
            Rejection::IdempotencyConflict => "IdempotencyConflict",
            Rejection::PaymentConflict { .. } => "PaymentConflict",
            Rejection::SectionNotFound(_) => "SectionNotFound",
            Rejection::TooManySeats { .. } => "TooManySeats",
            Rejection::ReservationReleased => "ReservationReleased",
            Rejection::ReservationCommitted => "ReservationCommitted",
            Rejection::HoldExpired => "HoldExpired",
            Rejection::ReservationNotFound => "ReservationNotFound",
            Rejection::ReservationNotConfirmed => "ReservationNotConfirmed",
            Rejection::DeadlineExceeded => "DeadlineExceeded",
            Rejection::Overloaded { .. } => "Overloaded",
            Rejection::StoreBusy { .. } => "StoreBusy",
            Rejection::StoreUnavailable { .. } => "StoreUnavailable",
            Rejection::OutcomeUnknown { .. } => "OutcomeUnknown",
            Rejection::Internal => "Internal",
        },
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<&'static str, u64>| {
            let counts: Vec<_> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
            counts.join(", ")
        };
        let (runs, calls, steps) = (self.runs, self.calls, self.steps);
        writeln!(f, "{runs} runs, {calls} calls, {steps} steps")?;
        writeln!(f, "faults: {}", listed(&self.faults))?;
        write!(f, "reached: {}", listed(&self.counts))
    }
}
