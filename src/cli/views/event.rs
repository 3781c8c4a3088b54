//! Events: what they are, their numbers, and their stripes or sections.

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::{counted, fields, grouped, or_dash, time};
use crate::cli::{View, money};
use crate::output::{Align, TextTable};

/// An event with its stock.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct EventView {
    event_id: String,
    name: String,
    venue: String,
    seated: bool,
    closed: bool,
    seat_keys: i32,
    total: i64,
    remaining: i64,
    confirmed: i64,
    held: i64,
    blocked: i64,
    as_of: Option<String>,
    stripes: Vec<StripeRow>,
    sections: Vec<SectionRow>,
}

#[derive(Debug, Serialize)]
struct StripeRow {
    index: i32,
    capacity: i64,
    remaining: i64,
    version: i64,
}

#[derive(Debug, Serialize)]
struct SectionRow {
    section: String,
    total: i64,
    available: i64,
    held: i64,
    sold: i64,
    blocked: i64,
    min_price: Option<PriceCell>,
    max_price: Option<PriceCell>,
    prices: Vec<PriceRangeCell>,
}

/// Prices in one currency.
#[derive(Debug, Serialize)]
struct PriceRangeCell {
    min: PriceCell,
    max: PriceCell,
}

impl PriceRangeCell {
    /// `None`: the server left out a part.
    fn of(range: pb::PriceRange) -> Option<Self> {
        Some(Self { min: range.min?.into(), max: range.max?.into() })
    }

    fn text(&self) -> String {
        let Self { min, max } = self;
        match min.amount == max.amount {
            true => format!("{} {}", min.decimal(), min.currency),
            false => format!("{} to {} {}", min.decimal(), max.decimal(), max.currency),
        }
    }
}

#[derive(Debug, Serialize)]
struct PriceCell {
    amount: i64,
    currency: String,
}

impl PriceCell {
    fn decimal(&self) -> String {
        money::decimal(self.amount, &self.currency)
    }
}

impl From<pb::Price> for PriceCell {
    fn from(price: pb::Price) -> Self {
        Self { amount: price.amount, currency: price.currency }
    }
}

impl From<pb::EventStock> for EventView {
    fn from(event: pb::EventStock) -> Self {
        Self {
            event_id: event.event_id,
            name: event.name,
            venue: event.venue,
            seated: event.seated,
            closed: event.closed,
            seat_keys: event.seat_keys,
            total: event.total,
            remaining: event.remaining,
            confirmed: event.confirmed,
            held: event.held,
            blocked: event.blocked,
            as_of: time(event.as_of_ms),
            stripes: event.stripes.into_iter().map(StripeRow::from).collect(),
            sections: event.sections.into_iter().map(SectionRow::from).collect(),
        }
    }
}

impl From<pb::StripeStock> for StripeRow {
    fn from(stripe: pb::StripeStock) -> Self {
        let pb::StripeStock { index, capacity, remaining, version } = stripe;
        Self { index, capacity, remaining, version }
    }
}

impl From<pb::SectionStock> for SectionRow {
    fn from(section: pb::SectionStock) -> Self {
        Self {
            section: section.section,
            total: section.total,
            available: section.available,
            held: section.held,
            sold: section.sold,
            blocked: section.blocked,
            min_price: section.min_price.map(PriceCell::from),
            max_price: section.max_price.map(PriceCell::from),
            prices: section.prices.into_iter().filter_map(PriceRangeCell::of).collect(),
        }
    }
}

