//! The log of a whole process. One test, because a process has one log.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;

use inventory_api::telemetry::log::{self, LogLevel, LogStarted};
use serde_json::Value;

#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn log_starts_once_and_records_panics_of_any_thread() {
    let sink = SharedBuffer::default();
    log::init(LogLevel::Info, sink.clone()).unwrap();
    let again = log::init(LogLevel::Info, SharedBuffer::default());
    assert_eq!(again, Err(LogStarted));
    log::log_panics();
    let shard = thread::Builder::new().name("shard-4".to_owned()).spawn(|| {
        log::set_shard(4);
        panic!("panic with \"quotes\"");
    });
    assert!(shard.unwrap().join().is_err());
    log::close();
    assert_eq!(log::dropped(), 0);

    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    // Other tests of this process may log as well.
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let panics: Vec<Value> = lines.filter(|line: &Value| line["shard"] == 4).collect();
    let [line] = &panics[..] else { panic!("{text}") };
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "panic");
    assert_eq!(line["error"], "panic with \"quotes\"");
    assert_eq!((&line["shard"], &line["thread"]), (&4.into(), &"shard-4".into()));
    assert!(line["location"].as_str().unwrap().starts_with("tests/control_plane/process_log.rs:"));
}
