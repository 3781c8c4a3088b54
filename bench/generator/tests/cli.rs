//! The command: exit codes, files, and what it says when it is used wrongly.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use common::{Script, Server};

const SCENARIO: &str = r#"
title = "Two <halves> & a whole"
rate = 300
duration = 0.5
connections = 2
events = { prefix = "evt", stock = 1000000 }
mix = { direct_commit = 100 }
duplicates = { percent = 50 }
"#;

/// Runs the command on a scenario in a folder of its own.
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_good_run_ends_with_0_and_writes_its_files() {
    let server = Server::start(Script::default(), &[("evt_0", 1_000_000)]);
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
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "direct_commit",
        "p99.9",
        "us CPU per call",
        "no answer contradicts another",
    ] {
        assert!(said.contains(part), "{part}: {said}");
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
fn a_broken_promise_ends_with_1_and_is_named() {
    let script = Script {
        forgetful: Some(2),
        ..Script::default()
    };
    let server = Server::start(script, &[("evt_0", 1_000_000)]);
    let folder = tempfile::tempdir().unwrap();
    let target = server.address.to_string();
    let output = generator(
        &folder,
        SCENARIO,
        &[
            "--target",
            &target,
            "--events-from-existing",
            "--run",
            "mine",
            "--lateness-max",
            "1000",
        ],
    );
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("PROMISES BROKEN") && said.contains("repeat: mine-"),
        "{said}"
    );
}

#[test]
fn an_invalid_run_ends_with_3_and_says_why() {
    let server = Server::start(
        Script {
            mute: true,
            ..Script::default()
        },
        &[("evt_0", 1)],
    );
    let folder = tempfile::tempdir().unwrap();
    let target = server.address.to_string();
    let scenario = format!("in_flight = 5\ndeadline_ms = 200{SCENARIO}");
    let output = generator(
        &folder,
        &scenario,
        &["--target", &target, "--events-from-existing", "--quiet"],
    );
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("INVALID") && said.contains("were not sent"),
        "{said}"
    );
}

#[test]
fn wrong_usage_ends_with_64_and_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let existing = ["--target", "127.0.0.1:1", "--events-from-existing"];
    for (scenario, more, named) in [
        (
            SCENARIO.replace("rate = 300", "rat = 300"),
            &existing[..],
            "rat",
        ),
        (
            SCENARIO.replace("rate = 300", "rate = 0"),
            &existing[..],
            "rate is 0",
        ),
        (
            SCENARIO.to_owned(),
            &existing[..2],
            "--events-from-existing",
        ),
        (
            SCENARIO.to_owned(),
            &["--target", "nowhere", "--events-from-existing"],
            "host:port",
        ),
        (
            SCENARIO.to_owned(),
            &["--target", "h:1", "--admin", "h:2", "--store", "h:3"],
            "http://host:port",
        ),
    ] {
        let output = generator(&folder, &scenario, more);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(named), "{named}: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_ends_with_1_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--target", "127.0.0.1:1", "--events-from-existing"];
    let output = generator(&folder, SCENARIO, &more);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no server answers at 127.0.0.1:1"), "{said}");
}
