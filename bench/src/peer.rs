//! A server process under measurement: started on free ports and one core, found by its banner.

use std::{io, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::timeout,
};

use crate::{cpu::CpuTime, h2load::pinned, limits::BANNER_TIMEOUT};

/// Why a server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("{0} is not there: build it first")]
    NotBuilt(String),
    #[error("{program} cannot be started{}", if *.pinned { " by taskset (util-linux)" } else { "" })]
    Start {
        program: String,
        pinned: bool,
        #[source]
        source: io::Error,
    },
    #[error("{0} ended without printing a line `gRPC  host:port`")]
    Ended(String),
    #[error("{0} printed no line `gRPC  host:port` within {limit} s", limit = BANNER_TIMEOUT.as_secs())]
    Silent(String),
    #[error("{name}: its CPU time cannot be read: {source}")]
    NoCpuTime { name: String, source: io::Error },
}

/// A server process. One that was started here is killed when this is dropped.
pub struct Peer {
    pub name: &'static str,
    /// Its gRPC address, `host:port`.
    pub address: String,
    pub pid: u32,
    _child: Option<Child>,
}

impl Peer {
    /// Starts `program` with one shard, on free ports and, if given, on one core; waits for the
    /// banner line that begins with `gRPC`.
    pub async fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        core: Option<usize>,
    ) -> Result<Self, PeerError> {
        Self::start_with(name, program, arguments, core, &[]).await
    }

    /// As [`Peer::start`], with these variables set beside or instead of the usual ones.
    pub async fn start_with(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        core: Option<usize>,
        variables: &[(&str, &str)],
    ) -> Result<Self, PeerError> {
        if !program.is_file() {
            return Err(PeerError::NotBuilt(program.display().to_string()));
        }
        let mut child = pinned(program, core)
            .args(arguments)
            .envs([
                ("GRPC_PORT", "0"),
                ("METRICS_PORT", "0"),
                ("ADMIN_PORT", "0"),
                ("SHARDS", "1"),
            ])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| PeerError::Start {
                program: program.display().to_string(),
                pinned: core.is_some(),
                source,
            })?;
        let ended = || PeerError::Ended(name.to_owned());
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(ended)?).lines();
        let banner = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = banner_address(&line) {
                    return Ok(address);
                }
            }
            Err(ended())
        };
        let address = timeout(BANNER_TIMEOUT, banner)
            .await
            .map_err(|_| PeerError::Silent(name.to_owned()))??;
        // What it prints later is read and dropped, so that it never waits on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pid = child.id().ok_or_else(ended)?;
        Self::new(name, address, pid, Some(child))
    }

    /// A server that somebody else runs.
    pub fn running(name: &'static str, address: &str, pid: u32) -> Result<Self, PeerError> {
        Self::new(name, address.to_owned(), pid, None)
    }

    fn new(
        name: &'static str,
        address: String,
        pid: u32,
        child: Option<Child>,
    ) -> Result<Self, PeerError> {
        CpuTime::of(pid).map_err(|source| PeerError::NoCpuTime {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            name,
            address,
            pid,
            _child: child,
        })
    }
}

/// The first `host:port` of a line that begins with `gRPC`.
fn banner_address(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let name = words.next()?.trim_end_matches(':');
    if !name.eq_ignore_ascii_case("grpc") {
        return None;
    }
    words
        .map(|word| word.trim_start_matches("http://"))
        .find(|word| word.parse::<std::net::SocketAddr>().is_ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_banner_line() {
        for line in [
            "gRPC      127.0.0.1:4711",
            "  gRPC: http://127.0.0.1:4711 (reflection)",
        ] {
            assert_eq!(banner_address(line).as_deref(), Some("127.0.0.1:4711"));
        }
        for line in ["", "metrics   127.0.0.1:4711", "gRPC soon", "starting gRPC"] {
            assert_eq!(banner_address(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let error = Peer::start("x", Path::new("no/such/server"), &[], None).await;
        let error = error.err().unwrap().to_string();
        assert!(error.contains("no/such/server"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_ends_without_an_address_is_told() {
        let error = Peer::start("x", Path::new("/bin/true"), &[], None).await;
        assert!(matches!(error, Err(PeerError::Ended(_))));
    }
}
