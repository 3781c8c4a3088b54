//! Starts that cannot work: each ends at once, says what is wrong and the cure, and its exit code
//! tells wrong settings (64) from a wrong world (1).

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;

use inventory_store::embedded::{EmbeddedEngine, EngineStorage};

use crate::client::*;
use crate::restricted::{deny_rings, limit_locked_memory};
use crate::server::{Launch, Ran, command};
use crate::stage::Stage;

#[track_caller]
fn fails(launch: Launch, needles: &[&str]) -> Ran {
    let ran = launch.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.out, "", "a banner of a server that does not serve");
    ran.says(needles);
    ran
}

#[test]
fn a_taken_port_is_named_with_its_variable() {
    let stage = Stage::new();
    for name in ["GRPC_PORT", "METRICS_PORT", "ADMIN_PORT"] {
        let holder = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port().to_string();
        for launch in [stage.launch(), Launch::memory()] {
            let cure = format!("{name}=0");
            fails(launch.env(name, &port), &[name, &port, "ss -ltnp", &cure]);
        }
    }
}

#[tokio::test]
async fn a_second_server_does_not_share_the_first_ones_port() {
    let first = Launch::memory().start();
    let port = first.grpc.rsplit(':').next().unwrap();
    fails(
        Launch::memory().env("GRPC_PORT", port),
        &["GRPC_PORT", port],
    );
    // And the first is none the worse for it.
    client(&first)
        .await
        .order(commit("r1", "evt_2025_1001", 1))
        .await;
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    dead.bind(&any.into()).unwrap();
    let address = dead.local_addr().unwrap().as_socket().unwrap();
    let needles = [
        &*address.to_string(),
        "AWS_ENDPOINT_URL_DYNAMODB",
        "inventory-api dev",
    ];
    fails(Launch::serve(address), &needles);
}

#[test]
fn missing_tables_are_named_with_the_command_that_makes_them() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let needles = [
        "inventory",
        "inventory_seats",
        "idempotency",
        "tables create",
    ];
    fails(Launch::serve(engine.address()), &needles);
    // With all but one, that one is named.
    let stage = Stage::new();
    let launch = stage.launch().env("DDB_TABLE_IDEMPOTENCY", "elsewhere");
    let ran = fails(launch, &["elsewhere", "tables create"]);
    assert!(!ran.err.contains("inventory_seats"), "{}", ran.err);
}

/// The whole way from an empty store to a ticket, with the commands alone.
#[tokio::test]
async fn the_commands_lead_from_nothing_to_a_sale() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let run = |args: &[&str]| {
        let mut launch = Launch::serve(engine.address());
        let settings = std::mem::replace(&mut launch.command, command(args));
        for (name, value) in settings.get_envs() {
            launch.command.env(name, value.unwrap());
        }
        let ran = launch.run();
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.out
    };
    run(&["tables", "create"]);
    run(&["tables", "check"]);
    assert!(run(&["check"]).contains("ready to serve"));
    let server = Launch::serve(engine.address()).start();
    let at = ["--admin", &server.admin];
    run(&[&["event", "create", "evt_1", "--total", "7"][..], &at].concat());
    assert!(run(&["health", "--server", &server.grpc]).contains("serves"));
    client(&server).await.order(commit("r1", "evt_1", 3)).await;
    let shown = run(&[&["event", "show", "evt_1"][..], &at].concat());
    let words: Vec<&str> = shown.split_whitespace().collect();
    for pair in [["total", "7"], ["remaining", "4"], ["confirmed", "3"]] {
        assert!(
            words.windows(2).any(|two| two == pair),
            "{pair:?}:\n{shown}"
        );
    }
    server.stops().await;
}

#[test]
fn no_credentials_are_said_with_the_ways_to_give_some() {
    let stage = Stage::new();
    let mut launch = stage.launch().env("AWS_EC2_METADATA_DISABLED", "true");
    launch.command.env_remove("AWS_ACCESS_KEY_ID");
    launch.command.env_remove("AWS_SECRET_ACCESS_KEY");
    fails(launch, &["credentials", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn a_bad_value_is_refused_with_64() {
    for launch in [Launch::of(&["serve"]), Launch::memory()] {
        let ran = launch
            .env("GRPC_TIMEOUT", "soon")
            .env("SHARDS", "none")
            .run();
        assert_eq!(ran.code, Some(64), "{ran:?}");
        ran.says(&["GRPC_TIMEOUT=\"soon\"", "SHARDS=\"none\"", "250ms"]);
    }
}

#[test]
fn a_data_directory_in_use_is_named_with_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let first = Launch::data(dir.path()).start();
    let path = dir.path().to_str().unwrap();
    let pid = format!("pid {}", first.pid());
    fails(Launch::data(dir.path()), &[path, &pid, "--data"]);
}

#[test]
fn rings_denied_by_seccomp_are_said_with_the_cure() {
    let stage = Stage::new();
    for (errno, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        for mut launch in [stage.launch(), Launch::memory()] {
            // SAFETY: runs between fork and exec, makes system calls only.
            unsafe { launch.command.pre_exec(move || deny_rings(errno)) };
            fails(launch, &["io_uring", name, "seccomp"]);
        }
    }
}

#[test]
fn too_little_locked_memory_is_said_with_the_limit_and_the_cure() {
    let stage = Stage::new();
    for mut launch in [stage.launch(), Launch::memory()] {
        // SAFETY: runs between fork and exec, makes system calls only.
        unsafe { launch.command.pre_exec(|| limit_locked_memory(64 * 1024)) };
        fails(launch, &["RLIMIT_MEMLOCK", "64 KiB", "512 KiB", "memlock="]);
    }
}

#[tokio::test]
async fn eight_mebibytes_of_locked_memory_are_enough() {
    let mut launch = Launch::memory();
    // SAFETY: runs between fork and exec, makes system calls only.
    unsafe {
        launch
            .command
            .pre_exec(|| limit_locked_memory(8 * 1024 * 1024))
    };
    launch.start().stops().await;
}
