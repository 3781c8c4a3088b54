//! Runs nghttp2's h2load and reads what it prints.
//!
//! h2load counts HTTP, not gRPC: a gRPC error is a 200 to it. [`Outcome::check`] therefore also
//! compares the body bytes received with what the right answers weigh, since an error has no body.

use std::{ffi::OsString, io::ErrorKind, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use inventory_process::pinned_command;

use crate::limits::ROUND_TIMEOUT;

/// Why a round gave no result.
#[derive(Debug, thiserror::Error)]
pub enum H2loadError {
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
    #[error("h2load was not done after {} s", ROUND_TIMEOUT.as_secs())]
    TimedOut,
    #[error("h2load failed ({status}): {output}")]
    Failed { status: String, output: String },
    #[error("{path}: h2load's log cannot be read")]
    Log {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("h2load's output has no {what:?}:\n{output}")]
    Unreadable { what: &'static str, output: String },
    #[error("{0}")]
    Wrong(String),
}

/// One round.
#[derive(Clone, Debug)]
pub struct Round<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// Of the method, with the leading slash.
    pub path: &'a str,
    /// A file with one gRPC message: a zero byte, the length in four bytes, the message.
    pub body: &'a Path,
    pub connections: u32,
    /// Calls in flight on each connection.
    pub streams: u32,
    pub requests: u64,
    /// The core to stay on, so that the generator does not disturb the server.
    pub core: Option<usize>,
}

/// What h2load counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    pub succeeded: u64,
    pub status_2xx: u64,
    /// Bytes of DATA frames' content received.
    pub data_bytes: u64,
    pub requests_per_second: f64,
    pub elapsed: Duration,
}

impl Outcome {
    /// That all `requests` were answered with a message of `message_bytes` (without gRPC's prefix).
    pub fn check(&self, requests: u64, message_bytes: usize) -> Result<(), H2loadError> {
        let weight = requests * (message_bytes as u64 + 5);
        if self.succeeded == requests && self.status_2xx == requests && self.data_bytes == weight {
            return Ok(());
        }
        Err(H2loadError::Wrong(format!(
            "of {requests} calls {} succeeded, {} had a 2xx status, and {} bytes of messages came \
             back where right answers weigh {weight}",
            self.succeeded, self.status_2xx, self.data_bytes
        )))
    }
}

/// Plays one round.
pub async fn run(round: &Round<'_>) -> Result<Outcome, H2loadError> {
    run_with(round, None).await
}

/// Plays one round and tells the median time of a call as well, from before its request to the end of
/// its answer, in microseconds. `log` is a file to be written, for as long as this takes.
pub async fn run_timed(round: &Round<'_>, log: &Path) -> Result<(Outcome, f64), H2loadError> {
    let outcome = run_with(round, Some(log)).await;
    let text = std::fs::read_to_string(log);
    // Gone or not, the next round writes it anew.
    let _ = std::fs::remove_file(log);
    let outcome = outcome?;
    let text = text.map_err(|source| H2loadError::Log {
        path: log.display().to_string(),
        source,
    })?;
    Ok((outcome, median_of(&text, round.requests)?))
}

