//! Metrics that a shard counts between two scrapes, in the same types as their sum over all shards.
//!
//! A counter with labels is declared once, in [`labelled_counters`]: field, metric name, labels and help. Not here:
//! updates (`recorder`) or gauges (`aggregate`).

use std::mem;

use prometheus::proto::MetricFamily;

use super::exposition::counters;
use super::series::{LatencyHistogram, Series};

/// Number of gRPC status codes, including OK.
pub(super) const CODES: usize = 17;

/// Calls of one gRPC method.
#[derive(Clone, Debug, Default)]
pub(super) struct MethodMetrics {
    pub(super) latency: LatencyHistogram,
    /// Number of calls by status code.
    pub(super) codes: [u64; CODES],
}

/// Store requests of one operation on one table.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreOperationMetrics {
    pub(super) latency: LatencyHistogram,
    pub(super) statuses: Series<1, u64>,
}

/// Declares the counters with labels: field, metric name, labels, help.
macro_rules! labelled_counters {
    ($($field:ident: $name:literal [$($label:literal),+] $help:literal;)+) => {
        /// Counters with labels.
        #[derive(Clone, Debug, Default)]
        pub(super) struct LabelledCounters {
            $(pub(super) $field: Series<{ [$($label),+].len() }, u64>,)+
        }

        impl LabelledCounters {
            fn take(&mut self) -> Self {
                Self { $($field: self.$field.take(),)+ }
            }

            fn absorb(&mut self, other: Self) {
                $(self.$field.absorb(other.$field, |mine, theirs| *mine += theirs);)+
            }

            pub(super) fn families(&self) -> Vec<MetricFamily> {
                vec![$(counters($name, $help, [$($label),+], &self.$field),)+]
            }
        }
    };
}

labelled_counters! {
    commits: "inventory_commit_reservations_total" ["inventory_type", "status"]
        "CommitReservation calls by outcome.";
    holds: "inventory_place_holds_total" ["inventory_type", "status"]
        "PlaceHold and ReserveSeat calls by outcome.";
    releases: "inventory_release_holds_total" ["inventory_type", "status"]
        "ReleaseHold calls by outcome.";
    checks: "inventory_check_availability_total" ["inventory_type", "result"]
        "CheckAvailability calls by result.";
    conflicts: "inventory_conflicts_total" ["conflict_type"]
        "Operations refused because of another operation, by type.";
    idempotency_hits: "idempotency_hits_total" ["operation_type"]
        "Calls answered from the cache of settled reservations.";
    idempotency_misses: "idempotency_misses_total" ["operation_type"]
        "Calls not answered from the cache of settled reservations.";
    reclaimed: "inventory_holds_reclaimed_total" ["inventory_type"]
        "Overdue holds that this process found and that are no longer held.";
    handshakes: "inventory_tls_handshakes_total" ["port", "result"]
        "TLS handshakes by port and result.";
    wrong_protocols: "inventory_wrong_protocol_connections_total" ["protocol"]
        "Connections to the gRPC port whose client does not speak HTTP/2, by what it speaks.";
}

/// Everything that a shard recorded since the previous scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct IntervalMetrics {
    pub(super) counters: LabelledCounters,
    /// By method.
    pub(super) methods: Series<1, MethodMetrics>,
    /// By operation and table.
    pub(super) store: Series<2, StoreOperationMetrics>,
    /// Capacity units by table and `read` or `write`.
    pub(super) units: Series<2, f64>,
    pub(super) reclaim_lag: LatencyHistogram,
    /// Invariant breaches by kind.
    pub(super) breaches: Series<1, u64>,
}

impl IntervalMetrics {
    /// Returns the recorded values and resets them. Histograms are allocated again when they are used.
    pub(super) fn take(&mut self) -> Self {
        Self {
            counters: self.counters.take(),
            methods: self.methods.take(),
            store: self.store.take(),
            units: self.units.take(),
            reclaim_lag: mem::take(&mut self.reclaim_lag),
            breaches: self.breaches.take(),
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        let add = |mine: &mut u64, theirs: u64| *mine += theirs;
        self.counters.absorb(other.counters);
        self.methods.absorb(other.methods, |mine, theirs| {
            mine.latency.absorb(theirs.latency);
            for (mine, theirs) in mine.codes.iter_mut().zip(theirs.codes) {
                *mine += theirs;
            }
        });
        self.store.absorb(other.store, |mine, theirs| {
            mine.latency.absorb(theirs.latency);
            mine.statuses.absorb(theirs.statuses, add);
        });
        self.units.absorb(other.units, |mine, theirs| *mine += theirs);
        self.reclaim_lag.absorb(other.reclaim_lag);
        self.breaches.absorb(other.breaches, add);
    }
}

#[cfg(test)]
mod tests {
    use inventory_core::time::Micros;

    use super::*;

    #[test]
    fn take_resets_all_values() {
        let mut interval = IntervalMetrics::default();
        interval.methods.at(["m"]).latency.record(Micros(5));
        interval.methods.at(["m"]).codes[0] += 1;
        *interval.counters.commits.at(["quantity", "confirmed"]) += 3;
        let first = interval.take();
        let second = interval.take();
        let calls =
            |of: &IntervalMetrics| -> u64 { of.methods.iter().map(|(_, m)| m.codes[0]).sum() };
        let commits =
            |of: &IntervalMetrics| -> u64 { of.counters.commits.iter().map(|(_, c)| c).sum() };
        assert_eq!((calls(&first), commits(&first)), (1, 3));
        assert_eq!((calls(&second), commits(&second)), (0, 0));
        assert!(second.methods.iter().all(|(_, m)| m.latency.count() == 0));
    }
}
