//! What the store room tells about its calls: one measurement each, and a log line when something
//! is wrong. The store's own words go to the log line only, never into an answer.

use std::cell::Cell;
use std::rc::Rc;

use super::capacity::CapacityKind;
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// One finished call.
#[derive(Clone, Copy, Debug)]
pub struct StoreCall<'a> {
    /// The API's name of it, `TransactWriteItems` for example.
    pub operation: &'static str,
    /// The table it is about; of a transaction, the table of its first action.
    pub table: &'a str,
    /// `ok`, `cancelled`, `conflict`, `throttled`, `rejected`, `refused` or `unknown`.
    pub status: &'static str,
    /// From the start of the request's making to its parsed answer.
    pub latency: Micros,
}

/// Takes measurements and log lines of one shard's store. Called on the shard, must not block.
pub trait StoreObserver {
    fn called(&self, call: StoreCall<'_>);

    /// The store says that a request cost so many capacity units of a table. Before its `called`.
    fn consumed(&self, _table: &str, _kind: CapacityKind, _units: f64) {}

    /// Stock was read that cannot be understood; a log line says which.
    fn damaged(&self) {}

    /// A line for the operator, at most [`limits::STORE_LOG_LINES_PER_SECOND`] of them a second.
    /// Never contains credentials; may contain ids and the store's own words.
    fn log(&self, line: &str);
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl StoreObserver for NoObserver {
    fn called(&self, _: StoreCall<'_>) {}

    fn log(&self, _: &str) {}
}

/// The observer, with a bound on lines and their length.
pub(super) struct RateLimitedLog {
    pub(super) observer: Rc<dyn StoreObserver>,
    second: Cell<u64>,
    lines: Cell<u32>,
}

impl RateLimitedLog {
    pub(super) fn new(observer: Rc<dyn StoreObserver>) -> Self {
        Self {
            observer,
            second: Cell::new(0),
            lines: Cell::new(0),
        }
    }

    pub(super) fn log(&self, line: &str) {
        self.log_at(clock::monotonic().0 / 1_000_000, line);
    }

    fn log_at(&self, second: u64, line: &str) {
        if second != self.second.get() {
            let over = self
                .lines
                .get()
                .saturating_sub(limits::STORE_LOG_LINES_PER_SECOND);
            self.second.set(second);
            self.lines.set(0);
            if over > 0 {
                self.observer
                    .log(&format!("{over} more lines about the store were left out"));
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
    fn a_flood_is_cut_and_the_rest_is_counted() {
        let lines = Rc::new(LogLines::default());
        let journal = RateLimitedLog::new(lines.clone());
        let flood = limits::STORE_LOG_LINES_PER_SECOND + 7;
        (0..flood).for_each(|n| journal.log_at(1, &n.to_string()));
        let written = limits::STORE_LOG_LINES_PER_SECOND as usize;
        assert_eq!(lines.0.borrow().len(), written);
        journal.log_at(2, "next");
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
