//! Imports into a store that is slow, fails for a while, or already has the seats.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inventory_testkit::server::{CommandOutput, ServerCommand, TestServer, command};
use serde_json::{Value, json};

use crate::fake_store::{FakeStore, RequestAction, store_error};

/// A command with the admin port of the server.
fn admin(server: &TestServer, args: &[&str]) -> Command {
    let mut command = command(args);
    command.args(["--admin", &server.admin]);
    command
}

/// Runs a command that must succeed.
#[track_caller]
fn run(server: &TestServer, args: &[&str], input: &str) -> CommandOutput {
    let ran = ServerCommand::from(admin(server, args)).run_with_input(input);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
    ran
}

/// The value that a command prints with --json.
#[track_caller]
fn json_of(server: &TestServer, args: &[&str]) -> Value {
    let out = run(server, &[args, &["--json"]].concat(), "").out;
    serde_json::from_str(&out).unwrap()
}

/// A file of `count` seats; the first `dearer` cost more.
fn file(count: usize, dearer: usize) -> String {
    let mut text = "seat_id,section,row,number,price,currency\n".to_owned();
    for n in 0..count {
        let price = if n < dearer { 150_000 } else { 120_000 };
        writeln!(text, "S-{n},STALLS,{},{},{price},KRW", n / 50, n % 50).unwrap();
    }
    text
}

/// Executes writes one after the other, each in `time`.
fn set_serial_writes(store: &FakeStore, time: Duration) {
    let mut free_at = Instant::now();
    store.set_rule(move |request| match request.is_write() {
        true => {
            let now = Instant::now();
            free_at = free_at.max(now) + time;
            RequestAction::ExecuteAfter(free_at - now)
        }
        false => RequestAction::Execute,
    });
}

fn stored_seats(store: &FakeStore) -> usize {
    let body = json!({ "TableName": "inventory_seats", "Select": "COUNT" });
    let mut count = 0;
    let mut start = serde_json::Value::Null;
    loop {
        let mut body = body.clone();
        if !start.is_null() {
            body["ExclusiveStartKey"] = start;
        }
        let page = store.call("Scan", body);
        count += page["Count"].as_u64().unwrap() as usize;
        start = page["LastEvaluatedKey"].clone();
        if start.is_null() {
            return count;
        }
    }
}

#[test]
fn progress_counts_what_is_stored_and_a_repeat_writes_only_changes() {
    let store = FakeStore::start();
    let server = store.start_server();
    run(&server, &["event", "create", "hall", "--seated", "--seat-keys", "2"], "");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seats.csv");
    std::fs::write(&path, file(2_000, 0)).unwrap();
    let import = ["seats", "import", "hall", path.to_str().unwrap()];

    set_serial_writes(&store, Duration::from_millis(150));
    let mut child =
        admin(&server, &import).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let seen = lines.nth(3).unwrap();
    let stored = stored_seats(&store);
    child.kill().unwrap();
    child.wait().unwrap();
    let reported: usize = seen.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!((800..2_000).contains(&reported), "{seen}");
    assert!(stored >= reported, "{stored} seats are stored after {seen:?}");

    // The repeat goes on from there. Writes of the interrupted import may still end.
    let before = store.writes().len();
    let out = run(&server, &import, "").out;
    assert!(out.contains("2,000 seats stored in") && out.contains(" unchanged"), "{out}");
    assert_eq!(stored_seats(&store), 2_000);
    let written = store.writes().len() - before;
    assert!(written <= (2_000 - reported).div_ceil(99) + 8, "{written} writes after {seen:?}");

    let before = store.writes().len();
    let again = json_of(&server, &import);
    assert_eq!((&again["written"], &again["unchanged"]), (&2_000.into(), &2_000.into()));
    assert_eq!(store.writes().len(), before);
    std::fs::write(&path, file(2_000, 3)).unwrap();
    let changed = json_of(&server, &import);
    assert_eq!((&changed["changed"], &changed["unchanged"]), (&3.into(), &1_997.into()));
    assert_eq!(changed["event"]["sections"][0]["max_price"]["amount"], 150_000);
    let writes = store.writes();
    assert_eq!(writes.len(), before + 1);
    let actions = writes.last().unwrap().body["TransactItems"].as_array().unwrap().len();
    assert_eq!(actions, 3);
}

#[test]
fn import_goes_on_after_an_outage_of_the_store() {
    let store = FakeStore::start();
    let server = store.start_server();
    run(&server, &["event", "create", "hall", "--seated"], "");
    let began = Instant::now();
    let mut writes = 0;
    store.set_rule(move |request| {
        writes += usize::from(request.is_write());
        let is_away = writes > 3 && began.elapsed() < Duration::from_secs(3);
        match request.is_write() && is_away {
            true => store_error(500, "InternalServerError"),
            false => RequestAction::Execute,
        }
    });
    let err = run(&server, &["seats", "import", "hall", "-"], &file(1_000, 0)).err;
    assert!(err.contains("trying again") && err.contains("1,000 of 1,000 seats"), "{err}");
    assert_eq!(stored_seats(&store), 1_000);
    assert_eq!(json_of(&server, &["event", "show", "hall"])["total"], 1_000);
}
