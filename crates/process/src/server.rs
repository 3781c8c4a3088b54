//! A server process: started with a free port, pinned to a CPU, found by the address in its banner,
//! killed when dropped.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::usage::CpuTime;

/// Time limit for a started server to print its address.
const BANNER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a server process could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("{0} does not exist: build it first")]
    NotBuilt(String),
    #[error("{program} cannot be started{}", if *.pinned { " by taskset (util-linux)" } else { "" })]
    Start {
        program: String,
        pinned: bool,
        #[source]
        source: io::Error,
    },
    #[error("{0} exited before it printed the address it listens on")]
    Exited(String),
    #[error("{0} did not print the address it listens on within {limit} s", limit = BANNER_TIMEOUT.as_secs())]
    NoBanner(String),
    #[error("{name}: CPU time is not readable: {source}")]
    NoCpuTime { name: String, source: io::Error },
    #[error("{name}: cannot be stopped: {source}")]
    Stop { name: String, source: io::Error },
    #[error("{name} did not exit within {limit:?} after SIGTERM")]
    StillRunning { name: String, limit: Duration },
}

/// A server process. A process started by [`ServerProcess::start`] is killed when this is dropped.
pub struct ServerProcess {
    pub name: &'static str,
    /// Address it listens on, `host:port`.
    pub address: String,
    pub pid: u32,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts `program` with one shard on free ports, pinned to `cpu` if given, and waits for the line
    /// that names the address: `gRPC  host:port`, or `… listening on host:port`.
    ///
    /// `variables` are added to, or replace, `GRPC_PORT`, `METRICS_PORT`, `ADMIN_PORT` (all 0) and
    /// `SHARDS` (1).
    pub async fn start(
        name: &'static str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        cpu: Option<usize>,
        variables: &[(&str, &str)],
    ) -> Result<Self, LaunchError> {
        if !program.is_file() {
            return Err(LaunchError::NotBuilt(program.display().to_string()));
        }
        let mut child = pinned_command(program, cpu)
            .args(arguments)
            .envs([("GRPC_PORT", "0"), ("METRICS_PORT", "0"), ("ADMIN_PORT", "0"), ("SHARDS", "1")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| LaunchError::Start {
                program: program.display().to_string(),
                pinned: cpu.is_some(),
                source,
            })?;
        let exited = || LaunchError::Exited(name.to_owned());
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(exited)?).lines();
        let banner = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = listening_address(&line) {
                    return Ok(address);
                }
            }
            Err(exited())
        };
        let address = timeout(BANNER_TIMEOUT, banner)
            .await
            .map_err(|_| LaunchError::NoBanner(name.to_owned()))??;
        // Drain the pipe, so that the process never blocks on a full one.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pid = child.id().ok_or_else(exited)?;
        Self::new(name, address, pid, Some(child))
    }

    /// A server that this process did not start.
    pub fn running(name: &'static str, address: &str, pid: u32) -> Result<Self, LaunchError> {
        Self::new(name, address.to_owned(), pid, None)
    }

    fn new(
        name: &'static str,
        address: String,
        pid: u32,
        child: Option<Child>,
    ) -> Result<Self, LaunchError> {
        CpuTime::of(pid)
            .map_err(|source| LaunchError::NoCpuTime { name: name.to_owned(), source })?;
        Ok(Self { name, address, pid, child })
    }

    /// Sends SIGTERM and waits at most `limit` for the process to finish its calls and exit. `None` for
    /// a server that this process did not start: it is left alone.
    pub async fn stop(mut self, limit: Duration) -> Result<Option<ExitStatus>, LaunchError> {
        let failed = |source| LaunchError::Stop { name: self.name.to_owned(), source };
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let Some(pid) = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) else {
            return child.try_wait().map_err(failed);
        };
        // SAFETY: kill takes two integers and has no other precondition. The child has not been waited
        // for (its id is still known), so the number belongs to no other process.
        if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        match timeout(limit, child.wait()).await {
            Ok(status) => status.map(Some).map_err(failed),
            Err(_) => Err(LaunchError::StillRunning { name: self.name.to_owned(), limit }),
        }
    }
}

/// `program`, pinned to `cpu` by util-linux's taskset if one is given. taskset replaces itself, so that
/// the process id is that of the program.
pub fn pinned_command(program: &Path, cpu: Option<usize>) -> Command {
    match cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &cpu.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The address in a line that starts with `gRPC` or contains `listening on`.
fn listening_address(line: &str) -> Option<String> {
    let (first, rest) = line.trim_start().split_once([' ', ':'])?;
    let addresses = match line.split_once("listening on ") {
        Some((_, addresses)) => addresses,
        None if first.eq_ignore_ascii_case("grpc") => rest,
        None => return None,
    };
    addresses
        .split_whitespace()
        .map(|word| word.trim_start_matches("http://"))
        .find(|word| word.parse::<SocketAddr>().is_ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_from_the_banner() {
        for line in [
            "gRPC      127.0.0.1:4711",
            "  gRPC: http://127.0.0.1:4711 (reflection)",
            "store-model listening on 127.0.0.1:4711",
        ] {
            assert_eq!(listening_address(line).as_deref(), Some("127.0.0.1:4711"), "{line}");
        }
        for line in ["", "metrics   127.0.0.1:4711", "gRPC soon", "starting gRPC 127.0.0.1:4711"] {
            assert_eq!(listening_address(line), None, "{line}");
        }
    }

    async fn start(program: &str) -> Result<ServerProcess, LaunchError> {
        ServerProcess::start("x", Path::new(program), [""; 0], None, &[]).await
    }

    #[tokio::test]
    async fn missing_program_is_named() {
        let error = start("no/such/server").await.err().unwrap().to_string();
        assert!(error.contains("no/such/server"), "{error}");
    }

    #[tokio::test]
    async fn exit_without_a_banner_is_reported() {
        assert!(matches!(start("/bin/true").await, Err(LaunchError::Exited(_))));
    }

    #[tokio::test]
    async fn stop_waits_for_the_exit() {
        let shell = Path::new("/bin/sh");
        let arguments =
            ["-c", "trap 'kill $!; exit 3' TERM; sleep 600 & echo gRPC 127.0.0.1:1; wait"];
        let server = ServerProcess::start("sh", shell, arguments, None, &[]).await.unwrap();
        let status = server.stop(Duration::from_secs(20)).await.unwrap();
        assert_eq!(status.unwrap().code(), Some(3));
    }
}
