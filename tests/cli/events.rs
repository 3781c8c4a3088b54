//! Events without seats: create, show, list, restock, close.

use std::io::Write as _;
use std::process::Stdio;

use inventory_testkit::terminal;
use serde_json::{Value, json};

use tonic_types::StatusExt as _;

use crate::live::LiveServer;
use crate::reservations::{commit, try_commit};
use crate::{FAILED, OK, assert_has};

fn numbers(event: &Value) -> [&Value; 3] {
    ["total", "remaining", "confirmed"].map(|name| &event[name])
}

#[test]
fn event_is_created_shown_restocked_and_closed() {
    let live = LiveServer::start();
    let create = ["event", "create", "evt_1", "--total", "5000", "--stripes", "2"];
    let made = live.ok(&create);
    assert!(made.starts_with("created\n"), "{made}");
    assert_has(&made, &["total      5,000", "remaining  5,000", "stripe"]);
    assert_has(&live.ok(&create), &["exists with the same arguments; nothing was changed"]);
    let again = live.json(&create);
    assert_eq!(again["created"], false);
    assert_eq!(numbers(&again["event"]), [&json!(5_000), &json!(5_000), &json!(0)]);
    let other = live.run(&["event", "create", "evt_1", "--total", "7"]);
    assert_eq!(other.code, FAILED);
    assert_has(&other.err, &["evt_1 exists with total 5000 over 2 stripes"]);

    let shown = live.json(&["event", "show", "evt_1"]);
    assert_eq!(shown["stripes"].as_array().unwrap().len(), 2);
    assert_eq!(shown["closed"], false);
    let none = live.run(&["event", "show", "evt_2"]);
    assert_eq!(none.code, FAILED);
    let lists = format!("`inventory-api event list --admin {}` lists", live.server.admin);
    assert_has(&none.err, &["no event evt_2", &lists]);

    let more = live.ok(&["event", "restock", "evt_1", "--total", "6000"]);
    assert_has(&more, &["total      6,000", "remaining  6,000"]);
    let more = live.json(&["event", "restock", "evt_1", "--add", "500"]);
    assert_eq!(more["total"], 6_500);
    let less = live.json(&["event", "restock", "evt_1", "--total", "10"]);
    assert_eq!(numbers(&less), [&json!(10), &json!(10), &json!(0)]);

    // Another name or venue is another event.
    let name = ["--name", "Other", "--venue", "There"];
    live.ok(&[&["event", "create", "evt_3", "--total", "7"][..], &name].concat());
    live.ok(&["event", "create", "evt_3", "--total", "7"]);
    live.ok(&["event", "create", "evt_3", "--total", "7", "--name", "Other"]);
    for other in [["--name", "Another"], ["--venue", "Here"]] {
        let ran = live.run(&[&["event", "create", "evt_3", "--total", "7"][..], &other].concat());
        assert_eq!(ran.code, FAILED);
        assert_has(&ran.err, &["evt_3 exists with total 7 over 1 stripe, name \"Other\""]);
    }

    let closed = live.ok(&["event", "close", "evt_1"]);
    assert_has(&closed, &["sale       closed for good"]);
    assert_eq!(live.json(&["event", "close", "evt_1"])["closed"], true);
    assert_eq!(live.json(&["event", "show", "evt_1"])["closed"], true);
    let late = live.run(&["event", "restock", "evt_1", "--total", "20"]);
    assert_eq!(late.code, OK);
    assert_has(&late.err, &["note: event evt_1 is closed and cannot be opened again"]);
    let none = live.run(&["event", "close", "evt_2"]);
    assert_eq!(none.code, FAILED);
    assert_has(&none.err, &["no event evt_2"]);
}

#[test]
fn close_asks_on_a_terminal() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "20", "--name", "Opening night"]);
    let is_closed = || live.json(&["event", "show", "evt_1"])["closed"].as_bool().unwrap();
    for (answer, options, code) in
        [("no\n", &[][..], FAILED), ("yes\n", &[], OK), ("", &[], OK), ("", &["--yes"], OK)]
    {
        let (terminal, slave) = terminal::open();
        std::fs::File::from(terminal.try_clone().unwrap()).write_all(answer.as_bytes()).unwrap();
        let mut command = live.command(&[&["event", "close", "evt_1"], options].concat());
        let command = command.stdin(slave).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), code, "{answer:?}: {err}");
        assert_eq!(is_closed(), code == OK);
        // A closed event is not asked about.
        match answer {
            "" => assert_eq!(err, ""),
            _ => assert_has(&err, &["(Opening night) has 20 tickets", "cannot be opened again"]),
        }
        drop(terminal);
    }
    assert_has(&live.ok(&["event", "close", "--help"]), &["cannot be opened again", "--yes"]);
}

#[test]
fn restock_below_the_taken_units_is_rejected() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "20"]);
    commit(&live, "evt_1", "res_1", 7, &[]);
    let refused = live.run(&["event", "restock", "evt_1", "--total", "6"]);
    assert_eq!(refused.code, FAILED);
    assert_has(&refused.err, &["evt_1 has a total of 20, of which 7 are held or sold"]);
    let least = live.json(&["event", "restock", "evt_1", "--total", "7"]);
    assert_eq!(numbers(&least), [&json!(7), &json!(0), &json!(7)]);
}

