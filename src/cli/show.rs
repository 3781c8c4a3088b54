//! How answers look: tables for people, JSON for programs.
//!
//! JSON has the fields of the contract under their names there, but for statuses and times, which
//! are words and RFC 3339.

use std::fmt::Write as _;

use inventory_proto::inventory::v1 as pb;
use serde_json::{Value, json};

use super::money;

/// An event for people: what it is, its numbers, then its stripes or its sections.
pub(super) fn event(event: &pb::EventStock) -> String {
    let mut text = String::new();
    let about = [
        ("event", event.event_id.as_str()),
        ("name", &event.name),
        ("venue", &event.venue),
        ("sale", if event.closed { "closed" } else { "" }),
    ];
    // Writing to a String cannot fail.
    for (name, value) in about.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:9}  {value}");
    }
    let mut totals = vec![("total", event.total)];
    match event.seated {
        true => totals.extend([
            ("available", event.remaining),
            ("held", event.held),
            ("sold", event.confirmed),
            ("blocked", event.blocked),
        ]),
        false => totals.extend([("remaining", event.remaining), ("confirmed", event.confirmed)]),
    }
    let numbers: Vec<_> = totals.iter().map(|(_, n)| grouped(*n)).collect();
    let width = numbers.iter().map(String::len).max().unwrap_or(0);
    for ((name, _), number) in totals.iter().zip(&numbers) {
        let _ = writeln!(text, "{name:9}  {number:>width$}");
    }
    match event.seated {
        true if event.sections.is_empty() => text.push_str("\nno seats yet: `seats import`"),
        true => text.push_str(&sections(&event.sections)),
        false => text.push_str(&stripes(&event.stripes)),
    }
    text
}

fn stripes(stripes: &[pb::StripeStock]) -> String {
    let mut text =
        format!("\n{:>6}  {:>13}  {:>13}  {:>10}", "stripe", "capacity", "remaining", "writes");
    for stripe in stripes {
        let _ = write!(
            text,
            "\n{:>6}  {:>13}  {:>13}  {:>10}",
            stripe.index,
            grouped(stripe.capacity),
            grouped(stripe.remaining),
            grouped(stripe.version)
        );
    }
    text
}

fn sections(sections: &[pb::SectionStock]) -> String {
    let name = |section: &pb::SectionStock| match section.section.as_str() {
        "" => "-".to_owned(),
        name => name.to_owned(),
    };
    let row = |section: &pb::SectionStock| {
        vec![
            name(section),
            grouped(section.total),
            grouped(section.available),
            grouped(section.held),
            grouped(section.sold),
            grouped(section.blocked),
            prices(section),
        ]
    };
    let head = ["section", "total", "available", "held", "sold", "blocked", "price"];
    let rows: Vec<_> = sections.iter().map(row).collect();
    format!("\n{}", table(&head, &rows, &[0, 6]))
}

fn prices(section: &pb::SectionStock) -> String {
    match (&section.min_price, &section.max_price) {
        (Some(least), Some(most)) if least == most => price(least),
        (Some(least), Some(most)) => {
            format!("{} to {}", money::decimal(least.amount, &least.currency), price(most))
        }
        _ => "-".to_owned(),
    }
}

fn price(price: &pb::Price) -> String {
    let amount = money::decimal(price.amount, &price.currency);
    format!("{amount} {}", price.currency)
}

/// An event for programs.
pub(super) fn event_json(event: &pb::EventStock) -> Value {
    let stripe = |stripe: &pb::StripeStock| {
        json!({
            "index": stripe.index,
            "capacity": stripe.capacity,
            "remaining": stripe.remaining,
            "version": stripe.version,
        })
    };
    let price = |price: &pb::Price| json!({ "amount": price.amount, "currency": price.currency });
    let section = |section: &pb::SectionStock| {
        json!({
            "section": section.section,
            "total": section.total,
            "available": section.available,
            "held": section.held,
            "sold": section.sold,
            "blocked": section.blocked,
            "min_price": section.min_price.as_ref().map(price),
            "max_price": section.max_price.as_ref().map(price),
        })
    };
    json!({
        "event_id": event.event_id,
        "name": event.name,
        "venue": event.venue,
        "seated": event.seated,
        "closed": event.closed,
        "seat_keys": event.seat_keys,
        "total": event.total,
        "remaining": event.remaining,
        "confirmed": event.confirmed,
        "held": event.held,
        "blocked": event.blocked,
        "as_of": time(event.as_of_ms),
        "stripes": event.stripes.iter().map(stripe).collect::<Vec<_>>(),
        "sections": event.sections.iter().map(section).collect::<Vec<_>>(),
    })
}

