//! Tests of the log: lines as JSON, levels, the bounded queue and its drops.
//! Must not live here: the process-wide log, which is one per process (`tests/log.rs`).

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use tracing::subscriber::with_default;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A sink that keeps what is written; while its gate is shut it blocks, like a full pipe.
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
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn logged(level: Level, events: impl FnOnce()) -> Vec<Value> {
    let sink = Sink::default();
    let (subscriber, log) = start(level, sink.clone()).unwrap();
    with_default(subscriber, events);
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), 0);
    sink.lines()
}

#[derive(Debug, Error)]
#[error("the outer")]
struct Outer(#[source] UnknownLevel);

#[test]
fn a_line_is_json_with_the_fields_as_they_were_given() {
    let nasty = "quote \" backslash \\ newline \n tab \t nul \0 umlaut ü";
    let outer = Outer(UnknownLevel("loud".to_owned()));
    let lines = logged(Level::Info, || {
        tracing::info!(
            event_id = nasty,
            latency_ms = 1.5,
            ddb_wcu = 200_u64,
            delta = -3_i64,
            outcome = %"confirmed",
            ready = true,
            endless = f64::INFINITY,
            ts = "not mine to say",
            error = &outer as &(dyn Error + 'static),
            "commit {} of {}",
            1,
            2
        );
    });
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(line["level"], "info");
    assert_eq!(line["msg"], "commit 1 of 2");
    assert_eq!(line["event_id"], nasty);
    assert_eq!(line["latency_ms"], 1.5);
    assert_eq!(line["ddb_wcu"], 200);
    assert_eq!(line["delta"], -3);
    assert_eq!(line["outcome"], "confirmed");
    assert_eq!(line["ready"], true);
    assert_eq!(line["endless"], Value::Null);
    assert_eq!(line["field.ts"], "not mine to say");
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .starts_with("the outer: \"loud\" is no log level")
    );
    assert!(line.get("shard").is_none() && line.get("target").is_none());
    let ts: prost_types::Timestamp = line["ts"].as_str().unwrap().parse().unwrap();
    let age = SystemTime::now()
        .duration_since(ts.try_into().unwrap())
        .unwrap();
    assert!(age < SOON);
}

#[test]
fn time_is_utc_to_the_millisecond() {
    let at = |millis| rfc3339(UNIX_EPOCH + Duration::from_millis(millis));
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(951_782_400_042), "2000-02-29T00:00:00.042Z");
}

#[test]
fn the_level_filters_ours_and_libraries_speak_from_warn_up() {
    let all = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
        tracing::info!(target: "h2::proto", "library info");
        tracing::warn!(target: "h2::proto", "library warn");
    };
    let messages = |level| -> String {
        let lines = logged(level, all);
        let texts = lines
            .iter()
            .map(|line| line["msg"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(messages(Level::Error), "e");
    assert_eq!(messages(Level::Warn), "e w library warn");
    assert_eq!(messages(Level::Info), "e w i library warn");
    assert_eq!(messages(Level::Debug), "e w i d library warn");
    let lines = logged(Level::Warn, || tracing::warn!(target: "h2::proto", "x"));
    assert_eq!(lines[0]["target"], "h2::proto", "{lines:?}");
}

#[test]
fn lines_of_a_shards_thread_name_the_shard() {
    let lines = logged(Level::Info, || {
        set_shard(3);
        tracing::info!("mine");
        tracing::info!(shard = 5, "about another");
        SHARD.set(None);
    });
    assert_eq!(lines[0]["shard"], 3);
    assert_eq!(lines[1]["shard"], 5);
}

#[test]
fn a_long_value_is_cut_between_characters() {
    let long = "ü".repeat(limits::LOG_VALUE_BYTES_MAX);
    let lines = logged(Level::Info, || tracing::info!(event_id = %long, "{long}"));
    for key in ["event_id", "msg"] {
        let kept = lines[0][key].as_str().unwrap();
        assert_eq!(kept.len(), limits::LOG_VALUE_BYTES_MAX);
    }
}

#[test]
fn a_stuck_sink_blocks_nobody_and_the_dropped_lines_are_counted_and_reported() {
    let sink = Sink::default();
    let (subscriber, log) = start(Level::Info, sink.clone()).unwrap();
    let shut = sink.gate.lock().unwrap();
    let offered = 3 * limits::LOG_LINES_QUEUED_MAX as u64;
    // On a thread of its own, so that a blocked caller fails the test instead of hanging it.
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        with_default(subscriber, || {
            (0..offered).for_each(|n| tracing::info!(n, "line"))
        });
        done.send(()).unwrap();
    });
    finished
        .recv_timeout(SOON)
        .expect("a log line waited for the sink");
    assert!(
        !log.flush(Duration::from_millis(1)),
        "nothing can be written yet"
    );
    let dropped = log.dropped();
    assert!(dropped >= limits::LOG_LINES_QUEUED_MAX as u64, "{dropped}");
    drop(shut);
    assert!(log.flush(SOON));
    let lines = sink.lines();
    let reports: Vec<_> = lines
        .iter()
        .filter(|line| line["level"] == "warn")
        .collect();
    let reported: u64 = reports
        .iter()
        .map(|line| line["lines"].as_u64().unwrap())
        .sum();
    assert_eq!(reported, dropped);
    assert_eq!((lines.len() - reports.len()) as u64 + dropped, offered);
}

#[test]
fn an_unknown_level_is_told_what_would_be_right() {
    assert_eq!("WARN".parse(), Ok(Level::Warn));
    let error = "verbose".parse::<Level>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"verbose\" is no log level; want debug, info, warn or error"
    );
}
