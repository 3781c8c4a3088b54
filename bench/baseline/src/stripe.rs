//! A stripe, one item of an event's stock, in the server's format.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, Update};
use rand::Rng;

use crate::limits::STRIPES_MAX;
use crate::record::{
    AttributeMap, EVENT_ID, Millis, StripeUnits, UPDATED_AT, number, optional_number, text,
};

const REMAINING: &str = "remaining";
const VERSION: &str = "version";
const TOTAL_SEATS: &str = "total_seats";
const CLOSED: &str = "closed";
const STRIPES: &str = "stripes";
const SEAT_KEYS: &str = "seat_keys";

/// Key of a stripe's item: `event` for stripe 0, `event#3` for stripe 3.
pub fn stripe_key(event: &str, stripe: u16) -> AttributeMap {
    let key = match stripe {
        0 => event.to_owned(),
        n => format!("{event}#{n}"),
    };
    AttributeMap::from([(EVENT_ID.to_owned(), text(key))])
}

/// One stripe, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredStripe {
    pub remaining: u64,
    /// `None`: the item has no version attribute yet.
    pub version: Option<u64>,
    pub closed: bool,
    /// Number of stripes of the event: stored on stripe 0 only, 1 where absent.
    pub stripes: u16,
    /// Number of items that store the event's seats; 0 for an event without seats.
    pub seat_keys: u16,
}

impl StoredStripe {
    /// Reads a stored item.
    ///
    /// # Errors
    /// Names the attribute that is missing or impossible.
    pub fn read(item: &AttributeMap) -> Result<Self, String> {
        let stripes = optional_number(item, STRIPES)?.unwrap_or(1);
        if stripes == 0 || stripes > STRIPES_MAX {
            return Err(format!("{STRIPES} is {stripes}; expected 1 to {STRIPES_MAX}"));
        }
        let required = |name: &str| -> Result<u64, String> {
            optional_number(item, name)?.ok_or_else(|| format!("{name} is missing"))
        };
        let (remaining, total) = (required(REMAINING)?, required(TOTAL_SEATS)?);
        if remaining > total {
            return Err(format!("{REMAINING} {remaining} exceeds {TOTAL_SEATS} {total}"));
        }
        Ok(Self {
            remaining,
            version: optional_number(item, VERSION)?,
            closed: !matches!(item.get(CLOSED), None | Some(AttributeValue::Bool(false))),
            stripes,
            seat_keys: optional_number(item, SEAT_KEYS)?.unwrap_or(0),
        })
    }
}

/// Effect of a write on a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockWrite {
    /// Take, if enough units remain and the event is open.
    Take,
    /// As `Take`, and only if the version is unchanged since the read; `None`: no version was stored.
    TakeAtVersion(Option<u64>),
    Return,
}

const OPEN_AND_ENOUGH: &str = "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)";

/// The action of a transaction; a failed condition returns the item.
///
/// # Errors
/// The SDK's error about a missing member, which this function never omits.
pub fn stripe_update(
    table: &str,
    event: &str,
    taken: StripeUnits,
    write: StockWrite,
    now: Millis,
) -> Result<Update, BuildError> {
    let sign = if write == StockWrite::Return { '+' } else { '-' };
    let mut update = Update::builder()
        .table_name(table)
        .set_key(Some(stripe_key(event, taken.stripe)))
        // `ADD` starts at zero where an item has no version yet.
        .update_expression(format!("SET #r = #r {sign} :n, #u = :u ADD #v :o"))
        .expression_attribute_names("#r", REMAINING)
        .expression_attribute_names("#u", UPDATED_AT)
        .expression_attribute_names("#v", VERSION)
        .expression_attribute_values(":n", number(taken.units))
        .expression_attribute_values(":o", number(1_u8))
        .expression_attribute_values(":u", text(now.to_text()))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let condition = match write {
        StockWrite::Return => "attribute_exists(#r)".to_owned(),
        StockWrite::Take => OPEN_AND_ENOUGH.to_owned(),
        StockWrite::TakeAtVersion(None) => {
            format!("{OPEN_AND_ENOUGH} AND attribute_not_exists(#v)")
        }
        StockWrite::TakeAtVersion(Some(version)) => {
            update = update.expression_attribute_values(":v", number(version));
            format!("{OPEN_AND_ENOUGH} AND #v = :v")
        }
    };
    if write != StockWrite::Return {
        update = update
            .expression_attribute_names("#c", CLOSED)
            .expression_attribute_values(":f", AttributeValue::Bool(false));
    }
    update.condition_expression(condition).build()
}