/// The list of events for people.
pub(super) fn events(events: &[pb::EventSummary]) -> String {
    if events.is_empty() {
        return "no events: create one with `inventory-api event create`".to_owned();
    }
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let row = |event: &pb::EventSummary| {
        vec![
            event.event_id.clone(),
            if event.seated { "seats" } else { "tickets" }.to_owned(),
            if event.closed { "closed" } else { "open" }.to_owned(),
            if event.seated { event.seat_keys } else { event.stripes }.to_string(),
            or_dash(&event.name),
            or_dash(&event.venue),
        ]
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    let head = ["event", "sells", "sale", "spread", "name", "venue"];
    table(&head, &rows, &[0, 1, 2, 4, 5])
}

/// The list of events for programs.
pub(super) fn events_json(events: &[pb::EventSummary]) -> Value {
    let one = |event: &pb::EventSummary| {
        json!({
            "event_id": event.event_id,
            "name": event.name,
            "venue": event.venue,
            "seated": event.seated,
            "closed": event.closed,
            "stripes": event.stripes,
            "seat_keys": event.seat_keys,
        })
    };
    events.iter().map(one).collect()
}

/// A reservation for people.
pub(super) fn reservation(reservation: &pb::Reservation) -> String {
    let seats = reservation.seat_ids.join(" ");
    let draws: Vec<_> = reservation
        .draws
        .iter()
        .map(|draw| format!("{} of stripe {}", draw.units, draw.stripe))
        .collect();
    let when = |ms| time(ms).unwrap_or_default();
    let lines = [
        ("reservation", reservation.reservation_id.clone()),
        ("event", reservation.event_id.clone()),
        ("status", status(reservation).to_owned()),
        ("quantity", reservation.quantity.to_string()),
        ("seats", seats),
        ("units", draws.join(", ")),
        ("order", reservation.order_id.clone()),
        ("payment", reservation.payment_intent_id.clone()),
        ("hold ends", when(reservation.expires_at_ms)),
        ("created", when(reservation.created_at_ms)),
        ("changed", when(reservation.changed_at_ms)),
    ];
    let told = lines.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<_> = told.map(|(name, value)| format!("{name:11}  {value}")).collect();
    lines.join("\n")
}

/// A reservation for programs.
pub(super) fn reservation_json(reservation: &pb::Reservation) -> Value {
    let maybe = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let draw = |draw: &pb::StripeDraw| json!({ "stripe": draw.stripe, "units": draw.units });
    json!({
        "reservation_id": reservation.reservation_id,
        "event_id": reservation.event_id,
        "status": status(reservation),
        "quantity": reservation.quantity,
        "seat_ids": reservation.seat_ids,
        "order_id": maybe(&reservation.order_id),
        "payment_intent_id": maybe(&reservation.payment_intent_id),
        "expires_at": time(reservation.expires_at_ms),
        "created_at": time(reservation.created_at_ms),
        "changed_at": time(reservation.changed_at_ms),
        "draws": reservation.draws.iter().map(draw).collect::<Vec<_>>(),
    })
}

/// The status without the prefix that the contract needs.
pub(super) fn status(reservation: &pb::Reservation) -> &'static str {
    let name = reservation.status().as_str_name();
    name.strip_prefix("RESERVATION_STATUS_").unwrap_or(name)
}

