//! `event create` and `event show`: calls on the admin port, and how an event is shown.

use std::fmt::Write as _;

use http::Uri;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{CreateEventRequest, EventStock, GetEventRequest};
use serde_json::json;
use tonic::{Code, Request, Status};

use super::args::{AdminArgs, CreateArgs, EventCommand, ShowArgs};
use super::{Failure, client, say};
use crate::config::{self, ProcessEnv};
use crate::limits::COMMAND_CALL_TIMEOUT;

pub(super) fn run(command: &EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::Create(args) => create(args),
        EventCommand::Show(args) => show(args),
    }
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    if i64::from(args.stripes) > args.total {
        return Err(Failure::usage(format!(
            "--stripes {} is more than --total {}: a stripe needs at least one ticket",
            args.stripes, args.total
        )));
    }
    let server = address(&args.admin)?;
    let answer = client::block_on(COMMAND_CALL_TIMEOUT, &server, async {
        let mut admin = InventoryAdminClient::new(client::connect(&server).await?);
        let request = bounded(CreateEventRequest {
            event_id: args.event.to_string(),
            total: args.total,
            stripes: i32::from(args.stripes),
        });
        let answer = admin.create_event(request).await;
        answer.map_err(|status| explain(&server, args.event.as_str(), &status))
    })?;
    let answer = answer.into_inner();
    let event = answer.event.ok_or_else(|| no_event(&server))?;
    let head = if answer.created {
        "created"
    } else {
        "it was there already, with the same stock"
    };
    say(&format!("{head}\n\n{}", table(&event)));
    Ok(())
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let server = address(&args.admin)?;
    let answer = client::block_on(COMMAND_CALL_TIMEOUT, &server, async {
        let mut admin = InventoryAdminClient::new(client::connect(&server).await?);
        let request = bounded(GetEventRequest {
            event_id: args.event.to_string(),
        });
        let answer = admin.get_event(request).await;
        answer.map_err(|status| explain(&server, args.event.as_str(), &status))
    })?;
    let event = answer.into_inner().event.ok_or_else(|| no_event(&server))?;
    say(&if args.json {
        json(&event)
    } else {
        table(&event)
    });
    Ok(())
}

/// A request that tells the server how long this command waits.
fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(COMMAND_CALL_TIMEOUT);
    request
}

/// Where the admin port is: as told, else where this environment would put it.
pub(super) fn address(args: &AdminArgs) -> Result<Uri, Failure> {
    if let Some(address) = &args.address {
        return Ok(address.clone());
    }
    match config::admin_address(&ProcessEnv)? {
        Some(address) if address.port() != 0 => Ok(client::url_of(address)),
        Some(_) => Err(Failure::usage(
            "ADMIN_PORT=0 does not tell which port the server took: name it with --admin host:port"
                .to_owned(),
        )),
        None => Err(Failure::usage(
            "ADMIN_PORT=off: a server with these settings has no admin port; name another with \
             --admin host:port"
                .to_owned(),
        )),
    }
}

fn explain(server: &Uri, event: &str, status: &Status) -> Failure {
    let at = client::shown(server);
    Failure::failed(match status.code() {
        Code::NotFound => {
            format!(
                "there is no event {event}: create it with `inventory-api event create {event} --total N`"
            )
        }
        Code::AlreadyExists => {
            format!(
                "the event {event} exists with another stock: {}",
                status.message()
            )
        }
        Code::Unimplemented => {
            format!("{at} is not an admin port; it is ADMIN_PORT, 8081 by default")
        }
        code => format!(
            "the server at {at} refused: {} ({code:?})",
            status.message()
        ),
    })
}

fn no_event(server: &Uri) -> Failure {
    Failure::failed(format!(
        "the server at {} answered without the event",
        client::shown(server)
    ))
}

/// The event for people: totals, then its stripes.
fn table(event: &EventStock) -> String {
    let mut text = String::new();
    let totals = [
        ("total", event.total),
        ("remaining", event.remaining),
        ("confirmed", event.confirmed),
    ];
    let width = totals
        .iter()
        .map(|(_, n)| grouped(*n).len())
        .max()
        .unwrap_or(0);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "event      {}", event.event_id);
    for (name, number) in totals {
        let _ = writeln!(text, "{name:9}  {:>width$}", grouped(number));
    }
    let _ = write!(
        text,
        "\n{:>6}  {:>13}  {:>13}  {:>10}",
        "stripe", "capacity", "remaining", "writes"
    );
    for stripe in &event.stripes {
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

/// The event for programs: the fields of the contract, under their names there.
fn json(event: &EventStock) -> String {
    let stripes: Vec<_> = event
        .stripes
        .iter()
        .map(|stripe| {
            json!({
                "index": stripe.index,
                "capacity": stripe.capacity,
                "remaining": stripe.remaining,
                "version": stripe.version,
            })
        })
        .collect();
    let event = json!({
        "event_id": event.event_id,
        "total": event.total,
        "remaining": event.remaining,
        "confirmed": event.confirmed,
        "stripes": stripes,
    });
    format!("{event:#}")
}

/// A number with a comma between groups of three digits.
pub(super) fn grouped(number: i64) -> String {
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
    use inventory_proto::inventory::v1::StripeStock;

    fn event() -> EventStock {
        let stripe = |index, remaining| StripeStock {
            index,
            capacity: 5_000,
            remaining,
            version: 7,
        };
        EventStock {
            event_id: "evt_1".to_owned(),
            total: 10_000,
            remaining: 9_998,
            confirmed: 2,
            stripes: vec![stripe(0, 4_998), stripe(1, 5_000)],
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
    fn the_table_lines_up() {
        let expected = "\
event      evt_1
total      10,000
remaining   9,998
confirmed       2

stripe       capacity      remaining      writes
     0          5,000          4,998           7
     1          5,000          5,000           7";
        assert_eq!(table(&event()), expected);
    }

    #[test]
    fn json_has_every_number_of_the_contract() {
        let value: serde_json::Value = serde_json::from_str(&json(&event())).unwrap();
        assert_eq!(value["event_id"], "evt_1");
        assert_eq!(value["total"], 10_000);
        assert_eq!(value["remaining"], 9_998);
        assert_eq!(value["confirmed"], 2);
        assert_eq!(value["stripes"][1]["index"], 1);
        assert_eq!(value["stripes"][0]["capacity"], 5_000);
        assert_eq!(value["stripes"][0]["remaining"], 4_998);
        assert_eq!(value["stripes"][0]["version"], 7);
    }
}
