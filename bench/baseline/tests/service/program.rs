//! The program: usage errors, output, both runtimes, with and without a store.

use std::path::Path;
use std::process::Command;

use crate::fixture::{EVENT, ModelFixture, commit, failure};
use inventory_client::connect;
use inventory_process::ServerProcess;
use tonic::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_baseline");

#[test]
fn usage_errors_name_the_argument_and_what_is_valid() {
    for (arguments, expected) in [
        (&[][..], "--store"),
        (&["--store", "https://dynamodb.eu-west-1.amazonaws.com"], "TLS"),
        (&["--store", "127.0.0.1:8000"], "http://host:port"),
        (&["--store", "http://x:1", "--threads", "0"], "--threads"),
        (&["--store", "http://x:1", "--retries", "many"], "--retries"),
        (&["--store", "http://x:1", "--event", "a=1"], "--no-store"),
        (&["--no-store", "--event", "a"], "ID=TOTAL"),
    ] {
        let mut command = Command::new(PROGRAM);
        let output = command.env_clear().args(arguments).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {printed}");
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
    }
}

const RUNTIMES: [&[&str]; 2] = [&[], &["--runtime", "multi-thread", "--threads", "2"]];

#[tokio::test]
async fn the_program_sells_from_a_store_on_either_runtime() {
    let store = ModelFixture::start();
    store.create_event(EVENT, &[5]);
    let endpoint = store.server.endpoint();
    for (sold, runtime) in (1..).zip(RUNTIMES) {
        let arguments = [&["--store", &endpoint], runtime].concat();
        let server = ServerProcess::start("baseline", Path::new(PROGRAM), &arguments, None, &[]);
        let server = server.await.unwrap();
        let mut client = connect(&server.address).await.unwrap();
        let reservation = format!("r{sold}");
        let sale = client.commit_reservation(commit(&reservation, 1)).await;
        sale.unwrap();
        assert_eq!(store.stripe(EVENT), (5 - sold, sold));
    }
}

#[tokio::test]
async fn the_stub_server_sells_from_memory_on_either_runtime() {
    let event = format!("{EVENT}=3");
    for runtime in RUNTIMES {
        let arguments = [&["--no-store", "--event", &event], runtime].concat();
        let server = ServerProcess::start("baseline", Path::new(PROGRAM), &arguments, None, &[]);
        let server = server.await.unwrap();
        let mut client = connect(&server.address).await.unwrap();
        for _ in 0..2 {
            let sale = client.commit_reservation(commit("rsv_abc123", 2)).await;
            let order = sale.unwrap().into_inner().order_id;
            assert_eq!(order, "ord_97c42ccd0e7f05c61e74ba7eda007525");
        }
        let conflict = client.commit_reservation(commit("rsv_abc123", 1)).await;
        assert_eq!(failure(conflict).0, Code::AlreadyExists);
        let sold_out = client.commit_reservation(commit("b", 2)).await;
        assert_eq!(failure(sold_out).0, Code::Aborted);
    }
}
