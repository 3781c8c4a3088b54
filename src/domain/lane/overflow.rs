//! A short stripe: strong read of all stripes, draw on others, or sold out.
//!
//! "Sold out" is said only on a read of every stripe that began after the call arrived. With one
//! stripe the failed condition is that read; with several the lane asks for one.
//!
//! The read alone does not do: what it found missing may have been sold, elsewhere and just now, to
//! this very reservation. So a member it is too little for is written once more. That write fails,
//! and says in failing whether there is a record; without one the refusal stands.

use rand::Rng;

use super::{Lane, LaneOutput, Member, Track, drawn_from};
use crate::domain::answer::Refusal;
use crate::domain::counters::Counters;
use crate::domain::time::{Micros, Now};
use crate::domain::transaction::{Draw, Draws, EventRead, EventShape, StripeView};

impl Lane {
    /// Asks for a read if members wait for one and none is under way.
    pub(super) fn want_read(&mut self, out: &mut LaneOutput) {
        if !self.short.is_empty() && !self.reading {
            self.reading = true;
            out.read_stripes = true;
        }
    }

    /// Takes the read this lane asked for; it began at `began`.
    pub fn stripes_read(
        &mut self,
        began: Micros,
        read: &EventRead,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        self.reading = false;
        match read {
            EventRead::Found(stripes) => self.plan(began, stripes, now, rng, counters, out),
            EventRead::NotFound => self.refuse_short(&Refusal::EventNotFound, out),
            EventRead::Throttled => {
                self.refuse_short(&Refusal::store_busy(), out);
            }
            EventRead::Unavailable => {
                self.refuse_short(&Refusal::store_unavailable(), out);
            }
        }
        // A member still short waits for the transaction in flight: what it leaves decides.
        if self.flight.is_none() {
            self.want_read(out);
        }
    }

    fn refuse_short(&mut self, refusal: &Refusal, out: &mut LaneOutput) {
        for member in std::mem::take(&mut self.short) {
            out.refuse(member, refusal.clone());
        }
    }

    fn plan(
        &mut self,
        began: Micros,
        stripes: &[StripeView],
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        self.shape = EventShape::of(stripes);
        let total: u64 = stripes.iter().map(|s| s.remaining).sum();
        let mut left: Vec<u64> = stripes.iter().map(|s| s.remaining).collect();
        let mut planned: Vec<Member> = Vec::new();
        let mut doubtful: Vec<Member> = Vec::new();
        let home = match self.key.track {
            Track::Stripe(index) => index,
            Track::Loose(_) | Track::Bundle { .. } => 0,
        };
        for mut member in std::mem::take(&mut self.short) {
            let qty = u64::from(member.write.qty);
            if member.head.arrived > began {
                self.short.push(member);
            } else if qty > total {
                member.head.too_few = Some(total);
                member.write.draws = drawn_from(home, member.write.qty);
                doubtful.push(member);
            } else if let Some(draws) = draw(&mut left, member.write.qty) {
                member.write.draws = draws;
                planned.push(member);
            } else {
                self.short.push(member);
            }
        }
        for member in planned.into_iter().chain(doubtful).rev() {
            self.queue.push_front(member);
        }
        self.dispatch(now, rng, counters, out);
    }
}

/// Takes `qty` from one stripe if one has it, else from as few as possible, largest first.
/// `None`, and nothing taken, if all together have too little.
fn draw(left: &mut [u64], qty: u32) -> Option<Draws> {
    if left.iter().sum::<u64>() < u64::from(qty) {
        return None;
    }
    let mut missing = u64::from(qty);
    let mut draws = Draws::new();
    while missing > 0 {
        let (index, most) = left.iter_mut().enumerate().max_by_key(|(_, l)| **l)?;
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
        let one = draw(&mut left, 5).expect("enough");
        assert_eq!(
            one[..],
            [Draw {
                stripe: 1,
                units: 5
            }]
        );
        assert_eq!(left, [3, 4, 4]);

        let several = draw(&mut left, 10).expect("enough");
        assert_eq!(several.iter().map(|d| d.units).sum::<u32>(), 10);
        assert_eq!(left.iter().sum::<u64>(), 1);

        let mut untouched = left;
        assert_eq!(draw(&mut untouched, 2), None);
        assert_eq!(untouched, left);
    }
}
