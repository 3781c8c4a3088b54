//! The sum over all shards, and its rendering as Prometheus text.
//!
//! Owned by the side thread. Must not live here: asking the shards, HTTP.

use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{MetricFamily, MetricType};

use super::events::{Events, Named};
use super::families::{
    code_name, counted, counter, counters, family, gauge, histogram, measured, spread, summary,
    total,
};
use super::figures::{CODES, Interval};
use super::process::Process;
use super::recorder::{Levels, Snapshot};
use super::window::Window;
use inventory_core::counters::{BATCH_BOUNDS, TIME_BOUNDS_US};
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;
use inventory_core::time::Micros;

/// The media type of what [`Aggregate::render`] returns.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// The quantiles of the last while.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

/// Shortest span over which a shard's busy ratio is taken: the clock of a thread is exact, but a
/// ratio of two scrapes that meet says nothing.
const RATIO_SPAN_MIN: Duration = Duration::from_millis(900);

/// Which build is running; the labels of `inventory_build_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// SERVICE_NAME.
    pub service: String,
    /// SERVICE_VERSION.
    pub version: String,
}

/// What a scrape knows beside the shards' figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeFacts {
    /// Shards that gave no answer in time; their last known figures are shown.
    pub shards_missing: usize,
    pub log_lines_dropped: u64,
    pub ready: bool,
    /// Of each shard, by number.
    pub pulses: Vec<PulseFacts>,
    pub spans: SpanFacts,
    pub process: Process,
}

/// What the watchdog knows of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PulseFacts {
    /// Since it last turned.
    pub age: Micros,
    /// How often it has stood still for too long.
    pub stalls: u64,
}

/// What became of the spans of sampled calls and transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanFacts {
    pub exported: u64,
    /// By reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// Everything all shards have counted since the start.
#[derive(Debug)]
pub struct Aggregate {
    build: BuildInfo,
    totals: Interval,
    gauges: Vec<Gauges>,
    window: Window,
    events: Events,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    active_calls: u64,
    answered: u64,
    connections: u64,
    levels: Levels,
    took: Micros,
    /// Where the busy ratio begins to count.
    since: Duration,
    cpu_since: Duration,
    busy: f64,
}

impl Gauges {
    /// What a shard is now, `now` since the start of the scraper.
    fn update(&mut self, now: Duration, snapshot: &Snapshot) {
        self.active_calls = snapshot.active_calls;
        self.answered = snapshot.answered;
        self.connections = snapshot.connections;
        self.levels = snapshot.levels;
        self.took = snapshot.took;
        let span = now.saturating_sub(self.since);
        if span >= RATIO_SPAN_MIN {
            let cpu = self.levels.cpu.saturating_sub(self.cpu_since);
            self.busy = cpu.div_duration_f64(span).min(1.0);
            (self.since, self.cpu_since) = (now, self.levels.cpu);
        }
    }
}

impl Aggregate {
    pub fn new(shards: usize, build: BuildInfo) -> Self {
        Self {
            build,
            totals: Interval::default(),
            gauges: vec![Gauges::default(); shards],
            window: Window::default(),
            events: Events::default(),
        }
    }

    /// Adds what a shard has counted since its snapshot before. `now` counts from any one moment.
    pub fn absorb(&mut self, now: Duration, snapshot: Snapshot) {
        if let Some(gauges) = self.gauges.get_mut(snapshot.shard) {
            gauges.update(now, &snapshot);
        }
        self.window.add(now, &snapshot.interval);
        self.events.absorb(snapshot.written);
        self.totals.absorb(snapshot.interval);
    }

    /// Once per scrape, after all shards were heard: the events whose units are to be read for the
    /// next one, at most [`crate::limits::EVENTS_SHOWN_MAX`].
    pub fn events_to_read(&mut self, now: Duration) -> Vec<EventId> {
        self.events.turn();
        self.events.stale(now)
    }