/// Allocates `qty` units: a random stripe that has all of them, else as few stripes as possible, the
/// fullest first. `None` if all stripes together have too few.
pub fn allocate(
    stripes: &[StoredStripe],
    qty: u32,
    rng: &mut impl Rng,
) -> Option<Vec<StripeUnits>> {
    let wanted = u64::from(qty);
    let mut by_stock: Vec<(u16, u64)> =
        (0_u16..).zip(stripes.iter().map(|s| s.remaining)).collect();
    let sufficient: Vec<u16> = by_stock
        .iter()
        .filter(|(_, remaining)| *remaining >= wanted)
        .map(|(stripe, _)| *stripe)
        .collect();
    if !sufficient.is_empty() {
        let stripe = sufficient[rng.random_range(0..sufficient.len())];
        return Some(vec![StripeUnits { stripe, units: qty }]);
    }
    by_stock.sort_by_key(|(_, remaining)| std::cmp::Reverse(*remaining));
    let mut missing = qty;
    let mut allocation = Vec::new();
    for (stripe, remaining) in by_stock {
        let units = missing.min(u32::try_from(remaining).unwrap_or(u32::MAX));
        if units > 0 {
            allocation.push(StripeUnits { stripe, units });
        }
        missing -= units;
    }
    (missing == 0).then_some(allocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes<const N: usize>(remaining: [u64; N]) -> Vec<StoredStripe> {
        let stripe = |remaining| StoredStripe {
            remaining,
            version: None,
            closed: false,
            stripes: N as u16,
            seat_keys: 0,
        };
        remaining.map(stripe).to_vec()
    }

    #[test]
    fn units_come_from_one_stripe_if_possible_else_from_the_fullest() {
        let mut rng = rand::rng();
        let from = |of: Vec<StoredStripe>, qty| {
            let allocation = allocate(&of, qty, &mut rand::rng());
            allocation.map(|a| a.iter().map(|s| (s.stripe, s.units)).collect::<Vec<_>>())
        };
        assert_eq!(from(stripes([3, 9, 4]), 5), Some(vec![(1, 5)]));
        assert_eq!(from(stripes([3, 0, 4]), 6), Some(vec![(2, 4), (0, 2)]));
        assert_eq!(from(stripes([3, 0, 4]), 8), None);
        assert_eq!(from(stripes([0]), 1), None);
        let seen: std::collections::HashSet<u16> = (0..200)
            .filter_map(|_| allocate(&stripes([5, 1, 5]), 2, &mut rng))
            .map(|allocation| allocation[0].stripe)
            .collect();
        assert_eq!(seen, [0, 2].into());
    }

    #[test]
    fn impossible_stock_is_rejected_by_attribute() {
        let mut item = AttributeMap::from([
            (REMAINING.to_owned(), number(6)),
            (TOTAL_SEATS.to_owned(), number(5)),
        ]);
        let error = StoredStripe::read(&item).unwrap_err();
        assert!(error.contains("total_seats"), "{error}");
        item.insert(REMAINING.to_owned(), number(5));
        assert_eq!(StoredStripe::read(&item).unwrap().stripes, 1);
        item.insert(STRIPES.to_owned(), number(65));
        let error = StoredStripe::read(&item).unwrap_err();
        assert!(error.contains("stripes"), "{error}");
    }
}
