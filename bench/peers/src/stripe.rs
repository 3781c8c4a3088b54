//! A stripe: one item of an event's stock, as the server writes and reads it.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, Update};
use rand::Rng;

use crate::limits::STRIPES_MAX;
use crate::record::{Draw, EVENT_ID, Item, Millis, UPDATED_AT, maybe_number, number, text};

const REMAINING: &str = "remaining";
const VERSION: &str = "version";
const TOTAL_SEATS: &str = "total_seats";
const CLOSED: &str = "closed";
const STRIPES: &str = "stripes";
const SEAT_KEYS: &str = "seat_keys";

/// The item's key: `event` for stripe 0, `event#3` for stripe 3.
pub fn key_of(event: &str, stripe: u16) -> Item {
    let key = match stripe {
        0 => event.to_owned(),
        n => format!("{event}#{n}"),
    };
    Item::from([(EVENT_ID.to_owned(), text(key))])
}

/// One stripe, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    pub remaining: u64,
    /// `None`: the item has none yet.
    pub version: Option<u64>,
    pub closed: bool,
    /// How many the event has: on stripe 0 only, and 1 where it does not say.
    pub stripes: u16,
    /// Over how many keys its seats are spread; 0 of a quantity.
    pub seat_keys: u16,
}

impl Stripe {
    /// Reads a stored item.
    ///
    /// # Errors
    /// When an attribute is missing or cannot be: names it.
    pub fn read(item: &Item) -> Result<Self, String> {
        let stripes = maybe_number(item, STRIPES)?.unwrap_or(1);
        if stripes == 0 || stripes > STRIPES_MAX {
            return Err(format!("{STRIPES} is {stripes}, want 1 to {STRIPES_MAX}"));
        }
        let remaining: Option<u64> = maybe_number(item, REMAINING)?;
        let capacity: Option<u64> = maybe_number(item, TOTAL_SEATS)?;
        let missing = |name: &str| format!("{name} is missing");
        let remaining = remaining.ok_or_else(|| missing(REMAINING))?;
        let capacity = capacity.ok_or_else(|| missing(TOTAL_SEATS))?;
        if remaining > capacity {
            return Err(format!(
                "{REMAINING} {remaining} is over {TOTAL_SEATS} {capacity}"
            ));
        }
        Ok(Self {
            remaining,
            version: maybe_number(item, VERSION)?,
            closed: !matches!(item.get(CLOSED), None | Some(AttributeValue::Bool(false))),
            stripes,
            seat_keys: maybe_number(item, SEAT_KEYS)?.unwrap_or(0),
        })
    }
}

/// What a write does to a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Only if that many remain and the event is open.
    Take,
    /// As `Take`, and only if nobody wrote since this version was read; `None`: it had none.
    TakeAt(Option<u64>),
    Give,
}

const OPEN_AND_ENOUGH: &str = "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)";

/// The action of a transaction; a failed condition returns the item.
///
/// # Errors
/// The SDK's, when a member is missing: never for what is built here.
pub fn update(
    table: &str,
    event: &str,
    draw: Draw,
    what: Move,
    at: Millis,
) -> Result<Update, BuildError> {
    let sign = if what == Move::Give { '+' } else { '-' };
    let mut update = Update::builder()
        .table_name(table)
        .set_key(Some(key_of(event, draw.stripe)))
        // `ADD` counts up from nothing where an item has no version yet.
        .update_expression(format!("SET #r = #r {sign} :n, #u = :u ADD #v :o"))
        .expression_attribute_names("#r", REMAINING)
        .expression_attribute_names("#u", UPDATED_AT)
        .expression_attribute_names("#v", VERSION)
        .expression_attribute_values(":n", number(draw.units))
        .expression_attribute_values(":o", number(1_u8))
        .expression_attribute_values(":u", text(at.to_text()))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let condition = match what {
        Move::Give => "attribute_exists(#r)".to_owned(),
        Move::Take => OPEN_AND_ENOUGH.to_owned(),
        Move::TakeAt(None) => format!("{OPEN_AND_ENOUGH} AND attribute_not_exists(#v)"),
        Move::TakeAt(Some(version)) => {
            update = update.expression_attribute_values(":v", number(version));
            format!("{OPEN_AND_ENOUGH} AND #v = :v")
        }
    };
    if what != Move::Give {
        update = update
            .expression_attribute_names("#c", CLOSED)
            .expression_attribute_values(":f", AttributeValue::Bool(false));
    }
    update.condition_expression(condition).build()
}

/// Where to take `qty` units: one stripe that has them, at random, else as few as possible, the
/// fullest first. `None` if all together have too little.
pub fn draw(stripes: &[Stripe], qty: u32, rng: &mut impl Rng) -> Option<Vec<Draw>> {
    let wanted = u64::from(qty);
    let mut full: Vec<(u16, u64)> = (0_u16..).zip(stripes.iter().map(|s| s.remaining)).collect();
    let enough: Vec<u16> = full
        .iter()
        .filter(|(_, remaining)| *remaining >= wanted)
        .map(|(stripe, _)| *stripe)
        .collect();
    if !enough.is_empty() {
        let stripe = enough[rng.random_range(0..enough.len())];
        return Some(vec![Draw { stripe, units: qty }]);
    }
    full.sort_by_key(|(_, remaining)| std::cmp::Reverse(*remaining));
    let mut missing = qty;
    let mut draws = Vec::new();
    for (stripe, remaining) in full {
        let units = missing.min(u32::try_from(remaining).unwrap_or(u32::MAX));
        if units > 0 {
            draws.push(Draw { stripe, units });
        }
        missing -= units;
    }
    (missing == 0).then_some(draws)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes<const N: usize>(remaining: [u64; N]) -> Vec<Stripe> {
        let stripe = |remaining| Stripe {
            remaining,
            version: None,
            closed: false,
            stripes: N as u16,
            seat_keys: 0,
        };
        remaining.map(stripe).to_vec()
    }

    #[test]
    fn one_stripe_if_one_has_it_else_the_fullest_first() {
        let mut rng = rand::rng();
        let from = |of: Vec<Stripe>, qty| {
            let draws = draw(&of, qty, &mut rand::rng());
            draws.map(|d| d.iter().map(|d| (d.stripe, d.units)).collect::<Vec<_>>())
        };
        assert_eq!(from(stripes([3, 9, 4]), 5), Some(vec![(1, 5)]));
        assert_eq!(from(stripes([3, 0, 4]), 6), Some(vec![(2, 4), (0, 2)]));
        assert_eq!(from(stripes([3, 0, 4]), 8), None);
        assert_eq!(from(stripes([0]), 1), None);
        let seen: std::collections::HashSet<u16> = (0..200)
            .filter_map(|_| draw(&stripes([5, 1, 5]), 2, &mut rng))
            .map(|draws| draws[0].stripe)
            .collect();
        assert_eq!(seen, [0, 2].into());
    }

    #[test]
    fn stock_that_cannot_be_is_refused_by_name() {
        let mut item = Item::from([
            (REMAINING.to_owned(), number(6)),
            (TOTAL_SEATS.to_owned(), number(5)),
        ]);
        assert!(Stripe::read(&item).unwrap_err().contains("total_seats"));
        item.insert(REMAINING.to_owned(), number(5));
        assert_eq!(Stripe::read(&item).unwrap().stripes, 1);
        item.insert(STRIPES.to_owned(), number(65));
        assert!(Stripe::read(&item).unwrap_err().contains("stripes"));
    }
}
