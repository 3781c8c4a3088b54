//! Bounds of what the server says about itself: figures, log lines, traces, the watchdog.

use std::time::Duration;

/// Longest latency a histogram tells apart; a longer one counts as this long in the buckets and in
/// full in the sum. Twice the longest deadline a client may ask for.
pub const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Label combinations of one metric. Labels are code, never input, so this is met only by a
/// mistake; what comes after it is counted under `other`.
pub const SERIES_PER_METRIC_MAX: usize = 64;

/// Log lines waiting for the writer. At a few hundred bytes each about a quarter of a megabyte;
/// a line that finds the queue full is dropped and counted.
pub const LOG_LINES_QUEUED_MAX: usize = 1_024;

/// Bytes of one value in a log line; a longer one is cut.
pub const LOG_VALUE_BYTES_MAX: usize = 4 * 1024;

/// Bytes the log writer gathers before it writes.
pub const LOG_WRITE_BYTES: usize = 64 * 1024;

/// Over how long the exact quantiles of a scrape look back: long enough for a p99.9 at a few hundred
/// calls a second, short enough to follow a sale of four minutes. One scrape interval if that is longer.
pub const LATENCY_WINDOW: Duration = Duration::from_secs(30);

/// Shortest part of that window kept by itself: scrapes that come faster share one.
pub const LATENCY_WINDOW_PART_MIN: Duration = Duration::from_secs(5);

/// Events that are shown by name in the figures; the rest are one `other`. Twenty sales at once are
/// more than a person watches, and label values stay few.
pub const EVENTS_SHOWN_MAX: usize = 20;

/// Events whose writes a shard counts apart between two scrapes; more are counted as `other`.
pub const EVENTS_COUNTED_MAX: usize = 256;

/// How old the units of a shown event may be before they are read anew, after a scrape: twenty events of
/// twenty stripes then cost 40 strong reads a second for each process, spread over as many keys.
pub const EVENT_UNITS_AGE_MAX: Duration = Duration::from_secs(10);

/// How long such a read may take before the scrape after it asks again.
pub const EVENT_UNITS_PATIENCE: Duration = Duration::from_secs(5);

/// How often a shard says that it still turns.
pub const TICK_EVERY: Duration = Duration::from_millis(250);

/// How often the watchdog looks. A shard that stands still is found this much late.
pub const WATCHDOG_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Default for how long a shard may stand still before the process is not ready (SHARD_STALL_LIMIT):
/// far beyond any turn of a healthy shard, within what a load balancer needs to notice.
pub const SHARD_STALL_DEFAULT: Duration = Duration::from_secs(5);

/// Default for how long it may before the process ends (SHARD_STALL_EXIT): a virtual machine that is
/// moved stands still for seconds and comes back; what lasts longer does not.
pub const SHARD_STALL_EXIT_DEFAULT: Duration = Duration::from_secs(15);

/// Shortest and longest of both.
pub const SHARD_STALL_MIN: Duration = Duration::from_secs(1);

pub const SHARD_STALL_MAX: Duration = Duration::from_secs(600);

/// Spans that wait for the exporter: some 600 bytes each, so a megabyte and a quarter. One that finds
/// the queue full is dropped and counted. The default of OpenTelemetry's own processors.
pub const SPANS_QUEUED_MAX: usize = 2_048;

/// Spans of one export, likewise.
pub const SPANS_EXPORTED_AT_ONCE: usize = 512;

/// How long spans are gathered for one export.
pub const SPANS_LINGER: Duration = Duration::from_secs(1);

/// How long one export may take, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise.
pub const SPAN_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a collector that does not answer is complained about.
pub const SPANS_COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Links of one span: every call of a full transaction.
pub const SPAN_LINKS_MAX: usize = 128;