async fn run_with(round: &Round<'_>, log: Option<&Path>) -> Result<Outcome, H2loadError> {
    let arguments: Vec<OsString> = [
        "-t1".to_owned(),
        format!("-c{}", round.connections),
        format!("-m{}", round.streams),
        format!("-n{}", round.requests),
        "-Hcontent-type: application/grpc".to_owned(),
        "-Hte: trailers".to_owned(),
    ]
    .into_iter()
    .chain(log.map(|log| format!("--log-file={}", log.display())))
    .chain(["-d".to_owned()])
    .map(OsString::from)
    .chain([round.body.as_os_str().to_owned()])
    .chain([format!("http://{}{}", round.address, round.path).into()])
    .collect();
    let mut command = pinned_command(Path::new("h2load"), round.core);
    command.args(arguments).stdin(Stdio::null());
    let output = timeout(ROUND_TIMEOUT, command.kill_on_drop(true).output())
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

/// That h2load can be run at all.
pub async fn find() -> Result<(), H2loadError> {
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
    H2loadError::Start {
        program: program.to_owned(),
        source,
    }
}

fn parse(text: &str) -> Result<Outcome, H2loadError> {
    let finished = line(text, "finished in ")?;
    let (elapsed, rest) = finished.split_once(", ").unwrap_or((finished, ""));
    let traffic = line(text, "traffic: ")?;
    let data = traffic
        .split(", ")
        .find(|part| part.ends_with(" data"))
        .and_then(|part| part.split_once('(')?.1.split_once(')'));
    Ok(Outcome {
        succeeded: counted(text, "requests: ", " succeeded")?,
        status_2xx: counted(text, "status codes: ", " 2xx")?,
        data_bytes: number("traffic", data.map(|(bytes, _)| bytes), text)?,
        requests_per_second: number("req/s", rest.split_once(" req/s").map(|(n, _)| n), text)?,
        elapsed: duration(elapsed).ok_or_else(|| unreadable("finished in", text))?,
    })
}

/// The median of the third column; one line for each of `requests` calls, in the order they ended.
fn median_of(log: &str, requests: u64) -> Result<f64, H2loadError> {
    let mut times = Vec::new();
    for line in log.lines() {
        let time = line.split('\t').nth(2);
        let time: Option<u64> = time.and_then(|time| time.trim().parse().ok());
        times.push(time.ok_or_else(|| unreadable("time of a call", line))?);
    }
    if times.len() as u64 != requests {
        let (logged, what) = (times.len(), "calls are in h2load's log");
        return Err(H2loadError::Wrong(format!(
            "of {requests} calls {logged} {what}"
        )));
    }
    times.sort_unstable();
    match times.get(times.len() / 2) {
        Some(&middle) => Ok(middle as f64),
        None => Err(unreadable("time of a call", log)),
    }
}

fn line<'a>(text: &'a str, start: &'static str) -> Result<&'a str, H2loadError> {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .ok_or_else(|| unreadable(start, text))
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
    digits
        .and_then(|digits| digits.trim().parse().ok())
        .ok_or_else(|| unreadable(what, text))
}

/// `1.23s`, `45.67ms`, `89us` or `1.5m`-less: h2load prints minutes only beyond our time limit.
fn duration(text: &str) -> Option<Duration> {
    for (unit, seconds) in [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok();
        }
    }
    None
}

fn unreadable(what: &'static str, text: &str) -> H2loadError {
    H2loadError::Unreadable {
        what,
        output: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As h2load lays it out; numbers made up.
    const OUTPUT: &str = "\
starting benchmark...
progress: 100% done

finished in 1.25s, 80123.45 req/s, 9.76MB/s
requests: 1000 total, 1000 started, 1000 done, 998 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 998 2xx, 0 3xx, 0 4xx, 2 5xx
traffic: 120.55KB (123443) total, 40.12KB (41083) headers (space savings 71.00%), 54.69KB (56000) data
";

    #[test]
    fn the_counts_are_read() {
        let outcome = parse(OUTPUT).unwrap();
        assert_eq!(outcome.succeeded, 998);
        assert_eq!(outcome.status_2xx, 998);
        assert_eq!(outcome.data_bytes, 56_000);
        assert_eq!(outcome.elapsed, Duration::from_millis(1_250));
        assert!((outcome.requests_per_second - 80_123.45).abs() < 0.01);
    }

    #[test]
    fn answers_without_the_right_message_do_not_pass() {
        let right = Outcome {
            succeeded: 1_000,
            status_2xx: 1_000,
            data_bytes: 56_000,
            ..Outcome::default()
        };
        assert!(right.check(1_000, 51).is_ok());
        for wrong in [
            Outcome {
                succeeded: 999,
                ..right
            },
            Outcome {
                status_2xx: 999,
                ..right
            },
            Outcome {
                data_bytes: 55_944,
                ..right
            },
        ] {
            assert!(wrong.check(1_000, 51).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_middle_of_all_calls_is_found_and_none_may_be_missing() {
        let log = "1700\t200\t90\n1800\t200\t70\n1900\t200\t80\n";
        assert_eq!(median_of(log, 3).unwrap(), 80.0);
        assert!(median_of(log, 4).unwrap_err().to_string().contains("3"));
        assert!(median_of("1700\t200", 1).is_err());
        assert!(median_of("", 0).is_err());
    }

    #[test]
    fn other_output_is_shown_whole() {
        let error = parse("h2load: something else").unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
    }
}
