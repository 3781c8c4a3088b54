//! Reservations.

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::{fields, short_name, time};
use crate::cli::View;

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
        Self {
            status: short_name(status, "RESERVATION_STATUS_").to_owned(),
            reservation_id: of.reservation_id,
            event_id: of.event_id,
            quantity: of.quantity,
            seat_ids: of.seat_ids,
            order_id: maybe(of.order_id),
            payment_intent_id: maybe(of.payment_intent_id),
            expires_at: time(of.expires_at_ms),
            created_at: time(of.created_at_ms),
            changed_at: time(of.changed_at_ms),
            draws: of.draws.into_iter().map(draw).collect(),
        }
    }
}

impl ReservationView {
    /// Names of the cells of [`ReservationView::cells`].
    pub(in crate::cli) const COLUMNS: [&str; 10] = [
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
    ];

    /// One row of a table; missing values are empty.
    pub(in crate::cli) fn cells(&self) -> [String; 10] {
        let maybe = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            self.reservation_id.clone(),
            self.event_id.clone(),
            self.status.clone(),
            self.quantity.to_string(),
            self.seat_ids.join(" "),
            maybe(&self.order_id),
            maybe(&self.payment_intent_id),
            maybe(&self.expires_at),
            maybe(&self.created_at),
            maybe(&self.changed_at),
        ]
    }
}

impl View for ReservationView {
    fn text(&self) -> String {
        let draw = |draw: &DrawCell| format!("{} of stripe {}", draw.units, draw.stripe);
        let draws: Vec<_> = self.draws.iter().map(draw).collect();
        let [
            reservation,
            event,
            status,
            quantity,
            seats,
            order,
            payment,
            expires,
            created,
            changed,
        ] = self.cells();
        fields([
            ("reservation", reservation),
            ("event", event),
            ("status", status),
            ("quantity", quantity),
            ("seats", seats),
            ("units", draws.join(", ")),
            ("order", order),
            ("payment", payment),
            ("hold ends", expires),
            ("created", created),
            ("changed", changed),
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
            ..pb::Reservation::default()
        };
        let expected = "\
reservation  res_1
event        evt_2
status       HELD
quantity     2
seats        A-1 A-2
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
