//! The `generator` command: exit codes, files, and error messages.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use common::{FaultyServer, ServerFaults};

const SCENARIO: &str = r#"
title = "Two <halves> & a whole"
rate = 300
duration = 0.5
connections = 2
events = { prefix = "evt", stock = 1000000 }
mix = { direct_commit = 100 }
duplicates = { percent = 50 }
"#;

/// Runs the command with a scenario in its own folder.
fn generator(folder: &tempfile::TempDir, scenario: &str, more: &[&str]) -> Output {
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, scenario).unwrap();
    Command::new(env!("CARGO_BIN_EXE_generator"))
        .current_dir(folder.path())
        .arg("scenario.toml")
        .args(more)
        .output()
        .unwrap()
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_valid_run_exits_with_0_and_writes_its_files() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let folder = tempfile::tempdir().unwrap();
    let target = server.address.to_string();
    let pid = std::process::id().to_string();
    let output = generator(
        &folder,
        SCENARIO,
        &[
            "--target",
            &target,
            "--events-from-existing",
            "--json",
            "o.json",
            "--svg",
            "o.svg",
            "--lateness-max",
            "1000",
            "--server-pid",
            &pid,
            "--rate",
            "200",
            "--threads",
            "2",
        ],
    );
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["direct_commit", "p99.9", "us CPU per call", "no answer contradicts another"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = std::fs::read_to_string(folder.path().join("o.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["rate"], 200.0);
    assert_eq!(json["methods"][0]["method"], "direct_commit");
    assert_eq!(json["processes"][0]["name"], "server");
    let svg = std::fs::read_to_string(folder.path().join("o.svg")).unwrap();
    assert!(svg.contains("Two &lt;halves&gt; &amp; a whole") && svg.contains("40 ms"));
}

#[test]
fn a_broken_promise_exits_with_1_and_is_named() {
    let faults = ServerFaults { other_order: Some(2), ..ServerFaults::default() };
    let server = FaultyServer::start(faults, &[("evt_0", 1_000_000)]);
    let folder = tempfile::tempdir().unwrap();
    let target = server.address.to_string();
    let output = generator(
        &folder,
        SCENARIO,
        &["--target", &target, "--events-from-existing", "--run", "mine", "--lateness-max", "1000"],
    );
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("PROMISES BROKEN") && text.contains("repeat: mine-"), "{text}");
}

#[test]
fn an_invalid_run_exits_with_3_and_a_reason() {
    let server = FaultyServer::start(
        ServerFaults { silent: true, ..ServerFaults::default() },
        &[("evt_0", 1)],
    );
    let folder = tempfile::tempdir().unwrap();
    let target = server.address.to_string();
    let scenario = format!("in_flight = 5\ndeadline_ms = 200{SCENARIO}");
    let output =
        generator(&folder, &scenario, &["--target", &target, "--events-from-existing", "--quiet"]);
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("INVALID") && text.contains("were not sent"), "{text}");
}

#[test]
fn a_usage_error_exits_with_64_and_names_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let existing = ["--target", "127.0.0.1:1", "--events-from-existing"];
    for (scenario, more, named) in [
        (SCENARIO.replace("rate = 300", "rat = 300"), &existing[..], "rat"),
        (SCENARIO.replace("rate = 300", "rate = 0"), &existing[..], "rate is 0"),
        (SCENARIO.to_owned(), &existing[..2], "--events-from-existing"),
        (SCENARIO.to_owned(), &["--target", "nowhere", "--events-from-existing"], "host:port"),
        (
            SCENARIO.to_owned(),
            &["--target", "h:1", "--admin", "h:2", "--store", "h:3"],
            "http://host:port",
        ),
    ] {
        let output = generator(&folder, &scenario, more);
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[test]
fn a_missing_server_exits_with_1_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--target", "127.0.0.1:1", "--events-from-existing"];
    let output = generator(&folder, SCENARIO, &more);
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no server answers at 127.0.0.1:1"), "{text}");
}