impl View for EventView {
    fn text(&self) -> String {
        let mut numbers = vec![("total", self.total)];
        match self.seated {
            true => numbers.extend([
                ("available", self.remaining),
                ("held", self.held),
                ("sold", self.confirmed),
                ("blocked", self.blocked),
            ]),
            false => numbers.extend([
                ("remaining", self.remaining),
                ("held", self.held),
                ("confirmed", self.confirmed),
            ]),
        }
        let width = numbers.iter().map(|(_, n)| grouped(*n).len()).max().unwrap_or(0);
        let about = [
            ("event", self.event_id.clone()),
            ("name", self.name.clone()),
            ("venue", self.venue.clone()),
            ("sale", if self.closed { "closed for good" } else { "" }.to_owned()),
        ];
        let numbers = numbers.iter().map(|(name, n)| (*name, format!("{:>width$}", grouped(*n))));
        let mut text = fields(about.into_iter().chain(numbers));
        text.push_str("\n\n");
        match self.seated {
            true if self.sections.is_empty() => text.push_str("no seats yet: `seats import`"),
            true => text.push_str(&sections(&self.sections)),
            false => text.push_str(&stripes(&self.stripes)),
        }
        text
    }
}

fn stripes(stripes: &[StripeRow]) -> String {
    let mut table = TextTable::new(&[Align::Right; 4]);
    table.row(["stripe", "capacity", "remaining", "writes"]);
    for stripe in stripes {
        let StripeRow { index, capacity, remaining, version } = stripe;
        let numbers = [*capacity, *remaining, *version].map(grouped);
        table.row([index.to_string()].into_iter().chain(numbers));
    }
    table.to_string()
}

fn sections(sections: &[SectionRow]) -> String {
    const COLUMNS: [Align; 7] = [
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ];
    let mut table = TextTable::new(&COLUMNS);
    table.row(["section", "total", "available", "held", "sold", "blocked", "price"]);
    for of in sections {
        let mut cells = vec![or_dash(&of.section).to_owned()];
        cells.extend([of.total, of.available, of.held, of.sold, of.blocked].map(grouped));
        cells.push(prices(of));
        table.row(cells);
    }
    table.to_string()
}

fn prices(section: &SectionRow) -> String {
    let prices: Vec<_> = section.prices.iter().map(PriceRangeCell::text).collect();
    or_dash(&prices.join(", ")).to_owned()
}

/// An event after its creation.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct CreatedEventView {
    pub(in crate::cli) created: bool,
    pub(in crate::cli) event: EventView,
}

impl View for CreatedEventView {
    fn text(&self) -> String {
        let head = match self.created {
            true => "created",
            false => "exists with the same arguments; nothing was changed",
        };
        format!("{head}\n\n{}", self.event.text())
    }
}

/// A list of events.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(in crate::cli) struct EventListView {
    events: Vec<EventListRow>,
}

#[derive(Debug, Serialize)]
struct EventListRow {
    event_id: String,
    name: String,
    venue: String,
    seated: bool,
    closed: bool,
    stripes: i32,
    seat_keys: i32,
    /// If it was asked for.
    #[serde(flatten)]
    stock: Option<ListedStock>,
}

/// The fields of an event's stock under their names in [`EventView`].
#[derive(Debug, Serialize)]
struct ListedStock {
    total: i64,
    remaining: i64,
    held: i64,
    confirmed: i64,
    blocked: i64,
}

impl ListedStock {
    const TITLES: [&str; 5] = ["total", "available", "held", "sold", "blocked"];

    fn cells(&self) -> [String; 5] {
        let Self { total, remaining, held, confirmed, blocked } = self;
        [total, remaining, held, confirmed, blocked].map(|number| grouped(*number))
    }
}

impl From<pb::EventStock> for ListedStock {
    fn from(event: pb::EventStock) -> Self {
        let pb::EventStock { total, remaining, held, confirmed, blocked, .. } = event;
        Self { total, remaining, held, confirmed, blocked }
    }
}

