//! View models of reservations.

use std::collections::HashMap;

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::{counted, fields, short_name, time};
use crate::cli::table_file::{TableCell, TableRow};
use crate::cli::{View, money};

/// A reservation as it is stored.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ReservationView {
    reservation_id: String,
    event_id: String,
    status: String,
    quantity: i32,
    seat_ids: Vec<String>,
    order_id: Option<String>,
    payment_intent_id: Option<String>,
    /// Sum of the recorded prices, decimal; `None` if there are none, or in several currencies.
    amount: Option<String>,
    currency: Option<String>,
    expires_at: Option<String>,
    created_at: Option<String>,
    changed_at: Option<String>,
    draws: Vec<DrawCell>,
}

#[derive(Debug, Serialize)]
struct DrawCell {
    stripe: i32,
    units: i32,
}

impl From<pb::Reservation> for ReservationView {
    fn from(of: pb::Reservation) -> Self {
        let maybe = |text: String| (!text.is_empty()).then_some(text);
        let draw = |draw: pb::StripeDraw| DrawCell { stripe: draw.stripe, units: draw.units };
        let status = of.status().as_str_name();
        let sum = sum_of(&of.seat_prices);
        Self {
            status: short_name(status, "RESERVATION_STATUS_").to_owned(),
            reservation_id: of.reservation_id,
            event_id: of.event_id,
            quantity: of.quantity,
            seat_ids: of.seat_ids,
            order_id: maybe(of.order_id),
            payment_intent_id: maybe(of.payment_intent_id),
            amount: sum.map(|(amount, currency)| money::decimal(amount, currency)),
            currency: sum.map(|(_, currency)| currency.to_owned()),
            expires_at: time(of.expires_at_ms),
            created_at: time(of.created_at_ms),
            changed_at: time(of.changed_at_ms),
            draws: of.draws.into_iter().map(draw).collect(),
        }
    }
}

/// The sum of prices in one currency.
fn sum_of(prices: &[pb::Price]) -> Option<(i64, &str)> {
    let mut priced = prices.iter().filter(|price| !price.currency.is_empty());
    let first = priced.next()?;
    priced.try_fold((first.amount, first.currency.as_str()), |(sum, currency), price| {
        (price.currency == currency).then_some((sum.checked_add(price.amount)?, currency))
    })
}

impl ReservationView {
    /// What the reservation has: `2 seats`.
    pub(in crate::cli) fn stock(&self) -> String {
        let thing = if self.seat_ids.is_empty() { "unit" } else { "seat" };
        counted(self.quantity.into(), thing)
    }
}

/// A reservation with the names of its event and seats.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ExportedReservation {
    #[serde(flatten)]
    reservation: ReservationView,
    event_name: String,
    venue: String,
    /// Section, row and number of each seat.
    seat_names: Vec<String>,
}

impl ExportedReservation {
    /// `names` has the names of the event's seats.
    pub(in crate::cli) fn new(
        of: pb::Reservation,
        event: &pb::EventStock,
        names: &HashMap<String, String>,
    ) -> Self {
        let name = |id: &String| names.get(id).cloned().unwrap_or_default();
        Self {
            event_name: event.name.clone(),
            venue: event.venue.clone(),
            seat_names: of.seat_ids.iter().map(name).collect(),
            reservation: of.into(),
        }
    }
}

impl TableRow for ExportedReservation {
    const COLUMNS: &'static [&'static str] = &[
        "reservation_id",
        "event_id",
        "status",
        "quantity",
        "seat_ids",
        "order_id",
        "payment_intent_id",
        "expires_at",
        "created_at",
        "changed_at",
        // New columns come last, because programs may address columns by number.
        "amount",
        "currency",
        "event_name",
        "venue",
        "seat_names",
    ];

    fn cells(&self) -> Vec<TableCell> {
        let of = &self.reservation;
        let text = |text: &str| TableCell::Text(text.to_owned());
        let maybe = |of: &Option<String>| text(of.as_deref().unwrap_or_default());
        let value = |of: &Option<String>| TableCell::Value(of.clone().unwrap_or_default());
        vec![
            text(&of.reservation_id),
            text(&of.event_id),
            text(&of.status),
            TableCell::Value(of.quantity.to_string()),
            text(&of.seat_ids.join(" ")),
            maybe(&of.order_id),
            maybe(&of.payment_intent_id),
            maybe(&of.expires_at),
            maybe(&of.created_at),
            maybe(&of.changed_at),
            value(&of.amount),
            value(&of.currency),
            text(&self.event_name),
            text(&self.venue),
            text(&self.seat_names.join("; ")),
        ]
    }
}

impl View for ReservationView {
    fn text(&self) -> String {
        let draw = |draw: &DrawCell| format!("{} of stripe {}", draw.units, draw.stripe);
        let draws: Vec<_> = self.draws.iter().map(draw).collect();
        let maybe = |text: &Option<String>| text.clone().unwrap_or_default();
        fields([
            ("reservation", self.reservation_id.clone()),
            ("event", self.event_id.clone()),
            ("status", self.status.clone()),
            ("quantity", self.quantity.to_string()),
            ("seats", self.seat_ids.join(" ")),
            ("units", draws.join(", ")),
            ("order", maybe(&self.order_id)),
            ("payment", maybe(&self.payment_intent_id)),
            ("price", [maybe(&self.amount), maybe(&self.currency)].join(" ").trim().to_owned()),
            ("hold ends", maybe(&self.expires_at)),
            ("created", maybe(&self.created_at)),
            ("changed", maybe(&self.changed_at)),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_reservation_shows_what_it_has_and_nothing_else() {
        let held = pb::Reservation {
            reservation_id: "res_1".to_owned(),
            event_id: "evt_2".to_owned(),
            status: pb::ReservationStatus::Held.into(),
            quantity: 2,
            seat_ids: vec!["A-1".to_owned(), "A-2".to_owned()],
            expires_at_ms: 1_704_110_460_000,
            changed_at_ms: 1_704_110_400_000,
            seat_prices: vec![
                pb::Price { amount: 4_550, currency: "USD".to_owned() },
                pb::Price::default(),
            ],
            ..pb::Reservation::default()
        };
        let mixed = pb::Reservation {
            seat_prices: ["USD", "KRW"]
                .map(|currency| pb::Price { amount: 1, currency: currency.to_owned() })
                .to_vec(),
            ..held.clone()
        };
        assert_eq!(ReservationView::from(mixed).amount, None);
        let expected = "\
reservation  res_1
event        evt_2
status       HELD
quantity     2
seats        A-1 A-2
price        45.50 USD
hold ends    2024-01-01T12:01:00.000Z
changed      2024-01-01T12:00:00.000Z";
        let view = ReservationView::from(held);
        assert_eq!(view.text(), expected);
        let value = serde_json::to_value(view).unwrap();
        assert_eq!(value["seat_ids"], json!(["A-1", "A-2"]));
        assert_eq!(value["order_id"], Value::Null);
        assert_eq!(value["expires_at"], "2024-01-01T12:01:00.000Z");
        assert_eq!(value["created_at"], Value::Null);
    }
}
