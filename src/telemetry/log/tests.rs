//! Tests of the log format, the levels, and the bounded queue. The process log is tested in `tests/control_plane/process_log.rs`, since there is
//! one per process.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tracing::subscriber::with_default;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A sink in memory; it blocks while its gate is locked, like a full pipe.
#[derive(Clone, Default)]
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    gate: Arc<Mutex<()>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        drop(self.gate.lock().unwrap());
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.bytes.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn logged(level: LogLevel, events: impl FnOnce()) -> Vec<Value> {
    let sink = Sink::default();
    let (subscriber, log) = start(level, sink.clone());
    with_default(subscriber, events);
    log.close();
    assert_eq!(log.dropped(), 0);
    sink.lines()
}

#[derive(Debug, Error)]
#[error("outer error")]
struct OuterError(#[source] UnknownLogLevel);

#[test]
fn line_is_flat_json_with_all_fields() {
    let nasty = "quote \" backslash \\ newline \n tab \t nul \0 umlaut ü";
    let outer = OuterError(UnknownLogLevel("loud".to_owned()));
    let lines = logged(LogLevel::Info, || {
        tracing::info!(
            event_id = nasty,
            latency_ms = 1.5,
            ddb_wcu = 200_u64,
            delta = -3_i64,
            outcome = %"confirmed",
            ready = true,
            endless = f64::INFINITY,
            ts = "reserved",
            error = &outer as &(dyn Error + 'static),
            "commit {} of {}",
            1,
            2
        );
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["level"], "info");
    assert_eq!(line["msg"], "commit 1 of 2");
    assert_eq!(line["event_id"], nasty);
    assert_eq!(line["latency_ms"], 1.5);
    assert_eq!(line["ddb_wcu"], 200);
    assert_eq!(line["delta"], -3);
    assert_eq!(line["outcome"], "confirmed");
    assert_eq!(line["ready"], true);
    assert_eq!(line["endless"], Value::Null);
    assert_eq!(line["field.ts"], "reserved");
    assert!(
        line["error"].as_str().unwrap().starts_with("outer error: \"loud\" is not a log level")
    );
    assert!(line.get("shard").is_none() && line.get("target").is_none());
    let ts: prost_types::Timestamp = line["ts"].as_str().unwrap().parse().unwrap();
    let age = SystemTime::now().duration_since(ts.try_into().unwrap()).unwrap();
    assert!(age < SOON);
}

#[test]
fn timestamps_are_utc_with_milliseconds() {
    let at = |millis| timestamp(UNIX_EPOCH + Duration::from_millis(millis));
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(951_782_400_042), "2000-02-29T00:00:00.042Z");
}

#[test]
fn level_filters_own_lines_and_library_lines_start_at_warn() {
    let all = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
        tracing::info!(target: "h2::proto", "library info");
        tracing::warn!(target: "h2::proto", "library warn");
        // The store logs what failed.
        tracing::warn!(target: "aws_config::meta::credentials::chain", "debug dump");
    };
    let messages = |level| -> String {
        let lines = logged(level, all);
        let texts = lines.iter().map(|line| line["msg"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(messages(LogLevel::Error), "e");
    assert_eq!(messages(LogLevel::Warn), "e w library warn");
    assert_eq!(messages(LogLevel::Info), "e w i library warn");
    assert_eq!(messages(LogLevel::Debug), "e w i d library warn");
    let lines = logged(LogLevel::Warn, || tracing::warn!(target: "h2::proto", "x"));
    assert_eq!(lines[0]["target"], "h2::proto", "{lines:?}");
}

#[test]
fn lines_of_a_shard_thread_have_its_number() {
    let lines = logged(LogLevel::Info, || {
        set_shard(3);
        tracing::info!("own");
        tracing::info!(shard = 5, "other");
        SHARD.set(None);
    });
    assert_eq!(lines[0]["shard"], 3);
    assert_eq!(lines[1]["shard"], 5);
}

#[test]
fn long_value_is_cut_at_a_character_boundary() {
    let long = "ü".repeat(limits::LOG_VALUE_BYTES_MAX);
    let lines = logged(LogLevel::Info, || tracing::info!(event_id = %long, "{long}"));
    for key in ["event_id", "msg"] {
        let kept = lines[0][key].as_str().unwrap();
        assert_eq!(kept.len(), limits::LOG_VALUE_BYTES_MAX);
    }
}

#[test]
fn blocked_sink_blocks_no_caller_and_dropped_lines_are_counted_and_reported() {
    let sink = Sink::default();
    let (subscriber, log) = start(LogLevel::Info, sink.clone());
    let gate = sink.gate.lock().unwrap();
    let offered = 3 * limits::LOG_LINES_QUEUED_MAX;
    // On a separate thread, so that a blocked caller fails the test instead of hanging it.
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        with_default(subscriber, || (0..offered).for_each(|n| tracing::info!(n, "line")));
        done.send(()).unwrap();
    });
    finished.recv_timeout(SOON).expect("a log call waited for the sink");
    let dropped = log.dropped() as usize;
    assert!(dropped >= limits::LOG_LINES_QUEUED_MAX, "{dropped}");
    drop(gate);
    log.close();
    let lines = sink.lines();
    let reports = lines.iter().filter(|line| line["level"] == "warn");
    let reported: Vec<u64> = reports.map(|line| line["lines"].as_u64().unwrap()).collect();
    assert_eq!(reported.iter().sum::<u64>() as usize, dropped);
    assert_eq!(lines.len() - reported.len() + dropped, offered);
}

#[test]
fn unknown_level_error_lists_the_levels() {
    assert_eq!("WARN".parse(), Ok(LogLevel::Warn));
    let error = "verbose".parse::<LogLevel>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"verbose\" is not a log level: must be debug, info, warn or error"
    );
}
