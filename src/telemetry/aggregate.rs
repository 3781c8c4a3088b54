//! Sum of the metrics of all shards, and its rendering as Prometheus text.
//!
//! Owned by the control plane. Not here: requests to shards or HTTP. Counters with labels are declared in
//! `metrics`, all other metrics here; each metric has its name, labels and help in one place.

use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::event_metrics::{BusiestEvents, EventMetrics};
use super::exposition::{
    code_name, counter, counters_by, family, float_counter, float_gauge, gauge, histogram, spread,
    summary, total,
};
use super::latency_window::LatencyWindow;
use super::membership::{self, MembershipReport};
use super::metrics::{CODES, IntervalMetrics};
use super::process::ProcessUsage;
use super::recorder::{BREACHES, SearchAges, ShardGauges, ShardMetrics};
use crate::tls::PortTlsMetrics;
use inventory_core::counters::{BATCH_BOUNDS, Counters, TIME_BOUNDS_US};
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;
use inventory_core::time::Micros;

/// Media type of the text that [`MetricsAggregate::render`] returns.
pub(crate) const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Quantiles of `grpc_request_latency_seconds`.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

/// Minimum span of a busy ratio; a ratio over two scrapes in quick succession has no meaning.
const BUSY_SPAN_MIN: Duration = Duration::from_millis(900);

/// The running build: labels of `inventory_build_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// SERVICE_NAME.
    pub service: String,
    /// SERVICE_VERSION or, without it, the version of the package.
    pub version: String,
    /// Git revision.
    pub revision: String,
}

/// Metrics of the process at a scrape, besides those of the shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerMetrics {
    /// Shards without an answer in time; their previous metrics are shown.
    pub(crate) shards_missing: usize,
    pub(crate) log_lines_dropped: u64,
    pub(crate) ready: bool,
    /// Seconds by which the local clock is ahead of the store's; `None` before the first measurement.
    pub(crate) clock_skew: Option<f64>,
    /// Unix time in seconds; `None` if the credentials of the store never expire.
    pub(crate) credentials_expiry: Option<f64>,
    /// The processes of the store, and the time of this scrape by the monotonic clock.
    pub(crate) membership: Option<(MembershipReport, Micros)>,
    /// By shard number.
    pub(crate) heartbeats: Vec<HeartbeatMetrics>,
    pub(crate) spans: SpanMetrics,
    /// TLS by port; empty without TLS.
    pub(crate) tls: Vec<PortTlsMetrics>,
    /// Calls on ADMIN_PORT without a token, and with a wrong one.
    pub(crate) admin_refusals: [u64; 2],
    pub(crate) process: ProcessUsage,
}

/// Heartbeat of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatMetrics {
    /// Time since the last heartbeat.
    pub(crate) age: Micros,
    /// Number of stalls since process start.
    pub(crate) stalls: u64,
}

/// Export of spans since process start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanMetrics {
    pub(crate) exported: u64,
    /// Dropped spans by reason.
    pub(crate) dropped: Vec<(&'static str, u64)>,
}

/// Metrics of all shards since process start.
#[derive(Debug)]
pub(crate) struct MetricsAggregate {
    build: BuildInfo,
    totals: IntervalMetrics,
    shards: Vec<ShardState>,
    window: LatencyWindow,
    events: BusiestEvents,
}

/// Latest state of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct ShardState {
    active_calls: u64,
    answered: u64,
    connections: u64,
    connections_evicted: u64,
    gauges: ShardGauges,
    scrape_time: Micros,
    /// Start of the span of the busy ratio, and the CPU time at that instant.
    busy_since: Duration,
    cpu_since: Duration,
    busy: f64,
}

