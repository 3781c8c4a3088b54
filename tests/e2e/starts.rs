//! Failed starts: the process exits at once, reports the problem with its remedy, and exits with 64 for invalid settings or 1
//! otherwise.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;

use crate::fake_store::FakeStore;
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_testkit::refusing_address;
use inventory_testkit::restriction::{deny_io_uring, limit_locked_memory};
use inventory_testkit::server::{CommandOutput, ServerCommand};

use crate::client::*;

#[track_caller]
fn fails(command: ServerCommand, needles: &[&str]) -> CommandOutput {
    let ran = command.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.out, "", "a banner without a server");
    ran.assert_error_names(needles);
    ran
}

#[test]
fn port_in_use_is_reported_with_its_variable() {
    let store = FakeStore::start();
    for name in ["GRPC_PORT", "METRICS_PORT", "ADMIN_PORT"] {
        let holder = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port().to_string();
        for command in [store.server_command(), ServerCommand::dev_in_memory()] {
            let fix = format!("{name}=0");
            fails(command.env(name, &port), &[name, &port, "ss -ltnp", &fix]);
        }
    }
}

#[tokio::test]
async fn second_server_does_not_share_a_port() {
    let first = ServerCommand::dev_in_memory().start();
    let port = first.grpc.rsplit(':').next().unwrap();
    fails(ServerCommand::dev_in_memory().env("GRPC_PORT", port), &["GRPC_PORT", port]);
    // The first server still serves.
    client(&first).await.order(commit("r1", "evt_2025_1001", 1)).await;
}

#[test]
fn unreachable_store_is_reported() {
    let address = refusing_address();
    let needles = [&*address.to_string(), "AWS_ENDPOINT_URL_DYNAMODB", "inventory-api dev"];
    fails(ServerCommand::with_store(address, &["serve"]), &needles);
}

#[test]
fn missing_tables_are_reported_with_the_command_that_creates_them() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let needles = ["inventory", "inventory_seats", "idempotency", "tables create"];
    fails(ServerCommand::with_store(engine.address(), &["serve"]), &needles);
    // Only the missing table is named.
    let store = FakeStore::start();
    let command = store.server_command().env("DDB_TABLE_IDEMPOTENCY", "elsewhere");
    let ran = fails(command, &["elsewhere", "tables create"]);
    assert!(!ran.err.contains("inventory_seats"), "{}", ran.err);
}

#[tokio::test]
async fn commands_lead_from_an_empty_store_to_a_sale() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let run = |args: &[&str]| {
        let ran = ServerCommand::with_store(engine.address(), args).run();
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.out
    };
    run(&["tables", "create"]);
    run(&["tables", "check"]);
    assert!(run(&["check"]).contains("ready to serve"));
    let server = ServerCommand::with_store(engine.address(), &["serve"]).start();
    let at = ["--admin", &server.admin];
    run(&[&["event", "create", "evt_1", "--total", "7"][..], &at].concat());
    assert!(run(&["health", "--server", &server.grpc]).contains("serves"));
    client(&server).await.order(commit("r1", "evt_1", 3)).await;
    let shown = run(&[&["event", "show", "evt_1"][..], &at].concat());
    let words: Vec<&str> = shown.split_whitespace().collect();
    for pair in [["total", "7"], ["remaining", "4"], ["confirmed", "3"]] {
        assert!(words.windows(2).any(|two| two == pair), "{pair:?}:\n{shown}");
    }
    server.stop().await;
}

#[test]
fn missing_credentials_are_reported_with_the_variables() {
    let store = FakeStore::start();
    let mut command = store.server_command().env("AWS_EC2_METADATA_DISABLED", "true");
    command.command.env_remove("AWS_ACCESS_KEY_ID");
    command.command.env_remove("AWS_SECRET_ACCESS_KEY");
    fails(command, &["credentials", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn invalid_setting_exits_with_64() {
    for command in [ServerCommand::new(&["serve"]), ServerCommand::dev_in_memory()] {
        let ran = command.env("GRPC_TIMEOUT", "soon").env("SHARDS", "none").run();
        assert_eq!(ran.code, Some(64), "{ran:?}");
        ran.assert_error_names(&["GRPC_TIMEOUT=\"soon\"", "SHARDS=\"none\"", "250ms"]);
    }
}

#[test]
fn data_directory_in_use_is_reported_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = ServerCommand::dev_in_directory(dir.path()).start();
    let path = dir.path().to_str().unwrap();
    let pid = format!("pid {}", first.pid());
    fails(ServerCommand::dev_in_directory(dir.path()), &[path, &pid, "--data"]);
}

#[test]
fn io_uring_denied_by_seccomp_is_reported() {
    let store = FakeStore::start();
    for (errno, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        for mut command in [store.server_command(), ServerCommand::dev_in_memory()] {
            // SAFETY: runs between fork and exec, makes system calls only.
            unsafe { command.command.pre_exec(move || deny_io_uring(errno)) };
            fails(command, &["io_uring", name, "seccomp"]);
        }
    }
}

#[test]
fn low_memlock_limit_is_reported() {
    let store = FakeStore::start();
    for mut command in [store.server_command(), ServerCommand::dev_in_memory()] {
        // SAFETY: runs between fork and exec, makes system calls only.
        unsafe { command.command.pre_exec(|| limit_locked_memory(64 * 1024)) };
        fails(command, &["RLIMIT_MEMLOCK", "64 KiB", "512 KiB", "memlock="]);
    }
}

#[tokio::test]
async fn eight_mebibytes_of_locked_memory_are_enough() {
    let mut command = ServerCommand::dev_in_memory();
    // SAFETY: runs between fork and exec, makes system calls only.
    unsafe { command.command.pre_exec(|| limit_locked_memory(8 * 1024 * 1024)) };
    command.start().stop().await;
}
