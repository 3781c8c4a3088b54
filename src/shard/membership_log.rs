//! Log lines about membership: one per change, and one per interval while a problem lasts. No I/O besides the lines.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::limits;
use crate::telemetry::membership::BeatReport;
use inventory_core::membership::{Members, ProcessId};
use inventory_core::time::Micros;
use inventory_store::StoreError;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct MembershipLog {
    own: ProcessId,
    members: BTreeSet<ProcessId>,
    failures: LastingProblem,
    unlisted: LastingProblem,
    unreadable: LastingProblem,
    clocks: LastingProblem,
}

/// A problem that lasts: when it began, and when it was logged last.
#[derive(Debug, Default)]
struct LastingProblem {
    since: Option<Micros>,
    logged: Option<Micros>,
}

/// Which line is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineDue {
    /// The problem lasts.
    Lasts,
    /// The problem was logged and is over.
    Over,
}

impl LastingProblem {
    /// The first line after `delay`, further ones each `every`.
    fn check(
        &mut self,
        lasts: bool,
        now: Micros,
        delay: Duration,
        every: Duration,
    ) -> Option<LineDue> {
        if !lasts {
            self.since = None;
            return self.logged.take().map(|_| LineDue::Over);
        }
        let since = *self.since.get_or_insert(now);
        let is_due = match self.logged {
            None => now.since(since) >= micros(delay),
            Some(at) => now.since(at) >= micros(every),
        };
        is_due.then(|| {
            self.logged = Some(now);
            LineDue::Lasts
        })
    }

    fn seconds(&self, now: Micros) -> u64 {
        now.since(self.since.unwrap_or(now)).0 / 1_000_000
    }
}

impl MembershipLog {
    pub(super) fn new(own: ProcessId) -> Self {
        Self {
            own,
            members: BTreeSet::from([own]),
            failures: LastingProblem::default(),
            unlisted: LastingProblem::default(),
            unreadable: LastingProblem::default(),
            clocks: LastingProblem::default(),
        }
    }

    pub(super) fn changed(&mut self, members: &Members) {
        let now: BTreeSet<ProcessId> = members.all().iter().map(|member| member.id).collect();
        tracing::info!(
            members = now.len(),
            joined = list(now.difference(&self.members)),
            gone = list(self.members.difference(&now)),
            own = %self.own,
            "members changed"
        );
        self.members = now;
    }

    pub(super) fn succeeded(&mut self, now: Micros) {
        let failing_s = self.failures.seconds(now);
        if self.failures.check(false, now, FAILURES_AFTER, LINE_EVERY).is_some() {
            tracing::info!(failing_s, "membership beats succeed again");
        }
    }

    pub(super) fn failed(&mut self, error: &StoreError, now: Micros) {
        if self.failures.check(true, now, FAILURES_AFTER, LINE_EVERY).is_some() {
            tracing::warn!(
                %error,
                failing_s = self.failures.seconds(now),
                members = self.members.len(),
                "membership beats fail: the members of the last read are kept"
            );
        }
    }

    /// Reports what the latest beat shows.
    pub(super) fn check(&mut self, beats: &BeatReport, now: Micros) {
        match self.unlisted.check(beats.is_unlisted, now, Duration::ZERO, LINE_EVERY) {
            Some(LineDue::Lasts) => tracing::warn!(
                most = limits::MEMBERS_MAX,
                "membership item full: other processes do not see this one"
            ),
            Some(LineDue::Over) => {
                tracing::info!("membership item has space: this process is listed")
            }
            None => {}
        }
        let unreadable = beats.unreadable;
        if self.unreadable.check(unreadable > 0, now, Duration::ZERO, LINE_EVERY)
            == Some(LineDue::Lasts)
        {
            tracing::warn!(
                entries = unreadable,
                "membership item has entries that cannot be read: they are ignored, and removed after a minute"
            );
        }
        let difference = beats.clock_difference;
        let differs = difference.is_some_and(|(_, by)| by > limits::CLOCK_SKEW_MAX);
        let due = self.clocks.check(differs, now, Duration::ZERO, limits::CLOCK_SKEW_LOG_EVERY);
        match (due, difference) {
            (Some(LineDue::Lasts), Some((other, by))) => tracing::warn!(
                %other,
                difference_s = by.as_secs_f64(),
                "clocks of two processes differ: holds end early or late; synchronise them (chrony, NTP)"
            ),
            (Some(LineDue::Over), _) => tracing::info!("clocks of the processes agree"),
            _ => {}
        }
    }
}

/// A single failed beat is not logged: the next one comes before any other process forgets this one.
const FAILURES_AFTER: Duration = limits::BEAT_INTERVAL;

const LINE_EVERY: Duration = limits::STORE_OUTAGE_LOG_EVERY;

fn list<'a>(ids: impl Iterator<Item = &'a ProcessId>) -> String {
    ids.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

const fn micros(span: Duration) -> Micros {
    Micros(span.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_problem_is_logged_after_its_delay_once_per_interval_and_at_its_end() {
        let (delay, every) = (Duration::from_secs(3), Duration::from_secs(60));
        let mut problem = LastingProblem::default();
        let mut lines = Vec::new();
        for second in 0..200_u64 {
            let lasts = (10..150).contains(&second) || second == 170;
            let now = Micros::from_millis(1_000 * second);
            if let Some(due) = problem.check(lasts, now, delay, every) {
                lines.push((second, due));
            }
        }
        // The failure at 170 ends within the delay.
        let expected = [
            (13, LineDue::Lasts),
            (73, LineDue::Lasts),
            (133, LineDue::Lasts),
            (150, LineDue::Over),
        ];
        assert_eq!(lines, expected);
    }
}
