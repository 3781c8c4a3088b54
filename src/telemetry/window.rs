//! The latencies of the last while, for exact quantiles: a ring of parts, each a few seconds long.
//!
//! Parts are made of what scrapes bring, so a part is at least one scrape long. Must not live here:
//! which quantiles are shown (`registry`).

use std::collections::VecDeque;
use std::time::Duration;

use super::figures::{Interval, Latency, Series};
use crate::limits;

/// See the module's head. Times count from any one moment.
#[derive(Debug, Default)]
pub(super) struct Window {
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: Duration,
    /// By method.
    latencies: Series<1, Latency>,
}

impl Window {
    /// Adds what a shard has handed over at `now`, and drops what has become too old.
    pub(super) fn add(&mut self, now: Duration, interval: &Interval) {
        let open = self
            .parts
            .back()
            .is_some_and(|part| now.saturating_sub(part.began) < limits::LATENCY_WINDOW_PART_MIN);
        if !open {
            self.parts.push_back(Part {
                began: now,
                latencies: Series::default(),
            });
            // The newest stays, however old it is by the next scrape.
            while self.parts.len() > 1 && self.parts.front().is_some_and(|part| part.is_over(now)) {
                self.parts.pop_front();
            }
        }
        let Some(part) = self.parts.back_mut() else {
            return;
        };
        for ([method], calls) in interval.calls.iter() {
            if calls.latency.count() > 0 {
                part.latencies.at([method]).absorb(calls.latency.clone());
            }
        }
    }

    /// The latencies of the window, by method.
    pub(super) fn sum(&self) -> Series<1, Latency> {
        let mut sum: Series<1, Latency> = Series::default();
        for part in &self.parts {
            for (labels, latency) in part.latencies.iter() {
                sum.at(*labels).absorb(latency.clone());
            }
        }
        sum
    }
}

impl Part {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) > limits::LATENCY_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_core::time::Micros;

    fn interval(ms: u64, calls: usize) -> Interval {
        let mut interval = Interval::default();
        for _ in 0..calls {
            let calls = interval.calls.at(["m"]);
            calls.latency.record(Micros::from_millis(ms));
        }
        interval
    }

    fn quantile(window: &Window, part: f64) -> Option<u64> {
        let sum = window.sum();
        let (_, latency) = sum.iter().next()?;
        Some(latency.quantile(part)?.0.div_ceil(1_000))
    }

    #[test]
    fn quantiles_are_those_of_what_the_window_holds() {
        let mut window = Window::default();
        assert_eq!(quantile(&window, 0.5), None);
        window.add(Duration::from_secs(1), &interval(100, 10));
        window.add(Duration::from_secs(2), &interval(10, 90));
        assert_eq!(quantile(&window, 0.5), Some(11));
        assert_eq!(quantile(&window, 0.95), Some(101));
    }

    #[test]
    fn what_is_too_old_is_forgotten_and_memory_is_bounded() {
        let mut window = Window::default();
        window.add(Duration::from_secs(0), &interval(500, 10));
        for second in 1..300 {
            window.add(Duration::from_secs(second), &interval(5, 1));
        }
        assert!(quantile(&window, 0.999).is_some_and(|ms| ms < 10));
        let most = limits::LATENCY_WINDOW.as_secs() / limits::LATENCY_WINDOW_PART_MIN.as_secs();
        assert!(
            window.parts.len() as u64 <= most + 2,
            "{}",
            window.parts.len()
        );
    }

    #[test]
    fn a_scrape_that_is_rarer_than_the_window_shows_what_came_since_the_last() {
        let mut window = Window::default();
        window.add(Duration::from_secs(0), &interval(500, 10));
        window.add(Duration::from_secs(60), &interval(5, 10));
        assert!(quantile(&window, 0.999).is_some_and(|ms| ms < 10));
    }
}
