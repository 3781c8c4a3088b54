//! Bounds of telemetry: metrics, log lines, spans, heartbeats and the watchdog.

use std::time::Duration;

/// Longest latency in a histogram: twice the longest deadline of a call. A longer latency is counted in the last bucket
/// and in full in the sum.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Label combinations per metric. Labels come from the code, so only a bug can exceed this bound; further combinations
/// are counted as `other`.
pub(crate) const SERIES_PER_METRIC_MAX: usize = 64;

/// Log lines queued for the writer: about 256 KB at some hundred bytes per line. A line that finds the queue full is
/// dropped and counted.
pub(crate) const LOG_LINES_QUEUED_MAX: usize = 1_024;

/// Interval of one kind of line whose causes can repeat without a bound, such as a failed accept. The line has the number
/// of suppressed ones.
pub(crate) const REPEATED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of one value in a log line; a longer value is cut.
pub(crate) const LOG_VALUE_BYTES_MAX: usize = 4 * 1024;

/// Bytes that the log writer buffers for one write.
pub(crate) const LOG_WRITE_BYTES: usize = 64 * 1024;

/// Window of the exact latency quantiles: long enough for a p99.9 at some hundred calls per second, short enough to follow
/// a sale of four minutes. At least one scrape interval.
pub(crate) const LATENCY_WINDOW: Duration = Duration::from_secs(30);

/// Shortest part of the latency window; more frequent scrapes share a part.
pub(crate) const LATENCY_WINDOW_PART_MIN: Duration = Duration::from_secs(5);

/// Events with metrics of their own; the others are counted as `other`. Bounds the number of series; twenty concurrent
/// sales are more than one person watches.
pub(crate) const EVENTS_IN_METRICS_MAX: usize = 20;

/// Events whose reservations a shard counts separately between two scrapes; the others are counted as `other`.
pub(crate) const EVENTS_PER_SCRAPE_MAX: usize = 256;

/// Maximum age of the units of an event in metrics. Twenty events of twenty stripes then cost 40 strong reads per second
/// and process, spread over as many keys.
pub(crate) const EVENT_STATUS_AGE_MAX: Duration = Duration::from_secs(10);

/// Time limit of a status read for metrics.
pub(crate) const EVENT_STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of the heartbeats of a shard.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Interval of the watchdog checks: the maximum delay of stall detection.
pub(crate) const WATCHDOG_INTERVAL: Duration = Duration::from_millis(250);

/// Range of both stall settings.
pub(crate) const SHARD_STALL_MIN: Duration = Duration::from_secs(1);
pub(crate) const SHARD_STALL_MAX: Duration = Duration::from_secs(600);

/// Spans queued for export: about 600 bytes each, 1.25 MB in total. A span that finds the queue full is dropped and counted.
/// The default of the OpenTelemetry batch processor.
pub(crate) const SPANS_QUEUED_MAX: usize = 2_048;

/// Spans per export. The default of the OpenTelemetry batch processor.
pub(crate) const SPAN_EXPORT_BATCH_MAX: usize = 512;

/// Time for which spans are collected for one export.
pub(crate) const SPAN_EXPORT_DELAY: Duration = Duration::from_secs(1);

/// Time limit of one export, unless OTEL_EXPORTER_OTLP_TIMEOUT is set. The specification's default.
pub(crate) const SPAN_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest OTEL_EXPORTER_OTLP_TIMEOUT: exports run one at a time, and the queue fills meanwhile.
pub(crate) const SPAN_EXPORT_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Pause before an export is repeated that the collector refused for the moment; doubles each time, within the time limit.
pub(crate) const SPAN_EXPORT_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Attempts at one export: with the pauses between them, as long as a collector takes to restart its listener.
pub(crate) const SPAN_EXPORT_TRIES_MAX: u32 = 3;

/// Bytes of a collector's answer that are read; an answer says in a few hundred what it rejects.
pub(crate) const SPAN_EXPORT_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Minimum interval of warnings about a collector that does not respond.
pub(crate) const SPAN_EXPORT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Links per span: all calls of a full transaction.
pub(crate) const SPAN_LINKS_MAX: usize = 128;

/// Pause between two probes of a store that fails: readiness comes back soon after the store.
pub(crate) const STORE_PROBE_EVERY: Duration = Duration::from_secs(1);

/// How long the store may leave a shard's reads or writes without any answer before readiness is off: longer than a failover
/// or a lost connection takes, and short enough that a load balancer finds another server.
pub(crate) const STORE_OUTAGE_AFTER: Duration = Duration::from_secs(5);

/// Interval of the log lines about an outage that continues.
pub(crate) const STORE_OUTAGE_LOG_EVERY: Duration = Duration::from_secs(60);

/// Time limit of one membership beat: below its interval, so that a slow store delays no further beat.
pub(crate) const BEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a process that has drained waits until it has removed its entry from the membership item: it does so at the
/// beginning of the drain, in the time of one write.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the local clock may be from the store's before a warning: the time of sale of an event is enforced within a
/// second, and a hold ends that much early or late.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(1);

/// Interval of the warnings about one clock.
pub(crate) const CLOCK_SKEW_LOG_EVERY: Duration = Duration::from_secs(15 * 60);
