//! "Sold out" is answered only if too little stock was available at some moment of the call.
//!
//! The check is sound, not complete. For each reservation it takes the longest time during which the reservation may
//! have had its units: from the start of its first call to the answer of a release or a refund that ended it for
//! good, or to the end of the history. If the units of all reservations that may have had any at any moment of the
//! call, added up, leave enough, the units were free during the whole call, in whatever order stripes were read, and
//! the answer was wrong. Short stock that only a finer order of the calls would refute is not found.
//!
//! The total of an event must not change during the history.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HistoryIndex, takes_stock};
use crate::call::{CallEffect, CallOperation, RecordedCall, StockSelection};
use crate::final_state::{FinalReservation, FinalStatus};
use crate::report::{HistoryReport, ViolationKind, line_of};

/// When a reservation may have had its units.
struct UnitsInterval {
    from: Duration,
    /// `None`: to the end.
    to: Option<Duration>,
    units: i64,
}

/// Units of an event by the times at which they may have been taken and returned.
#[derive(Default)]
struct UnitsTimeline {
    total: i64,
    /// By time, each with the sum up to there.
    taken: Vec<(Duration, i64)>,
    returned: Vec<(Duration, i64)>,
}

pub(super) fn check(index: &HistoryIndex<'_>, report: &mut HistoryReport) {
    let mut by_event: BTreeMap<&str, Vec<UnitsInterval>> = BTreeMap::new();
    for (id, record) in &index.state.reservations {
        if let Some(interval) = interval(index, id) {
            by_event.entry(&record.event_id).or_default().push(interval);
        }
    }
    let timelines: BTreeMap<&str, UnitsTimeline> = index
        .state
        .events
        .iter()
        .map(|(event, stored)| {
            let intervals = by_event.remove(event.as_str()).unwrap_or_default();
            (event.as_str(), UnitsTimeline::new(stored.total - stored.blocked, &intervals))
        })
        .collect();
    for (reservation, calls) in &index.calls {
        for call in calls {
            let (Some(qty), Some(ended)) = (refused_quantity(index, call), call.ended) else {
                continue;
            };
            let Some(timeline) = timelines.get(call.event_id.as_str()) else { continue };
            report.summary.sold_out_answers += 1;
            let from = call.started.saturating_sub(index.rules.sold_out_age);
            // Its own units do not excuse the answer: once it has them, the answer is "confirmed".
            let is_here = |of: &&FinalReservation| of.event_id == call.event_id;
            let own = index.record(reservation).filter(is_here).and(interval(index, reservation));
            let own = own.filter(|own| own.overlaps(from, ended)).map_or(0, |own| own.units);
            let most_taken = timeline.most_taken(from, ended) - own;
            let free = timeline.total - most_taken;
            if free >= qty {
                let text = format!(
                    "{qty} requested, but at least {free} of {} were free during the whole call",
                    timeline.total
                );
                let key = format!("reservation {reservation}");
                report.add(ViolationKind::WronglySoldOut, key, text, vec![line_of(call)]);
            }
        }
    }
}

/// What a call was refused for lack of stock; `None` for any other answer.
fn refused_quantity(index: &HistoryIndex<'_>, call: &RecordedCall) -> Option<i64> {
    let (CallOperation::Hold { selection, .. } | CallOperation::Commit { selection }) =
        &call.operation
    else {
        return None;
    };
    let qty = match (&call.effect, selection) {
        (CallEffect::SoldOut, StockSelection::Units(qty) | StockSelection::AnySeats(qty)) => *qty,
        // A late commit takes the units again if they are free.
        (CallEffect::HoldExpired, StockSelection::Units(qty))
            if index.rules.late_commits
                && matches!(call.operation, CallOperation::Commit { .. }) =>
        {
            *qty
        }
        _ => return None,
    };
    Some(i64::from(qty))
}

/// When the reservation may have had stock; `None` if it never can have.
fn interval(index: &HistoryIndex<'_>, reservation: &str) -> Option<UnitsInterval> {
    let record = index.record(reservation)?;
    let units = i64::from(record.qty);
    let Some(calls) = index.calls.get(reservation) else {
        // Another client's: it may have had its units all the time.
        return Some(UnitsInterval { from: Duration::ZERO, to: None, units });
    };
    let from = calls.iter().find(|call| takes_stock(call))?.started;
    let final_answer = match record.status {
        FinalStatus::Released => Some(CallEffect::Released),
        FinalStatus::Refunded => Some(CallEffect::Refunded),
        // The stock of an expired hold returns some time after its end, and a late commit may take it again.
        _ => None,
    };
    let answers = calls.iter().filter(|call| Some(&call.effect) == final_answer.as_ref());
    let to = answers.filter_map(|call| call.ended).min();
    // A release that was answered before the first take started has refused every take.
    to.is_none_or(|to| from <= to).then_some(UnitsInterval { from, to, units })
}

impl UnitsInterval {
    fn overlaps(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

impl UnitsTimeline {
    fn new(total: i64, intervals: &[UnitsInterval]) -> Self {
        let with_sums = |mut times: Vec<(Duration, i64)>| {
            times.sort_unstable();
            let mut sum = 0;
            for (_, units) in &mut times {
                sum += *units;
                *units = sum;
            }
            times
        };
        let taken = intervals.iter().map(|interval| (interval.from, interval.units));
        let returned = intervals.iter().filter_map(|interval| Some((interval.to?, interval.units)));
        Self { total, taken: with_sums(taken.collect()), returned: with_sums(returned.collect()) }
    }

    /// Units of all reservations that may have had any between `from` and `to`.
    fn most_taken(&self, from: Duration, to: Duration) -> i64 {
        let sum = |times: &[(Duration, i64)], count: usize| match count {
            0 => 0,
            count => times[count - 1].1,
        };
        let taken = self.taken.partition_point(|(at, _)| *at <= to);
        let returned = self.returned.partition_point(|(at, _)| *at < from);
        sum(&self.taken, taken) - sum(&self.returned, returned)
    }
}
