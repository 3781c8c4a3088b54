//! Figures of a whole event: held units against records and counters, and moved units, which add up to 0.

use super::*;

#[test]
fn held_units_that_differ_from_the_records_are_named_and_repaired() {
    let mut books = three_sales();
    let held = report(&books).held.unwrap();
    assert_eq!(held.difference(), 0);
    assert!(held.records > 0 && held.confirmed > 0, "{held:?}");
    // A process of an earlier version confirmed a hold of two units and counted nothing.
    for lost in [2, -3] {
        let mut books = books.clone();
        amounts(&mut books, 0).held += lost;
        let seen = report(&books);
        assert_eq!(codes(&seen), [(BreachSubject::Counter(0), "HELD_DIFFERS")]);
        assert_eq!(seen.stripes.iter().map(StripeBalance::difference).sum::<i128>(), 0);
        let text = seen.breaches[0].to_string();
        assert!(text.contains("no stock is wrong"), "{text}");
        let (plan, after) = reconciled(&mut books);
        assert_eq!(plan.repairs.len(), 1);
        assert_eq!(plan.repairs[0].code(), "SET_COUNTER");
        assert_eq!((after.verdict(), after.breaches), (AuditVerdict::Clean, vec![]));
    }
    // A hold of an earlier version is not counted, and no breach.
    let held = books.live.iter_mut().find(|record| record.state == ReservationState::Held);
    let held = held.unwrap();
    held.counted = false;
    let (stripe, units) = (held.draws[0].stripe, held.units());
    amounts(&mut books, stripe).held -= units as i64;
    let seen = report(&books);
    assert_eq!(seen.verdict(), AuditVerdict::Clean, "{:?}", seen.breaches);
    assert_eq!(seen.held.unwrap().uncounted, units);
}

#[test]
fn held_units_are_judged_only_if_no_counter_changed() {
    let mut books = three_sales();
    books.counters.still = false;
    amounts(&mut books, 0).held += 5;
    let round = judge(&books, &KnownBalances::default(), NOW);
    assert!(!round.units_unchanged());
    let seen = round.at_rest();
    assert_eq!((seen.verdict(), seen.breaches.len()), (AuditVerdict::Moving, 0));
    assert_eq!(plan(&seen), Err(EventChanged));
    // An earlier round has proven them.
    let earlier = judge(&three_sales(), &KnownBalances::default(), NOW).known();
    assert_eq!(judge(&books, &earlier, NOW).at_rest().verdict(), AuditVerdict::Clean);
    // Without a held unit there is nothing to prove.
    let mut direct = quantity(1, 5, &[]);
    direct.counters.still = false;
    assert!(judge(&direct, &KnownBalances::default(), NOW).units_unchanged());
}

#[test]
fn unreadable_counter_is_a_breach_without_a_repair() {
    let mut books = three_sales();
    books.counters.items[2] = StoredItem::Unreadable("confirmed_units is no number".to_owned());
    let seen = report(&books);
    assert_eq!(codes(&seen), [(BreachSubject::Counter(2), "UNREADABLE")]);
    assert_eq!(plan(&seen).unwrap().left.len(), 1);
}

/// Moves units between two stripes, as a transaction does.
fn move_units(books: &mut EventRecords, from: u16, to: u16, units: i64) {
    for (stripe, moved) in [(from, -units), (to, units)] {
        let item = amounts(books, stripe);
        item.remaining += moved;
        item.capacity = item.capacity.checked_add_signed(moved).unwrap();
        item.moved += moved;
        item.version += 1;
    }
}

