//! The command line: the program is run, its output and exit codes are read. Commands that need a server run against a real
//! one, in `events.rs`, `reservations.rs` and `seats.rs`.
#![allow(clippy::unwrap_used)]

mod environment;
mod events;
mod live;
mod output;
mod reservations;
mod seats;

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use inventory_api::VARIABLES;
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_testkit::refusing_address;
use inventory_testkit::restriction::{deny_io_uring, limit_locked_memory};
use inventory_testkit::server::{CommandOutput, ServerCommand, command, program};

const OK: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(64);

fn run(args: &[&str]) -> CommandOutput {
    run_with(args, &[])
}

fn run_with(args: &[&str], variables: &[(&str, &str)]) -> CommandOutput {
    let mut command = command(args);
    command.envs(variables.iter().copied());
    ServerCommand::from(command).run()
}

#[track_caller]
fn assert_has(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "no {needle:?} in:\n{text}");
    }
}

// ---- Help, version, usage -----------------------------------------------------------------------

#[test]
fn no_command_prints_help() {
    let bare = run(&[]);
    assert_eq!(bare.code, OK);
    assert_has(
        &bare.out,
        &[
            "dev",
            "demo",
            "serve",
            "tables",
            "event",
            "seats",
            "reservation",
            "export",
            "check",
            "health",
            "completions",
            "Exit codes",
        ],
    );
    assert!(!bare.out.contains('\x1b'), "colours in a pipe");
    assert_eq!(bare.err, "");
    assert_eq!(run(&["--help"]).out.trim(), bare.out.trim());
}

#[test]
fn every_command_has_help() {
    for args in [
        &["dev"][..],
        &["demo"],
        &["serve"],
        &["tables"],
        &["tables", "create"],
        &["tables", "check"],
        &["event"],
        &["event", "create"],
        &["event", "show"],
        &["event", "list"],
        &["event", "restock"],
        &["event", "close"],
        &["seats"],
        &["seats", "import"],
        &["seats", "list"],
        &["seats", "block"],
        &["seats", "unblock"],
        &["reservation"],
        &["reservation", "show"],
        &["reservation", "refund"],
        &["export"],
        &["check"],
        &["log-level"],
        &["health"],
        &["completions"],
    ] {
        let ran = run(&[args, &["--help"]].concat());
        assert_eq!(ran.code, OK, "{args:?}: {}", ran.err);
        assert_has(&ran.out, &["Usage: inventory-api"]);
    }
}

#[test]
fn help_of_serve_lists_every_variable_with_default_and_bounds() {
    let (short, long) = (run(&["serve", "-h"]).out, run(&["serve", "--help"]).out);
    for variable in VARIABLES.iter().flat_map(|group| group.variables) {
        assert_has(&short, &[variable.name(), variable.default(), variable.about()]);
        assert_has(&long, &[variable.name(), &variable.expected()]);
    }
    assert_has(&short, &["AWS_ENDPOINT_URL_DYNAMODB"]);
    let widest = short.lines().map(|line| line.chars().count()).max();
    assert!(widest < Some(101), "a line of {widest:?} characters");
}

#[test]
fn version_is_that_of_the_package_and_its_revision() {
    let ran = run(&["--version"]);
    assert_eq!(ran.code, OK);
    let start = format!("inventory-api {} (", env!("CARGO_PKG_VERSION"));
    let revision = ran.out.strip_prefix(&start).unwrap_or_else(|| panic!("{}", ran.out));
    let revision = revision.strip_suffix(")\n").unwrap();
    let is_hash = |text: &str| text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(revision == "unknown" || is_hash(revision.trim_end_matches("-dirty")), "{revision}");
}

