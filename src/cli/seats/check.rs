//! `seats import --check`: summary of a seat file by section, so that names and prices can be checked before anything
//! is sent.

use std::collections::{BTreeMap, BTreeSet};

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use crate::cli::args::ImportArgs;
use crate::cli::views::{counted, fields, grouped, or_dash};
use crate::cli::{View, money};
use crate::output::{Align, TextTable};
use inventory_core::natural_order;

/// A seat file that was checked and not sent.
#[derive(Debug, Serialize)]
pub(super) struct CheckedFileView {
    event_id: String,
    name: Option<String>,
    venue: Option<String>,
    seats: usize,
    sections: Vec<CheckedSection>,
}

#[derive(Debug, Serialize)]
struct CheckedSection {
    section: String,
    seats: i64,
    rows: i64,
    /// Lowest and highest price of each currency; empty if no seat has one.
    prices: Vec<PriceRange>,
    /// Seats without a price.
    unpriced: i64,
    /// One seat as an example.
    first: ExampleSeat,
}

#[derive(Debug, Serialize)]
struct PriceRange {
    currency: String,
    min: i64,
    max: i64,
}

#[derive(Debug, Serialize)]
struct ExampleSeat {
    seat_id: String,
    row: String,
    number: String,
}

impl CheckedFileView {
    pub(super) fn of(args: &ImportArgs, seats: &[pb::NewSeat]) -> Self {
        let mut sections: BTreeMap<&str, Vec<&pb::NewSeat>> = BTreeMap::new();
        for seat in seats {
            sections.entry(&seat.section).or_default().push(seat);
        }
        let mut sections: Vec<_> =
            sections.into_iter().filter_map(|(name, seats)| section(name, &seats)).collect();
        sections.sort_by(|a, b| natural_order(&a.section, &b.section));
        Self {
            event_id: args.event.to_string(),
            name: args.about.name.clone(),
            venue: args.about.venue.clone(),
            seats: seats.len(),
            sections,
        }
    }
}

/// `None` without seats.
fn section(name: &str, seats: &[&pb::NewSeat]) -> Option<CheckedSection> {
    let first = seats.first()?;
    let mut prices: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for price in seats.iter().filter_map(|seat| seat.price.as_ref()) {
        let range = prices.entry(&price.currency).or_insert((price.amount, price.amount));
        *range = (range.0.min(price.amount), range.1.max(price.amount));
    }
    let rows: BTreeSet<&str> = seats.iter().map(|seat| seat.row.as_str()).collect();
    let prices = prices.into_iter().map(|(currency, (min, max))| PriceRange {
        currency: currency.to_owned(),
        min,
        max,
    });
    Some(CheckedSection {
        section: name.to_owned(),
        seats: seats.len() as i64,
        rows: rows.len() as i64,
        prices: prices.collect(),
        unpriced: seats.iter().filter(|seat| seat.price.is_none()).count() as i64,
        first: ExampleSeat {
            seat_id: first.seat_id.clone(),
            row: first.row.clone(),
            number: first.number.clone(),
        },
    })
}

impl CheckedSection {
    fn prices(&self) -> String {
        let range = |of: &PriceRange| {
            let decimal = |amount| money::decimal(amount, &of.currency);
            match of.min == of.max {
                true => format!("{} {}", decimal(of.min), of.currency),
                false => format!("{} to {} {}", decimal(of.min), decimal(of.max), of.currency),
            }
        };
        let mut parts: Vec<_> = self.prices.iter().map(range).collect();
        match (parts.is_empty(), self.unpriced) {
            (true, _) => parts.push("-".to_owned()),
            (false, 0) => {}
            (false, unpriced) => parts.push(format!("{} without", grouped(unpriced))),
        }
        parts.join(", ")
    }
}

impl View for CheckedFileView {
    fn text(&self) -> String {
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = fields([
            ("event", self.event_id.clone()),
            ("name", given(&self.name)),
            ("venue", given(&self.venue)),
            ("file", format!("{}, and every line is valid", counted(self.seats as i64, "seat"))),
        ]);
        let (left, right) = (Align::Left, Align::Right);
        let mut table = TextTable::new(&[left, right, right, left, left, left, left]);
        table.row(["section", "seats", "rows", "price", "first seat", "row", "number"]);
        for of in &self.sections {
            table.row([
                or_dash(&of.section),
                &grouped(of.seats),
                &grouped(of.rows),
                &of.prices(),
                &of.first.seat_id,
                or_dash(&of.first.row),
                or_dash(&of.first.number),
            ]);
        }
        format!("{about}\n\n{table}\n\nNothing was sent.")
    }
}
