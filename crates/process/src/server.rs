//! A server process: started with a free port, pinned to a CPU, found by the address in its banner,
//! killed when dropped.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::child_process::{ChildProcess, OUTPUT_TIMEOUT};
use crate::usage::CpuTime;

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
    #[error("{0} did not print the address it listens on within {limit} s", limit = OUTPUT_TIMEOUT.as_secs())]
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
    child: Option<ChildProcess>,
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
        let mut command = pinned_command(program, cpu);
        command
            .args(arguments)
            .envs([("GRPC_PORT", "0"), ("METRICS_PORT", "0"), ("ADMIN_PORT", "0"), ("SHARDS", "1")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        let child = ChildProcess::spawn(command.as_std_mut()).map_err(|source| {
            let program = program.display().to_string();
            LaunchError::Start { program, pinned: cpu.is_some(), source }
        })?;
        let out = child.out.clone();
        let banner = tokio::task::spawn_blocking(move || {
            out.wait_for(|text| listening_address(text).is_some());
            (listening_address(&out.text()), out.is_closed())
        });
        match banner.await {
            Ok((Some(address), _)) => Self::new(name, address, child.pid(), Some(child)),
            Ok((None, false)) => Err(LaunchError::NoBanner(name.to_owned())),
            Ok((None, true)) | Err(_) => Err(LaunchError::Exited(name.to_owned())),
        }
    }

    /// A server that this process did not start.
    pub fn running(name: &'static str, address: &str, pid: u32) -> Result<Self, LaunchError> {
        Self::new(name, address.to_owned(), pid, None)
    }

    fn new(
        name: &'static str,
        address: String,
        pid: u32,
        child: Option<ChildProcess>,
    ) -> Result<Self, LaunchError> {
        CpuTime::of(pid)
            .map_err(|source| LaunchError::NoCpuTime { name: name.to_owned(), source })?;
        Ok(Self { name, address, pid, child })
    }

    /// Sends SIGTERM and waits at most `limit` for the process to finish its calls and exit. `None` for
    /// a server that this process did not start: it is left alone.
    pub async fn stop(mut self, limit: Duration) -> Result<Option<ExitStatus>, LaunchError> {
        let name = self.name.to_owned();
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let exit = async {
            child.signal(libc::SIGTERM)?;
            child.wait(limit).await
        };
        match exit.await {
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) => Err(LaunchError::StillRunning { name, limit }),
            Err(source) => Err(LaunchError::Stop { name, source }),
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

/// The address in the line of `banner` that starts with `label`, in any case.
pub fn banner_address(banner: &str, label: &str) -> Option<String> {
    banner.lines().find_map(|line| {
        let (first, rest) = line.trim_start().split_once([' ', ':'])?;
        first.eq_ignore_ascii_case(label).then(|| first_address(rest))?
    })
}

/// The address in a line that starts with `gRPC` or contains `listening on`.
fn listening_address(banner: &str) -> Option<String> {
    let listening = || banner.lines().find_map(|line| line.split_once("listening on "));
    banner_address(banner, "gRPC").or_else(|| first_address(listening()?.1))
}

fn first_address(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches("http://").trim_end_matches("/metrics"))
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
            let banner = format!("inventory-api\n{line}\n  shards    1\n");
            assert_eq!(listening_address(&banner).as_deref(), Some("127.0.0.1:4711"), "{line}");
        }
        for line in ["", "metrics   127.0.0.1:4711", "gRPC soon", "starting gRPC 127.0.0.1:4711"] {
            assert_eq!(listening_address(line), None, "{line}");
        }
        let metrics =
            "  gRPC      [::1]:1\n  metrics   http://127.0.0.1:2/metrics\n  admin     off\n";
        assert_eq!(banner_address(metrics, "metrics").as_deref(), Some("127.0.0.1:2"));
        assert_eq!(banner_address(metrics, "admin"), None);
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