#[test]
fn closed_pipe_does_not_panic() {
    let mut ran = Command::new("sh");
    ran.arg("-c")
        .arg("\"$0\" serve --help | true; \"$0\" health --server 127.0.0.1:1 2>&1 | true")
        .arg(program());
    let ran = ServerCommand::from(ran).run();
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn unknown_option_of_a_server_names_the_settings() {
    for args in [&["dev", "--port", "8090"][..], &["serve", "--port=8090"]] {
        let ran = run(args);
        assert_eq!(ran.code, USAGE);
        assert_has(&ran.err, &["--port", "environment variables", "GRPC_PORT=8090"]);
    }
    let ran = run(&["event", "list", "--port", "1"]);
    assert!(!ran.err.contains("environment variables"), "{}", ran.err);
    assert_has(&run(&["dev", "--help"]).out, &["GRPC_PORT=8090", "GRPC_HOST"]);
}

#[test]
fn usage_errors_exit_with_64() {
    for (args, needle) in [
        (&["sell"][..], "sell"),
        (&["tables"], "create"),
        (&["event"], "show"),
        (&["event", "create"], "<ID>"),
        (&["event", "create", "evt_1"], "--total"),
        (&["event", "create", "a b", "--total", "1"], "[A-Za-z0-9._:-]"),
        (&["event", "create", "evt_1", "--total", "0"], "1..=1000000000"),
        (&["event", "create", "evt_1", "--total", "9", "--stripes", "65"], "1..=64"),
        (&["event", "create", "evt_1", "--total", "9", "--stripes", "many"], "nor auto"),
        (&["event", "create", "evt_1", "--total", "3", "--stripes", "4"], "--stripes 4"),
        (&["event", "show", "evt_1", "--admin", "8081"], "127.0.0.1:8081"),
        (&["event", "show", "evt_1", "--admin", "ftp://h:1"], "ftp"),
        (&["event", "create", "e", "--seated", "--total", "3"], "--total"),
        (&["event", "create", "e", "--seated", "--stripes", "3"], "--stripes"),
        (&["event", "create", "e", "--total", "3", "--seat-keys", "2"], "--seat-keys"),
        (&["event", "create", "e", "--seated", "--seat-keys", "65"], "1..=64"),
        (&["event", "restock", "e"], "--total"),
        (&["event", "restock", "e", "--total", "3", "--add", "3"], "--add"),
        (&["event", "restock", "e", "--add", "0"], "1..=1000000000"),
        (&["seats", "import", "e"], "<FILE>"),
        (&["seats", "import", "e", "f.csv", "--name", "x"], "--create"),
        (&["seats", "import", "e", "no/such/file.csv"], "no/such/file.csv cannot be read"),
        (&["seats", "block", "e"], "<SEAT>"),
        (&["seats", "block", "e", "A-1", "a b"], "[A-Za-z0-9._:-]"),
        (&["seats", "block", "e", "A-1", "A-2", "A-1"], "A-1 is named twice"),
        (&["seats", "block", "e", "A-1", "--file", "x"], "--file"),
        (&["reservation", "show", "a b"], "[A-Za-z0-9._:-]"),
        (&["export", "e", "--format", "xml"], "jsonl"),
        (&["export", "e", "--raw"], "--raw needs --format csv"),
        (&["export", "e", "--out", "x.jsonl", "--no-bom"], "--no-bom needs --format csv"),
        (&["seats", "list", "e", "--state", "taken"], "available"),
        (&["export", "e", "--status", "sold"], "confirmed"),
        (&["completions", "tcsh"], "bash, zsh, fish"),
        (&["dev", "--memory", "--data", "x"], "--memory"),
        (&["demo", "--tickets", "0"], "--tickets"),
        (&["health", "--server", ""], "host:port"),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, USAGE, "{args:?}: {}", ran.err);
        assert_has(&ran.err, &[needle]);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[test]
fn completions_contain_every_command() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let ran = run(&["completions", shell]);
        assert_eq!(ran.code, OK, "{}", ran.err);
        assert_has(&ran.out, &[mark, "reservation", "unblock", "restock", "seat-keys"]);
    }
}

// ---- Settings -----------------------------------------------------------------------------------

#[test]
fn all_invalid_settings_are_reported_together() {
    let vars = [
        ("GRPC_PORT", "eighty"),
        ("DDB_TIMEOUT", "200"),
        ("IDEMPOTENCY_TTL_SECONDS", "soon"),
        ("SHARDS", "0..4096"),
    ];
    for args in [&["serve"][..], &["dev", "--memory"], &["demo"], &["check"]] {
        let ran = run_with(args, &vars);
        assert_eq!(ran.code, USAGE, "{args:?}: {}", ran.err);
        assert_has(&ran.err, &["4 settings", "0 to 65535", "1ms to 30s", "GRPC_PORT=8080"]);
        for (name, value) in vars {
            assert_has(&ran.err, &[&format!("{name}={value:?}")]);
        }
    }
}

#[test]
fn commands_check_only_the_settings_they_use() {
    let address = refusing_address();
    let admin = address.to_string();
    let ran = run_with(&["event", "show", "evt_1", "--admin", &admin], &[("GRPC_PORT", "x")]);
    assert_eq!(ran.code, FAILED, "{}", ran.err);
    let ran = run_with(&["event", "show", "evt_1"], &[("ADMIN_PORT", "x")]);
    assert_eq!(ran.code, USAGE);
    assert_has(&ran.err, &["ADMIN_PORT=\"x\""]);
    let ran = run_with(&["health"], &[("GRPC_PORT", "x")]);
    assert_eq!(ran.code, USAGE);
    let ran = run_with(&["tables", "check"], &[("DDB_TABLE_SEATS", "x")]);
    assert_eq!(ran.code, USAGE);
}

