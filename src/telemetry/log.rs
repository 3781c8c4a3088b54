//! Log lines: one JSON object per line on stderr, written by a thread of its own.
//!
//! The rest of the server uses the macros of `tracing` (`info!(event_id, "…")`); this module decides
//! what becomes of them. stdout belongs to what a person asked for (banner, tables), so that either
//! can be piped without the other. Every line has `ts`, `level` and `msg`, on a shard's thread
//! `shard`, and the event's own fields. Names in use: `method`, `event_id`, `reservation_id`,
//! `latency_ms`, `ddb_rcu`, `ddb_wcu`, `outcome`, `error`. Lines of libraries carry their `target` and
//! are kept from `warn` up, whatever LOG_LEVEL says: at `debug` theirs would bury ours.
//!
//! A shard never waits for a log line: it formats the line and offers it to a bounded queue; a line
//! that finds the queue full is dropped and counted, and the writer reports the number. The writer is
//! not the side thread: a pipe that nobody reads must not take the probes down with it.

use std::borrow::Cow;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::limits;

/// LOG_LEVEL: the least severe lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A text that is no [`Level`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no log level; want debug, info, warn or error")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(UnknownLevel(text.to_owned())),
        }
    }
}

impl Level {
    /// As LOG_LEVEL writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Our lines from this level on, and of libraries only what is wrong.
    fn targets(self) -> Targets {
        Targets::new()
            .with_target("inventory_api", self.filter())
            // The embedded engine warns of every condition that fails, which is how sales are refused.
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

/// Why the log could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the log of this process is started already")]
    Twice,
    #[error("the log writer's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The log of the process, for [`dropped`].
static PROCESS: OnceLock<Log> = OnceLock::new();

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Marks the calling thread as that of shard `shard`: its lines say so.
pub fn set_shard(shard: usize) {
    SHARD.set(Some(shard));
}

/// Lines of the process's log that were dropped since the start.
pub fn dropped() -> u64 {
    PROCESS.get().map_or(0, Log::dropped)
}

/// The level of the process's log; `None` when there is none.
pub fn level() -> Option<Level> {
    PROCESS.get().map(Log::level)
}

/// As [`Log::set_level`], of the process's log; `None` when there is none.
pub fn set_level(level: Level) -> Option<Level> {
    PROCESS.get().map(|log| log.set_level(level))
}

/// As [`Log::flush`], of the process's log; true when there is none.
pub fn flush(limit: Duration) -> bool {
    PROCESS.get().is_none_or(|log| log.flush(limit))
}

/// Starts the log of the process, to `sink` (stderr in the server). Call once, early in `main`;
/// [`Log::flush`] before the process ends.
///
/// # Errors
/// When it is started already, or the writer's thread cannot be made.
pub fn init(level: Level, sink: impl Write + Send + 'static) -> Result<Log, StartError> {
    let (subscriber, log) = start(level, sink)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| StartError::Twice)?;
    Ok(PROCESS.get_or_init(|| log).clone())
}

/// Turns panics into log lines of level `error`: where, what, and the backtrace if RUST_BACKTRACE
/// asks for one.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let thread = thread::current();
        tracing::error!(
            error = panic.payload_as_str().unwrap_or("a panic without a text"),
            location = panic.location().map(tracing::field::display),
            thread = thread.name(),
            backtrace = matches!(
                backtrace.status(),
                std::backtrace::BacktraceStatus::Captured
            )
            .then(|| tracing::field::display(&backtrace)),
            "panic"
        );
    }));
}

