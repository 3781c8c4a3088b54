//! The sum over all shards, and its rendering as Prometheus text.
//!
//! Owned by the side thread. Must not live here: asking the shards, HTTP.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use tonic::Code;

use super::figures::{CODES, Interval, Latency, Series};
use super::recorder::Snapshot;

/// The media type of what [`Aggregate::render`] returns.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of the latency buckets, in µs: fine around the promise of 40 ms, with the default
/// limits of a store request (200 ms) and of a call (250 ms) among them.
const BOUNDS_US: [u64; 24] = [
    100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000,
    75_000, 100_000, 200_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// Which build is running; the labels of `inventory_build_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// SERVICE_NAME.
    pub service: String,
    /// SERVICE_VERSION.
    pub version: String,
}

/// What a scrape knows beside the shards' figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeFacts {
    /// Shards that gave no answer in time; their last known figures are shown.
    pub shards_missing: usize,
    pub log_lines_dropped: u64,
}

/// Everything all shards have counted since the start.
#[derive(Debug)]
pub struct Aggregate {
    build: BuildInfo,
    totals: Interval,
    gauges: Vec<Gauges>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    active_calls: u64,
    connections: u64,
    line_depth: u64,
}

impl Aggregate {
    pub fn new(shards: usize, build: BuildInfo) -> Self {
        Self {
            build,
            totals: Interval::default(),
            gauges: vec![Gauges::default(); shards],
        }
    }