impl ShardState {
    fn update(&mut self, now: Duration, metrics: &ShardMetrics) {
        self.active_calls = metrics.active_calls;
        self.answered = metrics.answered;
        self.connections = metrics.connections;
        self.connections_evicted = metrics.connections_evicted;
        self.gauges = metrics.gauges;
        self.scrape_time = metrics.scrape_time;
        let span = now.saturating_sub(self.busy_since);
        if span >= BUSY_SPAN_MIN {
            let cpu = self.gauges.cpu.saturating_sub(self.cpu_since);
            self.busy = cpu.div_duration_f64(span).min(1.0);
            (self.busy_since, self.cpu_since) = (now, self.gauges.cpu);
        }
    }
}

impl MetricsAggregate {
    pub(crate) fn new(shards: usize, build: BuildInfo) -> Self {
        Self {
            build,
            totals: IntervalMetrics::default(),
            shards: vec![ShardState::default(); shards],
            window: LatencyWindow::default(),
            events: BusiestEvents::default(),
        }
    }

    /// Adds the metrics of a shard since its previous scrape. `now` is relative to any fixed instant.
    pub(crate) fn absorb(&mut self, now: Duration, metrics: ShardMetrics) {
        if let Some(shard) = self.shards.get_mut(metrics.shard) {
            shard.update(now, &metrics);
        }
        self.window.add(now, &metrics.interval);
        self.events.absorb(metrics.writes);
        self.totals.absorb(metrics.interval);
    }

    /// Call once per scrape, after all shards answered: returns the events whose status must be read for the next
    /// scrape, at most [`crate::limits::EVENTS_IN_METRICS_MAX`].
    pub(crate) fn stale_events(&mut self, now: Duration) -> Vec<EventId> {
        self.events.select();
        self.events.stale(now)
    }

    /// Sets the status of an event for the next scrapes.
    pub(crate) fn set_event_status(&mut self, event: &EventId, status: EventStatus) {
        self.events.set_status(event, status);
    }

    /// Text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// If the encoder refuses a family; the error names the family and the reason.
    pub(crate) fn render(&self, server: &ServerMetrics) -> Result<String, prometheus::Error> {
        let mut families = self.families(server);
        // A label set is created with its first value; the encoder refuses empty families.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families)
    }

    fn families(&self, server: &ServerMetrics) -> Vec<MetricFamily> {
        let mut families = self.call_families();
        families.extend(self.store_families());
        families.extend(with_handshakes(self.totals.counters.families(), &server.tls));
        families.extend(self.stock_families());
        families.extend(engine_families(&self.engine_counters()));
        families.extend(self.event_families());
        families.extend(self.shard_families());
        families.extend(heartbeat_families(&server.heartbeats));
        families.extend(self.server_families(server));
        if let Some((report, now)) = &server.membership {
            families.extend(membership::families(report, *now));
        }
        families.extend(tls_families(&server.tls));
        families.extend(process_families(&server.process));
        families
    }