    /// How an event stands, for the scrapes to come.
    pub fn learn(&mut self, event: &EventId, status: EventStatus) {
        self.events.learn(event, status);
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When the encoder refuses a family; the text says which and why.
    pub fn render(&self, facts: &ScrapeFacts) -> Result<String, prometheus::Error> {
        let mut families = self.families(facts);
        // A label set comes into being with its first event, and the encoder wants no empty family.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families)
    }

    /// All families, also those without a metric yet.
    fn families(&self, facts: &ScrapeFacts) -> Vec<MetricFamily> {
        let mut families = self.call_families();
        families.extend(self.store_families());
        families.extend(self.inventory_families());
        families.extend(self.lane_families());
        families.extend(self.event_families());
        families.extend(self.shard_families(facts));
        families.extend(self.process_families(facts));
        families
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
        let window = self.window.sum();
        let lately = window.iter().filter_map(|(labels, latency)| {
            let total = calls.iter().find(|(have, _)| *have == labels)?.1;
            let quantiles = QUANTILES.map(|part| (part, latency.quantile(part)));
            Some(summary(&[("method", labels[0])], quantiles, &total.latency))
        });
        vec![
            family(
                "grpc_request_duration_seconds",
                "Time from a call's headers to its answer.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "grpc_request_latency_seconds",
                "Quantiles of the last half minute, exact to three digits; longer where scrapes are rarer.",
                MetricType::SUMMARY,
                lately,
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
        let units =
            self.totals.units.iter().map(|([table, kind], units)| {
                counted(&[("table", *table), ("kind", *kind)], *units)
            });
        vec![
            family(
                "dynamodb_consumed_units_total",
                "Capacity units that the store says requests took; it says nothing of failed ones.",
                MetricType::COUNTER,
                units,
            ),
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
                "inventory_queries_total",
                "Questions about units, by what answered them: a snapshot, or a read they waited for.",
                ["source"],
                &totals.questions,
            ),
            total(
                "inventory_snapshot_refreshes_total",
                "Reads begun so that a snapshot does not grow too old.",
                totals.snapshot_refreshes,
            ),
            counters(
                "inventory_admission_rejections_total",
                "Operations turned away: the line was too long for the caller's deadline, or a queue full.",
                ["reason"],
                &totals.shed,
            ),
            total(
                "inventory_sold_out_without_write_total",
                "Operations told that there is too little after a look at their record, without a write.",
                totals.sold_out_looks,
            ),
            counters(
                "inventory_holds_reclaimed_total",
                "Holds whose time was over and that this process has given back.",
                ["inventory_type"],
                &totals.reclaimed,
            ),
            family(
                "inventory_hold_reclaim_lag_seconds",
                "From the end of a hold to its stock being given back.",
                MetricType::HISTOGRAM,
                [histogram(&[], &totals.reclaim_lag)],
            ),
            family(
                "inventory_invariant_breaches_total",
                "Stock read from the store that cannot be, by kind; anything but 0 wants a verify.",
                MetricType::COUNTER,
                self.breaches(),
            ),
        ]
    }

    /// Every kind from the start, so that its first one is an increase.
    fn breaches(&self) -> Vec<prometheus::proto::Metric> {
        let known = super::recorder::BREACHES.iter().map(|kind| {
            let seen = &mut self.totals.breaches.iter();
            let count = seen.find(|([label], _)| label == kind);
            counter(&[("kind", kind)], count.map_or(0, |(_, count)| *count))
        });
        known.collect()
    }

    fn lane_families(&self) -> Vec<MetricFamily> {
        let totals = &self.totals;
        vec![
            total(
                "inventory_lane_transactions_total",
                "Group commits dispatched.",
                totals.transactions,
            ),
            total(
                "inventory_lane_entries_total",
                "Reservations in dispatched group commits; over the transactions, the batch size.",
                totals.members,
            ),
            family(
                "inventory_lane_batch_entries",
                "Reservations of each group commit.",
                MetricType::HISTOGRAM,
                [spread(&BATCH_BOUNDS, 1.0, &totals.batches)],
            ),
            family(
                "inventory_queue_wait_seconds",
                "From a reservation's coming to a lane to its being sent.",
                MetricType::HISTOGRAM,
                [spread(&TIME_BOUNDS_US, 1e-6, &totals.waits)],
            ),
            family(
                "inventory_snapshot_age_seconds",
                "Age of the snapshot that answered a question, at the question's arrival.",
                MetricType::HISTOGRAM,
                [spread(&TIME_BOUNDS_US, 1e-6, &totals.snapshot_ages)],
            ),
            total(
                "inventory_unknown_outcomes_total",
                "Writes that ended without saying whether they were applied.",
                totals.unknown_outcomes,
            ),
            counters(
                "inventory_unknown_resolved_total",
                "Of these, the ones that are known by now.",
                ["outcome"],
                &totals.unknown_resolved,
            ),
        ]
    }

    fn event_families(&self) -> Vec<MetricFamily> {
        let named = self.events.named();
        let mut written: Vec<_> = named
            .iter()
            .map(|(event, named)| counter(&[("event_id", event.as_str())], named.written))
            .collect();
        written.push(counter(&[("event_id", "other")], self.events.other()));
        let units = named.iter().flat_map(|(event, named)| {
            let states = units(named).into_iter();
            states.map(|(state, units)| {
                gauge(&[("event_id", event.as_str()), ("state", state)], units)
            })
        });
        vec![
            family(
                "inventory_event_reservations_total",
                "Reservations written by this process, of the busiest events since they are shown; the rest as other.",
                MetricType::COUNTER,
                written,
            ),
            family(
                "inventory_event_units",
                "Units of the busiest events, read some seconds ago at most.",
                MetricType::GAUGE,
                units,
            ),
        ]
    }

    /// One metric per shard.
    fn by_shard(
        &self,
        metric: impl Fn(&[(&str, &str)], &Gauges) -> prometheus::proto::Metric,
    ) -> Vec<prometheus::proto::Metric> {
        let gauges = self.gauges.iter().enumerate();
        let metrics = gauges.map(|(shard, of)| metric(&[("shard", &shard.to_string())], of));
        metrics.collect()
    }

    fn shard_families(&self, facts: &ScrapeFacts) -> Vec<MetricFamily> {
        let pulses = facts.pulses.iter().enumerate();
        let pulses: Vec<_> = pulses.map(|(n, pulse)| (n.to_string(), pulse)).collect();
        vec![
            family(
                "inventory_queue_depth",
                "Callers that wait in line for a lane, of each shard.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| gauge(labels, of.levels.line_depth as u64)),
            ),
            family(
                "inventory_shard_connections",
                "Open client connections of each shard.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| gauge(labels, of.connections)),
            ),
            family(
                "inventory_shard_requests_total",
                "Calls that each shard has answered.",
                MetricType::COUNTER,
                self.by_shard(|labels, of| counter(labels, of.answered)),
            ),
            family(
                "inventory_shard_active_requests",
                "Calls that each shard has taken and not answered yet.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| gauge(labels, of.active_calls)),
            ),
            family(
                "inventory_shard_transactions_in_flight",
                "Transactions of each shard on their way to the store and back.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| gauge(labels, of.levels.in_flight as u64)),
            ),
            family(
                "inventory_shard_cpu_seconds_total",
                "What each shard's thread has computed; its rate is how busy the shard is.",
                MetricType::COUNTER,
                self.by_shard(|labels, of| counted(labels, of.levels.cpu.as_secs_f64())),
            ),
            family(
                "inventory_shard_busy_ratio",
                "The part of the time since the scrape before that the shard has computed.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| measured(labels, of.busy)),
            ),
            family(
                "inventory_shard_scrape_seconds",
                "What handing over its figures has cost each shard the last time.",
                MetricType::GAUGE,
                self.by_shard(|labels, of| measured(labels, of.took.0 as f64 / 1e6)),
            ),
            family(
                "inventory_shard_heartbeat_age_seconds",
                "How long ago each shard has last turned.",
                MetricType::GAUGE,
                pulses
                    .iter()
                    .map(|(shard, pulse)| measured(&[("shard", shard)], pulse.age.0 as f64 / 1e6)),
            ),
            family(
                "inventory_shard_stalls_total",
                "How often each shard has stood still for longer than SHARD_STALL_LIMIT.",
                MetricType::COUNTER,
                pulses
                    .iter()
                    .map(|(shard, pulse)| counter(&[("shard", shard)], pulse.stalls)),
            ),
        ]
    }

    fn process_families(&self, facts: &ScrapeFacts) -> Vec<MetricFamily> {
        let build = [
            ("service", self.build.service.as_str()),
            ("version", self.build.version.as_str()),
            ("arch", std::env::consts::ARCH),
        ];
        let Process {
            cpu,
            resident_bytes,
            open_fds,
            max_fds,
            started,
        } = facts.process;
        let level = |value: Option<u64>| value.map(|value| gauge(&[], value));
        let started = started.map(|at| measured(&[], at.as_secs_f64()));
        let spans = facts.spans.dropped.iter();
        let mut families = vec![
            family(
                "inventory_ready",
                "1 while clients should come to this process.",
                MetricType::GAUGE,
                [gauge(&[], u64::from(facts.ready))],
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
            total(
                "inventory_trace_spans_exported_total",
                "Spans that the collector has taken.",
                facts.spans.exported,
            ),
            family(
                "inventory_trace_spans_dropped_total",
                "Spans that did not reach the collector, by reason.",
                MetricType::COUNTER,
                spans.map(|(why, count)| counter(&[("reason", why)], *count)),
            ),
            family(
                "inventory_build_info",
                "Always 1; the labels name the running build.",
                MetricType::GAUGE,
                [gauge(&build, 1)],
            ),
            family(
                "process_cpu_seconds_total",
                "What the process has computed.",
                MetricType::COUNTER,
                [counted(&[], cpu.as_secs_f64())],
            ),
        ];
        let levels = [
            (
                "process_resident_memory_bytes",
                "Memory that is in use.",
                level(resident_bytes),
            ),
            (
                "process_open_fds",
                "Descriptors that are open.",
                level(open_fds),
            ),
            (
                "process_max_fds",
                "Descriptors that may be open.",
                level(max_fds),
            ),
            (
                "process_start_time_seconds",
                "When the process started, since the Unix epoch.",
                started,
            ),
        ];
        for (name, help, metric) in levels {
            families.push(family(name, help, MetricType::GAUGE, metric));
        }
        families
    }
}

/// The units of an event by their state. What sold and held a number of tickets have in common is
/// taken: the stripes cannot tell them apart.
fn units(named: &Named) -> Vec<(&'static str, u64)> {
    let Some(status) = &named.status else {
        return Vec::new();
    };
    let counts = &status.counts;
    let mut units = vec![("total", counts.total), ("remaining", counts.available)];
    match status.seated {
        true => units.extend([
            ("held", counts.held),
            ("sold", counts.sold),
            ("blocked", counts.blocked),
        ]),
        false => units.push(("taken", counts.held + counts.sold)),
    }
    units
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
