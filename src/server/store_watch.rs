//! Derives outages of the store, which turn readiness off, and clock skew from what the shards record. One log line per
//! change, and one per interval while a problem lasts. No I/O besides the lines.

use std::time::Duration;

use crate::limits;
use crate::telemetry::store_health::{StoreFailures, is_skewed};
use inventory_core::time::Micros;
use inventory_store::ClockSkew;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct StoreWatch {
    outage: Option<Outage>,
    /// Failed calls of the last check at which the store was available.
    failed_before: u64,
    skew_logged: Option<Micros>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    since: Micros,
    failed_before: u64,
    logged: Micros,
}

/// What to report about an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutageEvent {
    Began,
    Continues,
    Ended,
}

impl StoreWatch {
    /// Whether the store has been unavailable for so long that the process is not ready. Logs changes.
    pub(super) fn is_unavailable(&mut self, failures: StoreFailures, now: Micros) -> bool {
        let before = self.outage;
        let event = self.check(failures, now);
        let outage = self.outage.or(before);
        if let (Some(event), Some(outage)) = (event, outage) {
            let fails = match (failures.reads, failures.writes) {
                (Some(_), Some(_)) => "reads and writes",
                (Some(_), None) => "reads",
                _ => "writes",
            };
            let unavailable_ms = now.since(outage.since).0 / 1_000;
            let failed_calls = failures.failed - outage.failed_before;
            match event {
                OutageEvent::Began => tracing::error!(
                    fails,
                    unavailable_ms,
                    failed_calls,
                    "store unavailable; readiness is off"
                ),
                OutageEvent::Continues => {
                    tracing::error!(fails, unavailable_ms, failed_calls, "store still unavailable");
                }
                OutageEvent::Ended => {
                    tracing::warn!(unavailable_ms, failed_calls, "store available again");
                }
            }
        }
        self.outage.is_some()
    }

    fn check(&mut self, failures: StoreFailures, now: Micros) -> Option<OutageEvent> {
        let failing = failures.reads.max(failures.writes);
        let Some(failing) = failing else {
            self.failed_before = failures.failed;
            return self.outage.take().map(|_| OutageEvent::Ended);
        };
        match &mut self.outage {
            Some(outage) => {
                let every = micros(limits::STORE_OUTAGE_LOG_EVERY);
                let is_due = now.since(outage.logged) >= every;
                is_due.then(|| {
                    outage.logged = now;
                    OutageEvent::Continues
                })
            }
            None => (failing >= micros(limits::STORE_OUTAGE_AFTER)).then(|| {
                let since = Micros(now.0.saturating_sub(failing.0));
                let failed_before = self.failed_before;
                self.outage = Some(Outage { since, failed_before, logged: now });
                OutageEvent::Began
            }),
        }
    }

    /// Warns of a clock that is certainly off by more than [`limits::CLOCK_SKEW_MAX`].
    pub(super) fn check_clock(&mut self, skew: Option<ClockSkew>, now: Micros) {
        let Some(skew) = skew else { return };
        let is_off = is_skewed(skew);
        let is_due =
            self.skew_logged.is_none_or(|at| now.since(at) >= micros(limits::CLOCK_SKEW_LOG_EVERY));
        if is_off && is_due {
            self.skew_logged = Some(now);
            tracing::warn!(
                clock_ahead_s = rounded(skew.ahead),
                error_s = rounded(skew.error),
                "clock differs from the store's: holds end early or late; synchronise it (chrony, NTP)"
            );
        }
        let most = skew.ahead.abs() + skew.error;
        let agrees = most < limits::CLOCK_SKEW_MAX.as_secs_f64();
        if agrees && self.skew_logged.take().is_some() {
            tracing::info!(clock_ahead_s = rounded(skew.ahead), "clock agrees with the store's");
        }
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

const fn micros(span: Duration) -> Micros {
    Micros(span.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(seconds: Option<u64>, failed: u64) -> StoreFailures {
        let writes = seconds.map(|seconds| Micros::from_millis(1_000 * seconds));
        StoreFailures { reads: None, writes, failed }
    }

    fn at(seconds: u64) -> Micros {
        Micros::from_millis(1_000 * seconds)
    }

    #[test]
    fn an_outage_is_reported_when_it_begins_once_per_interval_and_when_it_ends() {
        let mut watch = StoreWatch::default();
        let after = limits::STORE_OUTAGE_AFTER.as_secs();
        let every = limits::STORE_OUTAGE_LOG_EVERY.as_secs();
        let mut events = Vec::new();
        for second in 0..100 + 3 * every {
            // It fails from second 10 on, until three intervals have passed.
            let fails = (10..100 + 2 * every).contains(&second);
            let failures = failing(fails.then(|| second.saturating_sub(10)), second);
            if let Some(event) = watch.check(failures, at(second)) {
                events.push((second, event));
            }
            let began = 10 + after;
            assert_eq!(watch.outage.is_some(), (began..100 + 2 * every).contains(&second));
        }
        assert_eq!(events.first(), Some(&(10 + after, OutageEvent::Began)));
        assert_eq!(events.last(), Some(&(100 + 2 * every, OutageEvent::Ended)));
        let between = &events[1..events.len() - 1];
        assert!(between.iter().all(|(_, event)| *event == OutageEvent::Continues));
        assert_eq!(between.len() as u64, (100 + 2 * every - 10 - after - 1) / every);
    }

    #[test]
    fn failures_that_end_soon_are_no_outage() {
        let mut watch = StoreWatch::default();
        for second in 0..100 {
            let fails = second % limits::STORE_OUTAGE_AFTER.as_secs();
            let event = watch.check(failing((fails > 0).then_some(fails), second), at(second));
            assert_eq!(event, None);
        }
    }
}
