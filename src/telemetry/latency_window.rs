//! Latencies of the recent past for exact quantiles: a queue of parts, each some seconds long.
//!
//! Each scrape adds its interval to a part, so a part covers at least one scrape interval. Not here: the choice of
//! quantiles (`aggregate`).

use std::collections::VecDeque;
use std::time::Duration;

use super::metrics::IntervalMetrics;
use super::series::{LatencyHistogram, Series};
use crate::limits;

/// A sliding window of latencies by method. Times are relative to any fixed instant.
#[derive(Debug, Default)]
pub(super) struct LatencyWindow {
    parts: VecDeque<WindowPart>,
}

#[derive(Debug)]
struct WindowPart {
    start: Duration,
    /// By method.
    latencies: Series<1, LatencyHistogram>,
}

impl LatencyWindow {
    /// Adds the interval of a shard at `now`, and drops parts that are too old.
    pub(super) fn add(&mut self, now: Duration, interval: &IntervalMetrics) {
        let open = self
            .parts
            .back()
            .is_some_and(|part| now.saturating_sub(part.start) < limits::LATENCY_WINDOW_PART_MIN);
        if !open {
            self.parts.push_back(WindowPart { start: now, latencies: Series::default() });
            // The newest part stays, whatever its age at the next scrape.
            while self.parts.len() > 1 && self.parts.front().is_some_and(|part| part.is_over(now)) {
                self.parts.pop_front();
            }
        }
        let Some(part) = self.parts.back_mut() else {
            return;
        };
        for ([method], calls) in interval.methods.iter() {
            if calls.latency.count() > 0 {
                part.latencies.at([method]).absorb(calls.latency.clone());
            }
        }
    }

    /// The latencies of the window, by method.
    pub(super) fn sum(&self) -> Series<1, LatencyHistogram> {
        let mut sum: Series<1, LatencyHistogram> = Series::default();
        for part in &self.parts {
            for (labels, latency) in part.latencies.iter() {
                sum.at(*labels).absorb(latency.clone());
            }
        }
        sum
    }
}

impl WindowPart {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.start) > limits::LATENCY_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_core::time::Micros;

    fn interval(ms: u64, calls: usize) -> IntervalMetrics {
        let mut interval = IntervalMetrics::default();
        for _ in 0..calls {
            let calls = interval.methods.at(["m"]);
            calls.latency.record(Micros::from_millis(ms));
        }
        interval
    }

    fn quantile(window: &LatencyWindow, q: f64) -> Option<u64> {
        let sum = window.sum();
        let (_, latency) = sum.iter().next()?;
        Some(latency.quantile(q)?.0.div_ceil(1_000))
    }

    #[test]
    fn quantiles_cover_the_window() {
        let mut window = LatencyWindow::default();
        assert_eq!(quantile(&window, 0.5), None);
        window.add(Duration::from_secs(1), &interval(100, 10));
        window.add(Duration::from_secs(2), &interval(10, 90));
        assert_eq!(quantile(&window, 0.5), Some(11));
        assert_eq!(quantile(&window, 0.95), Some(101));
    }

    #[test]
    fn old_parts_are_dropped_and_memory_is_bounded() {
        let mut window = LatencyWindow::default();
        window.add(Duration::from_secs(0), &interval(500, 10));
        for second in 1..300 {
            window.add(Duration::from_secs(second), &interval(5, 1));
        }
        assert!(quantile(&window, 0.999).is_some_and(|ms| ms < 10));
        let most = limits::LATENCY_WINDOW.as_secs() / limits::LATENCY_WINDOW_PART_MIN.as_secs();
        assert!(window.parts.len() as u64 <= most + 2, "{}", window.parts.len());
    }

    #[test]
    fn scrape_interval_above_the_window_covers_the_last_interval() {
        let mut window = LatencyWindow::default();
        window.add(Duration::from_secs(0), &interval(500, 10));
        window.add(Duration::from_secs(60), &interval(5, 10));
        assert!(quantile(&window, 0.999).is_some_and(|ms| ms < 10));
    }
}
