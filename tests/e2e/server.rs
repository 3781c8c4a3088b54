//! A server process under test: started on free ports, found by its banner, killed when dropped.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inventory_process::allowed_cpus;

/// Longer than anything takes on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary with nothing of this test's environment; dies with the thread that starts it.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inventory-api"));
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

/// Reports a test that this machine cannot run. `.ci/run` counts the line, which goes past the capture of
/// the test harness.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "\nSKIP {test}: {why}");
}

/// How many shards tests run: two, where there are two CPUs.
pub(crate) fn shards() -> usize {
    allowed_cpus().unwrap().len().min(2)
}

/// A server's command line and environment, before it runs.
pub(crate) struct Launch {
    pub(crate) command: Command,
}

impl Launch {
    /// `args` on free ports, on at most two shards, patient with a slow engine.
    pub(crate) fn of(args: &[&str]) -> Self {
        let mut command = command(args);
        command
            .env("GRPC_PORT", "0")
            .env("METRICS_PORT", "0")
            .env("ADMIN_PORT", "0")
            .env("SHARDS", shards().to_string())
            .env("DDB_TIMEOUT", "5s");
        Self { command }
    }

    pub(crate) fn memory() -> Self {
        Self::of(&["dev", "--memory"])
    }

    pub(crate) fn data(dir: &Path) -> Self {
        Self::of(&["dev", "--data", dir.to_str().unwrap()])
    }

    /// `serve` on the store at `store`.
    pub(crate) fn serve(store: SocketAddr) -> Self {
        let url = format!("http://{store}");
        Self::of(&["serve"])
            .env("AWS_ENDPOINT_URL_DYNAMODB", &url)
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_REGION", "ap-northeast-2")
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits for the whole banner.
    #[track_caller]
    pub(crate) fn start(mut self) -> Server {
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let out = Text::of(child.stdout.take().unwrap());
        let log = Text::of(child.stderr.take().unwrap());
        let address_of = |name: &str| {
            let line = out.line(&format!("  {name}"))?;
            let word = line.split_whitespace().nth(1)?;
            let word = word.trim_start_matches("http://");
            Some(word.trim_end_matches("/metrics").to_owned())
        };
        let told = out.wait(|_| address_of("shards").is_some());
        let addresses = ["gRPC", "metrics", "admin"].map(address_of);
        let [Some(grpc), Some(metrics), Some(admin)] = addresses else {
            let _ = child.kill();
            panic!("no banner (told: {told}):\n{}\n{}", out.all(), log.all());
        };
        Server {
            child,
            grpc,
            metrics,
            admin,
            log,
        }
    }

    /// Runs it to its end, which it must come to by itself.
    #[track_caller]
    pub(crate) fn run(mut self) -> Ran {
        let command = self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Text::of(child.stdout.take().unwrap());
        let err = Text::of(child.stderr.take().unwrap());
        let status = wait(&mut child, PATIENCE * 2);
        if status.is_none() {
            let _ = child.kill();
            panic!("it does not end:\n{}\n{}", out.all(), err.all());
        }
        out.wait(|_| false);
        err.wait(|_| false);
        Ran {
            code: status.unwrap().code(),
            out: out.all(),
            err: err.all(),
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn says(&self, needles: &[&str]) {
        for needle in needles {
            assert!(self.err.contains(needle), "no {needle:?} in:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// `host:port` of each port.
    pub(crate) grpc: String,
    pub(crate) metrics: String,
    pub(crate) admin: String,
    /// What it writes to stderr.
    pub(crate) log: Text,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes integers; the child is not reaped, so the number is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; how long that took, and how it ended. Clients of the same test go on
    /// meanwhile: a server waits for those that do not hear that it leaves.
    pub(crate) async fn ends(&mut self) -> (Duration, ExitStatus) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (began.elapsed(), status);
            }
            let log = || self.log.all();
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// SIGTERM: ends by itself with exit code 0.
    pub(crate) async fn stops(mut self) {
        self.signal(libc::SIGTERM);
        let (_, status) = self.ends().await;
        assert_eq!(status.code(), Some(0), "{}", self.log.all());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.grpc, self.log.all());
        }
    }
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

/// What a process writes, read as it comes so that it never waits on a full pipe.
#[derive(Clone)]
pub(crate) struct Text(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Text {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Self(Arc::default());
        let shared = Arc::clone(&text.0);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                shared.lock().0.push(line);
                shared.more.notify_all();
            }
            shared.lock().1 = true;
            shared.more.notify_all();
        });
        text
    }

    pub(crate) fn all(&self) -> String {
        self.0.lock().0.join("\n")
    }

    fn line(&self, start: &str) -> Option<String> {
        let lines = self.0.lock();
        lines.0.iter().find(|line| line.starts_with(start)).cloned()
    }

    /// Waits until `seen` of all that was written so far; `false` if the process ended without it.
    pub(crate) fn wait(&self, seen: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if seen(&self.all()) {
                return true;
            }
            let lines = self.0.lock();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                drop(lines);
                return seen(&self.all());
            }
            let brief = left.min(Duration::from_millis(50));
            drop(self.0.more.wait_timeout(lines, brief));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
