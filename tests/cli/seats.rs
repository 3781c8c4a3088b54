//! Import of seats from a file: once, twice, interrupted, rejected.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::live::LiveServer;
use crate::{FAILED, OK, USAGE, assert_has};

/// A file of `count` seats in sections of a thousand; the first seat of each section has a higher price.
fn file(dir: &TempDir, count: usize) -> PathBuf {
    let mut text = "seat_id,section,row,number,price,currency\n".to_owned();
    for n in 0..count {
        let (section, place) = (n / 1_000, n % 1_000);
        let price = if place == 0 { 150_000 } else { 120_000 };
        let (row, number) = (place / 50 + 1, place % 50 + 1);
        let seat = format!("S{section}-{row}-{number}");
        writeln!(text, "{seat},S{section},{row},{number},{price},KRW").unwrap();
    }
    let path = dir.path().join("seats.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `event` without the time of the read.
fn without_time(mut event: Value) -> Value {
    event.as_object_mut().unwrap().remove("as_of");
    event
}

#[test]
fn seats_are_imported_twice_blocked_and_closed() {
    let live = LiveServer::start();
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 2_345);
    let create = ["event", "create", "evt_1", "--seated", "--seat-keys", "3"];
    assert_has(&live.ok(&create), &["created", "no seats yet"]);
    let import = ["seats", "import", "evt_1", text(&path)];
    let first = live.run(&import);
    assert_eq!(first.code, OK, "{}", first.err);
    assert_has(&first.out, &["2,345 seats written in", "section", "S2", "345"]);
    // Without a terminal: plain lines instead of the progress bar.
    assert_has(&first.err, &["2,345 of 2,345 seats"]);
    assert!(!first.err.contains('\x1b') && !first.err.contains('\r'), "{}", first.err);

    let shown = without_time(live.json(&["event", "show", "evt_1"]));
    let counts = ["total", "remaining", "confirmed", "held", "blocked"];
    let numbers = |event: &Value| counts.map(|name| event[name].as_i64().unwrap());
    assert_eq!(numbers(&shown), [2_345, 2_345, 0, 0, 0]);
    assert_eq!((&shown["seated"], &shown["seat_keys"]), (&true.into(), &3.into()));
    let price = |amount: i64| json!({ "amount": amount, "currency": "KRW" });
    let section = json!({
        "section": "S1", "total": 1_000, "available": 1_000, "held": 0, "sold": 0, "blocked": 0,
        "min_price": price(120_000), "max_price": price(150_000),
    });
    assert_eq!(shown["sections"][1], section);

    let block = ["seats", "block", "evt_1", "S0-1-1", "S0-1-2"];
    let blocked = live.ok(&block);
    assert_has(&blocked, &["S0-1-1  changed", "S0-1-2  changed"]);
    assert_has(&live.ok(&block), &["S0-1-1  unchanged"]);
    let unknown = live.run(&["seats", "block", "evt_1", "S9-1-1"]);
    assert_eq!(unknown.code, FAILED);
    assert_has(&unknown.out, &["S9-1-1  not found"]);
    let ran = live.run_with_input(&["seats", "unblock", "evt_1", "--file", "-"], "S0-1-2\n\n");
    assert_eq!(ran.code, OK, "{}", ran.err);
    assert_has(&ran.out, &["S0-1-2  changed"]);

    // A repeated import writes the facts and keeps the states.
    let again = live.json(&import);
    assert_eq!(again["written"], 2_345);
    assert_eq!(numbers(&again["event"]), [2_345, 2_344, 0, 0, 1]);
    let after = without_time(live.json(&["event", "show", "evt_1"]));
    assert_eq!(numbers(&after), [2_345, 2_344, 0, 0, 1]);
    assert_eq!(after["sections"][1], section);

    live.ok(&["event", "close", "evt_1"]);
    assert_eq!(live.json(&["event", "show", "evt_1"])["closed"], true);
    let late = live.run(&import);
    assert_eq!(late.code, FAILED);
    assert_has(&late.err, &["evt_1 is closed"]);
}

#[test]
fn interrupted_import_can_be_repeated() {
    let live = LiveServer::start();
    let dir = TempDir::new().unwrap();
    let count = 20_000;
    let path = file(&dir, count);
    let imported = |event: &str| {
        let event = without_time(live.json(&["event", "show", event]));
        let object = |name: &str| event[name].clone();
        (object("total"), object("remaining"), object("sections"))
    };

    live.ok(&["event", "create", "evt_1", "--seated", "--seat-keys", "4"]);
    let mut command = live.command(&["seats", "import", "evt_1", text(&path)]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The progress line after three tenths of the seats.
    let seen = lines.map_while(Result::ok).nth(2).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.ends_with("of 20,000 seats"), "{seen}");
    let total = imported("evt_1").0.as_u64().unwrap();
    assert!((1..count as u64).contains(&total), "{total} after {seen:?}");

    // The uninterrupted import is the expected result.
    let whole = ["--create", "--seat-keys", "4"];
    live.ok(&[&["seats", "import", "evt_2", text(&path)], &whole[..]].concat());
    live.ok(&["seats", "import", "evt_1", text(&path)]);
    assert_eq!(imported("evt_1").0, count);
    assert_eq!(imported("evt_1"), imported("evt_2"));
}

#[test]
fn file_with_an_invalid_line_writes_nothing() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--seated"]);
    let bad = "seat_id,section\nA-1,A\nA 2,A\nA-1,B\n";
    let import = ["seats", "import", "evt_1", "-"];
    let ran = live.run_with_input(&import, bad);
    assert_eq!(ran.code, USAGE);
    assert_has(
        &ran.err,
        &[
            "standard input is not as it should be; nothing was sent",
            "line 3: seat_id has ' '",
            "line 4: seat_id A-1 was on line 2 already",
        ],
    );
    assert_eq!(live.json(&["event", "show", "evt_1"])["total"], 0);
    // The event is not created either.
    let ran = live.run_with_input(&["seats", "import", "evt_2", "-", "--create"], bad);
    assert_eq!(ran.code, USAGE);
    assert_eq!(live.run(&["event", "show", "evt_2"]).code, FAILED);

    let good = "seat_id,section\nA-1,A\n";
    let ran = live.run_with_input(&["seats", "import", "evt_2", "-", "--check"], good);
    assert_eq!(ran.code, OK, "{}", ran.err);
    assert_has(&ran.out, &["1 seats, and every line is good"]);
    let ran = live.run_with_input(&["seats", "import", "evt_2", "-"], good);
    assert_eq!(ran.code, FAILED);
    assert_has(&ran.err, &["no event evt_2", "what was written stays"]);
    let create = ["seats", "import", "evt_2", "-", "--create", "--name", "Opening night"];
    let lines =
        "{\"seat_id\": \"A-1\", \"section\": \"A\", \"price\": 45.5, \"currency\": \"USD\"}";
    let ran = live.run_with_input(&create, lines);
    assert_eq!(ran.code, OK, "{}", ran.err);
    assert_has(&ran.out, &["Opening night", "45.50 USD"]);
}

#[test]
fn imported_event_is_shown_within_100_ms() {
    let live = LiveServer::start();
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 5_000);
    live.ok(&["seats", "import", "evt_1", text(&path), "--create"]);
    let took = |_| {
        let begun = Instant::now();
        live.ok(&["event", "show", "evt_1"]);
        begun.elapsed()
    };
    // The best of ten, because the machine may be busy.
    let best = (0..10).map(took).min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
}
