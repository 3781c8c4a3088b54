//! `top` with a real server: its values are those of the server, and the terminal modes are restored.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use inventory_testkit::server::{ServerCommand, TestServer, command};
use inventory_testkit::{DEADLINE, terminal};
use serde_json::Value;

use crate::client::*;

const EVENT: &str = "evt_top";

async fn sold(count: usize) -> TestServer {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, 1_000, 2).await;
    let mut client = client(&server).await;
    for n in 0..count {
        let commit = commit(&format!("t{n}"), EVENT, 2);
        client.commit_reservation(with_deadline(commit)).await.unwrap();
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn once_reports_the_difference_of_two_scrapes() {
    let server = sold(3).await;
    // The units of an event are read after the scrape that named it.
    until("the units are known", async || {
        let metrics = MetricsSample::scrape(&server).await;
        metrics.get(&format!(r#"inventory_event_units{{event_id="{EVENT}",state="sold"}}"#)) == 6.0
    })
    .await;
    let arguments = ["top", "--once", "--json", "--every", "2s", "--metrics", &server.metrics];
    let top = std::thread::spawn({
        let mut command = command(&arguments);
        move || command.output().unwrap()
    });
    let mut client = client(&server).await;
    let mut made = 0;
    while !top.is_finished() {
        client.check_availability(with_deadline(check(EVENT, 1))).await.unwrap();
        made += 1;
    }
    let ran = top.join().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["ready"], true, "{report:#}");
    assert_eq!(report["invariant_breaches"], 0);
    let methods = report["methods"].as_array().unwrap();
    let method = |name: &str| methods.iter().find(|one| one["method"] == name).unwrap();
    // At most the calls made while `top` ran.
    let seconds = report["over_seconds"].as_f64().unwrap();
    let checks = method("CheckAvailability")["calls_per_second"].as_f64().unwrap() * seconds;
    assert!((2.0..DEADLINE.as_secs_f64()).contains(&seconds), "{seconds}");
    assert!(checks > 0.0 && checks <= f64::from(made) + 0.5, "{checks} of {made}");
    assert!(method("CheckAvailability")["p95_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(method("CommitReservation")["calls_per_second"], 0.0);
    let event = &report["events"][0];
    assert_eq!((&event["event_id"], &event["total"]), (&EVENT.into(), &1_000.into()));
    assert_eq!((&event["taken"], &event["remaining"]), (&6.into(), &994.into()));
    assert_eq!((&event["held"], &event["sold"]), (&0.into(), &6.into()));
    let shards = report["shards"].as_array().unwrap();
    let shard_calls: f64 =
        shards.iter().map(|one| one["requests_per_second"].as_f64().unwrap()).sum();
    assert!(shard_calls > 0.0, "{report:#}");

    let ran = command(&["top", "--once", "--every", "250ms", "--metrics", &server.metrics])
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    for needle in ["ready", "shard 0", "CheckAvailability", EVENT, "994"] {
        assert!(text.contains(needle), "no {needle} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no escapes without a terminal");
}

#[tokio::test]
async fn address_without_metrics_is_reported() {
    let server = ServerCommand::dev_in_memory().start();
    // The port of clients is HTTP/2 only.
    for address in [&server.grpc, "127.0.0.1:1"] {
        let ran =
            command(&["top", "--once", "--every", "250ms", "--metrics", address]).output().unwrap();
        let error = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{error}");
        assert!(error.contains(address), "{error}");
    }
    let ran = command(&["top", "--metrics", &server.metrics]).output().unwrap();
    let error = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(64), "{error}");
    assert!(error.contains("--once"), "{error}");
    let ran = command(&["top", "--every", "10ms"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(64));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("250ms"));
}

/// Whether the terminal has line editing and echo.
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
    /// The end of the program.
    modes: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(server: &TestServer) -> Self {
        let (ours, theirs) = terminal::open_with_size(40, 100);
        let ours = File::from(ours);
        assert!(is_cooked(&theirs), "initial modes");
        let end = || theirs.try_clone().unwrap();
        let child = command(&["top", "--every", "250ms", "--metrics", &server.metrics])
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut screen, output) = (ours.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = screen.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                output.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, keys: ours, modes: theirs, seen }
    }

    fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.seen.lock().unwrap().contains(text) {
            assert!(Instant::now() < deadline, "no {text} in {:?}", self.seen.lock().unwrap());
            std::thread::yield_now();
        }
    }

    fn press(&mut self, key: &[u8]) {
        self.keys.write_all(key).unwrap();
    }

    fn is_cooked(&self) -> bool {
        is_cooked(&self.modes)
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "no exit");
            std::thread::yield_now();
        }
    }
}

/// Leaves the alternate screen.
const MAIN_SCREEN: &str = "\u{1b}[?1049l";

#[tokio::test(flavor = "multi_thread")]
async fn terminal_is_restored_after_top() {
    let server = sold(2).await;
    let mut terminal = Terminal::run(&server);
    terminal.wait_for("SHARDS");
    terminal.wait_for(EVENT);
    assert!(!terminal.is_cooked());
    terminal.press(b"?");
    terminal.wait_for("rejected by admission");
    terminal.press(b"q");
    assert!(terminal.wait_for_exit().success());
    assert!(terminal.is_cooked());
    terminal.wait_for(MAIN_SCREEN);

    // SIGTERM, after the server has stopped.
    let mut terminal = Terminal::run(&server);
    terminal.wait_for("SHARDS");
    server.stop().await;
    terminal.wait_for("no metrics for");
    let pid = libc::pid_t::try_from(terminal.child.id()).unwrap();
    // SAFETY: kill takes two integers; the process is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert!(terminal.wait_for_exit().success());
    assert!(terminal.is_cooked());
    terminal.wait_for(MAIN_SCREEN);
}
