//! Output that cannot be written, files that are written, and what reaches a terminal.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use inventory_testkit::server::{ServerCommand, command};
use inventory_testkit::{DEADLINE, terminal};

use crate::live::LiveServer;
use crate::reservations::{commit, commit_paid};
use crate::{FAILED, OK, USAGE, assert_has};

/// Commands that print, without a server.
const PRINTING: [&[&str]; 6] =
    [&[], &["--help"], &["--version"], &["serve", "--help"], &["completions", "bash"], &["check"]];

/// Commands that print the answer of a server.
const ASKING: [&[&str]; 10] = [
    &["event", "create", "evt_1", "--total", "100"],
    &["event", "create", "evt_1", "--total", "100", "--json"],
    &["event", "list"],
    &["event", "list", "--json"],
    &["event", "show", "evt_1"],
    &["event", "show", "evt_1", "--json"],
    &["event", "restock", "evt_1", "--total", "100"],
    &["reservation", "show", "res_1"],
    &["export", "evt_1"],
    &["export", "evt_1", "--format", "csv", "--out", "-"],
];

/// More of them, for an event with a reservation.
const AUDITING: [&[&str]; 5] = [
    &["verify", "evt_1"],
    &["verify", "evt_1", "--json"],
    &["reconcile", "evt_1"],
    &["log-level"],
    &["reservation", "show", "res_1", "--json"],
];

/// Exit code, or the signal that ended the process, and standard error.
fn run_into(mut command: Command, stdout: impl Into<Stdio>) -> (Option<i32>, Option<i32>, String) {
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), output.status.signal(), err)
}

fn full_device() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[track_caller]
fn assert_unwritten(args: &[&str], ran: (Option<i32>, Option<i32>, String)) {
    let (code, _, err) = ran;
    assert_eq!(code, FAILED, "{args:?}: {err}");
    assert_has(&err, &["standard output cannot be written", "No space left"]);
    assert!(!err.contains("panicked"), "{args:?}: {err}");
}

#[track_caller]
fn assert_quiet(args: &[&str], ran: (Option<i32>, Option<i32>, String)) {
    // As the coreutils end.
    assert_eq!(ran, (None, Some(libc::SIGPIPE), String::new()), "{args:?}");
}

#[test]
fn unwritable_output_is_reported_by_every_command() {
    let live = LiveServer::start();
    live.ok(ASKING[0]);
    commit(&live, "evt_1", "res_1", 2, &[]);
    for args in PRINTING {
        assert_unwritten(args, run_into(command(args), full_device()));
        assert_quiet(args, run_into(command(args), closed_pipe()));
    }
    for args in ASKING.iter().chain(&AUDITING) {
        assert_unwritten(args, run_into(live.command(args), full_device()));
        assert_quiet(args, run_into(live.command(args), closed_pipe()));
    }
    let health = ["health", "--server", &live.server.grpc];
    assert_unwritten(&health, run_into(command(&health), full_device()));
    let top = ["top", "--once", "--every", "250ms", "--metrics", &live.server.metrics];
    assert_unwritten(&top, run_into(command(&top), full_device()));
    assert_quiet(&top, run_into(command(&top), closed_pipe()));
    // A descriptor for reading only.
    let (code, _, err) = run_into(command(&["--version"]), File::open("/dev/null").unwrap());
    assert_eq!(code, FAILED);
    assert_has(&err, &["standard output cannot be written", "Bad file descriptor"]);
}

#[test]
fn large_exports_end_with_their_reader() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "1000"]);
    // More than the buffers of a writer hold.
    for number in 0..150 {
        commit(&live, "evt_1", &format!("{number:0>128}"), 1, &[]);
    }
    let csv = ["export", "evt_1", "--format", "csv"];
    for args in [&["export", "evt_1"][..], &csv, &[&csv[..], &["--out", "-"]].concat()] {
        assert_quiet(args, run_into(live.command(args), closed_pipe()));
        assert_unwritten(args, run_into(live.command(args), full_device()));
    }
}

#[test]
fn demo_ends_with_its_reader() {
    let demo = ["demo", "--tickets", "500"];
    assert_quiet(&demo, run_into(ServerCommand::new(&demo).command, closed_pipe()));
    assert_unwritten(&demo, run_into(ServerCommand::new(&demo).command, full_device()));

    // A reader that leaves during the sale ends it: the whole one would take minutes.
    let mut command = ServerCommand::new(&["demo", "--tickets", "1000000"]).command;
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut first = [0; 1];
    running.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while running.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            running.kill().unwrap();
            panic!("the sale goes on without its reader");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = running.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_quiet(&["demo"], (output.status.code(), output.status.signal(), err));
}