/// A log that is not the process's: a subscriber and its writer.
///
/// # Errors
/// When the writer's thread cannot be made.
pub fn start(
    level: Level,
    sink: impl Write + Send + 'static,
) -> Result<(impl Subscriber + Send + Sync, Log), StartError> {
    let (lines, queue) = sync_channel(limits::LOG_LINES_QUEUED_MAX);
    // Its lock is taken when a level changes and when a call site is met for the first time: the
    // verdict on each site is remembered.
    let (filter, handle) = reload::Layer::new(level.targets());
    let log = Log {
        progress: Arc::default(),
        level: Arc::new(Mutex::new(level)),
        filter: handle,
    };
    let writer = log.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.write(&queue, sink))?;
    let layer = JsonLines {
        lines,
        log: log.clone(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    Ok((subscriber, log))
}

/// A handle on a log's writer.
#[derive(Clone)]
pub struct Log {
    progress: Arc<Progress>,
    level: Arc<Mutex<Level>>,
    filter: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Progress {
    accepted: AtomicU64,
    dropped: AtomicU64,
    written: Mutex<u64>,
    advanced: Condvar,
}

impl Log {
    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.progress.dropped.load(Ordering::Relaxed)
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes from `level` on from now; the level before.
    pub fn set_level(&self, level: Level) -> Level {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when no subscriber is left: then nothing is written at any level.
        let _ = self.filter.reload(level.targets());
        std::mem::replace(&mut *current, level)
    }

    /// Waits until every line that was accepted before is written; false if `limit` came first.
    pub fn flush(&self, limit: Duration) -> bool {
        let wanted = self.progress.accepted.load(Ordering::Acquire);
        let written = self
            .progress
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (written, _) = self
            .progress
            .advanced
            .wait_timeout_while(written, limit, |written| *written < wanted)
            .unwrap_or_else(PoisonError::into_inner);
        *written >= wanted
    }

    /// The writer's thread: lines from the queue to the sink, many per write, until no subscriber is left.
    fn write(&self, queue: &Receiver<Vec<u8>>, mut sink: impl Write) {
        let mut reported = 0;
        while let Ok(mut batch) = queue.recv() {
            let mut lines = 1;
            while batch.len() < limits::LOG_WRITE_BYTES {
                let Ok(line) = queue.try_recv() else { break };
                batch.extend_from_slice(&line);
                lines += 1;
            }
            // A drop happens while the queue is full, so a batch always follows that reports it.
            let dropped = self.dropped();
            if dropped > reported {
                let mut line = Line {
                    message: "log lines dropped: the writer was behind".to_owned(),
                    ..Line::default()
                };
                line.number("lines", dropped - reported);
                batch.extend_from_slice(&line.finish("warn", SystemTime::now()));
                reported = dropped;
            }
            // Nobody is left to be told that stderr is gone; the server works on.
            let _ = sink.write_all(&batch).and_then(|()| sink.flush());
            *self
                .progress
                .written
                .lock()
                .unwrap_or_else(PoisonError::into_inner) += lines;
            self.progress.advanced.notify_all();
        }
    }
}

/// Formats events on the thread that has them and offers them to the writer.
struct JsonLines {
    lines: SyncSender<Vec<u8>>,
    log: Log,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(shard) = SHARD.get().filter(|_| !line.names_shard) {
            line.number("shard", shard as u64);
        }
        if !metadata.target().starts_with("inventory_api") {
            line.text("target", metadata.target());
        }
        let level = match *metadata.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        let progress = &self.log.progress;
        match self.lines.try_send(line.finish(level, SystemTime::now())) {
            Ok(()) => progress.accepted.fetch_add(1, Ordering::AcqRel),
            Err(_) => progress.dropped.fetch_add(1, Ordering::AcqRel),
        };
    }
}

/// A log line under construction.
#[derive(Default)]
struct Line {
    message: String,
    /// `,"key":value` per field.
    fields: Vec<u8>,
    names_shard: bool,
}

// Writing into memory and serialising plain types cannot fail, so those results say nothing.
impl Line {
    /// The key of an event's field. What every line has is not an event's to say twice.
    fn own(&mut self, field: &Field) -> Cow<'static, str> {
        match field.name() {
            name @ ("ts" | "level" | "msg" | "target") => format!("field.{name}").into(),
            name => {
                self.names_shard |= name == "shard";
                name.into()
            }
        }
    }

    /// Keys are identifiers of our code or a library's, so they need no escaping.
    fn key(&mut self, key: &str) {
        let _ = write!(self.fields, ",\"{key}\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let _ = serde_json::to_writer(&mut self.fields, cut(value));
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.fields, "{value}");
    }

    fn finish(self, level: &str, at: SystemTime) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.fields.len() + self.message.len() + 80);
        let ts = rfc3339(at);
        let _ = write!(line, r#"{{"ts":"{ts}","level":"{level}","msg":"#);
        let _ = serde_json::to_writer(&mut line, cut(&self.message));
        line.extend_from_slice(&self.fields);
        line.extend_from_slice(b"}\n");
        line
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => {
                let key = self.own(field);
                self.text(&key, &text);
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => {
                let key = self.own(field);
                self.text(&key, value);
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let key = self.own(field);
        self.number(&key, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let key = self.own(field);
        self.key(&key);
        let _ = write!(self.fields, "{value}");
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let key = self.own(field);
        self.key(&key);
        // NaN and the infinities become null.
        let _ = serde_json::to_writer(&mut self.fields, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let key = self.own(field);
        self.key(&key);
        let _ = write!(self.fields, "{value}");
    }

    /// The error and what caused it, in one text.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause.filter(|_| text.len() < limits::LOG_VALUE_BYTES_MAX) {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let key = self.own(field);
        self.text(&key, &text);
    }
}

/// At most [`limits::LOG_VALUE_BYTES_MAX`] bytes of `value`, whole characters.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(limits::LOG_VALUE_BYTES_MAX)]
}

/// In UTC, to the millisecond: `2026-11-22T12:00:00.042Z`.
fn rfc3339(at: SystemTime) -> String {
    let mut at = prost_types::Timestamp::from(at);
    let millis = at.nanos / 1_000_000;
    at.nanos = 0;
    let seconds = at.to_string();
    format!("{}.{millis:03}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