    /// Sum of the engine counters of all shards.
    fn engine_counters(&self) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.shards {
            sum.add(&shard.gauges.counters);
        }
        sum
    }

    fn call_families(&self) -> Vec<MetricFamily> {
        let methods = &self.totals.methods;
        let durations = methods
            .iter()
            .map(|([method], calls)| histogram(&[("method", method)], &calls.latency));
        let requests = methods.iter().flat_map(|([method], calls)| {
            let codes = (0..CODES).filter(|code| calls.codes[*code] > 0);
            codes.map(move |code| {
                let labels = [("method", *method), ("status", code_name(code))];
                counter(&labels, calls.codes[code])
            })
        });
        let active = self.shards.iter().map(|shard| shard.active_calls).sum();
        let window = self.window.sum();
        let recent = window.iter().filter_map(|(labels, latency)| {
            let total = methods.iter().find(|(have, _)| *have == labels)?.1;
            let quantiles = QUANTILES.map(|q| (q, latency.quantile(q)));
            Some(summary(&[("method", labels[0])], quantiles, &total.latency))
        });
        vec![
            family(
                "grpc_request_duration_seconds",
                "Time from the request headers of a call to its response, in seconds.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "grpc_request_latency_seconds",
                "Exact latency quantiles over the last 30 s or one scrape interval, in seconds.",
                MetricType::SUMMARY,
                recent,
            ),
            family(
                "grpc_requests_total",
                "Answered calls by gRPC status.",
                MetricType::COUNTER,
                requests,
            ),
            family(
                "grpc_active_requests",
                "Calls in flight.",
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
                let labels = [("operation", *operation), ("table", *table), ("status", *status)];
                counter(&labels, *count)
            })
        });
        let units = self.totals.units.iter().map(|([table, kind], units)| {
            float_counter(&[("table", *table), ("kind", *kind)], *units)
        });
        vec![
            family(
                "dynamodb_consumed_units_total",
                "Consumed capacity units as reported by the store; failed requests report none.",
                MetricType::COUNTER,
                units,
            ),
            family(
                "dynamodb_operation_duration_seconds",
                "Duration of store requests, each retry separately, in seconds.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "dynamodb_requests_total",
                "Store requests by status, each retry separately.",
                MetricType::COUNTER,
                requests,
            ),
        ]
    }

    fn stock_families(&self) -> Vec<MetricFamily> {
        // Every kind from the start, so that its first breach is an increase.
        let breaches = BREACHES.map(|kind| {
            let mut counts = self.totals.breaches.iter();
            let count = counts.find(|([label], _)| *label == kind);
            counter(&[("kind", kind)], count.map_or(0, |(_, count)| *count))
        });
        let oldest = |age: fn(&SearchAges) -> Micros| {
            let ages = self.shards.iter().map(|shard| age(&shard.gauges.search));
            seconds(ages.max().unwrap_or_default())
        };
        vec![
            family(
                "inventory_hold_reclaim_lag_seconds",
                "Time from the expiry of a hold to its reclaim, in seconds.",
                MetricType::HISTOGRAM,
                [histogram(&[], &self.totals.reclaim_lag)],
            ),
            family(
                "inventory_hold_overdue_seconds",
                "Time since the expiry of the oldest overdue hold that was found and not reclaimed, in seconds; 0 if there is none.",
                MetricType::GAUGE,
                [float_gauge(&[], oldest(|ages| ages.oldest_overdue))],
            ),
            family(
                "inventory_hold_search_age_seconds",
                "Time since the search for overdue holds has read every recent bucket or the whole index, in seconds, by scope.",
                MetricType::GAUGE,
                [
                    float_gauge(&[("scope", "recent")], oldest(|ages| ages.buckets_read)),
                    float_gauge(&[("scope", "all")], oldest(|ages| ages.segments_read)),
                ],
            ),
            family(
                "inventory_invariant_breaches_total",
                "Reads of inconsistent stock by kind; if not 0, run inventory-api verify.",
                MetricType::COUNTER,
                breaches,
            ),
        ]
    }

    fn event_families(&self) -> Vec<MetricFamily> {
        let selected = self.events.selected();
        let mut written: Vec<_> = selected
            .iter()
            .map(|(event, of)| counter(&[("event_id", event.as_str())], of.written))
            .collect();
        written.push(counter(&[("event_id", "other")], self.events.other()));
        let units = selected.iter().flat_map(|(event, of)| {
            units_by_state(of).into_iter().map(|(state, units)| {
                gauge(&[("event_id", event.as_str()), ("state", state)], units)
            })
        });
        vec![
            family(
                "inventory_event_reservations_total",
                "Reservations written by this process, for the busiest events; the others as other.",
                MetricType::COUNTER,
                written,
            ),
            family(
                "inventory_event_units",
                "Units of the busiest events by state, at most some seconds old.",
                MetricType::GAUGE,
                units,
            ),
        ]
    }

    /// A family with one metric per shard.
    fn by_shard(
        &self,
        name: &str,
        help: &str,
        kind: MetricType,
        metric: impl Fn(&[(&str, &str)], &ShardState) -> Metric,
    ) -> MetricFamily {
        let shards = self.shards.iter().enumerate();
        let metrics = shards.map(|(shard, of)| metric(&[("shard", &shard.to_string())], of));
        family(name, help, kind, metrics)
    }

    fn shard_families(&self) -> Vec<MetricFamily> {
        vec![
            self.by_shard(
                "inventory_queue_depth",
                "Operations queued for a transaction, by shard.",
                MetricType::GAUGE,
                |labels, of| gauge(labels, of.gauges.queue_depth as u64),
            ),
            self.by_shard(
                "inventory_shard_connections",
                "Open client connections, by shard.",
                MetricType::GAUGE,
                |labels, of| gauge(labels, of.connections),
            ),
            self.by_shard(
                "inventory_shard_connections_evicted_total",
                "Idle client connections closed to make room for new ones, by shard.",
                MetricType::COUNTER,
                |labels, of| counter(labels, of.connections_evicted),
            ),
            self.by_shard(
                "inventory_shard_requests_total",
                "Answered calls, by shard.",
                MetricType::COUNTER,
                |labels, of| counter(labels, of.answered),
            ),
            self.by_shard(
                "inventory_shard_active_requests",
                "Calls in flight, by shard.",
                MetricType::GAUGE,
                |labels, of| gauge(labels, of.active_calls),
            ),
            self.by_shard(
                "inventory_shard_transactions_in_flight",
                "Transactions in flight, by shard.",
                MetricType::GAUGE,
                |labels, of| gauge(labels, of.gauges.in_flight as u64),
            ),
            self.by_shard(
                "inventory_shard_cpu_seconds_total",
                "CPU time of the shard thread, in seconds.",
                MetricType::COUNTER,
                |labels, of| float_counter(labels, of.gauges.cpu.as_secs_f64()),
            ),
            self.by_shard(
                "inventory_shard_busy_ratio",
                "CPU share of the shard thread since the previous scrape, from 0 to 1.",
                MetricType::GAUGE,
                |labels, of| float_gauge(labels, of.busy),
            ),
            self.by_shard(
                "inventory_shard_scrape_seconds",
                "Time that the shard spent on the last scrape, in seconds.",
                MetricType::GAUGE,
                |labels, of| float_gauge(labels, seconds(of.scrape_time)),
            ),
        ]
    }

    fn server_families(&self, server: &ServerMetrics) -> Vec<MetricFamily> {
        let build = [
            ("service", self.build.service.as_str()),
            ("version", self.build.version.as_str()),
            ("revision", self.build.revision.as_str()),
            ("arch", std::env::consts::ARCH),
        ];
        let dropped = server.spans.dropped.iter();
        vec![
            family(
                "inventory_ready",
                "Readiness of the process: 1 ready, 0 not ready.",
                MetricType::GAUGE,
                [gauge(&[], u64::from(server.ready))],
            ),
            family(
                "inventory_clock_skew_seconds",
                "Offset of the local clock from the store's in seconds; positive: ahead.",
                MetricType::GAUGE,
                server.clock_skew.map(|ahead| float_gauge(&[], ahead)),
            ),
            family(
                "inventory_store_credentials_expiry_timestamp_seconds",
                "Unix time at which the credentials of the store expire; none if they never do.",
                MetricType::GAUGE,
                server.credentials_expiry.map(|expiry| float_gauge(&[], expiry)),
            ),
            family(
                "inventory_scrape_incomplete",
                "Shards that did not answer this scrape; their previous metrics are shown.",
                MetricType::GAUGE,
                [gauge(&[], server.shards_missing as u64)],
            ),
            total(
                "inventory_log_lines_dropped_total",
                "Log lines dropped because the log queue was full.",
                server.log_lines_dropped,
            ),
            total(
                "inventory_trace_spans_exported_total",
                "Spans accepted by the collector.",
                server.spans.exported,
            ),
            family(
                "inventory_trace_spans_dropped_total",
                "Spans not accepted by the collector, by reason.",
                MetricType::COUNTER,
                dropped.map(|(reason, count)| counter(&[("reason", reason)], *count)),
            ),
            counters_by(
                "inventory_admin_calls_refused_total",
                "Calls on the admin port without a valid token, by reason.",
                "reason",
                [("no_token", server.admin_refusals[0]), ("wrong_token", server.admin_refusals[1])],
            ),
            family(
                "inventory_build_info",
                "Labels with the running build; always 1.",
                MetricType::GAUGE,
                [gauge(&build, 1)],
            ),
        ]
    }
}

