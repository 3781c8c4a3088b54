//! Short stripes: a strong read of all stripes, then an allocation from others, or sold out.
//!
//! "Sold out" needs a read of every stripe that began after the call arrived, or at most the sold-out
//! latch before. With one stripe a failed condition is such a read; otherwise the pool asks for one.
//!
//! The read alone is not enough: what it found missing may have been sold to this very reservation, on
//! another node and just now. So an entry for which there are too few units leaves the pool to have its
//! record read; without a record it is rejected. That read costs half of what a failed write does, and
//! no other entry waits for it.

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
    /// Asks for a read if entries wait for one and none is in flight.
    pub(super) fn want_read(&mut self, cx: &mut PoolContext<'_>) {
        if !self.state.awaiting_read.is_empty() && !self.reading {
            self.reading = true;
            cx.out.read_stripes = true;
        }
    }

    /// Handles the read that this pool asked for; it began at `began`.
    pub fn stripes_read(&mut self, began: Micros, read: &StripesRead, cx: &mut PoolContext<'_>) {
        self.reading = false;
        match read {
            StripesRead::Found(stripes) => self.plan(began, stripes, cx),
            StripesRead::NotFound => self.refuse_short(&Rejection::EventNotFound, cx),
            StripesRead::Throttled => self.refuse_short(&Rejection::store_busy(), cx),
            StripesRead::Unavailable => self.refuse_short(&Rejection::store_unavailable(), cx),
        }
        self.dispatch_queue(cx);
        // An entry that is still short waits for what is in flight: what that leaves decides.
        if self.lanes.values().all(|lane| lane.flight.is_none()) {
            self.want_read(cx);
        }
    }

    fn refuse_short(&mut self, rejection: &Rejection, cx: &mut PoolContext<'_>) {
        for entry in std::mem::take(&mut self.state.awaiting_read) {
            cx.out.reject(entry, rejection.clone());
        }
    }

    fn plan(&mut self, began: Micros, stripes: &[StripeView], cx: &mut PoolContext<'_>) {
        self.set_shape(EventLayout::of(stripes));
        let total: u64 = stripes.iter().map(|s| s.remaining).sum();
        let mut left: Vec<u64> = stripes.iter().map(|s| s.remaining).collect();
        let mut planned: Vec<BatchEntry> = Vec::new();
        let mut hopeful: Vec<BatchEntry> = Vec::new();
        let mine = self.state.owned;
        self.state.record_total(total, began);
        for mut entry in std::mem::take(&mut self.state.awaiting_read) {
            let is_told = entry.queue.arrived <= began
                || self.state.sold_out_hint(entry.write.qty, entry.queue.arrived)
                    == SoldOutHint::Fresh { remaining: total };
            let is_short = u64::from(entry.write.qty) > total;
            if is_short && !is_told {
                self.state.awaiting_read.push(entry);
            } else if is_short {
                cx.counters.stripe_shortages += 1;
                is_too_few_for(entry, total, cx.out);
            } else if let Some(draws) = draw(&mut left, entry.write.qty, mine) {
                // Also entries that arrived after the read began: the write decides, and later calls, which
                // find no shortage by this read, would be served first.
                entry.write.draws = draws;
                entry.queue.planned = true;
                planned.push(entry);
            } else if stripes.len() == 1 {
                // Some of the entries before it may leave. For a single stripe the next write decides.
                hopeful.push(entry);
            } else {
                self.state.awaiting_read.push(entry);
            }
        }
        self.state.queue.requeue(hopeful);
        for (index, units) in left.iter().enumerate() {
            let index = index as u16;
            self.state.record_remainder(index, *units, cx.now.mono);
        }
        self.send_planned(planned, cx);
    }

    /// Each entry goes to the lane of a stripe that it takes from, if this pool has that lane: so that few
    /// lanes write to one stripe.
    fn send_planned(&mut self, planned: Vec<BatchEntry>, cx: &mut PoolContext<'_>) {
        let mut by_lane: Vec<(u16, Vec<BatchEntry>)> = Vec::new();
        for entry in planned {
            let draws = entry.write.draws.iter().map(|draw| draw.stripe);
            let mine = self.state.owned;
            let home = draws.clone().find(|stripe| bit(*stripe) & mine != 0);
            let lane = home.unwrap_or(mine.trailing_zeros() as u16);
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

fn is_too_few_for(entry: BatchEntry, remaining: u64, out: &mut PoolOutput) {
    out.redecisions.push(Redecision {
        from: entry.write.from,
        operation: entry.into_operation(),
        cause: RedecisionCause::Shortage { remaining },
    });
}

/// Allocates `qty` from one stripe if one has it, from `mine` if possible, else from as few as
/// possible, largest first. `None`, and nothing allocated, if all together have too few.
fn draw(left: &mut [u64], qty: u32, mine: u64) -> Option<StripeAllocations> {
    if left.iter().sum::<u64>() < u64::from(qty) {
        return None;
    }
    let mut missing = u64::from(qty);
    let mut draws = StripeAllocations::new();
    while missing > 0 {
        let rank = |index: usize, units: u64| {
            let is_mine = bit(index as u16) & mine != 0;
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
    fn draws_on_one_stripe_if_one_has_it_else_on_the_largest() {
        let mut left = [3, 9, 4];
        let one = draw(&mut left, 5, 0).expect("enough");
        assert_eq!(one[..], [StripeAllocation { stripe: 1, units: 5 }]);
        assert_eq!(left, [3, 4, 4]);

        let several = draw(&mut left, 10, 0).expect("enough");
        assert_eq!(several.iter().map(|d| d.units).sum::<u32>(), 10);
        assert_eq!(left.iter().sum::<u64>(), 1);

        let mut untouched = left;
        assert_eq!(draw(&mut untouched, 2, 0), None);
        assert_eq!(untouched, left);
    }
}
