//! The program: what it prints, what it refuses, how it ends.

use std::path::Path;
use std::process::Command;

use crate::engine;
use crate::stage::{EVENT, commit};
use inventory_client::connect;
use inventory_process::ServerProcess;

const PROGRAM: &str = env!("CARGO_BIN_EXE_store-twin");

#[test]
fn wrong_usage_says_what_would_be_right() {
    for (arguments, wanted) in [
        (&[][..], "--endpoint"),
        (
            &["--endpoint", "https://dynamodb.eu-west-1.amazonaws.com"],
            "TLS",
        ),
        (&["--endpoint", "127.0.0.1:8000"], "http://host:port"),
        (&["--endpoint", "http://x:1", "--threads", "0"], "--threads"),
        (
            &["--endpoint", "http://x:1", "--retries", "many"],
            "--retries",
        ),
        (
            &["--endpoint", "http://x:1", "--pin", "100000"],
            "--pin 100000",
        ),
    ] {
        let mut command = Command::new(PROGRAM);
        let output = command.env_clear().args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn it_sells_pinned_on_one_thread_and_on_two() {
    let engine = engine::Engine::start();
    engine.create_tables().await;
    engine.create_event(EVENT, &[5]).await;
    let core = inventory_process::allowed_cpus().unwrap()[0].to_string();
    let endpoint = engine.endpoint();
    for (sold, threads) in [(1, "1"), (2, "2")] {
        let arguments = [
            "--endpoint",
            &endpoint,
            "--threads",
            threads,
            "--pin",
            &core,
        ];
        let peer = ServerProcess::start("store-twin", Path::new(PROGRAM), &arguments, None, &[]);
        let peer = peer.await.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid)).unwrap();
        let pinned = format!("Cpus_allowed_list:\t{core}\n");
        assert!(status.contains(&pinned), "{status}");
        let mut client = connect(&peer.address).await.unwrap();
        let bought = client.commit_reservation(commit(threads, 1)).await;
        bought.unwrap();
        assert_eq!(engine.stripe(EVENT).await, (5 - sold, sold));
    }
}