#[test]
fn unknown_address_must_be_given_as_an_option() {
    for (args, name, value, option) in [
        (&["event", "show", "e"][..], "ADMIN_PORT", "off", "--admin"),
        (&["event", "show", "e"], "ADMIN_PORT", "0", "--admin"),
        (&["health"], "GRPC_PORT", "0", "--server"),
    ] {
        let ran = run_with(args, &[(name, value)]);
        assert_eq!(ran.code, USAGE, "{}", ran.err);
        assert_has(&ran.err, &[&format!("{name}={value}"), option]);
    }
}

// ---- Commands that call a server ----------------------------------------------------------------------------

#[test]
fn refused_connection_says_how_to_start_a_server() {
    let address = refusing_address();
    let port = address.port().to_string();
    for (args, name) in [
        (&["event", "show", "evt_1"][..], "ADMIN_PORT"),
        (&["event", "create", "evt_1", "--total", "10"], "ADMIN_PORT"),
        (&["event", "list"], "ADMIN_PORT"),
        (&["seats", "block", "evt_1", "A-1"], "ADMIN_PORT"),
        (&["reservation", "refund", "res_1"], "ADMIN_PORT"),
        (&["export", "evt_1"], "ADMIN_PORT"),
        (&["health"], "GRPC_PORT"),
    ] {
        let ran = run_with(args, &[(name, &port)]);
        assert_eq!(ran.code, FAILED, "{}", ran.err);
        let expected = format!("no server answers at http://127.0.0.1:{port}: start one, with");
        assert_has(&ran.err, &[&expected, "`inventory-api serve`", "`inventory-api dev`"]);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn address_of_another_port_is_named() {
    let live = live::LiveServer::start();
    let (metrics, grpc) = (&live.server.metrics, &live.server.grpc);
    for (args, expected) in [
        (&["event", "list", "--admin", metrics][..], "is not an admin port"),
        (&["event", "list", "--admin", grpc], "is not an admin port"),
        (&["export", "evt_1", "--admin", metrics], "is not an admin port"),
        (&["verify", "evt_1", "--admin", metrics], "is not an admin port"),
        (&["health", "--server", metrics], "is not a gRPC port"),
        (&["top", "--once", "--metrics", grpc], "METRICS_PORT"),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, FAILED, "{args:?}");
        assert_has(&ran.err, &[expected]);
        assert!(!ran.err.contains("transport error"), "{}", ran.err);
    }
}

#[test]
fn server_on_loopback_says_so() {
    let banner = |variables: &[(&str, &str)]| {
        let mut command = ServerCommand::dev_in_memory();
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let server = command.start();
        (server.grpc.clone(), server.banner.clone())
    };
    let (_, everywhere) = banner(&[]);
    assert_has(&everywhere, &["network   gRPC on all interfaces (GRPC_HOST)", "no authentication"]);
    let (grpc, loopback) = banner(&[("GRPC_HOST", "127.0.0.2")]);
    assert!(grpc.starts_with("127.0.0.2:"), "{grpc}");
    assert_has(&loopback, &["network   gRPC on loopback (GRPC_HOST)"]);
}

#[test]
fn health_times_out_on_a_silent_server() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let ran = run(&["health", "--server", &address]);
    assert_eq!(ran.code, FAILED);
    assert_has(&ran.err, &[&address, "did not answer"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// Runs `test` with the address of a server that has the health service only.
fn with_health_server(test: impl FnOnce(&str)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address_of, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        runtime.block_on(async {
            let (reporter, health) = tonic_health::server::health_reporter();
            reporter.set_service_status("asleep", tonic_health::ServingStatus::NotServing).await;
            let incoming =
                tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap())
                    .unwrap();
            address_of.send(incoming.local_addr().unwrap()).unwrap();
            tonic::transport::Server::builder()
                .add_service(health)
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = stopped.await;
                })
                .await
                .unwrap();
        });
    });
    test(&address.recv().unwrap().to_string());
    drop(stop);
    server.join().unwrap();
}

#[test]
fn health_sets_the_exit_code() {
    with_health_server(|server| {
        let ran = run(&["health", "--server", server]);
        assert_eq!(ran.code, OK, "{}", ran.err);
        assert_has(&ran.out, &["serves"]);
        for (service, needle) in [("asleep", "NOT_SERVING"), ("nowhere", "no service")] {
            let ran = run(&["health", "--server", server, "--service", service]);
            assert_eq!(ran.code, FAILED);
            assert_has(&ran.err, &[needle]);
        }
    });
}

// ---- Preflight -----------------------------------------------------

const FREE_PORTS: [(&str, &str); 4] = [
    ("GRPC_PORT", "0"),
    ("METRICS_PORT", "0"),
    ("ADMIN_PORT", "0"),
    // No DynamoDB there: the checks of the machine must not wait for it.
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
];

/// Credentials for an engine that verifies no signatures.
const LOCAL_KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")];

