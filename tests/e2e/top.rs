//! `top` against a live server: its figures are the server's, and a terminal is left as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::client::*;
use crate::server::{Launch, PATIENCE, Server, command};

const EVENT: &str = "evt_top";

async fn sold(count: usize) -> Server {
    let server = Launch::memory().start();
    create(&server, EVENT, 1_000, 2).await;
    let mut client = client(&server).await;
    for n in 0..count {
        let commit = commit(&format!("t{n}"), EVENT, 2);
        client.commit_reservation(patient(commit)).await.unwrap();
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn once_tells_what_happened_between_two_looks() {
    let server = sold(3).await;
    // The units of an event are read after the scrape that named it.
    until("the units are known", async || {
        let figures = Figures::of(&server).await;
        figures.get(&format!(
            r#"inventory_event_units{{event_id="{EVENT}",state="taken"}}"#
        )) == 6.0
    })
    .await;
    let arguments = [
        "top",
        "--once",
        "--json",
        "--every",
        "2s",
        "--metrics",
        &server.metrics,
    ];
    let looking = std::thread::spawn({
        let mut command = command(&arguments);
        move || command.output().unwrap()
    });
    let mut client = client(&server).await;
    let mut made = 0;
    while !looking.is_finished() {
        client
            .check_availability(patient(check(EVENT, 1)))
            .await
            .unwrap();
        made += 1;
    }
    let ran = looking.join().unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(told["ready"], true, "{told:#}");
    assert_eq!(told["invariant_breaches"], 0);
    let methods = told["methods"].as_array().unwrap();
    let method = |name: &str| methods.iter().find(|one| one["method"] == name).unwrap();
    // All were made while it looked, or before its first and after its last look.
    let seconds = told["over_seconds"].as_f64().unwrap();
    let checks = method("CheckAvailability")["calls_per_second"]
        .as_f64()
        .unwrap()
        * seconds;
    assert!(
        (2.0..PATIENCE.as_secs_f64()).contains(&seconds),
        "{seconds}"
    );
    assert!(
        checks > 0.0 && checks <= f64::from(made) + 0.5,
        "{checks} of {made}"
    );
    assert!(method("CheckAvailability")["p95_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(method("CommitReservation")["calls_per_second"], 0.0);
    let event = &told["events"][0];
    assert_eq!(
        (&event["event_id"], &event["total"]),
        (&EVENT.into(), &1_000.into())
    );
    assert_eq!(
        (&event["taken"], &event["remaining"]),
        (&6.into(), &994.into())
    );
    let shards = told["shards"].as_array().unwrap();
    let shard_calls: f64 = shards
        .iter()
        .map(|one| one["requests_per_second"].as_f64().unwrap())
        .sum();
    assert!(shard_calls > 0.0, "{told:#}");

    let ran = command(&[
        "top",
        "--once",
        "--every",
        "250ms",
        "--metrics",
        &server.metrics,
    ])
    .output()
    .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    for needle in ["ready", "shard 0", "CheckAvailability", EVENT, "994"] {
        assert!(text.contains(needle), "no {needle} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no escapes without a terminal");
}

#[tokio::test]
async fn what_is_no_server_of_ours_is_named() {
    let server = Launch::memory().start();
    // The port of clients speaks HTTP/2 only, the admin port too.
    for address in [&server.grpc, "127.0.0.1:1"] {
        let ran = command(&["top", "--once", "--every", "250ms", "--metrics", address])
            .output()
            .unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains(address), "{said}");
    }
    let ran = command(&["top", "--metrics", &server.metrics])
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(64), "{said}");
    assert!(said.contains("--once"), "{said}");
    let ran = command(&["top", "--every", "10ms"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(64));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("250ms"));
}

/// Whether lines are gathered and echoed, as a shell wants it.
fn is_cooked(terminal: &OwnedFd) -> bool {
    // SAFETY: an all-zero termios is a valid one, and tcgetattr only writes to it.
    let modes = unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut modes), 0);
        modes
    };
    modes.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO
}

/// `top` in a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    /// Of the end that the program has.
    modes: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(server: &Server) -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let nothing = std::ptr::null_mut();
        // SAFETY: the two integers and the size live through the call; name and modes may be null.
        let opened =
            unsafe { libc::openpty(&mut ours, &mut theirs, nothing, nothing.cast(), &size) };
        assert_eq!(opened, 0);
        // SAFETY: both were just opened and belong to nobody else.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        assert!(is_cooked(&theirs), "as a shell finds it");
        let end = || theirs.try_clone().unwrap();
        let child = command(&["top", "--every", "250ms", "--metrics", &server.metrics])
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut screen, told) = (ours.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = screen.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                told.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self {
            child,
            keys: ours,
            modes: theirs,
            seen,
        }
    }

    fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.lock().unwrap().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text} in {:?}",
                self.seen.lock().unwrap()
            );
            std::thread::yield_now();
        }
    }

    fn press(&mut self, key: &[u8]) {
        self.keys.write_all(key).unwrap();
    }

    fn is_cooked(&self) -> bool {
        is_cooked(&self.modes)
    }

    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

/// Leaves the second screen, which hides what was there before.
const BACK: &str = "\u{1b}[?1049l";

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_drawn_on_and_left_as_it_was() {
    let server = sold(2).await;
    let mut terminal = Terminal::run(&server);
    terminal.wait_for("SHARDS");
    terminal.wait_for(EVENT);
    assert!(!terminal.is_cooked());
    terminal.press(b"?");
    terminal.wait_for("turned away at the door");
    terminal.press(b"q");
    assert!(terminal.ends().success());
    assert!(terminal.is_cooked());
    terminal.wait_for(BACK);

    // Told to end from outside, and when the server goes away first.
    let mut terminal = Terminal::run(&server);
    terminal.wait_for("SHARDS");
    server.stops().await;
    terminal.wait_for("no figures for");
    let pid = libc::pid_t::try_from(terminal.child.id()).unwrap();
    // SAFETY: kill takes two integers; the process is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert!(terminal.ends().success());
    assert!(terminal.is_cooked());
    terminal.wait_for(BACK);
}
