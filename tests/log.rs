//! The process log. One test, since there is one log per process.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;

use inventory_api::telemetry::log::{self, LogLevel, LogStarted};
use serde_json::Value;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn log_starts_once_and_logs_panics_of_any_thread() {
    let sink = Sink::default();
    log::init(LogLevel::Info, sink.clone()).unwrap();
    assert_eq!(log::init(LogLevel::Info, Sink::default()), Err(LogStarted));
    log::log_panics();
    let shard = thread::Builder::new().name("shard-4".to_owned()).spawn(|| {
        log::set_shard(4);
        panic!("the \"wheels\" came off");
    });
    assert!(shard.unwrap().join().is_err());
    log::close();
    assert_eq!(log::dropped(), 0);

    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [line] = &lines[..] else { panic!("{text}") };
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "panic");
    assert_eq!(line["error"], "the \"wheels\" came off");
    assert_eq!(
        (&line["shard"], &line["thread"]),
        (&4.into(), &"shard-4".into())
    );
    assert!(
        line["location"]
            .as_str()
            .unwrap()
            .starts_with("tests/log.rs:")
    );
}