impl FromIterator<(pb::EventSummary, Option<pb::EventStock>)> for EventListView {
    /// All events have their stock, or none has.
    fn from_iter<I>(events: I) -> Self
    where
        I: IntoIterator<Item = (pb::EventSummary, Option<pb::EventStock>)>,
    {
        let row = |(event, stock): (pb::EventSummary, Option<pb::EventStock>)| EventListRow {
            event_id: event.event_id,
            name: event.name,
            venue: event.venue,
            seated: event.seated,
            closed: event.closed,
            stripes: event.stripes,
            seat_keys: event.seat_keys,
            stock: stock.map(ListedStock::from),
        };
        Self { events: events.into_iter().map(row).collect() }
    }
}

impl View for EventListView {
    fn text(&self) -> String {
        if self.events.is_empty() {
            return "no events: create one with `inventory-api event create`".to_owned();
        }
        let has_stock = self.events.iter().any(|event| event.stock.is_some());
        let numbers = if has_stock { ListedStock::TITLES.len() } else { 0 };
        let mut columns = vec![Align::Left; 3];
        columns.extend(vec![Align::Right; 1 + numbers]);
        columns.extend([Align::Left; 2]);
        let mut table = TextTable::new(&columns);
        let titles = &ListedStock::TITLES[..numbers];
        table.row([&["event", "sells", "sale", "items"], titles, &["name", "venue"]].concat());
        for event in &self.events {
            let items = match event.seated {
                true => counted(event.seat_keys.into(), "key"),
                false => counted(event.stripes.into(), "stripe"),
            };
            let mut cells = vec![
                event.event_id.clone(),
                if event.seated { "seats" } else { "tickets" }.to_owned(),
                if event.closed { "closed" } else { "open" }.to_owned(),
                items,
            ];
            cells.extend(event.stock.iter().flat_map(ListedStock::cells));
            cells.extend([&event.name, &event.venue].map(|text| or_dash(text).to_owned()));
            table.row(cells);
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn view(event: pb::EventStock) -> EventView {
        event.into()
    }

    fn tickets() -> pb::EventStock {
        let stripe =
            |index, remaining| pb::StripeStock { index, capacity: 5_000, remaining, version: 7 };
        pb::EventStock {
            event_id: "evt_1".to_owned(),
            total: 10_000,
            remaining: 9_998,
            confirmed: 2,
            stripes: vec![stripe(0, 4_998), stripe(1, 5_000)],
            ..pb::EventStock::default()
        }
    }

    fn seats() -> pb::EventStock {
        let price = |amount| pb::Price { amount, currency: "USD".to_owned() };
        let range =
            |(least, most)| pb::PriceRange { min: Some(price(least)), max: Some(price(most)) };
        let section = |name: &str, prices: Option<(i64, i64)>| pb::SectionStock {
            section: name.to_owned(),
            total: 1_000,
            available: 990,
            held: 4,
            sold: 5,
            blocked: 1,
            min_price: prices.map(|(least, _)| price(least)),
            max_price: prices.map(|(_, most)| price(most)),
            prices: prices.map(range).into_iter().collect(),
        };
        pb::EventStock {
            event_id: "evt_2".to_owned(),
            name: "봄 음악회".to_owned(),
            closed: true,
            seated: true,
            seat_keys: 4,
            total: 3_000,
            remaining: 2_970,
            confirmed: 15,
            held: 12,
            blocked: 3,
            as_of_ms: 1_704_110_400_250,
            sections: vec![
                section("Balcony", Some((4_550, 12_000))),
                section("", None),
                section("Ränge", Some((4_500, 4_500))),
            ],
            ..pb::EventStock::default()
        }
    }

    #[test]
    fn ticket_table_is_aligned() {
        let expected = "\
event      evt_1
total      10,000
remaining   9,998
held            0
confirmed       2

stripe  capacity  remaining  writes
     0     5,000      4,998       7
     1     5,000      5,000       7";
        assert_eq!(view(tickets()).text(), expected);
    }

    #[test]
    fn seat_table_is_aligned() {
        let expected = "\
event      evt_2
name       봄 음악회
sale       closed for good
total      3,000
available  2,970
held          12
sold          15
blocked        3

section  total  available  held  sold  blocked  price
Balcony  1,000        990     4     5        1  45.50 to 120.00 USD
-        1,000        990     4     5        1  -
Ränge    1,000        990     4     5        1  45.00 USD";
        assert_eq!(view(seats()).text(), expected);
        let empty = pb::EventStock { sections: Vec::new(), ..seats() };
        assert!(view(empty).text().ends_with("no seats yet: `seats import`"));
    }

    #[test]
    fn prices_are_shown_by_currency() {
        let price = |amount, currency: &str| pb::Price { amount, currency: currency.to_owned() };
        let range = |min, max| pb::PriceRange { min: Some(min), max: Some(max) };
        let mut event = seats();
        event.sections.truncate(1);
        event.sections[0].prices = vec![
            range(price(60_000, "KRW"), price(90_000, "KRW")),
            range(price(4_550, "USD"), price(4_550, "USD")),
        ];
        let text = view(event).text();
        assert!(text.ends_with("  60000 to 90000 KRW, 45.50 USD"), "{text}");
    }

    #[test]
    fn json_has_every_number_of_the_contract() {
        let value = serde_json::to_value(view(tickets())).unwrap();
        assert_eq!(value["event_id"], "evt_1");
        assert_eq!(value["total"], 10_000);
        assert_eq!(value["remaining"], 9_998);
        assert_eq!(value["confirmed"], 2);
        assert_eq!(value["as_of"], Value::Null);
        assert_eq!(
            value["stripes"],
            json!([
                {"index": 0, "capacity": 5_000, "remaining": 4_998, "version": 7},
                {"index": 1, "capacity": 5_000, "remaining": 5_000, "version": 7},
            ])
        );
        let value = serde_json::to_value(view(seats())).unwrap();
        assert_eq!((&value["held"], &value["blocked"]), (&12.into(), &3.into()));
        assert_eq!((&value["seated"], &value["closed"]), (&true.into(), &true.into()));
        assert_eq!(value["as_of"], "2024-01-01T12:00:00.250Z");
        assert_eq!(
            value["sections"][0],
            json!({
                "section": "Balcony", "total": 1_000, "available": 990, "held": 4, "sold": 5,
                "blocked": 1, "min_price": {"amount": 4_550, "currency": "USD"},
                "max_price": {"amount": 12_000, "currency": "USD"},
                "prices": [{
                    "min": {"amount": 4_550, "currency": "USD"},
                    "max": {"amount": 12_000, "currency": "USD"},
                }],
            })
        );
        assert_eq!(value["sections"][1]["min_price"], Value::Null);
    }

    #[test]
    fn events_are_listed() {
        let seated = pb::EventSummary {
            event_id: "evt_2".to_owned(),
            name: "봄 음악회".to_owned(),
            seated: true,
            closed: true,
            stripes: 1,
            seat_keys: 4,
            ..pb::EventSummary::default()
        };
        let tickets = pb::EventSummary {
            event_id: "evt_10".to_owned(),
            stripes: 16,
            ..pb::EventSummary::default()
        };
        let expected = "\
event   sells    sale         items  name       venue
evt_2   seats    closed      4 keys  봄 음악회  -
evt_10  tickets  open    16 stripes  -          -";
        let events = [(seated, self::seats()), (tickets, self::tickets())];
        let plain = events.clone().map(|(event, _)| (event, None));
        assert_eq!(EventListView::from_iter(plain).text(), expected);
        let expected = "\
event   sells    sale         items   total  available  held  sold  blocked  name       venue
evt_2   seats    closed      4 keys   3,000      2,970    12    15        3  봄 음악회  -
evt_10  tickets  open    16 stripes  10,000      9,998     0     2        0  -          -";
        let with_stock = events.map(|(event, stock)| (event, Some(stock)));
        assert_eq!(EventListView::from_iter(with_stock).text(), expected);
        assert!(EventListView::from_iter([]).text().contains("event create"));
    }
}