/// `check` in a process that `prepare` restricts.
fn check_in(prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> CommandOutput {
    let mut command = command(&["check"]);
    // SAFETY: `prepare` runs between fork and exec and only makes system calls: every caller here
    // passes a closure that neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
    command.envs(FREE_PORTS).envs(LOCAL_KEYS);
    ServerCommand::from(command).run()
}

#[test]
fn tables_are_created_and_checked() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let url = format!("http://{}", engine.address());
    let run = |args: &[&str]| {
        let mut command = command(args);
        command.envs(FREE_PORTS).envs(LOCAL_KEYS);
        command.env("AWS_ENDPOINT_URL", &url);
        ServerCommand::from(command).run()
    };

    let missing = run(&["tables", "check"]);
    assert_eq!(missing.code, FAILED);
    assert_has(&missing.out, &["table inventory_seats: is missing", "tables create"]);
    let unready = run(&["check"]);
    assert_eq!(unready.code, FAILED);
    assert_has(&lines_of(&unready.out, "tables").join("\n"), &["wrong", "tables create"]);

    let made = run(&["tables", "create"]);
    assert_eq!(made.code, OK, "{}", made.err);
    assert_has(&made.out, &["table inventory created", "table idempotency created"]);
    assert_has(&run(&["tables", "create"]).out, &["nothing to create"]);

    let fine = run(&["tables", "check"]);
    assert_eq!(fine.code, OK, "{}{}", fine.out, fine.err);
    assert_has(&fine.out, &["as the server needs them"]);
    let ready = run(&["check"]);
    assert_eq!(ready.code, OK, "{}", ready.out);
    assert_has(&ready.out, &["ready to serve", &url]);
    engine.stop();
}

#[test]
fn unreachable_store_is_reported_with_the_remedy() {
    let address = refusing_address();
    let url = format!("http://{address}");
    for args in [&["check"][..], &["tables", "create"], &["tables", "check"]] {
        let mut command = command(args);
        command.envs(FREE_PORTS).envs(LOCAL_KEYS);
        command.env("AWS_ENDPOINT_URL", &url);
        let ran = ServerCommand::from(command).run();
        assert_eq!(ran.code, FAILED, "{args:?}");
        let said = ran.out + &ran.err;
        assert_has(&said, &["AWS_REGION"]);
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// The line of a check and the remedies below the line.
fn lines_of<'t>(report: &'t str, name: &str) -> Vec<&'t str> {
    let mut lines = report.lines().skip_while(|line| !line.starts_with(name));
    let first = lines.next().unwrap_or_else(|| panic!("no {name:?} in:\n{report}"));
    let remedies = lines.take_while(|line| line.starts_with(' '));
    std::iter::once(first).chain(remedies).collect()
}

#[test]
fn check_passes_on_a_suitable_machine() {
    let ran = check_in(|| Ok(()));
    for name in ["kernel", "io_uring", "locked memory", "GRPC_PORT", "METRICS_PORT", "ADMIN_PORT"] {
        assert_has(lines_of(&ran.out, name)[0], &[" ok "]);
    }
}

#[test]
fn check_reports_a_port_in_use() {
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let mut command = command(&["check"]);
    command.envs(FREE_PORTS).envs(LOCAL_KEYS);
    command.env("METRICS_PORT", &port);
    let ran = ServerCommand::from(command).run();
    assert_eq!(ran.code, FAILED);
    let lines = lines_of(&ran.out, "METRICS_PORT").join("\n");
    assert_has(&lines, &["wrong", &port, &format!("ss -ltnp 'sport = :{port}'"), "METRICS_PORT=0"]);
    assert_has(&ran.out, &["things are wrong: METRICS_PORT, DynamoDB", "\nmachine: kernel"]);
}

#[test]
fn check_reports_a_low_memlock_limit() {
    let ran = check_in(|| limit_locked_memory(64 * 1024));
    assert_eq!(ran.code, FAILED, "{}", ran.out);
    for name in ["io_uring", "locked memory"] {
        let lines = lines_of(&ran.out, name).join("\n");
        assert_has(&lines, &["wrong", "RLIMIT_MEMLOCK", "64 KiB", "512 KiB", "memlock="]);
    }
    // Without io_uring the store is not checked.
    let store = lines_of(&ran.out, "DynamoDB")[0];
    assert_has(store, &["note", "not asked"]);
    assert_has(&ran.out, &["locked memory 64 KiB"]);
}

#[test]
fn check_reports_a_seccomp_filter() {
    for (errno, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        let ran = check_in(move || deny_io_uring(errno));
        assert_eq!(ran.code, FAILED, "{}", ran.out);
        let lines = lines_of(&ran.out, "io_uring").join("\n");
        assert_has(&lines, &["wrong", "seccomp filter", name, "io_uring_setup", "seccomp"]);
        assert_has(&ran.out, &["a seccomp filter, "]);
    }
}
