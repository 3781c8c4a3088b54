//! Moves of units between stripes, with the sale that they go with.

use inventory_core::ids::stripe_key;
use inventory_core::transaction::{ActionOutcome, StockTotals, StripeUpdate};

use super::fixture::*;
use super::transitions::{applied, refused};
use inventory_store::SetTotalOutcome;

fn moving(from: u16, to: u16, units: i64, take: u64) -> Vec<StripeUpdate> {
    let target = StripeUpdate { stripe: to, take, moved: units, ..StripeUpdate::default() };
    vec![target, StripeUpdate { stripe: from, moved: -units, ..StripeUpdate::default() }]
}

#[test]
fn moved_units_are_sold_in_the_same_transaction() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        create(&store, 20, 2).await;
        applied(&store, transaction(&[(0, 10)], vec![confirmed("r1", &[(0, 10)])])).await;
        // Stripe 0 is sold out; neither item has been part of a move.
        let sold = confirmed("r2", &[(0, 3)]);
        applied(&store, transaction_of(moving(1, 0, 4, 3), vec![sold])).await;
        let stripes = stripes(&store).await;
        let found = |of: usize| (stripes[of].capacity, stripes[of].remaining, stripes[of].moved);
        assert_eq!([found(0), found(1)], [(14, 1, 4), (6, 6, -4)]);
        assert_eq!(StockTotals::of(&stripes), StockTotals { capacity: 20, remaining: 7 });
        assert_eq!((stripes[0].version, stripes[1].version), (2, 1));

        // More than the stripe had, and back.
        let sold = confirmed("r3", &[(1, 7)]);
        applied(&store, transaction_of(moving(0, 1, 1, 7), vec![sold])).await;
        assert_eq!(remaining(&store).await, [0, 0]);
        let item = raw_item(
            &settings,
            &store.tables().inventory,
            &[("event_id", &stripe_key(&event(), 1))],
        )
        .await;
        assert_eq!(item["moved"].as_n().unwrap(), "-3");
        assert_eq!(item["total_seats"].as_n().unwrap(), "7");
    });
}

#[test]
fn a_move_needs_units_and_an_open_event() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 2).await;
        // Either stripe may have too few.
        let sold = confirmed("r1", &[(0, 1)]);
        let reasons = refused(&store, transaction_of(moving(1, 0, 6, 1), vec![sold])).await;
        assert_eq!(reasons[0], ActionOutcome::Fine);
        assert!(matches!(&reasons[1], ActionOutcome::Stripe(Some(view)) if view.remaining == 5));
        let sold = confirmed("r1", &[(0, 8)]);
        let reasons = refused(&store, transaction_of(moving(1, 0, 2, 8), vec![sold])).await;
        assert!(matches!(&reasons[0], ActionOutcome::Stripe(Some(view)) if view.remaining == 5));
        assert_eq!(reasons[1], ActionOutcome::Fine);
        let sold = confirmed("r1", &[(0, 1)]);
        let reasons = refused(&store, transaction_of(moving(7, 0, 2, 1), vec![sold])).await;
        assert_eq!(reasons[1], ActionOutcome::Stripe(None));
        assert_eq!(remaining(&store).await, [5, 5]);

        store.close_event(&event()).await.unwrap();
        let release = tombstone("r2");
        let reasons = refused(&store, transaction_of(moving(1, 0, 2, 0), vec![release])).await;
        for reason in &reasons[..2] {
            assert!(matches!(reason, ActionOutcome::Stripe(Some(view)) if view.closed));
        }
        assert_eq!(remaining(&store).await, [5, 5]);
    });
}

/// The total is changed by what the stripes have without moved units, whatever is moved meanwhile.
#[test]
fn total_of_an_event_with_moved_units_is_changed_exactly() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 20, 2).await;
        let sold = confirmed("r1", &[(0, 1)]);
        applied(&store, transaction_of(moving(1, 0, 9, 1), vec![sold])).await;
        for total in [25, 12, 1] {
            let SetTotalOutcome::Set(stripes) = store.set_total(&event(), total).await.unwrap()
            else {
                panic!("{total}");
            };
            let totals = StockTotals { capacity: total, remaining: total - 1 };
            assert_eq!(StockTotals::of(&stripes), totals);
            assert!(stripes.iter().all(|stripe| stripe.remaining <= stripe.capacity));
        }
    });
}
