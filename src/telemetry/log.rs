//! Log lines: one JSON object per line on stderr, written by a separate thread.
//!
//! `tracing-subscriber` filters and formats an event on the thread that logs it; `tracing-appender` passes the line to its
//! writer thread through a bounded queue. A shard never waits for the log: a line that finds the queue full is dropped,
//! counted ([`dropped`]) and reported by the writer. stdout is reserved for output that a user asked for.
//!
//! Every line has `ts`, `level` and `msg`, on the thread of a shard also `shard`, and the fields of the event. Names in use:
//! `method`, `event_id`, `reservation_id`, `latency_ms`, `ddb_rcu`, `ddb_wcu`, `outcome`, `error`. Lines of libraries have
//! `target` and are logged from `warn` upwards whatever LOG_LEVEL is.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::SystemTime;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self as fmt_layer, FmtContext};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::limits;

/// Minimum severity of the lines that are written: LOG_LEVEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// A text that is not a [`LogLevel`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a log level: must be debug, info, warn or error")]
pub struct UnknownLogLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLogLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLogLevel> {
        let name = text.to_ascii_lowercase();
        let mut levels = Self::ALL.into_iter();
        levels.find(|level| level.as_str() == name).ok_or_else(|| UnknownLogLevel(text.to_owned()))
    }
}

impl LogLevel {
    /// From the least to the most verbose level.
    pub(crate) const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// As in LOG_LEVEL.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Own lines from this level upwards; lines of libraries from `warn` upwards, since their `debug` lines would
    /// outnumber ours.
    fn targets(self) -> Targets {
        Targets::new()
            .with_target("inventory", self.filter())
            // Every failed call of the SDK logs here that the SDK's own connector, which is not in use, cannot close its
            // connection. The pool of this server drops it.
            .with_target("aws_smithy_runtime::client::http::connection_poisoning", LevelFilter::OFF)
            // Logs each failed attempt as a debug dump with headers and body; the store logs the same error as text.
            .with_target("aws_config::meta::credentials", LevelFilter::OFF)
            // The embedded store warns of every failed condition, which is how a sale is refused.
            .with_target("dynoxide", LevelFilter::ERROR)
            .with_default(self.filter().min(LevelFilter::WARN))
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

/// The log of this process was started before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log of this process is already started")]
pub struct LogStarted;

/// The log of the process, for the functions below.
static PROCESS_LOG: OnceLock<Log> = OnceLock::new();

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Adds the field `shard` to all lines of the calling thread.
pub fn set_shard(shard: usize) {
    SHARD.set(Some(shard));
}

/// Number of dropped lines since the start of the process.
pub fn dropped() -> u64 {
    PROCESS_LOG.get().map_or(0, Log::dropped)
}

/// Level of the process log; `None` if there is none.
pub(crate) fn level() -> Option<LogLevel> {
    PROCESS_LOG.get().map(Log::level)
}

/// [`Log::set_level`] of the process log; `None` if there is none.
pub(crate) fn set_level(level: LogLevel) -> Option<LogLevel> {
    PROCESS_LOG.get().map(|log| log.set_level(level))
}

/// [`Log::close`] of the process log.
pub fn close() {
    if let Some(log) = PROCESS_LOG.get() {
        log.close();
    }
}

/// Starts the log of the process with `sink` (stderr in the server). Call once at the start of `main`, and [`close`]
/// before the process exits.
///
/// # Errors
/// If the log is already started.
pub fn init(level: LogLevel, sink: impl Write + Send + 'static) -> Result<(), LogStarted> {
    let (subscriber, log) = start(level, sink);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogStarted)?;
    PROCESS_LOG.set(log).map_err(|_| LogStarted)
}

/// Logs panics at level `error` with message, location and, if RUST_BACKTRACE is set, the backtrace.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        use std::backtrace::{Backtrace, BacktraceStatus};
        let backtrace = Backtrace::capture();
        let is_captured = matches!(backtrace.status(), BacktraceStatus::Captured);
        tracing::error!(
            error = panic.payload_as_str().unwrap_or("panic without a message"),
            location = panic.location().map(tracing::field::display),
            thread = thread::current().name(),
            backtrace = is_captured.then(|| tracing::field::display(&backtrace)),
            "panic"
        );
    }));
}