    /// Adds what a shard has counted since its snapshot before.
    pub fn absorb(&mut self, snapshot: Snapshot) {
        self.totals.absorb(snapshot.interval);
        if let Some(gauges) = self.gauges.get_mut(snapshot.shard) {
            *gauges = Gauges {
                active_calls: snapshot.active_calls,
                connections: snapshot.connections,
                line_depth: snapshot.line_depth,
            };
        }
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When the encoder refuses a family; the text says which and why.
    pub fn render(&self, facts: ScrapeFacts) -> Result<String, prometheus::Error> {
        let mut families = self.call_families();
        families.extend(self.store_families());
        families.extend(self.inventory_families());
        families.extend(self.process_families(facts));
        // A label set comes into being with its first event, and the encoder wants no empty family.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families)
    }

    fn call_families(&self) -> Vec<MetricFamily> {
        let calls = &self.totals.calls;
        let durations = calls
            .iter()
            .map(|([method], calls)| histogram(&[("method", method)], &calls.latency));
        let requests = calls.iter().flat_map(|([method], calls)| {
            let seen = (0..CODES).filter(|code| calls.codes[*code] > 0);
            seen.map(move |code| {
                let labels = [("method", *method), ("status", code_name(code))];
                counter(&labels, calls.codes[code])
            })
        });
        let active = self.gauges.iter().map(|gauges| gauges.active_calls).sum();
        vec![
            family(
                "grpc_request_duration_seconds",
                "Time from a call's headers to its answer.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "grpc_requests_total",
                "Calls answered, by gRPC status.",
                MetricType::COUNTER,
                requests,
            ),
            family(
                "grpc_active_requests",
                "Calls taken and not answered yet.",
                MetricType::GAUGE,
                [gauge(&[], active)],
            ),
        ]
    }

    fn store_families(&self) -> Vec<MetricFamily> {
        let store = &self.totals.store;
        let durations = store.iter().map(|([operation, table], calls)| {
            let labels = [("operation", *operation), ("table", *table)];
            histogram(&labels, &calls.latency)
        });
        let requests = store.iter().flat_map(|([operation, table], calls)| {
            calls.statuses.iter().map(move |([status], count)| {
                let labels = [
                    ("operation", *operation),
                    ("table", *table),
                    ("status", *status),
                ];
                counter(&labels, *count)
            })
        });
        vec![
            family(
                "dynamodb_operation_duration_seconds",
                "Time of one request to the store, each retry by itself.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "dynamodb_requests_total",
                "Requests to the store, each retry by itself, by how they ended.",
                MetricType::COUNTER,
                requests,
            ),
        ]
    }

    fn inventory_families(&self) -> Vec<MetricFamily> {
        let totals = &self.totals;
        vec![
            counters(
                "inventory_commit_reservations_total",
                "CommitReservation calls, by outcome.",
                ["inventory_type", "status"],
                &totals.commits,
            ),
            counters(
                "inventory_place_holds_total",
                "PlaceHold and ReserveSeat calls, by outcome.",
                ["inventory_type", "status"],
                &totals.holds,
            ),
            counters(
                "inventory_release_holds_total",
                "ReleaseHold calls, by outcome.",
                ["inventory_type", "status"],
                &totals.releases,
            ),
            counters(
                "inventory_check_availability_total",
                "CheckAvailability calls, by result.",
                ["inventory_type", "result"],
                &totals.checks,
            ),
            counters(
                "inventory_conflicts_total",
                "Operations that met another one, by kind.",
                ["conflict_type"],
                &totals.conflicts,
            ),
            counters(
                "idempotency_hits_total",
                "Calls answered from what a shard remembers of their reservation_id.",
                ["operation_type"],
                &totals.idempotency_hits,
            ),
            counters(
                "idempotency_misses_total",
                "Calls whose reservation_id no shard-local memory could answer.",
                ["operation_type"],
                &totals.idempotency_misses,
            ),
            counters(
                "inventory_retries_total",
                "Transactions sent again, by reason.",
                ["reason"],
                &totals.retries,
            ),
            counters(
                "inventory_questions_total",
                "Questions about units, by what answered them: a snapshot, or a read they waited for.",
                ["source"],
                &totals.questions,
            ),
            total(
                "inventory_snapshot_refreshes_total",
                "Reads begun so that a snapshot does not grow too old.",
                totals.snapshot_refreshes,
            ),
            total(
                "inventory_lane_transactions_total",
                "Group commits dispatched.",
                totals.transactions,
            ),
            total(
                "inventory_lane_members_total",
                "Reservations in dispatched group commits; over the transactions, the batch size.",
                totals.members,
            ),
            counters(
                "inventory_shed_total",
                "Operations turned away: the line was too long for the caller's deadline, or a queue full.",
                ["why"],
                &totals.shed,
            ),
            total(
                "inventory_sold_out_looks_total",
                "Operations told that there is too little after a look at their record, without a write.",
                totals.sold_out_looks,
            ),
            total(
                "inventory_unknown_outcomes_total",
                "Writes that ended without saying whether they were applied.",
                totals.unknown_outcomes,
            ),
        ]
    }

    fn process_families(&self, facts: ScrapeFacts) -> Vec<MetricFamily> {
        let connections = self
            .gauges
            .iter()
            .enumerate()
            .map(|(shard, gauges)| gauge(&[("shard", &shard.to_string())], gauges.connections));
        let build = [
            ("service", self.build.service.as_str()),
            ("version", self.build.version.as_str()),
        ];
        let lines = self
            .gauges
            .iter()
            .enumerate()
            .map(|(shard, gauges)| gauge(&[("shard", &shard.to_string())], gauges.line_depth));
        vec![
            family(
                "inventory_line_depth",
                "Callers that wait in line for a lane, of each shard.",
                MetricType::GAUGE,
                lines,
            ),
            family(
                "inventory_shard_connections",
                "Open client connections of each shard.",
                MetricType::GAUGE,
                connections,
            ),
            family(
                "inventory_scrape_incomplete",
                "Shards that gave no figures for this scrape; their last known ones are shown.",
                MetricType::GAUGE,
                [gauge(&[], facts.shards_missing as u64)],
            ),
            total(
                "inventory_log_lines_dropped_total",
                "Log lines dropped because their writer was behind.",
                facts.log_lines_dropped,
            ),
            family(
                "inventory_build_info",
                "Always 1; the labels name the running build.",
                MetricType::GAUGE,
                [gauge(&build, 1)],
            ),
        ]
    }
}

/// The names of the gRPC specification.
fn code_name(code: usize) -> &'static str {
    match Code::from_i32(code as i32) {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: impl IntoIterator<Item = Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

/// A counter per label set.
fn counters<const L: usize>(
    name: &str,
    help: &str,
    names: [&'static str; L],
    series: &Series<L, u64>,
) -> MetricFamily {
    let metrics = series.iter().map(|(values, count)| {
        let mut labels = [("", ""); L];
        for (label, pair) in labels.iter_mut().zip(names.iter().zip(values)) {
            *label = (*pair.0, *pair.1);
        }
        counter(&labels, *count)
    });
    family(name, help, MetricType::COUNTER, metrics)
}

/// A counter without labels, there from the start.
fn total(name: &str, help: &str, count: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, [counter(&[], count)])
}

fn counter(labels: &[(&str, &str)], count: u64) -> Metric {
    let mut value = Counter::default();
    value.set_value(count as f64);
    let mut metric = labelled(labels);
    metric.set_counter(value);
    metric
}

fn gauge(labels: &[(&str, &str)], level: u64) -> Metric {
    let mut value = Gauge::default();
    value.set_value(level as f64);
    let mut metric = labelled(labels);
    metric.set_gauge(value);
    metric
}

fn histogram(labels: &[(&str, &str)], latency: &Latency) -> Metric {
    let counts = latency.at_most(&BOUNDS_US);
    let buckets = BOUNDS_US.iter().zip(counts).map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut value = Histogram::default();
    value.set_bucket(buckets.collect());
    value.set_sample_count(latency.count());
    value.set_sample_sum(latency.sum_seconds());
    let mut metric = labelled(labels);
    metric.set_histogram(value);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
