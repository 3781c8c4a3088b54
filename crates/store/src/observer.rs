//! Observations of store calls: one measurement per call, and a log line for each failure. Texts of the store
//! appear in log lines only, never in answers to clients.

use std::cell::Cell;
use std::rc::Rc;

use super::capacity::CapacityKind;
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// One finished call.
#[derive(Clone, Copy, Debug)]
pub struct StoreCall<'a> {
    /// The API's name of the operation, such as `TransactWriteItems`.
    pub operation: &'static str,
    /// The table; for a transaction, the table of its first action.
    pub table: &'a str,
    /// `ok`, `cancelled`, `conflict`, `throttled`, `rejected`, `refused`, `not_sent` or `unknown`.
    pub status: &'static str,
    /// From building the request to the parsed answer.
    pub latency: Micros,
}

/// Receives measurements and log lines of one shard's store. Called on the shard; must not block.
pub trait StoreObserver {
    fn called(&self, call: StoreCall<'_>);

    /// The store reported the capacity units that a request consumed on a table. Called before `called`.
    fn consumed(&self, _table: &str, _kind: CapacityKind, _units: f64) {}

    /// Stored stock could not be understood; a log line has the details.
    fn damaged(&self) {}

    /// A line for the operator, at most [`limits::STORE_LOG_LINES_PER_SECOND`] per second. Never contains
    /// credentials; may contain ids and texts of the store.
    fn log(&self, line: &str);
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl StoreObserver for NoObserver {
    fn called(&self, _: StoreCall<'_>) {}

    fn log(&self, _: &str) {}
}

/// Forwards to the observer, with bounds on the number and length of log lines.
pub(super) struct RateLimitedLog {
    pub(super) observer: Rc<dyn StoreObserver>,
    second: Cell<u64>,
    lines: Cell<u32>,
}

impl RateLimitedLog {
    pub(super) fn new(observer: Rc<dyn StoreObserver>) -> Self {
        Self { observer, second: Cell::new(0), lines: Cell::new(0) }
    }

    pub(super) fn log(&self, line: &str) {
        self.log_at(clock::monotonic().0 / 1_000_000, line);
    }

    fn log_at(&self, second: u64, line: &str) {
        if second != self.second.get() {
            let over = self.lines.get().saturating_sub(limits::STORE_LOG_LINES_PER_SECOND);
            self.second.set(second);
            self.lines.set(0);
            if over > 0 {
                self.observer.log(&format!("{over} more lines about the store were left out"));
            }
        }
        self.lines.set(self.lines.get().saturating_add(1));
        if self.lines.get() <= limits::STORE_LOG_LINES_PER_SECOND {
            self.observer.log(cut(line, limits::STORE_LOG_BYTES_MAX));
        }
    }
}

/// The longest prefix of whole characters within `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    match text.len() <= max {
        true => text,
        false => &text[..text.floor_char_boundary(max)],
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct LogLines(RefCell<Vec<String>>);

    impl StoreObserver for LogLines {
        fn called(&self, _: StoreCall<'_>) {}

        fn log(&self, line: &str) {
            self.0.borrow_mut().push(line.to_owned());
        }
    }

    #[test]
    fn lines_above_the_limit_are_counted_and_dropped() {
        let lines = Rc::new(LogLines::default());
        let log = RateLimitedLog::new(lines.clone());
        let flood = limits::STORE_LOG_LINES_PER_SECOND + 7;
        (0..flood).for_each(|n| log.log_at(1, &n.to_string()));
        let written = limits::STORE_LOG_LINES_PER_SECOND as usize;
        assert_eq!(lines.0.borrow().len(), written);
        log.log_at(2, "next");
        let lines = lines.0.borrow();
        assert!(lines[written].starts_with("7 more lines"), "{lines:?}");
        assert_eq!(lines[written + 1], "next");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("a\u{e9}c", 2), "a");
    }
}
