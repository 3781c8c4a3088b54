//! Prices of seats, and the form in which those of a reservation are stored.

use std::fmt::Write as _;
use std::sync::Arc;

/// Price of one seat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price {
    /// In the smallest unit of the currency.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

/// Prices of the seats of one reservation, as recorded with it, in the form in which they are stored: one entry per seat in
/// the order of the seats, separated by commas. An entry is an amount and its currency, which is left out if it is that of
/// the entry before; `-` is a seat without a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatPrices(Arc<str>);

impl SeatPrices {
    /// `None` if a currency is not three capital letters: another program wrote it.
    pub(crate) fn of<'a>(prices: impl Iterator<Item = Option<&'a Price>>) -> Option<Self> {
        let (mut text, mut currency) = (String::new(), "");
        for (at, price) in prices.enumerate() {
            if at > 0 {
                text.push(',');
            }
            let Some(price) = price else {
                text.push('-');
                continue;
            };
            if !is_currency(&price.currency) {
                return None;
            }
            let _ = write!(text, "{}", price.amount);
            if price.currency != currency {
                currency = &price.currency;
                text.push_str(currency);
            }
        }
        Some(Self(text.into()))
    }

    /// The prices of `count` seats; `None` if the text does not have them.
    pub fn parse(text: &str, count: usize) -> Option<Self> {
        let prices = Self(text.into());
        let read: Option<Vec<_>> = prices.entries().collect();
        (read?.len() == count).then_some(prices)
    }

    /// The price of each seat.
    pub fn iter(&self) -> impl Iterator<Item = Option<Price>> {
        self.entries().map(Option::flatten)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `None`: the entry is not valid.
    fn entries(&self) -> impl Iterator<Item = Option<Option<Price>>> {
        let mut currency = "";
        self.0.split(',').map(move |entry| {
            if entry == "-" {
                return Some(None);
            }
            let end = entry.find(|c: char| c.is_ascii_uppercase()).unwrap_or(entry.len());
            if end < entry.len() {
                currency = &entry[end..];
            }
            let amount = entry[..end].parse().ok().filter(|_| is_currency(currency))?;
            Some(Some(Price { amount, currency: currency.to_owned() }))
        })
    }
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(amount: i64, currency: &str) -> Option<Price> {
        Some(Price { amount, currency: currency.to_owned() })
    }

    #[test]
    fn prices_survive_the_round_trip_in_few_bytes() {
        for (prices, text) in [
            (vec![price(90_000, "KRW")], "90000KRW"),
            (vec![price(1, "KRW"), price(-2, "KRW"), None, price(3, "KRW")], "1KRW,-2,-,3"),
            (vec![None, price(1, "EUR"), price(1, "USD"), price(1, "EUR")], "-,1EUR,1USD,1EUR"),
            (vec![None], "-"),
            (vec![price(i64::MIN, "KRW")], "-9223372036854775808KRW"),
        ] {
            let written = SeatPrices::of(prices.iter().map(Option::as_ref)).expect("legal");
            assert_eq!(written.as_str(), text);
            let read = SeatPrices::parse(text, prices.len()).expect("legal");
            assert_eq!(read.iter().collect::<Vec<_>>(), prices);
        }
        assert_eq!(SeatPrices::of([price(1, "won").as_ref()].into_iter()), None);
        for (bad, count) in [("", 1), ("1", 1), ("1KRW", 2), ("1KRW,x", 2), ("1KRW,2KR", 2)] {
            assert_eq!(SeatPrices::parse(bad, count), None, "{bad:?}");
        }
    }
}