#[test]
fn moved_units_that_do_not_add_up_are_named_and_repaired() {
    let mut books = quantity(3, 10, &[(1, 0, 2), (0, 1, 3)]);
    move_units(&mut books, 0, 2, 7);
    move_units(&mut books, 1, 2, 2);
    let seen = report(&books);
    assert_eq!((seen.verdict(), seen.moved), (AuditVerdict::Clean, Some(0)));
    assert_eq!(seen.stripes.iter().map(|line| line.moved).collect::<Vec<_>>(), [-7, -2, 9]);
    for (edited, text) in [(5, "are 5 too low, and \"sold out\""), (-4, "are 4 too high")] {
        let mut books = books.clone();
        amounts(&mut books, 1).moved += edited;
        let seen = report(&books);
        // It cannot be seen which one was edited.
        assert_eq!(codes(&seen), [(BreachSubject::Stripe(0), "MOVED_DIFFERS")]);
        assert!(seen.breaches[0].to_string().contains(text), "{}", seen.breaches[0]);
        let (plan, after) = reconciled(&mut books);
        let repair = Repair::Moved { stripe: 0, seen: -7, to: -7 - edited };
        assert_eq!((plan.repairs, plan.left), (vec![repair], vec![]));
        assert_eq!((after.verdict(), after.moved), (AuditVerdict::Clean, Some(0)));
    }
    // The only stripe with moved units is the one that was edited.
    let mut books = three_sales();
    amounts(&mut books, 1).moved = 3;
    assert_eq!(codes(&report(&books)), [(BreachSubject::Stripe(1), "MOVED_DIFFERS")]);
    // A stripe and the moved units differ: two repairs, and each of them is right without the other.
    amounts(&mut books, 1).remaining -= 3;
    let plan = plan(&report(&books)).unwrap();
    let codes: Vec<_> = plan.repairs.iter().map(Repair::code).collect();
    assert_eq!(codes, ["SET_REMAINING", "SET_MOVED"]);
    plan.repairs.iter().for_each(|repair| apply(&mut books, repair));
    assert_eq!(report(&books).breaches, []);
}

#[test]
fn a_move_between_two_reads_is_no_breach() {
    let before = quantity(3, 10, &[]);
    let mut after = before.clone();
    move_units(&mut after, 0, 2, 7);
    let items = |books: &EventRecords, stripes: [bool; 3]| -> Vec<StoredItem<StripeAmounts>> {
        let of = |(index, is_after): (usize, bool)| match is_after {
            true => after.stripes[index].item.clone(),
            false => books.stripes[index].item.clone(),
        };
        stripes.into_iter().enumerate().map(of).collect()
    };
    let judged = |first: [bool; 3], second: [bool; 3], known: &KnownBalances| {
        let mut books = before.clone();
        books.stripes = StripeReads::pair(&items(&before, first), items(&before, second));
        judge(&books, known, NOW)
    };
    let none = KnownBalances::default();
    let all = [true; 3];
    // The move is between the reads of stripes 0 and 2, in the first or in the second pass.
    for (first, second) in [([false; 3], [false, true, true]), ([false, true, true], all)] {
        let round = judged(first, second, &none);
        assert!(!round.units_unchanged());
        let seen = round.at_rest();
        assert_eq!((seen.verdict(), seen.breaches), (AuditVerdict::Moving, vec![]));
        assert_eq!((seen.moved, seen.moving_moved), (None, true));
    }
    // Both rounds together have seen each stripe unchanged, but not at one instant: a further round is needed.
    let first = judged([false; 3], [false, true, true], &none).known();
    let second = judged([false, true, true], all, &first);
    assert!(!second.units_unchanged());
    let seen = second.at_rest();
    assert_eq!((seen.verdict(), seen.moving_stripes.len()), (AuditVerdict::Moving, 0));
    // An earlier round has proven the sum.
    let earlier = judged([false; 3], [false; 3], &none).known();
    let seen = judged([false; 3], [false, true, true], &earlier).at_rest();
    assert_eq!((seen.moved, seen.moving_moved), (Some(0), false));
}

#[test]
fn a_sale_does_not_prevent_the_proof_of_moved_units() {
    let mut books = quantity(3, 10, &[]);
    move_units(&mut books, 0, 2, 7);
    let earlier: Vec<_> = books.stripes.iter().map(|stripe| stripe.item.clone()).collect();
    let sold = |books: &EventRecords| {
        let mut books = books.clone();
        for stripe in 0..3 {
            let item = amounts(&mut books, stripe);
            (item.remaining, item.version) = (item.remaining - 1, item.version + 1);
        }
        let items = books.stripes.into_iter().map(|stripe| stripe.item).collect();
        StripeReads::pair(&earlier, items)
    };
    let mut during = books.clone();
    during.stripes = sold(&books);
    let seen = report(&during);
    assert_eq!(seen.moving_stripes, [0, 1, 2]);
    assert_eq!((seen.moved, seen.moving_moved), (Some(0), false));
    // A breach needs a round without any change.
    amounts(&mut during, 1).moved += 1;
    for stripe in &mut during.stripes {
        stripe.moved_still = true;
    }
    let seen = report(&during);
    assert_eq!((seen.breaches.len(), seen.moved, seen.moving_moved), (0, None, true));
}
