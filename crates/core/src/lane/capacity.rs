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
    /// Too few units unless the returns of the same transaction are applied first: entries that take units are
    /// retried after the returns.
    AwaitingReturns,
    /// The event takes no new reservations.
    Closed,
    /// There is no such item.
    Missing,
}

/// The entries of a cancelled transaction that are retried.
#[derive(Debug)]
pub(super) struct RetryGroups {
    /// Entries that together fit the remaining units.
    pub(super) fitting: Vec<BatchEntry>,
    /// Entries that wait for the outcome of the fitting ones.
    pub(super) later: Vec<BatchEntry>,
    /// Entries for which their stripe has too few units; they may use other stripes.
    pub(super) too_large: Vec<BatchEntry>,
}

/// What each stripe's action showed. If a stripe failed although it reports enough units, it was changed meanwhile:
/// treated as a conflict.
pub(super) fn stripe_capacities(
    updates: &[StripeUpdate],
    reasons: &[ActionOutcome],
    backoff: &mut Option<BackoffCause>,
    state: &mut PoolState,
    out: &mut PoolOutput,
) -> Vec<(u16, StripeCapacity)> {
    let mut capacities = Vec::with_capacity(updates.len());
    for (update, reason) in updates.iter().zip(reasons) {
        let capacity = match reason {
            ActionOutcome::Stripe(Some(view)) => {
                record_layout(view, state, out);
                if view.closed && update.take > 0 {
                    StripeCapacity::Closed
                } else if view.remaining.checked_add_signed(update.change()).is_some() {
                    backoff.get_or_insert(BackoffCause::Conflict);
                    StripeCapacity::Unknown
                } else if update.give > 0 {
                    StripeCapacity::AwaitingReturns
                } else {
                    // With the units that the same transaction moves here.
                    let left = view.remaining.saturating_add_signed(update.moved.max(0));
                    StripeCapacity::Limited { reported: left, left }
                }
            }
            ActionOutcome::Stripe(None) => StripeCapacity::Missing,
            _ => StripeCapacity::Unknown,
        };
        capacities.push((update.stripe, capacity));
    }
    capacities
}

/// The stripe does not get the units that were to be moved there: whether it has others is not known.
pub(super) fn forget_units(capacities: &mut Vec<(u16, StripeCapacity)>, stripe: u16) {
    let none = StripeCapacity::Limited { reported: 0, left: 0 };
    match capacity_of(capacities, stripe) {
        Some(StripeCapacity::Closed | StripeCapacity::Missing) => {}
        Some(capacity) => *capacity = none,
        None => capacities.push((stripe, none)),
    }
}

fn record_layout(view: &StripeView, state: &mut PoolState, out: &mut PoolOutput) {
    if let Some(stripes) = view.stripes {
        state.layout.stripes = stripes.max(1);
        state.layout.seat_keys = view.seat_keys;
    }
    state.layout.closed |= view.closed;
    out.layout_read = Some(state.layout);
}

/// Splits the retried entries: those that fit the remaining units, in order of arrival, and those that
/// wait for the outcome of the others. An entry larger than what its stripe reported is rejected if
/// that is the only stripe; otherwise it tries the others. The state of a stripe was read at `sent` or
/// later.
///
/// Stock decides nothing about an entry that may have a record: it is sent again.
pub(super) fn group_retries(
    entries: Vec<(BatchEntry, RecordStatus)>,
    capacities: &mut [(u16, StripeCapacity)],
    sent: Micros,
    state: &mut PoolState,
    cx: &mut PoolContext<'_>,
) -> RetryGroups {
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
                if state.layout.stripes <= 1 {
                    state.record_total(reported, sent);
                    let why = entry.shortage_rejection(reported);
                    cx.out.reject(entry, why);
                } else {
                    entry.queue.has_stripe_plan = false;
                    too_large.push(entry);
                }
            }
        }
    }
    RetryGroups { fitting, later, too_large }
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
    match entry.stock_change() {
        StockChange::Reserve => &entry.write.draws,
        _ => &[],
    }
}

fn fit(entry: &BatchEntry, capacities: &mut [(u16, StripeCapacity)]) -> Fit {
    if entry.stock_change() == StockChange::Return {
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
            Some(StripeCapacity::AwaitingReturns) => verdict = Fit::NotNow,
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
    capacities.iter_mut().find(|(index, _)| *index == stripe).map(|(_, capacity)| capacity)
}
