//! Playing one case once: set the stage, let the generator run, ask the model, clear the stage.
//!
//! Must not live here: which cases there are, what is good enough.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::figures::Figures;
use crate::limits;
use crate::stage::{self, Error, Programs, Serving, Stage};

/// The generator's exit code for a run in which it was the limit itself.
const GENERATOR_WAS_THE_LIMIT: i32 = 3;
/// And for one in which a promise was broken; the report says which.
const PROMISE_BROKEN: i32 = 1;

/// One thing that is measured, again in every round.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Flags of the model.
    pub(crate) model: Vec<String>,
    pub(crate) serving: Serving,
    /// File name under the folder of scenarios, without `.toml`.
    pub(crate) scenario: &'static str,
    /// Flags of the generator.
    pub(crate) flags: Vec<String>,
    /// Of the measured part, for the bound on the whole run.
    pub(crate) seconds: u32,
    /// Ask the server itself whether the books of some events balance, too.
    pub(crate) verify: bool,
}

/// Where reports and plots go, and where scenarios come from.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) scenarios: PathBuf,
    pub(crate) results: PathBuf,
}

/// Plays `case` once.
///
/// # Errors
/// What kept it from being measured. Broken promises and invalid runs are in the figures.
pub(crate) async fn play(
    programs: &Programs,
    places: &Places,
    case: &Case,
    label: &str,
) -> Result<Figures, Error> {
    let mut stage = Stage::set(programs, &case.model, &case.serving).await?;
    let json = places.results.join(format!("{label}.json"));
    let admin = stage.admin.clone().ok_or("no server has an admin port")?;
    let scenario = places.scenarios.join(format!("{}.toml", case.scenario));
    let mut generator = stage::pinned(&programs.generator, Some(programs.cores.generator));
    generator
        .arg(&scenario)
        .args(["--target", &stage.targets(), "--admin", &admin])
        .args(["--server-pid", &stage.pids()])
        .args(["--store-pid", &stage.store_pid.to_string()])
        .args(["--store", &format!("http://{}", stage.store)])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(json.with_extension("svg"))
        .args(&case.flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let longest = Duration::from_secs(u64::from(case.seconds)) + limits::AROUND_A_RUN_MAX;
    // A report of an earlier run is not one of this run.
    let _ = std::fs::remove_file(&json);
    let ended = timeout(longest, generator.output()).await;
    let ended = ended.map_err(|_| format!("the generator was not done after {longest:?}"))??;
    let was_played = ended.status.success()
        || matches!(
            ended.status.code(),
            Some(GENERATOR_WAS_THE_LIMIT | PROMISE_BROKEN)
        );
    if !was_played || !json.is_file() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last: Vec<&str> = said.lines().rev().take(6).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        return Err(format!("the generator, {}:\n{}", ended.status, last.join("\n")).into());
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let model = get(&stage.store, "/model/report").await?;
    let model_file = json.with_extension("model.json");
    std::fs::write(model_file, serde_json::to_string_pretty(&model)?)?;
    if case.verify {
        verify(programs, &stage, &report).await?;
    }
    // A server that does not end well after a run has kept something back.
    for server in std::mem::take(&mut stage.servers) {
        stage::stop(server.pid).await?;
    }
    Ok(Figures::new(report, model))
}

/// The server's own proof, of the busiest and the quietest event.
async fn verify(programs: &Programs, stage: &Stage, report: &Value) -> Result<(), Error> {
    let events = report["events"]
        .as_array()
        .ok_or("a report without events")?;
    let names = events.iter().filter_map(|event| event["event"].as_str());
    let names: Vec<&str> = names.collect();
    let (Some(first), Some(last)) = (names.first(), names.last()) else {
        return Err("a report without events".into());
    };
    let admin = stage.admin.as_deref().unwrap_or_default();
    let port = admin.rsplit(':').next().unwrap_or_default();
    for event in [first, last] {
        let verdict = stage::pinned(&programs.server, None)
            .args(["verify", event])
            .env("ADMIN_PORT", port)
            .stdin(Stdio::null())
            .output()
            .await?;
        let said = String::from_utf8_lossy(&verdict.stdout);
        println!(
            "verify {event}: {}",
            said.lines().last().unwrap_or_default()
        );
        if !verdict.status.success() {
            return Err(format!("verify {event}: {}\n{said}", verdict.status).into());
        }
    }
    Ok(())
}

/// One JSON document of the model's control plane.
async fn get(address: &str, path: &str) -> Result<Value, Error> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(limits::REPORT_MAX, exchange).await??;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(serde_json::from_str(body)?)
}
