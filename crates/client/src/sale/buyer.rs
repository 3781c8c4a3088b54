//! What each buyer asks for and how it misbehaves: drawn from a seed, nothing is stored.

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::plan::SalePlan;

/// Behaviour of one buyer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuyerKind {
    /// Commits once.
    Plain,
    /// Commits on two connections at the same time.
    DuplicateAtOnce,
    /// Commits, and commits again on another connection after the answer.
    DuplicateLater,
    /// Releases a reservation it never committed, then tries to commit it.
    ReleasedFirst,
    /// Commits, then tries to release it.
    ReleasedAfter,
    /// Commits, then tries another quantity under the same id.
    OtherPayload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buyer {
    pub(super) quantity: i32,
    pub(super) kind: BuyerKind,
    /// Commits once more, on another connection, after the sale.
    pub(super) repeats_at_end: bool,
}

/// Buyer number `index` of a valid `plan`: the same on every call.
///
/// The last few buyers ask for one unit each, so that large quantities leave no remainder.
pub(super) fn buyer(plan: &SalePlan, index: u64) -> Buyer {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut quantity = draw_quantity(plan, &mut rng);
    let mut kind = draw_kind(plan, rng.random_range(0..1_000));
    let repeats_at_end = rng.random_range(0..1_000) < plan.shares.repeated_at_end;
    if index + plan.single_unit_buyers() >= plan.buyers {
        quantity = 1;
        kind = BuyerKind::Plain;
    }
    Buyer { quantity, kind, repeats_at_end }
}

fn draw_quantity(plan: &SalePlan, rng: &mut SmallRng) -> i32 {
    let weights: u32 = plan.quantities.iter().map(|(_, weight)| weight).sum();
    let mut draw = rng.random_range(0..weights.max(1));
    for (quantity, weight) in &plan.quantities {
        if draw < *weight {
            return *quantity;
        }
        draw -= weight;
    }
    1
}

fn draw_kind(plan: &SalePlan, mut draw: u32) -> BuyerKind {
    let shares = &plan.shares;
    for (share, kind) in [
        (shares.duplicated_at_once, BuyerKind::DuplicateAtOnce),
        (shares.duplicated_later, BuyerKind::DuplicateLater),
        (shares.released_first, BuyerKind::ReleasedFirst),
        (shares.released_after, BuyerKind::ReleasedAfter),
        (shares.other_payload, BuyerKind::OtherPayload),
    ] {
        if draw < share {
            return kind;
        }
        draw -= share;
    }
    BuyerKind::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_quantities_come_out_as_planned() {
        let mut plan = SalePlan::new(vec!["127.0.0.1:1".to_owned()], "evt", 20_000);
        plan.quantities = vec![(1, 1), (4, 3)];
        plan.buyers = 20_000;
        let buyers: Vec<_> = (0..plan.buyers).map(|i| buyer(&plan, i)).collect();
        let share = |kind| buyers.iter().filter(|b| b.kind == kind).count() * 1_000 / buyers.len();
        for (kind, wanted) in [
            (BuyerKind::DuplicateAtOnce, plan.shares.duplicated_at_once),
            (BuyerKind::DuplicateLater, plan.shares.duplicated_later),
            (BuyerKind::ReleasedFirst, plan.shares.released_first),
            (BuyerKind::ReleasedAfter, plan.shares.released_after),
            (BuyerKind::OtherPayload, plan.shares.other_payload),
        ] {
            let got = share(kind) as u32;
            assert!(got.abs_diff(wanted) <= 8, "{kind:?}: {got} of {wanted} ‰");
        }
        let fours = buyers.iter().filter(|b| b.quantity == 4).count();
        assert!((14_500..15_500).contains(&fours), "{fours}");
    }

    #[test]
    fn plan_is_deterministic_per_seed() {
        let plan = SalePlan::new(vec!["127.0.0.1:1".to_owned()], "evt", 1_000);
        let other = SalePlan { seed: plan.seed + 1, ..plan.clone() };
        let of = |plan: &SalePlan| (0..500).map(|i| buyer(plan, i)).collect::<Vec<_>>();
        assert_eq!(of(&plan), of(&plan));
        assert_ne!(of(&plan), of(&other));
    }

    #[test]
    fn the_last_buyers_sweep_up_single_units() {
        let mut plan = SalePlan::new(vec!["127.0.0.1:1".to_owned()], "evt", 1_000);
        plan.quantities = vec![(7, 1)];
        let last = plan.buyers - 1;
        assert_eq!(buyer(&plan, last).quantity, 1);
        assert_eq!(buyer(&plan, last).kind, BuyerKind::Plain);
        assert_eq!(buyer(&plan, last - plan.single_unit_buyers()).quantity, 7);
    }
}