/// `families` with the handshakes of ports that no shard serves.
fn with_handshakes(mut families: Vec<MetricFamily>, ports: &[PortTlsMetrics]) -> Vec<MetricFamily> {
    let of_handshakes =
        |family: &&mut MetricFamily| family.name() == "inventory_tls_handshakes_total";
    if let Some(family) = families.iter_mut().find(of_handshakes) {
        let mut metrics = family.take_metric();
        metrics.extend(ports.iter().flat_map(|of| {
            let count = |(result, count): &(&str, u64)| {
                counter(&[("port", of.port), ("result", result)], *count)
            };
            of.handshakes.iter().map(count)
        }));
        family.set_metric(metrics);
    }
    families
}

/// Certificates of the ports with TLS.
fn tls_families(ports: &[PortTlsMetrics]) -> Vec<MetricFamily> {
    let reloads = ports.iter().flat_map(|of| {
        [("ok", of.reloads), ("failed", of.failures)]
            .map(|(result, count)| counter(&[("port", of.port), ("result", result)], count))
    });
    vec![
        family(
            "inventory_tls_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate in use expires, by port.",
            MetricType::GAUGE,
            ports.iter().map(|of| gauge(&[("port", of.port)], of.not_after)),
        ),
        family(
            "inventory_tls_files_rejected",
            "Whether the TLS files of the port cannot be used, so that an earlier certificate is in use: 1 yes, 0 no.",
            MetricType::GAUGE,
            ports.iter().map(|of| gauge(&[("port", of.port)], u64::from(of.is_rejected))),
        ),
        family(
            "inventory_tls_reloads_total",
            "Changes of the TLS files by port and result.",
            MetricType::COUNTER,
            reloads,
        ),
    ]
}

