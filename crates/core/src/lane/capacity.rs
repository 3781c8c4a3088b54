//! Remaining capacity of the stripes of a cancelled transaction, and which of its entries fit.

use super::batch_entry::BatchEntry;
use super::pool_state::PoolState;
use super::{PoolContext, PoolOutput};
use crate::answer::Rejection;
use crate::rules::StockChange;
use crate::time::Micros;
use crate::transaction::{ActionOutcome, StripeUpdate, StripeView};

/// Why a lane backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackoffCause {
    Conflict,
    Throttled,
}

/// What the action of a retried entry showed about its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordStatus {
    /// The record is as the write needs it.
    AsExpected,
    Unknown,
}

/// What a stripe's action showed.
#[derive(Clone, Copy, Debug)]
pub(super) enum StripeCapacity {
    /// The stripe was not the reason, or its state is not known.
    Unknown,
    /// Remaining units; those allocated to earlier entries are subtracted.
    Limited { reported: u64, left: u64 },
    /// Too few units, except for what entries of the same transaction return: entries that take units are
    /// judged after the returns.
    Refilling,
    /// The event takes no new reservations.
    Closed,
    /// There is no such item.
    Missing,
}

/// The entries of a cancelled transaction that are retried.
#[derive(Debug)]
pub(super) struct Admission {
    /// Together they fit the remaining units.
    pub(super) fitting: Vec<BatchEntry>,
    /// They wait for the outcome of the others.
    pub(super) later: Vec<BatchEntry>,
    /// Their stripe has too few units for them: they try other stripes.
    pub(super) too_large: Vec<BatchEntry>,
}

/// What each stripe's action showed. A stripe that has enough and failed all the same was changed in
/// between: a conflict.
pub(super) fn stripe_capacities(
    updates: &[StripeUpdate],
    reasons: &[ActionOutcome],
    put: &mut Option<BackoffCause>,
    state: &mut PoolState,
    out: &mut PoolOutput,
) -> Vec<(u16, StripeCapacity)> {
    let mut capacities = Vec::with_capacity(updates.len());
    for (update, reason) in updates.iter().zip(reasons) {
        let room = match reason {
            ActionOutcome::Stripe(Some(view)) => {
                learn_shape(view, state, out);
                if view.closed && update.take > 0 {
                    StripeCapacity::Closed
                } else if view.remaining.saturating_add(update.give) >= update.take {
                    put.get_or_insert(BackoffCause::Conflict);
                    StripeCapacity::Unknown
                } else if update.give > 0 {
                    StripeCapacity::Refilling
                } else {
                    StripeCapacity::Limited { reported: view.remaining, left: view.remaining }
                }
            }
            ActionOutcome::Stripe(None) => StripeCapacity::Missing,
            _ => StripeCapacity::Unknown,
        };
        capacities.push((update.stripe, room));
    }
    capacities
}

fn learn_shape(view: &StripeView, state: &mut PoolState, out: &mut PoolOutput) {
    if let Some(stripes) = view.stripes {
        state.shape.stripes = stripes.max(1);
        state.shape.seat_keys = view.seat_keys;
    }
    state.shape.closed |= view.closed;
    out.learned_shape = Some(state.shape);
}

/// Splits the retried entries: those that fit the remaining units, in order of arrival, and those that
/// wait for the outcome of the others. An entry larger than what its stripe reported is rejected if
/// that is the only stripe; otherwise it tries the others. The state of a stripe was read at `sent` or
/// later.
///
/// Stock decides nothing about an entry that may have a record: it is sent again.
pub(super) fn admit(
    entries: Vec<(BatchEntry, RecordStatus)>,
    capacities: &mut [(u16, StripeCapacity)],
    sent: Micros,
    state: &mut PoolState,
    cx: &mut PoolContext<'_>,
) -> Admission {
    let mut fitting = Vec::with_capacity(entries.len());
    let mut later = Vec::new();
    let mut too_large = Vec::new();
    for (mut entry, record) in entries {
        match fit(&entry, capacities) {
            Fit::Yes => {
                for draw in drawn(&entry) {
                    if let Some(StripeCapacity::Limited { left, .. }) =
                        capacity_of(capacities, draw.stripe)
                    {
                        *left -= u64::from(draw.units);
                    }
                }
                fitting.push(entry);
            }
            Fit::NotNow => later.push(entry),
            _ if record == RecordStatus::Unknown => later.push(entry),
            Fit::Closed => cx.out.reject(entry, Rejection::EventClosed),
            Fit::NoSuchStripe(0) => cx.out.reject(entry, Rejection::EventNotFound),
            Fit::NoSuchStripe(_) => cx.out.reject(entry, Rejection::Internal),
            Fit::TooLarge { reported } => {
                cx.counters.stripe_shortages += 1;
                if state.shape.stripes <= 1 {
                    state.record_total(reported, sent);
                    let why = entry.too_little(reported);
                    cx.out.reject(entry, why);
                } else {
                    entry.queue.planned = false;
                    too_large.push(entry);
                }
            }
        }
    }
    Admission { fitting, later, too_large }
}

enum Fit {
    Yes,
    /// The entry would fit alone, but earlier entries have the units, or are about to return some.
    NotNow,
    /// The entry would not fit alone.
    TooLarge {
        reported: u64,
    },
    Closed,
    NoSuchStripe(u16),
}

/// What an entry takes from stripes.
fn drawn(entry: &BatchEntry) -> &[crate::transaction::StripeAllocation] {
    match entry.movement() {
        StockChange::Reserve => &entry.write.draws,
        _ => &[],
    }
}

fn fit(entry: &BatchEntry, capacities: &mut [(u16, StripeCapacity)]) -> Fit {
    if entry.movement() == StockChange::Return {
        let missing = |draw: &&crate::transaction::StripeAllocation| {
            matches!(
                capacities.iter().find(|(index, _)| *index == draw.stripe),
                Some((_, StripeCapacity::Missing))
            )
        };
        return match entry.write.draws.iter().find(missing) {
            // Its units belong to a stripe that does not exist: an internal error.
            Some(_) => Fit::NoSuchStripe(u16::MAX),
            None => Fit::Yes,
        };
    }
    let mut verdict = Fit::Yes;
    for draw in drawn(entry) {
        let units = u64::from(draw.units);
        match capacity_of(capacities, draw.stripe) {
            Some(StripeCapacity::Missing) => return Fit::NoSuchStripe(draw.stripe),
            Some(StripeCapacity::Closed) => return Fit::Closed,
            Some(StripeCapacity::Limited { reported, .. }) if units > *reported => {
                return Fit::TooLarge { reported: *reported };
            }
            Some(StripeCapacity::Refilling) => verdict = Fit::NotNow,
            Some(StripeCapacity::Limited { left, .. }) if units > *left => verdict = Fit::NotNow,
            _ => {}
        }
    }
    verdict
}

fn capacity_of(
    capacities: &mut [(u16, StripeCapacity)],
    stripe: u16,
) -> Option<&mut StripeCapacity> {
    capacities.iter_mut().find(|(index, _)| *index == stripe).map(|(_, room)| room)
}