#[test]
fn closed_event_rejects_new_reservations() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "20"]);
    let import = ["seats", "import", "evt_2", "-", "--create"];
    let ran = live.run_with_input(&import, "seat_id\nA-1\nA-2\n");
    assert_eq!(ran.code, OK, "{}", ran.err);
    // The shards cache both events as open.
    commit(&live, "evt_1", "res_1", 1, &[]);
    commit(&live, "evt_2", "res_2", 0, &["A-1"]);
    for (event, qty, seats) in [("evt_1", 1, &[][..]), ("evt_2", 0, &["A-2"])] {
        live.ok(&["event", "close", event]);
        let refused = try_commit(&live, event, &format!("late_{event}"), qty, seats).unwrap_err();
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.reason, "EVENT_CLOSED", "{refused}");
        let left = if event == "evt_1" { 19 } else { 1 };
        assert_eq!(live.json(&["event", "show", event])["remaining"], left);
    }
}

#[test]
fn events_are_listed_in_order() {
    let live = LiveServer::start();
    // `dev` creates events of its own.
    let there = live.json(&["event", "list"]).as_array().unwrap().len();
    live.ok(&["event", "create", "evt_b", "--total", "10", "--stripes", "4"]);
    let about = ["--name", "Opening night", "--venue", "The hall"];
    let create = ["event", "create", "evt_a", "--seated", "--seat-keys", "3"];
    live.ok(&[&create[..], &about].concat());
    live.ok(&["event", "close", "evt_b"]);
    let listed = live.json(&["event", "list"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), there + 2);
    let ids: Vec<_> = listed.iter().map(|one| one["event_id"].as_str()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let of = |id: &str| listed.iter().find(|one| one["event_id"] == id).unwrap();
    let expected = json!({
        "event_id": "evt_a", "name": "Opening night", "venue": "The hall", "seated": true,
        "closed": false, "stripes": 1, "seat_keys": 3,
    });
    assert_eq!(of("evt_a"), &expected);
    assert_eq!(of("evt_b")["closed"], true);
    assert_eq!(of("evt_b")["stripes"], 4);
    let table = live.ok(&["event", "list"]);
    assert_has(&table, &["event", "evt_a", "Opening night", "seats", "closed"]);
    assert!(!table.contains("\x1b"), "colours in a pipe");
}

#[test]
fn list_with_stock_has_the_numbers_of_each_event() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_b", "--total", "10000", "--stripes", "4"]);
    // More events than are read at the same time.
    for number in 0..12 {
        live.ok(&["event", "create", &format!("evt_c{number}"), "--total", "5"]);
    }
    let seats = "seat_id\nA-1\nA-2\nA-3\n";
    let ran = live.run_with_input(&["seats", "import", "evt_a", "-", "--create"], seats);
    assert_eq!(ran.code, OK, "{}", ran.err);
    live.ok(&["seats", "block", "evt_a", "A-3"]);
    commit(&live, "evt_a", "res_1", 0, &["A-1"]);
    commit(&live, "evt_b", "res_2", 7, &[]);

    let listed = live.json(&["event", "list", "--stock"]);
    let listed = listed.as_array().unwrap();
    let plain = live.json(&["event", "list"]);
    assert_eq!(listed.len(), plain.as_array().unwrap().len());
    let fields = ["total", "remaining", "held", "confirmed", "blocked"];
    for (with_stock, plain) in listed.iter().zip(plain.as_array().unwrap()) {
        let id = plain["event_id"].as_str().unwrap();
        assert_eq!(with_stock["event_id"], id);
        let shown = live.json(&["event", "show", id]);
        for field in fields {
            assert_eq!(with_stock[field], shown[field], "{id} {field}");
            assert!(plain.get(field).is_none(), "{id} {field}");
        }
    }
    let numbers = |id: &str| {
        let row = listed.iter().find(|row| row["event_id"] == id).unwrap();
        fields.map(|field| row[field].as_i64().unwrap())
    };
    assert_eq!(numbers("evt_a"), [3, 1, 0, 1, 1]);
    assert_eq!(numbers("evt_b"), [10_000, 9_993, 0, 7, 0]);
    let table = live.ok(&["event", "list", "--stock"]);
    let row = table.lines().find(|line| line.starts_with("evt_b")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[5..10], ["10,000", "9,993", "0", "7", "0"], "{row}");
}

#[test]
fn commands_for_units_reject_seated_events_and_vice_versa() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "seats", "--seated"]);
    live.ok(&["event", "create", "tickets", "--total", "10"]);
    for (args, said) in [
        (&["event", "restock", "seats", "--total", "5"][..], "is seated"),
        (&["event", "restock", "seats", "--add", "5"], "seats import"),
        (&["seats", "block", "tickets", "A-1"], "has no seats"),
        (&["event", "create", "seats", "--total", "5"], "exists with seats"),
        (&["event", "create", "tickets", "--seated"], "exists with total 10"),
    ] {
        let ran = live.run(args);
        assert_eq!(ran.code, FAILED, "{args:?}: {}", ran.err);
        assert_has(&ran.err, &[said]);
    }
    let ran = live.run_with_input(&["seats", "import", "tickets", "-"], "seat_id\nA-1\n");
    assert_eq!(ran.code, FAILED);
    assert_has(&ran.err, &["tickets has no seats", "--seated"]);
}