/// Metrics of the engine, from its counters.
fn engine_families(c: &Counters) -> Vec<MetricFamily> {
    let mut families = transaction_families(c);
    families.extend(operation_families(c));
    families
}

fn transaction_families(c: &Counters) -> Vec<MetricFamily> {
    vec![
        total(
            "inventory_lane_transactions_total",
            "Dispatched group commit transactions, without retries.",
            c.transactions,
        ),
        total(
            "inventory_lane_entries_total",
            "Reservations in dispatched group commit transactions.",
            c.entries,
        ),
        family(
            "inventory_lane_batch_entries",
            "Reservations per group commit transaction.",
            MetricType::HISTOGRAM,
            [spread(&BATCH_BOUNDS, 1.0, &c.batch_sizes)],
        ),
        family(
            "inventory_queue_wait_seconds",
            "Time from enqueueing a reservation to dispatch of its transaction, in seconds.",
            MetricType::HISTOGRAM,
            [spread(&TIME_BOUNDS_US, 1e-6, &c.queue_times)],
        ),
        counters_by(
            "inventory_retries_total",
            "Transactions sent again, by reason.",
            "reason",
            [
                ("conflict", c.conflicts),
                ("throttled", c.throttles),
                ("unknown", c.resends),
                ("split", c.splits),
            ],
        ),
        counters_by(
            "inventory_stock_moves_total",
            "Transactions that were to move units between two stripes of an event, by result.",
            "result",
            [
                ("applied", c.stock_moves_applied),
                ("conflict", c.stock_moves_conflicted),
                ("short", c.stock_moves_short),
                ("failed", c.stock_moves_failed),
            ],
        ),
        total(
            "inventory_stock_moved_units_total",
            "Units moved between two stripes of an event.",
            c.stock_moved_units,
        ),
        total(
            "inventory_unknown_outcomes_total",
            "Writes with an unknown outcome.",
            c.unknown_outcomes,
        ),
        counters_by(
            "inventory_unknown_resolved_total",
            "Writes with an unknown outcome that were resolved, by outcome.",
            "outcome",
            [("applied", c.unknown_applied), ("not_applied", c.unknown_not_applied)],
        ),
    ]
}

