//! A short stripe: strong read of all stripes, draw on others, or sold out.
//!
//! "Sold out" is said only on a read of every stripe that began after the call arrived, or at most the
//! latch before. With one stripe a failed condition is such a read; else the pool asks for one.
//!
//! The read alone does not do: what it found missing may have been sold, elsewhere and just now, to
//! this very reservation. So a member it is too little for goes back to have its record looked up;
//! without one the refusal stands. A look costs half of what a write that fails does, and no other
//! member waits for it.

use super::member::Member;
use super::output::{Because, LaneOutput, Returned, Turn};
use super::pool::Pool;
use super::shared::{Latch, bit};
use crate::answer::Refusal;
use crate::time::Micros;
use crate::transaction::{Draw, Draws, EventRead, EventShape, StripeView};

impl Pool {
    /// Asks for a read if members wait for one and none is under way.
    pub(super) fn want_read(&mut self, turn: &mut Turn<'_>) {
        if !self.shared.short.is_empty() && !self.reading {
            self.reading = true;
            turn.out.read_stripes = true;
        }
    }

    /// Takes the read this pool asked for; it began at `began`.
    pub fn stripes_read(&mut self, began: Micros, read: &EventRead, turn: &mut Turn<'_>) {
        self.reading = false;
        match read {
            EventRead::Found(stripes) => self.plan(began, stripes, turn),
            EventRead::NotFound => self.refuse_short(&Refusal::EventNotFound, turn),
            EventRead::Throttled => self.refuse_short(&Refusal::store_busy(), turn),
            EventRead::Unavailable => self.refuse_short(&Refusal::store_unavailable(), turn),
        }
        self.feed(turn);
        // A member still short waits for what is in flight: what that leaves decides.
        if self.lanes.values().all(|lane| lane.flight.is_none()) {
            self.want_read(turn);
        }
    }

    fn refuse_short(&mut self, refusal: &Refusal, turn: &mut Turn<'_>) {
        for member in std::mem::take(&mut self.shared.short) {
            turn.out.refuse(member, refusal.clone());
        }
    }

    fn plan(&mut self, began: Micros, stripes: &[StripeView], turn: &mut Turn<'_>) {
        self.take_shape(EventShape::of(stripes));
        let total: u64 = stripes.iter().map(|s| s.remaining).sum();
        let mut left: Vec<u64> = stripes.iter().map(|s| s.remaining).collect();
        let mut planned: Vec<Member> = Vec::new();
        let mut hopeful: Vec<Member> = Vec::new();
        let mine = self.shared.mine;
        self.shared.learn_total(total, began);
        for mut member in std::mem::take(&mut self.shared.short) {
            let is_told = member.head.arrived <= began
                || self.shared.latch(member.write.qty, member.head.arrived)
                    == Latch::Shut { remaining: total };
            let is_short = u64::from(member.write.qty) > total;
            if is_short && !is_told {
                self.shared.short.push(member);
            } else if is_short {
                turn.counters.short += 1;
                self.is_too_few_for(member, total, turn.out);
            } else if let Some(draws) = draw(&mut left, member.write.qty, mine) {
                // Also of who came after the read began: the write decides, and who comes next finds
                // the latch open by this very read and would be served first.
                member.write.draws = draws;
                member.head.planned = true;
                planned.push(member);
            } else if stripes.len() == 1 {
                // Some of those before it may leave. Of one stripe the next write tells.
                hopeful.push(member);
            } else {
                self.shared.short.push(member);
            }
        }
        self.shared.line.put_back(hopeful);
        for (index, units) in left.iter().enumerate() {
            let index = index as u16;
            self.shared.learn_left(index, *units, turn.now.mono);
        }
        self.send_planned(planned, turn);
    }

    fn is_too_few_for(&self, member: Member, remaining: u64, out: &mut LaneOutput) {
        out.returned.push(Returned {
            from: member.write.from,
            operation: member.into_operation(self.shared.key.event.clone()),
            because: Because::Short { remaining },
        });
    }

    /// Each goes by the lane of a stripe that it draws on, if that is one of these: so that few lanes
    /// write to one stripe.
    fn send_planned(&mut self, planned: Vec<Member>, turn: &mut Turn<'_>) {
        let mut by_lane: Vec<(u16, Vec<Member>)> = Vec::new();
        for member in planned {
            let draws = member.write.draws.iter().map(|draw| draw.stripe);
            let mine = self.shared.mine;
            let home = draws.clone().find(|stripe| bit(*stripe) & mine != 0);
            let lane = home.unwrap_or(mine.trailing_zeros() as u16);
            match by_lane.iter_mut().find(|(index, _)| *index == lane) {
                Some((_, members)) => members.push(member),
                None => by_lane.push((lane, vec![member])),
            }
        }
        for (lane, members) in by_lane {
            self.with(lane, |lane, shared| {
                lane.own.put_back(members);
                lane.dispatch(shared, turn);
            });
        }
    }
}

/// Takes `qty` from one stripe if one has it, of `mine` if possible, else from as few as possible,
/// largest first. `None`, and nothing taken, if all together have too little.
fn draw(left: &mut [u64], qty: u32, mine: u64) -> Option<Draws> {
    if left.iter().sum::<u64>() < u64::from(qty) {
        return None;
    }
    let mut missing = u64::from(qty);
    let mut draws = Draws::new();
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
        draws.push(Draw {
            stripe: index as u16,
            units: units as u32,
        });
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
        assert_eq!(
            one[..],
            [Draw {
                stripe: 1,
                units: 5
            }]
        );
        assert_eq!(left, [3, 4, 4]);

        let several = draw(&mut left, 10, 0).expect("enough");
        assert_eq!(several.iter().map(|d| d.units).sum::<u32>(), 10);
        assert_eq!(left.iter().sum::<u64>(), 1);

        let mut untouched = left;
        assert_eq!(draw(&mut untouched, 2, 0), None);
        assert_eq!(untouched, left);
    }
}
