//! Processes of `inventory-api`: servers on free ports, found by their banner and killed when dropped, and
//! commands that run to their end. The output is read as it is written, so that no process blocks on a full pipe.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inventory_process::allowed_cpus;

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
        let (mut child, out, log) = spawn(&mut self.command);
        let address_of = |name: &str| {
            let line = out.line(&format!("  {name}"))?;
            let word = line.split_whitespace().nth(1)?;
            let word = word.trim_start_matches("http://");
            Some(word.trim_end_matches("/metrics").to_owned())
        };
        let is_complete = out.wait_for(|_| address_of("shards").is_some());
        let addresses = ["gRPC", "metrics", "admin"].map(address_of);
        let [Some(grpc), Some(metrics), Some(admin)] = addresses else {
            let _ = child.kill();
            let (out, log) = (out.text(), log.text());
            panic!("no banner (complete: {is_complete}):\n{out}\n{log}");
        };
        TestServer { child, grpc, metrics, admin, log, banner: out.text() }
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
        let (mut child, out, err) = spawn(&mut self.command);
        // A command that does not read all of it closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Some(status) = wait(&mut child, DEADLINE * 2) else {
            let _ = child.kill();
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

fn spawn(command: &mut Command) -> (Child, ProcessLog, ProcessLog) {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let out = ProcessLog::of(child.stdout.take().unwrap());
    let err = ProcessLog::of(child.stderr.take().unwrap());
    (child, out, err)
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
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
    child: Child,
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
        self.child.id()
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes integers; the child is not reaped, so the number is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Checks that the process has not exited.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let status = self.child.try_wait().unwrap();
        assert!(status.is_none(), "exited with {status:?}:\n{}", self.log.text());
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the exit; returns how long that took, and the status. Clients of the same test run meanwhile:
    /// a server that drains waits for clients that have not read its GOAWAY.
    pub async fn wait_for_exit(&mut self) -> (Duration, ExitStatus) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (began.elapsed(), status);
            }
            assert!(began.elapsed() < DEADLINE, "no exit:\n{}", self.log.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
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
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (address, log) = (&self.grpc, self.log.text());
            eprintln!("log of the server at {address}:\n{log}");
        }
    }
}

/// The lines that a process has written to one pipe so far.
#[derive(Clone)]
pub struct ProcessLog(Arc<LogState>);

#[derive(Default)]
struct LogState {
    /// The lines, and whether the pipe is closed.
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl ProcessLog {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let state = Arc::clone(&log.0);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                state.lock().0.push(text);
                state.changed.notify_all();
                line.clear();
            }
            state.lock().1 = true;
            state.changed.notify_all();
        });
        log
    }

    pub fn text(&self) -> String {
        self.0.lock().0.concat()
    }

    fn line(&self, start: &str) -> Option<String> {
        let lines = self.0.lock();
        lines.0.iter().find(|line| line.starts_with(start)).cloned()
    }

    /// Waits until `condition` holds for the text so far; `false` if the pipe was closed or the time was over
    /// before.
    pub fn wait_for(&self, condition: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if condition(&self.text()) {
                return true;
            }
            let lines = self.0.lock();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                drop(lines);
                return condition(&self.text());
            }
            let pause = left.min(Duration::from_millis(50));
            drop(self.0.changed.wait_timeout(lines, pause));
        }
    }
}

impl LogState {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