fn operation_families(c: &Counters) -> Vec<MetricFamily> {
    vec![
        counters_by(
            "inventory_admission_rejections_total",
            "Operations rejected because they would miss their deadline or a queue was full, by reason.",
            "reason",
            [
                ("deadline", c.rejected_by_admission),
                ("queue_full", c.rejected_overloaded.saturating_sub(c.rejected_by_admission)),
            ],
        ),
        total(
            "inventory_sold_out_without_write_total",
            "Operations answered as sold out after a read of their record, without a write.",
            c.sold_out,
        ),
        counters_by(
            "inventory_queries_total",
            "Stock queries by source: a snapshot, or a read that the query waited for.",
            "source",
            [("snapshot", c.snapshot_answers), ("read", c.read_answers)],
        ),
        total(
            "inventory_snapshot_refreshes_total",
            "Reads that refresh stock snapshots.",
            c.snapshot_refreshes,
        ),
        family(
            "inventory_snapshot_age_seconds",
            "Age of the stock snapshot that answered a query, in seconds.",
            MetricType::HISTOGRAM,
            [spread(&TIME_BOUNDS_US, 1e-6, &c.snapshot_ages)],
        ),
    ]
}

fn heartbeat_families(heartbeats: &[HeartbeatMetrics]) -> Vec<MetricFamily> {
    let by_shard = |metric: fn(&[(&str, &str)], &HeartbeatMetrics) -> Metric| {
        let shards = heartbeats.iter().enumerate();
        shards.map(move |(shard, of)| metric(&[("shard", &shard.to_string())], of))
    };
    vec![
        family(
            "inventory_shard_heartbeat_age_seconds",
            "Time since the last heartbeat of the shard, in seconds.",
            MetricType::GAUGE,
            by_shard(|labels, of| float_gauge(labels, seconds(of.age))),
        ),
        family(
            "inventory_shard_stalls_total",
            "Stalls of the shard longer than SHARD_STALL_LIMIT.",
            MetricType::COUNTER,
            by_shard(|labels, of| counter(labels, of.stalls)),
        ),
    ]
}

fn process_families(process: &ProcessUsage) -> Vec<MetricFamily> {
    let level = |name, help, value: Option<u64>| {
        let metric = value.map(|value| gauge(&[], value));
        family(name, help, MetricType::GAUGE, metric)
    };
    vec![
        family(
            "process_cpu_seconds_total",
            "CPU time of the process, in seconds.",
            MetricType::COUNTER,
            [float_counter(&[], process.cpu.as_secs_f64())],
        ),
        level(
            "process_resident_memory_bytes",
            "Resident memory of the process, in bytes.",
            process.resident_bytes,
        ),
        level("process_open_fds", "Open file descriptors.", process.open_fds),
        level("process_max_fds", "Maximum number of open file descriptors.", process.max_fds),
        family(
            "process_start_time_seconds",
            "Start time of the process since the Unix epoch, in seconds.",
            MetricType::GAUGE,
            process.started.map(|at| float_gauge(&[], at.as_secs_f64())),
        ),
    ]
}

fn seconds(micros: Micros) -> f64 {
    micros.0 as f64 / 1e6
}

/// Units or seats of an event by state.
fn units_by_state(of: &EventMetrics) -> Vec<(&'static str, u64)> {
    let Some(status) = &of.status else {
        return Vec::new();
    };
    let counts = &status.counts;
    let mut units = vec![
        ("total", counts.total),
        ("remaining", counts.available),
        ("held", counts.held),
        ("sold", counts.sold),
    ];
    // Units cannot be blocked.
    if status.seated {
        units.push(("blocked", counts.blocked));
    }
    units
}

#[cfg(test)]
mod tests;