/// A subscriber with its own writer thread, independent of the process log.
fn start(
    level: LogLevel,
    sink: impl Write + Send + 'static,
) -> (impl Subscriber + Send + Sync, Log) {
    let counter = Arc::new(OnceLock::new());
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(limits::LOG_LINES_QUEUED_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(LogWriter {
            sink: BufWriter::with_capacity(limits::LOG_WRITE_BYTES, sink),
            counter: Arc::clone(&counter),
            reported: 0,
        });
    let dropped = counter.get_or_init(|| writer.error_counter()).clone();
    let (filter, handle) = reload::Layer::new(level.targets());
    let layer = fmt_layer::layer().event_format(JsonLine).with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let log =
        Log { level: Mutex::new(level), filter: handle, dropped, guard: Mutex::new(Some(guard)) };
    (subscriber, log)
}

/// Handle on a log: its level, its drop counter and its writer thread.
struct Log {
    level: Mutex<LogLevel>,
    filter: reload::Handle<Targets, Registry>,
    dropped: ErrorCounter,
    /// Ends the writer thread when dropped, after it has written the queue.
    guard: Mutex<Option<WorkerGuard>>,
}

impl Log {
    fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    fn level(&self) -> LogLevel {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the level and returns the previous one.
    fn set_level(&self, level: LogLevel) -> LogLevel {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only if the subscriber is gone; then nothing is logged at any level.
        let _ = self.filter.reload(level.targets());
        std::mem::replace(&mut *current, level)
    }

    /// Writes the queued lines and ends the writer thread; waits about one second at most. Later lines are dropped.
    fn close(&self) {
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
    }
}

/// The sink of the writer thread: buffers lines until the queue is empty, and adds a line about dropped ones.
struct LogWriter<W: Write> {
    sink: BufWriter<W>,
    /// Set as soon as the queue exists.
    counter: Arc<OnceLock<ErrorCounter>>,
    reported: usize,
}

impl<W: Write> LogWriter<W> {
    /// Lines are dropped only while the queue is full, so a queued line follows each drop and triggers this report.
    fn report_dropped(&mut self) -> io::Result<()> {
        let dropped = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        let lines = dropped - self.reported;
        if lines == 0 {
            return Ok(());
        }
        self.reported = dropped;
        let ts = timestamp(SystemTime::now());
        writeln!(
            self.sink,
            r#"{{"ts":"{ts}","level":"warn","msg":"log lines dropped","lines":{lines}}}"#
        )
    }
}

impl<W: Write> Write for LogWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.report_dropped()?;
        self.sink.write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Formats an event as a flat JSON object. The JSON formatter of `tracing-subscriber` has other names for the time and
/// the message, and writes levels in capitals.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = json_line(event).map_err(|_| fmt::Error)?;
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

fn json_line(event: &Event<'_>) -> serde_json::Result<Vec<u8>> {
    let metadata = event.metadata();
    let level = match *metadata.level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    };
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("ts", &timestamp(SystemTime::now()))?;
    map.serialize_entry("level", level)?;
    let mut fields = EventFields { map, has_shard: false };
    event.record(&mut fields);
    let EventFields { mut map, has_shard } = fields;
    if let Some(shard) = SHARD.get().filter(|_| !has_shard) {
        map.serialize_entry("shard", &shard)?;
    }
    if !metadata.target().starts_with("inventory") {
        map.serialize_entry("target", metadata.target())?;
    }
    map.end()?;
    line.push(b'\n');
    Ok(line)
}

/// Adds the fields of an event to a JSON object.
struct EventFields<M> {
    map: M,
    has_shard: bool,
}

impl<M: SerializeMap> EventFields<M> {
    fn put(&mut self, field: &Field, value: &(impl Serialize + ?Sized)) {
        let renamed;
        let key = match field.name() {
            "message" => "msg",
            // Keys of the line itself.
            name @ ("ts" | "level" | "msg" | "target") => {
                renamed = format!("field.{name}");
                &renamed
            }
            name => {
                self.has_shard |= name == "shard";
                name
            }
        };
        // Serialising numbers and text into memory does not fail.
        let _ = self.map.serialize_entry(key, value);
    }
}

impl<M: SerializeMap> Visit for EventFields<M> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    /// At most [`limits::LOG_VALUE_BYTES_MAX`] bytes of the value, in whole characters.
    fn record_str(&mut self, field: &Field, value: &str) {
        let end = value.floor_char_boundary(limits::LOG_VALUE_BYTES_MAX);
        self.put(field, &value[..end]);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    /// The error and its sources in one text.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source.filter(|_| text.len() < limits::LOG_VALUE_BYTES_MAX) {
            text = format!("{text}: {error}");
            source = error.source();
        }
        self.record_str(field, &text);
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-22T12:00:00.042Z`.
fn timestamp(at: SystemTime) -> String {
    let mut at = prost_types::Timestamp::from(at);
    let millis = at.nanos / 1_000_000;
    at.nanos = 0;
    let seconds = at.to_string();
    format!("{}.{millis:03}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests;