#[test]
fn banner_never_stops_the_server() {
    for stdout in [full_device().into(), closed_pipe()] {
        let port = free_port();
        let mut server = ServerCommand::dev_in_memory().env("GRPC_PORT", &port).command;
        let mut server = server.stdout(stdout).stderr(Stdio::null()).spawn().unwrap();
        let address = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + DEADLINE;
        while ServerCommand::from(command(&["health", "--server", &address])).run().code != OK {
            assert!(server.try_wait().unwrap().is_none(), "the server has stopped");
            assert!(Instant::now() < deadline, "the server does not serve");
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// A port that was free a moment ago.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

// ---- Files ----------------------------------------------------------------------------------------

fn export_to(live: &LiveServer, path: &Path) -> inventory_testkit::server::CommandOutput {
    live.run(&["export", "evt_1", "--format", "csv", "--out", path.to_str().unwrap()])
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A server with an event of one reservation.
fn live_event() -> LiveServer {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "100"]);
    commit(&live, "evt_1", "res_1", 2, &[]);
    live
}

#[test]
fn export_replaces_files_and_writes_through_everything_else() {
    let live = live_event();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let is_export = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.starts_with("\u{feff}reservation_id,")
            && text.contains("res_1")
            && text.lines().count() == 2
    };

    // A file keeps its mode, and gets another content at once.
    fs::write(at("kept.csv"), "old\n".repeat(1_000)).unwrap();
    fs::set_permissions(at("kept.csv"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(at("kept.csv")).unwrap();
    assert_eq!(export_to(&live, &at("kept.csv")).code, OK);
    let after = fs::metadata(at("kept.csv")).unwrap();
    assert!(is_export(&at("kept.csv")));
    assert_eq!(after.mode(), before.mode());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());

    // A link stays a link, also to a name that does not exist yet.
    symlink("kept.csv", at("link.csv")).unwrap();
    symlink("new.csv", at("dangling.csv")).unwrap();
    for (link, target) in [("link.csv", "kept.csv"), ("dangling.csv", "new.csv")] {
        assert_eq!(export_to(&live, &at(link)).code, OK);
        assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink());
        assert!(is_export(&at(target)));
    }

    // Both names of a file stay names of one file.
    fs::hard_link(at("kept.csv"), at("second.csv")).unwrap();
    fs::write(at("second.csv"), "old\n").unwrap();
    assert_eq!(export_to(&live, &at("kept.csv")).code, OK);
    assert!(is_export(&at("second.csv")));

    // Devices and pipes are written through.
    assert_eq!(export_to(&live, Path::new("/dev/null")).code, OK);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let full = export_to(&live, Path::new("/dev/full"));
    assert_eq!(full.code, FAILED);
    assert_has(&full.err, &["/dev/full cannot be written", "No space left"]);
    let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    assert_eq!(export_to(&live, &at("pipe")).code, OK);
    // A program reads the pipe.
    let piped = reader.join().unwrap();
    assert!(piped.starts_with("reservation_id,") && piped.contains("res_1"), "{piped}");

    // Standard output, under three names.
    for name in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        let out = live.ok(&["export", "evt_1", "--format", "csv", "--out", name]);
        assert_has(&out, &["reservation_id,", "res_1"]);
    }
    let expected = ["dangling.csv", "kept.csv", "link.csv", "new.csv", "pipe", "second.csv"];
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn unwritable_file_names_are_refused() {
    let live = live_event();
    let dir = tempfile::tempdir().unwrap();
    for (path, expected) in [
        (dir.path().to_owned(), "is a directory"),
        (dir.path().join("no/such/out.csv"), "No such file"),
    ] {
        let ran = export_to(&live, &path);
        assert_eq!(ran.code, FAILED);
        assert_has(&ran.err, &[path.to_str().unwrap(), expected]);
    }
}

#[test]
fn file_that_another_program_writes_is_not_replaced() {
    let live = live_event();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.csv");
    fs::write(&path, "old").unwrap();
    let lock = OpenOptions::new().write(true).open(&path).unwrap();
    lock.lock().unwrap();
    let ran = export_to(&live, &path);
    assert_eq!(ran.code, FAILED);
    assert_has(&ran.err, &["out.csv is being written by another command"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    drop(lock);
    assert_eq!(export_to(&live, &path).code, OK);
    assert_eq!(names(dir.path()), ["out.csv"]);
}

/// Passes bytes between two connections until one ends.
fn splice(one: TcpStream, other: TcpStream) {
    let directions = [
        (one.try_clone().unwrap(), other.try_clone().unwrap()),
        (other.try_clone().unwrap(), one.try_clone().unwrap()),
    ];
    for (mut from, mut to) in directions {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

#[test]
fn exports_to_one_new_name_never_mix() {
    let live = live_event();
    live.ok(&["event", "create", "evt_2", "--total", "100"]);
    for n in 0..50 {
        commit(&live, "evt_1", &format!("more_{n}"), 1, &[]);
        commit(&live, "evt_2", &format!("reservation_with_a_longer_id_{n}"), 1, &[]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.csv");
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gate.local_addr().unwrap().to_string();
    let events = ["evt_1", "evt_2"];
    let children = events.map(|event| {
        let out = ["--no-bom", "--out", path.to_str().unwrap()];
        let args = ["export", event, "--format", "csv", "--admin", &address];
        let mut command = command(&[&args[..], &out].concat());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    // Both have found no file of this name once they have connected.
    for connection in [gate.accept().unwrap().0, gate.accept().unwrap().0] {
        splice(connection, TcpStream::connect(&live.server.admin).unwrap());
    }
    let mut completed = Vec::new();
    for (event, child) in events.into_iter().zip(children) {
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            OK => completed.push(event),
            code => {
                assert_eq!(code, FAILED, "{err}");
                assert_has(&err, &["written by another program at the same time"]);
            }
        }
    }
    let [event] = completed[..] else { panic!("completed: {completed:?}") };
    let whole = live.ok(&["export", event, "--format", "csv"]);
    let written = fs::read_to_string(&path).unwrap();
    // The order of the rows is not promised.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&written), sorted(&whole));
    assert_eq!(names(dir.path()), ["out.csv"]);
}

#[test]
fn interrupted_export_leaves_nothing() {
    // The address accepts the connection and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.csv");
    let args = ["export", "evt_1", "--admin", &address, "--out", out.to_str().unwrap()];
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Its temporary file exists and its signals are caught once it has connected.
    let (mut connection, _) = silent.accept().unwrap();
    assert!(connection.read(&mut [0; 1]).unwrap() > 0);
    assert_eq!(names(dir.path()).len(), 1);
    // SAFETY: kill takes integers; the child is not reaped, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT));
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

// ---- Terminals and spreadsheets -------------------------------------------------------------------

#[test]
fn exported_cells_are_no_formulas_and_control_no_terminal() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "100"]);
    let formula = "=HYPERLINK(\"http://x\",\"y\")";
    assert!(commit_paid(&live, "evt_1", "-res_1", formula));
    for payment in ["a\u{1b}[2J", "\u{202e}pi", "pi\t1", "pi\0"] {
        assert!(!commit_paid(&live, "evt_1", "res_2", payment), "{payment:?}");
    }
    let csv = live.ok(&["export", "evt_1", "--format", "csv"]);
    assert_has(&csv, &["\n'-res_1,", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""]);
    let raw = live.ok(&["export", "evt_1", "--format", "csv", "--raw"]);
    assert_has(&raw, &["\n-res_1,", "\"=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""]);
    let jsonl = live.ok(&["export", "evt_1"]);
    let line: serde_json::Value = serde_json::from_str(jsonl.trim()).unwrap();
    assert_eq!(line["payment_intent_id"], formula);
    // Three fraction digits, whatever the time.
    for name in ["created_at", "changed_at"] {
        let time = line[name].as_str().unwrap();
        assert_eq!(time.split_once('.').unwrap().1.len(), 4, "{time}");
    }
    let names = [
        "event",
        "create",
        "evt_2",
        "--total",
        "5",
        "--name",
        "봄 음악회",
        "--venue",
        "예술의전당",
    ];
    live.ok(&names);
    let table = live.ok(&["event", "list"]);
    let column = |id: &str| {
        let line = table.lines().find(|line| line.starts_with(id)).unwrap();
        let before = line.split("  ").filter(|cell| !cell.is_empty()).count();
        assert_eq!(before, 6, "{line}");
        line.to_owned()
    };
    assert_has(&column("evt_2"), &["봄 음악회  예술의전당"]);
}

#[test]
fn ids_that_a_spreadsheet_would_change_are_exported_as_text() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "100"]);
    commit(&live, "evt_1", "00012345678901234567", 1, &[]);
    let args = ["export", "evt_1", "--format", "csv"];
    assert_has(&live.ok(&args), &["\n'00012345678901234567,evt_1,CONFIRMED,1,"]);
    let raw = live.ok(&[&args[..], &["--raw"]].concat());
    assert_has(&raw, &["\n00012345678901234567,"]);
}

#[test]
fn file_name_decides_the_format_and_the_rows_are_counted() {
    let live = live_event();
    let dir = tempfile::tempdir().unwrap();
    let export = |name: &str, options: &[&str]| {
        let path = dir.path().join(name);
        let args = [&["export", "evt_1", "--out", path.to_str().unwrap()], options].concat();
        let ran = live.run(&args);
        assert_eq!((ran.code, ran.out.as_str()), (OK, ""), "{}", ran.err);
        assert_has(&ran.err, &[&format!("1 reservation written to {}", path.display())]);
        fs::read_to_string(path).unwrap()
    };
    for (name, options, start) in [
        ("a.csv", &[][..], "\u{feff}reservation_id,"),
        ("b.CSV", &["--no-bom"], "reservation_id,"),
        ("c.csv", &["--format", "jsonl"], "{\"reservation_id\""),
        ("d.jsonl", &[], "{\"reservation_id\""),
        ("e", &["--format", "csv"], "\u{feff}reservation_id,"),
    ] {
        let text = export(name, options);
        assert!(text.starts_with(start), "{name}: {text}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    for (variable, is_coloured) in [("", true), ("1", false)] {
        let (terminal, slave) = terminal::open();
        let mut command = command(&["event", "show"]);
        command.env("NO_COLOR", variable).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(slave).spawn().unwrap();
        drop(command);
        assert_eq!(child.wait().unwrap().code(), USAGE);
        let text = text_on(terminal);
        assert_eq!(text.contains("\u{1b}["), is_coloured, "NO_COLOR={variable:?}: {text:?}");
        assert_has(&text, &["Usage"]);
    }
}

/// What was written to a terminal that no process has open.
fn text_on(terminal: OwnedFd) -> String {
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(terminal).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn control_characters_are_refused_and_shown_escaped() {
    let live = LiveServer::start();
    for name in ["a\u{1b}[31mb", "\u{202e}gpj.exe", "a\u{200b}b"] {
        let ran = live.run(&["event", "create", "evt_1", "--total", "5", "--name", name]);
        assert_eq!(ran.code, FAILED);
        assert_has(&ran.err, &["name has", "want no control characters"]);
        assert!(!ran.err.contains(name), "{}", ran.err);
    }
    // The name of a file that does not exist.
    let ran = live.run(&["seats", "import", "evt_1", "no\u{1b}[2J.csv"]);
    assert_eq!(ran.code, USAGE);
    assert_has(&ran.err, &["no\\u001b[2J.csv cannot be read"]);
}

// ---- Options --------------------------------------------------------------------------------------

#[test]
fn values_with_a_sign_are_refused_with_the_range() {
    for (args, range) in [
        (&["event", "create", "x", "--total", "-5"][..], "1..=1000000000"),
        (&["event", "create", "x", "--total", "9", "--stripes", "-2"], "1..=64"),
        (&["event", "create", "x", "--seated", "--seat-keys", "-1"], "1..=64"),
        (&["event", "restock", "x", "--total", "-1"], "1..=1000000000"),
        (&["event", "restock", "x", "--add", "-10"], "1..=1000000000"),
        (&["seats", "import", "x", "f", "--create", "--seat-keys", "-3"], "1..=64"),
        (&["demo", "--tickets", "-1"], "1..=1000000"),
        (&["demo", "--buyers", "-1"], "1..="),
        (&["demo", "--connections", "-1"], "2..="),
        (&["demo", "--stripes", "-1"], "1..=64"),
        (&["top", "--every", "-1s"], "250ms to 1m"),
    ] {
        let ran = ServerCommand::from(command(args)).run();
        assert_eq!(ran.code, USAGE, "{args:?}: {}", ran.err);
        let option = args[args.len() - 2];
        assert_has(&ran.err, &[args[args.len() - 1], option, range]);
        assert!(!ran.err.contains("tip:"), "{args:?}: {}", ran.err);
    }
}

// ---- Completions ----------------------------------------------------------------------------------

/// The completions that bash proposes for `words`; the last word is incomplete.
fn bash_proposals(words: &[&str]) -> Vec<String> {
    let script = r#"
source <("$PROGRAM" completions bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
entry=$(complete -p "${NAME}"); function=${entry#*-F }; function=${function%% *}
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(words)
        .env("PROGRAM", inventory_testkit::server::program())
        .env("NAME", "inventory-api")
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && err.is_empty(), "{err}");
    let proposals = String::from_utf8(output.stdout).unwrap();
    proposals.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_word() {
    if !has_shell("bash", "bash_completes_every_word") {
        return;
    }
    for program in ["inventory-api", "./inventory-api", "target/release/inventory-api"] {
        for (words, expected) in [
            (&["ev"][..], &["event"][..]),
            (&["event", ""], &["create", "show", "list", "restock", "close"]),
            (&["event", "cr"], &["create"]),
            (&["event", "create", "--to"], &["--total"]),
            (&["seats", "import", "x", "--s"], &["--seat-keys"]),
            (&["export", "evt_1", "--format", ""], &["jsonl", "csv"]),
            (&["export", "evt_1", "--status", "c"], &["confirmed"]),
            (&["log-level", "--j"], &["--json"]),
            (&["log-level", ""], &["debug", "info", "warn", "error"]),
            (&["completions", ""], &["bash", "zsh", "fish"]),
        ] {
            let words: Vec<&str> = std::iter::once(program).chain(words.iter().copied()).collect();
            let proposals = bash_proposals(&words);
            for expected in expected {
                assert!(proposals.iter().any(|one| one == expected), "{words:?}: {proposals:?}");
            }
        }
    }
}

/// Whether this machine has a shell; reports the skipped test otherwise.
fn has_shell(shell: &str, test: &str) -> bool {
    let has = Command::new(shell).arg("--version").output().is_ok();
    if !has {
        inventory_testkit::server::report_skipped(test, &format!("no {shell}"));
    }
    has
}

#[test]
fn fish_completes_every_word() {
    if !has_shell("fish", "fish_completes_every_word") {
        return;
    }
    let script = "\"$PROGRAM\" completions fish | source; complete -C \"$argv\"";
    for (line, expected) in [
        ("inventory-api ev", "event"),
        ("inventory-api event cr", "create"),
        ("inventory-api event create x --to", "--total"),
        ("inventory-api export e --format ", "jsonl"),
        ("inventory-api log-level --j", "--json"),
    ] {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", script, line]);
        fish.env("PROGRAM", inventory_testkit::server::program());
        let ran = ServerCommand::from(fish).run();
        assert!(ran.out.lines().any(|one| one.starts_with(expected)), "{line}: {ran:?}");
    }
}

#[test]
fn zsh_completes_every_word() {
    if !has_shell("zsh", "zsh_completes_every_word") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = ServerCommand::from(command(&["completions", "zsh"])).run().out;
    fs::write(dir.path().join("_inventory-api"), script).unwrap();
    // An interactive shell behind a pseudo-terminal; each read waits until the pattern appears.
    let script = r#"
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "fpath=($DIR \$fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=1000; echo rea''dy"
zpty -r z out '*ready*'
zpty -w -n z "$1"$'\t\t'
zpty -r z out "*$2*" && print found
"#;
    for (line, expected) in [
        ("inventory-api ev", "restock"),
        ("inventory-api event ", "restock"),
        ("inventory-api event create x --s", "--stripes"),
        ("inventory-api export e --format ", "jsonl"),
    ] {
        let mut zsh = Command::new("zsh");
        zsh.args(["-f", "-c", script, "zsh", line, expected]).env("DIR", dir.path());
        let ran = ServerCommand::from(zsh).run();
        assert_has(&ran.out, &["found"]);
    }
}

#[test]
fn credentials_in_addresses_are_not_printed() {
    // The last two are no URLs of a store.
    for (endpoint, code) in [
        ("http://user:s3cret@127.0.0.1:1", FAILED),
        ("htp://user:s3cret@127.0.0.1:1", USAGE),
        ("user:s3cret@127.0.0.1:1", USAGE),
    ] {
        for args in [&["check"][..], &["tables", "check"], &["tables", "create"], &["serve"]] {
            let ran = ServerCommand::new(args)
                .env("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
                .env("AWS_ACCESS_KEY_ID", "local")
                .env("AWS_SECRET_ACCESS_KEY", "s3cret")
                .run();
            let text = ran.out + &ran.err;
            assert!([FAILED, code].contains(&ran.code), "{args:?}, {endpoint}: {text}");
            assert_has(&text, &["127.0.0.1:1"]);
            assert!(!text.contains("s3cret"), "{args:?}: {text}");
        }
    }
}
