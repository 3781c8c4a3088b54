//! Short stripes: a strong read of all stripes, then an allocation from others, or sold out.
//!
//! "Sold out" needs a read of every stripe that began after the call arrived, or at most `SOLD_OUT_LATCH_MS` before it.
//! With one stripe a failed condition is such a read; otherwise the pool requests one.
//!
//! The read alone is not enough, because the units may just have been sold to this reservation by another process. So
//! the record of an entry for which there are too few units is read outside the pool; without a record the entry is
//! rejected. That read costs half as much as a failed write, and no other entry waits for it.

use super::batch_entry::BatchEntry;
use super::output::{PoolContext, PoolOutput, Redecision, RedecisionCause};
use super::pool::Pool;
use super::pool_state::{SoldOutHint, bit};
use crate::answer::Rejection;
use crate::time::Micros;
use crate::transaction::{
    EventLayout, StripeAllocation, StripeAllocations, StripeView, StripesRead,
};

impl Pool {
    /// Requests a read if entries wait for one and none is in flight.
    pub(super) fn request_read(&mut self, cx: &mut PoolContext<'_>) {
        if !self.state.awaiting_read.is_empty() && !self.is_reading_stripes {
            self.is_reading_stripes = true;
            cx.out.read_stripes = true;
        }
    }

    /// Handles the read that this pool asked for; it began at `began`.
    pub fn stripes_read(&mut self, began: Micros, read: &StripesRead, cx: &mut PoolContext<'_>) {
        self.is_reading_stripes = false;
        match read {
            StripesRead::Found(stripes) => self.plan(began, stripes, cx),
            StripesRead::NotFound => self.reject_awaiting(&Rejection::EventNotFound, cx),
            StripesRead::Throttled => self.reject_awaiting(&Rejection::store_busy(), cx),
            StripesRead::Unavailable => self.reject_awaiting(&Rejection::store_unavailable(), cx),
        }
        self.dispatch_queue(cx);
        // An entry that is still short waits for the transactions in flight; the units that remain then decide.
        if self.lanes.values().all(|lane| lane.in_flight.is_none()) {
            self.request_read(cx);
        }
    }

    fn reject_awaiting(&mut self, rejection: &Rejection, cx: &mut PoolContext<'_>) {
        for entry in std::mem::take(&mut self.state.awaiting_read) {
            cx.out.reject(entry, rejection.clone());
        }
    }

    fn plan(&mut self, began: Micros, stripes: &[StripeView], cx: &mut PoolContext<'_>) {
        self.set_layout(EventLayout::of(stripes));
        let total: u64 = stripes.iter().map(|s| s.remaining).sum();
        let mut left: Vec<u64> = stripes.iter().map(|s| s.remaining).collect();
        let mut planned: Vec<BatchEntry> = Vec::new();
        let mut retry_on_single_stripe: Vec<BatchEntry> = Vec::new();
        let owned = self.state.owned;
        self.state.record_total(total, began);
        for mut entry in std::mem::take(&mut self.state.awaiting_read) {
            let is_decided_by_read = entry.queue.arrived <= began
                || self.state.sold_out_hint(entry.write.qty, entry.queue.arrived)
                    == SoldOutHint::Fresh { remaining: total };
            let is_short = u64::from(entry.write.qty) > total;
            if is_short && !is_decided_by_read {
                self.state.awaiting_read.push(entry);
            } else if is_short {
                cx.counters.stripe_shortages += 1;
                redecide_shortage(entry, total, cx.out);
            } else if let Some(draws) = allocate(&mut left, entry.write.qty, owned) {
                // Includes entries that arrived after the read began; otherwise later calls would be
                // served before them.
                entry.write.draws = draws;
                entry.queue.has_stripe_plan = true;
                planned.push(entry);
            } else if stripes.len() == 1 {
                // Earlier entries may be rejected. For a single stripe the next write decides.
                retry_on_single_stripe.push(entry);
            } else {
                self.state.awaiting_read.push(entry);
            }
        }
        self.state.queue.requeue(retry_on_single_stripe);
        for (index, units) in left.iter().enumerate() {
            let index = index as u16;
            self.state.record_remainder(index, *units, cx.now.mono);
        }
        self.send_planned(planned, cx);
    }

    /// Gives each entry to the lane of a stripe that it takes from, if this pool has that lane, so that few lanes
    /// write to one stripe.
    fn send_planned(&mut self, planned: Vec<BatchEntry>, cx: &mut PoolContext<'_>) {
        let mut by_lane: Vec<(u16, Vec<BatchEntry>)> = Vec::new();
        for entry in planned {
            let draws = entry.write.draws.iter().map(|draw| draw.stripe);
            let owned = self.state.owned;
            let own_lane = draws.clone().find(|stripe| bit(*stripe) & owned != 0);
            let lane = own_lane.unwrap_or(owned.trailing_zeros() as u16);
            match by_lane.iter_mut().find(|(index, _)| *index == lane) {
                Some((_, entries)) => entries.push(entry),
                None => by_lane.push((lane, vec![entry])),
            }
        }
        for (lane, entries) in by_lane {
            self.with_lane(lane, |lane, state| {
                lane.own.requeue(entries);
                lane.dispatch(state, cx);
            });
        }
    }
}

fn redecide_shortage(entry: BatchEntry, remaining: u64, out: &mut PoolOutput) {
    out.redecisions.push(Redecision {
        from: entry.write.from,
        operation: entry.into_operation(),
        cause: RedecisionCause::Shortage { remaining },
    });
}

/// Allocates `qty` from one stripe if one has it, from `mine` if possible, else from as few as
/// possible, largest first. `None`, and nothing allocated, if all together have too few.
fn allocate(left: &mut [u64], qty: u32, owned: u64) -> Option<StripeAllocations> {
    if left.iter().sum::<u64>() < u64::from(qty) {
        return None;
    }
    let mut missing = u64::from(qty);
    let mut draws = StripeAllocations::new();
    while missing > 0 {
        let rank = |index: usize, units: u64| {
            let is_mine = bit(index as u16) & owned != 0;
            (units.min(missing), is_mine, units)
        };
        let stripes = left.iter_mut().enumerate();
        let (index, most) = stripes.max_by_key(|(index, units)| rank(*index, **units))?;
        let units = missing.min(*most);
        *most -= units;
        missing -= units;
        draws.push(StripeAllocation { stripe: index as u16, units: units as u32 });
    }
    Some(draws)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocates_from_one_stripe_if_possible_else_from_the_largest() {
        let mut left = [3, 9, 4];
        let one = allocate(&mut left, 5, 0).expect("enough");
        assert_eq!(one[..], [StripeAllocation { stripe: 1, units: 5 }]);
        assert_eq!(left, [3, 4, 4]);

        let several = allocate(&mut left, 10, 0).expect("enough");
        assert_eq!(several.iter().map(|d| d.units).sum::<u32>(), 10);
        assert_eq!(left.iter().sum::<u64>(), 1);

        let mut untouched = left;
        assert_eq!(allocate(&mut untouched, 2, 0), None);
        assert_eq!(untouched, left);
    }
}
