//! Runs h2load of nghttp2 and parses its output.
//!
//! h2load counts HTTP statuses: a gRPC error is a 200. [`H2loadCounts::check`] therefore also compares the received
//! body bytes with the size of correct answers, since an error has no body.

use std::{ffi::OsString, io::ErrorKind, path::Path, process::Stdio};

use tokio::{process::Command, time::timeout};

use inventory_process::pinned_command;

use crate::limits;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum H2loadError {
    #[error(
        "h2load is not installed. It is part of nghttp2: Debian and Ubuntu `apt-get install \
         nghttp2-client`, Fedora `dnf install nghttp2`, Alpine `apk add nghttp2`, macOS `brew \
         install nghttp2`"
    )]
    Missing,
    #[error("{program} cannot be run")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("h2load did not finish within {} s", limits::H2LOAD_MAX.as_secs())]
    TimedOut,
    #[error("h2load failed ({status}): {output}")]
    Failed { status: String, output: String },
    #[error("{path}: the log of h2load is not readable")]
    Log {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the output of h2load has no {what:?}:\n{output}")]
    Unreadable { what: &'static str, output: String },
    #[error("{0}")]
    Wrong(String),
}

/// One run of h2load.
#[derive(Clone, Debug)]
pub(crate) struct H2loadRun<'a> {
    /// `host:port`.
    pub(crate) address: &'a str,
    /// Path of the method, with the leading slash.
    pub(crate) path: &'a str,
    /// File with one gRPC message: a zero byte, the length in four bytes, the message.
    pub(crate) body: &'a Path,
    pub(crate) connections: u32,
    /// Calls in flight on each connection.
    pub(crate) streams: u32,
    pub(crate) requests: u64,
    /// CPU of h2load, so that it does not disturb the server.
    pub(crate) cpu: Option<usize>,
}

/// Counts of h2load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct H2loadCounts {
    pub(crate) succeeded: u64,
    pub(crate) status_2xx: u64,
    /// Received bytes in DATA frames.
    pub(crate) data_bytes: u64,
    pub(crate) requests_per_second: f64,
}

impl H2loadCounts {
    /// Checks that all `requests` were answered with a message of `message_bytes` (without the gRPC prefix).
    pub(crate) fn check(&self, requests: u64, message_bytes: usize) -> Result<(), H2loadError> {
        let expected = requests * (message_bytes as u64 + 5);
        if self.succeeded == requests && self.status_2xx == requests && self.data_bytes == expected
        {
            return Ok(());
        }
        Err(H2loadError::Wrong(format!(
            "of {requests} calls {} succeeded and {} had a 2xx status; received {} bytes of messages \
             instead of {expected}",
            self.succeeded, self.status_2xx, self.data_bytes
        )))
    }
}

/// Runs h2load.
pub(crate) async fn run(run: &H2loadRun<'_>) -> Result<H2loadCounts, H2loadError> {
    execute(run, None).await
}

/// Runs h2load and also returns the median latency of a call in microseconds. `log` is a temporary file.
pub(crate) async fn run_with_log(
    run: &H2loadRun<'_>,
    log: &Path,
) -> Result<(H2loadCounts, f64), H2loadError> {
    let counts = execute(run, Some(log)).await;
    let text = std::fs::read_to_string(log);
    let _ = std::fs::remove_file(log);
    let counts = counts?;
    let text =
        text.map_err(|source| H2loadError::Log { path: log.display().to_string(), source })?;
    Ok((counts, median_latency(&text, run.requests)?))
}

async fn execute(run: &H2loadRun<'_>, log: Option<&Path>) -> Result<H2loadCounts, H2loadError> {
    let arguments: Vec<OsString> = [
        "-t1".to_owned(),
        format!("-c{}", run.connections),
        format!("-m{}", run.streams),
        format!("-n{}", run.requests),
        "-Hcontent-type: application/grpc".to_owned(),
        "-Hte: trailers".to_owned(),
    ]
    .into_iter()
    .chain(log.map(|log| format!("--log-file={}", log.display())))
    .chain(["-d".to_owned()])
    .map(OsString::from)
    .chain([run.body.as_os_str().to_owned()])
    .chain([format!("http://{}{}", run.address, run.path).into()])
    .collect();
    let mut command = pinned_command(Path::new("h2load"), run.cpu);
    command.args(arguments).stdin(Stdio::null());
    let output = timeout(limits::H2LOAD_MAX, command.kill_on_drop(true).output())
        .await
        .map_err(|_| H2loadError::TimedOut)?
        .map_err(|source| start_error("h2load", source))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(127) {
            return Err(H2loadError::Missing);
        }
        return Err(H2loadError::Failed {
            status: output.status.to_string(),
            output: format!("{text}{errors}"),
        });
    }
    parse(&text)
}