/// What became of a seat, without the prefix that the contract needs.
pub(super) fn outcome(result: &pb::SeatResult) -> &'static str {
    let name = result.outcome().as_str_name();
    name.strip_prefix("SEAT_OUTCOME_").unwrap_or(name)
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC; `None` for 0, which stands for no time.
pub(super) fn time(ms: i64) -> Option<String> {
    let at = prost_types::Timestamp {
        seconds: ms.div_euclid(1_000),
        nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32,
    };
    (ms != 0).then(|| at.to_string())
}

/// Rows under a head, each column as wide as it needs; to the right but for the columns in `left`.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], left: &[usize]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match left.contains(&column) {
            true => format!("{cell:width$}"),
            false => format!("{cell:>width$}"),
        });
        let cells: Vec<_> = cells.collect();
        cells.join("  ").trim_end().to_owned()
    };
    let lines: Vec<_> = all().map(line).collect();
    lines.join("\n")
}

/// A number with a comma between groups of three digits.
pub(in crate::cli) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        let section = |name: &str, prices: Option<(i64, i64)>| pb::SectionStock {
            section: name.to_owned(),
            total: 1_000,
            available: 990,
            held: 4,
            sold: 5,
            blocked: 1,
            min_price: prices.map(|(least, _)| price(least)),
            max_price: prices.map(|(_, most)| price(most)),
        };
        pb::EventStock {
            event_id: "evt_2".to_owned(),
            name: "Opening night".to_owned(),
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
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-12_345, "-12,345"),
            (1_000_000_000, "1,000,000,000"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_table_of_tickets_lines_up() {
        let expected = "\
event      evt_1
total      10,000
remaining   9,998
confirmed       2

stripe       capacity      remaining      writes
     0          5,000          4,998           7
     1          5,000          5,000           7";
        assert_eq!(event(&tickets()), expected);
    }

    #[test]
    fn the_table_of_seats_lines_up() {
        let expected = "\
event      evt_2
name       Opening night
sale       closed
total      3,000
available  2,970
held          12
sold          15
blocked        3

section  total  available  held  sold  blocked  price
Balcony  1,000        990     4     5        1  45.50 to 120.00 USD
-        1,000        990     4     5        1  -
Ränge    1,000        990     4     5        1  45.00 USD";
        assert_eq!(event(&seats()), expected);
        let empty = pb::EventStock { sections: Vec::new(), ..seats() };
        assert!(event(&empty).ends_with("no seats yet: `seats import`"));
    }

    #[test]
    fn json_has_every_number_of_the_contract() {
        let value = event_json(&tickets());
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
        let value = event_json(&seats());
        assert_eq!((&value["held"], &value["blocked"]), (&12.into(), &3.into()));
        assert_eq!((&value["seated"], &value["closed"]), (&true.into(), &true.into()));
        assert_eq!(value["as_of"], "2024-01-01T12:00:00.250Z");
        assert_eq!(
            value["sections"][0],
            json!({
                "section": "Balcony", "total": 1_000, "available": 990, "held": 4, "sold": 5,
                "blocked": 1, "min_price": {"amount": 4_550, "currency": "USD"},
                "max_price": {"amount": 12_000, "currency": "USD"},
            })
        );
        assert_eq!(value["sections"][1]["min_price"], Value::Null);
    }

    #[test]
    fn only_known_facts_of_a_reservation_are_shown() {
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
hold ends    2024-01-01T12:01:00Z
changed      2024-01-01T12:00:00Z";
        assert_eq!(reservation(&held), expected);
        let value = reservation_json(&held);
        assert_eq!(value["seat_ids"], json!(["A-1", "A-2"]));
        assert_eq!(value["order_id"], Value::Null);
        assert_eq!(value["expires_at"], "2024-01-01T12:01:00Z");
        assert_eq!(value["created_at"], Value::Null);
    }

    #[test]
    fn events_are_listed() {
        let seated = pb::EventSummary {
            event_id: "evt_2".to_owned(),
            name: "Opening night".to_owned(),
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
event   sells    sale    spread  name           venue
evt_2   seats    closed       4  Opening night  -
evt_10  tickets  open        16  -              -";
        assert_eq!(events(&[seated, tickets]), expected);
        assert!(events(&[]).contains("event create"));
    }
}
