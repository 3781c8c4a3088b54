//! A started program, killed when dropped. Its output is read as it is written, so that it never blocks on a full pipe.
//!
//! Invariant: a signal is sent only while the process has not been waited for, so the number belongs to no other process.
//! Must not be put here: what a banner means.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time limit of [`ProcessLog::wait_for`]. Far above what a start takes on a busy machine.
pub(crate) const OUTPUT_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two looks at the status of a process or of its output.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A process that runs or has exited.
pub struct ChildProcess {
    child: Child,
    has_exited: bool,
    /// Standard output.
    pub out: ProcessLog,
    /// Standard error; empty unless the command has a pipe there.
    pub err: ProcessLog,
}

impl ChildProcess {
    /// Starts `command` with a pipe as standard output.
    ///
    /// # Errors
    /// That of the system.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = ProcessLog::of(child.stdout.take());
        let err = ProcessLog::of(child.stderr.take());
        Ok(Self { child, has_exited: false, out, err })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard input, the first time, if the command has a pipe there.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The exit status; `None` while the process runs.
    ///
    /// # Errors
    /// That of the system.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.has_exited = status.is_some();
        Ok(status)
    }

    /// # Errors
    /// That of the system, or that the process is known to have exited.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        if self.has_exited {
            return Err(io::ErrorKind::NotFound.into());
        }
        let pid = libc::pid_t::try_from(self.child.id()).map_err(io::Error::other)?;
        // SAFETY: kill takes two integers and has no other precondition. The child has not been waited for, so the
        // number belongs to no other process.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits at most `limit` for the exit; `None` if the process still runs. Other tasks run meanwhile.
    ///
    /// # Errors
    /// That of the system.
    pub async fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// [`ChildProcess::wait`] for a thread that has nothing else to do.
    ///
    /// # Errors
    /// That of the system.
    pub fn wait_blocking(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let log = Self(Arc::default());
        let state = Arc::clone(&log.0);
        let Some(pipe) = pipe else {
            state.lock().1 = true;
            return log;
        };
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

    /// Whether the process has closed the pipe.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().1
    }

    /// Waits until `condition` holds for the text so far; `false` if the pipe was closed, or [`OUTPUT_TIMEOUT`] was
    /// over, before.
    pub fn wait_for(&self, condition: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + OUTPUT_TIMEOUT;
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