/// Checks that h2load can be run.
pub(crate) async fn find() -> Result<(), H2loadError> {
    Command::new("h2load")
        .arg("--version")
        .output()
        .await
        .map(drop)
        .map_err(|source| start_error("h2load", source))
}

fn start_error(program: &str, source: std::io::Error) -> H2loadError {
    if source.kind() == ErrorKind::NotFound && program == "h2load" {
        return H2loadError::Missing;
    }
    H2loadError::Start { program: program.to_owned(), source }
}

fn parse(text: &str) -> Result<H2loadCounts, H2loadError> {
    let finished = line(text, "finished in ")?;
    let (_, rest) = finished.split_once(", ").unwrap_or((finished, ""));
    let traffic = line(text, "traffic: ")?;
    let data = traffic
        .split(", ")
        .find(|part| part.ends_with(" data"))
        .and_then(|part| part.split_once('(')?.1.split_once(')'));
    Ok(H2loadCounts {
        succeeded: counted(text, "requests: ", " succeeded")?,
        status_2xx: counted(text, "status codes: ", " 2xx")?,
        data_bytes: number("traffic", data.map(|(bytes, _)| bytes), text)?,
        requests_per_second: number("req/s", rest.split_once(" req/s").map(|(n, _)| n), text)?,
    })
}

/// The median of the third column of the log, which has one line per call.
fn median_latency(log: &str, requests: u64) -> Result<f64, H2loadError> {
    let mut times = Vec::new();
    for line in log.lines() {
        let time = line.split('\t').nth(2);
        let time: Option<u64> = time.and_then(|time| time.trim().parse().ok());
        times.push(time.ok_or_else(|| unreadable("latency of a call", line))?);
    }
    if times.len() as u64 != requests {
        return Err(H2loadError::Wrong(format!(
            "the log of h2load has {} of {requests} calls",
            times.len()
        )));
    }
    times.sort_unstable();
    match times.get(times.len() / 2) {
        Some(&middle) => Ok(middle as f64),
        None => Err(unreadable("latency of a call", log)),
    }
}

fn line<'a>(text: &'a str, start: &'static str) -> Result<&'a str, H2loadError> {
    text.lines().find_map(|line| line.strip_prefix(start)).ok_or_else(|| unreadable(start, text))
}

/// The number before `unit` in the comma-separated line that begins with `start`.
fn counted(text: &str, start: &'static str, unit: &str) -> Result<u64, H2loadError> {
    let counts = line(text, start)?;
    let found = counts.split(", ").find_map(|part| part.strip_suffix(unit));
    number(start, found, text)
}

fn number<T: std::str::FromStr>(
    what: &'static str,
    digits: Option<&str>,
    text: &str,
) -> Result<T, H2loadError> {
    digits.and_then(|digits| digits.trim().parse().ok()).ok_or_else(|| unreadable(what, text))
}

fn unreadable(what: &'static str, text: &str) -> H2loadError {
    H2loadError::Unreadable { what, output: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Format of h2load with invented numbers.
    const OUTPUT: &str = "\
starting benchmark...
progress: 100% done

finished in 1.25s, 80123.45 req/s, 9.76MB/s
requests: 1000 total, 1000 started, 1000 done, 998 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 998 2xx, 0 3xx, 0 4xx, 2 5xx
traffic: 120.55KB (123443) total, 40.12KB (41083) headers (space savings 71.00%), 54.69KB (56000) data
";

    #[test]
    fn counts_are_parsed() {
        let counts = parse(OUTPUT).unwrap();
        assert_eq!(counts.succeeded, 998);
        assert_eq!(counts.status_2xx, 998);
        assert_eq!(counts.data_bytes, 56_000);
        assert!((counts.requests_per_second - 80_123.45).abs() < 0.01);
    }

    #[test]
    fn answers_without_the_expected_message_are_rejected() {
        let correct = H2loadCounts {
            succeeded: 1_000,
            status_2xx: 1_000,
            data_bytes: 56_000,
            ..H2loadCounts::default()
        };
        assert!(correct.check(1_000, 51).is_ok());
        for wrong in [
            H2loadCounts { succeeded: 999, ..correct },
            H2loadCounts { status_2xx: 999, ..correct },
            H2loadCounts { data_bytes: 55_944, ..correct },
        ] {
            assert!(wrong.check(1_000, 51).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn median_latency_requires_all_calls() {
        let log = "1700\t200\t90\n1800\t200\t70\n1900\t200\t80\n";
        assert_eq!(median_latency(log, 3).unwrap(), 80.0);
        assert!(median_latency(log, 4).unwrap_err().to_string().contains("3"));
        assert!(median_latency("1700\t200", 1).is_err());
        assert!(median_latency("", 0).is_err());
    }

    #[test]
    fn unexpected_output_is_quoted() {
        let error = parse("h2load: something else").unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
    }
}
