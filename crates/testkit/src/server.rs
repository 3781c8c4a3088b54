//! Processes of `inventory-api`: servers on free ports, found by their banner and killed when dropped, and
//! commands that run to their end. The output is read as it is written, so that no process blocks on a full pipe.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use inventory_process::ProcessLog;
use inventory_process::{ChildProcess, allowed_cpus, banner_address};

use crate::DEADLINE;

/// The program that Cargo built together with the running test.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let program = test.parent().unwrap().with_file_name("inventory-api");
    assert!(program.is_file(), "{} is not built", program.display());
    program
}

/// The program with an empty environment. The process dies with the thread that starts it.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env_clear().stdin(Stdio::null());
    // SAFETY: prctl with these numbers takes integers only, allocates nothing and locks nothing.
    unsafe {
        command.pre_exec(|| {
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command
}

/// Number of shards of a [`ServerCommand`]: 2, or 1 if only one CPU is allowed.
pub fn shards() -> usize {
    allowed_cpus().unwrap().len().min(2)
}

/// Reports a test that this machine cannot run. `.ci/run` counts the lines, which bypass the capture of the test harness.
pub fn report_skipped(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "\nSKIP {test}: {why}");
}

/// Command line and environment of a process that is not started yet.
pub struct ServerCommand {
    pub command: Command,
}

impl ServerCommand {
    /// `args` on free ports, with at most two shards and a store timeout that a busy machine keeps.
    pub fn new(args: &[&str]) -> Self {
        Self::from(command(args))
            .env("GRPC_PORT", "0")
            .env("METRICS_PORT", "0")
            .env("ADMIN_PORT", "0")
            .env("SHARDS", &shards().to_string())
            .env("DDB_TIMEOUT", "5s")
    }

    /// `dev` with the embedded engine in memory.
    pub fn dev_in_memory() -> Self {
        Self::new(&["dev", "--memory"])
    }

    /// `dev` with the embedded engine in `directory`.
    pub fn dev_in_directory(directory: &Path) -> Self {
        Self::new(&["dev", "--data", directory.to_str().unwrap()])
    }

    /// `args`, `serve` for example, with the store at `store`.
    pub fn with_store(store: SocketAddr, args: &[&str]) -> Self {
        Self::new(args)
            .env("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://{store}"))
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_REGION", "ap-northeast-2")
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts a server and waits for its banner.
    #[track_caller]
    pub fn start(mut self) -> TestServer {
        let child = spawn(&mut self.command);
        let is_complete = child.out.wait_for(|banner| banner.contains("\n  shards  "));
        let (banner, log) = (child.out.text(), child.err.clone());
        let addresses = ["gRPC", "metrics", "admin"].map(|label| banner_address(&banner, label));
        let [Some(grpc), Some(metrics), Some(admin)] = addresses else {
            panic!("no banner (complete: {is_complete}):\n{banner}\n{}", log.text());
        };
        TestServer { child, grpc, metrics, admin, log, banner }
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If the command does not exit by itself.
    #[track_caller]
    pub fn run(self) -> CommandOutput {
        self.run_with_input("")
    }

    /// [`ServerCommand::run`] with `input` on standard input.
    #[track_caller]
    pub fn run_with_input(mut self, input: &str) -> CommandOutput {
        self.command.stdin(Stdio::piped());
        let mut child = spawn(&mut self.command);
        let (out, err) = (child.out.clone(), child.err.clone());
        // A command that does not read all of it closes the pipe.
        let _ = child.take_stdin().unwrap().write_all(input.as_bytes());
        let Some(status) = child.wait_blocking(DEADLINE * 2).unwrap() else {
            panic!("no exit:\n{}\n{}", out.text(), err.text());
        };
        out.wait_for(|_| false);
        err.wait_for(|_| false);
        CommandOutput { code: status.code(), out: out.text(), err: err.text() }
    }
}

impl From<Command> for ServerCommand {
    fn from(command: Command) -> Self {
        Self { command }
    }
}

fn spawn(command: &mut Command) -> ChildProcess {
    ChildProcess::spawn(command.stderr(Stdio::piped())).unwrap()
}

/// What a command printed and its exit code.
#[derive(Debug)]
pub struct CommandOutput {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    #[track_caller]
    pub fn assert_error_names(&self, needles: &[&str]) {
        for needle in needles {
            assert!(self.err.contains(needle), "no {needle:?} in:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// A running server.
pub struct TestServer {
    child: ChildProcess,
    /// `host:port` of each port.
    pub grpc: String,
    pub metrics: String,
    pub admin: String,
    /// Standard error.
    pub log: ProcessLog,
    /// What it printed at its start.
    pub banner: String,
}

impl TestServer {
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub fn signal(&self, signal: libc::c_int) {
        self.child.signal(signal).unwrap();
    }

    /// Checks that the process has not exited.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let status = self.child.status().unwrap();
        assert!(status.is_none(), "exited with {status:?}:\n{}", self.log.text());
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill(self) {
        drop(self);
    }

    /// Waits for the exit; returns how long that took, and the status. Clients of the same test run meanwhile:
    /// a server that drains waits for clients that have not read its GOAWAY.
    pub async fn wait_for_exit(&mut self) -> (Duration, ExitStatus) {
        let began = Instant::now();
        let Some(status) = self.child.wait(DEADLINE).await.unwrap() else {
            panic!("no exit:\n{}", self.log.text());
        };
        (began.elapsed(), status)
    }

    /// Sends SIGTERM and expects exit code 0.
    pub async fn stop(mut self) {
        self.signal(libc::SIGTERM);
        let (_, status) = self.wait_for_exit().await;
        assert_eq!(status.code(), Some(0), "{}", self.log.text());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (address, log) = (&self.grpc, self.log.text());
            eprintln!("log of the server at {address}:\n{log}");
        }
    }
}
