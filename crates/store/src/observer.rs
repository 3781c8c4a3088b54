//! Observations of store calls: one measurement per call, and log lines about failures, one a minute for each kind.
//! Texts of the store appear in log lines only, never in answers to clients.

use std::cell::{Cell, RefCell};
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
    /// Kinds of failures that were logged, the oldest first.
    failures: RefCell<Vec<LoggedFailure>>,
}

/// The last line about one kind of failure.
struct LoggedFailure {
    operation: &'static str,
    status: &'static str,
    code: String,
    at: Micros,
    /// Failures since, which were not logged.
    more: u64,
}

impl RateLimitedLog {
    pub(super) fn new(observer: Rc<dyn StoreObserver>) -> Self {
        Self { observer, second: Cell::new(0), lines: Cell::new(0), failures: RefCell::default() }
    }

    pub(super) fn log(&self, line: &str) {
        self.log_at(clock::monotonic().0 / 1_000_000, line);
    }

    /// Logs a failure of an operation, unless an equal one was logged less than [`limits::STORE_LOG_REPEAT`] ago: an outage
    /// is one line a minute for each kind of failure, however often calls fail. `code`: the store's error code.
    pub(super) fn log_failure(
        &self,
        operation: &'static str,
        status: &'static str,
        code: Option<&str>,
        line: impl FnOnce() -> String,
    ) {
        let now = clock::monotonic();
        if let Some(more) = self.is_due(operation, status, code.unwrap_or_default(), now) {
            match more {
                0 => self.log(&line()),
                _ => self.log(&format!("{} ({more} more like it since the last line)", line())),
            }
        }
    }

    /// The number of failures of this kind that were not logged, if a line is due.
    fn is_due(
        &self,
        operation: &'static str,
        status: &'static str,
        code: &str,
        now: Micros,
    ) -> Option<u64> {
        let mut failures = self.failures.borrow_mut();
        let is_equal = |known: &LoggedFailure| {
            (known.operation, known.status, known.code.as_str()) == (operation, status, code)
        };
        let mut more = 0;
        if let Some(at) = failures.iter().position(is_equal) {
            let known = &mut failures[at];
            if u128::from(now.since(known.at).0) < limits::STORE_LOG_REPEAT.as_micros() {
                known.more += 1;
                return None;
            }
            more = known.more;
            failures.remove(at);
        } else if failures.len() >= limits::STORE_LOG_KINDS_MAX {
            failures.remove(0);
        }
        let code = code.to_owned();
        failures.push(LoggedFailure { operation, status, code, at: now, more: 0 });
        Some(more)
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
    fn equal_failures_are_one_line_and_a_count() {
        let log = RateLimitedLog::new(Rc::new(NoObserver));
        let due = |status, code, seconds| {
            log.is_due("Query", status, code, Micros::from_millis(seconds * 1_000))
        };
        assert_eq!(due("unknown", "", 1), Some(0));
        assert_eq!(due("refused", "AccessDenied", 1), Some(0));
        assert_eq!(due("refused", "ResourceNotFound", 1), Some(0));
        assert!((1..50).all(|second| due("unknown", "", second).is_none()));
        let repeat = limits::STORE_LOG_REPEAT.as_secs();
        assert_eq!(due("unknown", "", 1 + repeat), Some(49));
        assert_eq!(due("unknown", "", 2 + 2 * repeat), Some(0));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("a\u{e9}c", 2), "a");
    }
}
