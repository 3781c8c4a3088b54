//! One case, run once: deploy, run the generator, collect the reports, stop the servers.
//!
//! Not here: which cases exist, which bounds apply.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use inventory_process::{pinned_command, print};
use serde_json::Value;
use tokio::time::timeout;

use crate::deployment::{Deployment, Programs, Target};
use crate::measurement::Measurement;
use crate::{BenchError, http, limits};

/// Exit codes of the generator for runs that have a report all the same: a broken promise, an invalid run.
const EXIT_CODES_WITH_REPORT: [i32; 2] = [1, 3];

/// A case is run once per round.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Flags of the store model.
    pub(crate) model: Vec<String>,
    pub(crate) target: Target,
    /// File name in the scenario folder, without `.toml`.
    pub(crate) scenario: &'static str,
    /// Flags of the generator.
    pub(crate) flags: Vec<String>,
    /// Duration of the measured part, for the time limit of the run.
    pub(crate) seconds: u32,
    /// Also run `inventory-api verify` for two events.
    pub(crate) verify: bool,
}

/// Folders of scenarios and results.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) scenarios: PathBuf,
    pub(crate) results: PathBuf,
}

/// Runs `case` once. `label` names its result files.
///
/// # Errors
/// If the measurement failed. Broken promises and invalid runs are part of the measurement.
pub(crate) async fn run(
    programs: &Programs,
    folders: &Folders,
    case: &Case,
    label: &str,
) -> Result<Measurement, BenchError> {
    let deployment = Deployment::start(programs, &case.model, &case.target).await?;
    let json = folders.results.join(format!("{label}.json"));
    let scenario = folders.scenarios.join(format!("{}.toml", case.scenario));
    let store = &deployment.model.address;
    let mut generator = pinned_command(&programs.generator, Some(programs.cpus.generator));
    generator
        .arg(&scenario)
        .args(["--target", &deployment.addresses()])
        .args(["--admin", &deployment.admin])
        .args(["--server-pid", &deployment.pids()])
        .args(["--store-pid", &deployment.model.pid.to_string()])
        .args(["--store", &format!("http://{store}")])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(json.with_extension("svg"))
        .args(&case.flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // The report of an earlier run must not be taken for that of this run.
    let _ = std::fs::remove_file(&json);
    let limit = Duration::from_secs(u64::from(case.seconds)) + limits::RUN_OVERHEAD_MAX;
    let output = timeout(limit, generator.output()).await;
    let output = output.map_err(|_| format!("the generator did not finish within {limit:?}"))??;
    let has_report = output.status.success()
        || (output.status.code()).is_some_and(|code| EXIT_CODES_WITH_REPORT.contains(&code));
    if !has_report || !json.is_file() {
        return Err(format!("the generator failed, {}", exit_text(&output)).into());
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let model: Value = serde_json::from_str(&http::get(store, "/model/report").await?)?;
    let model_json = serde_json::to_string_pretty(&model)?;
    std::fs::write(json.with_extension("model.json"), model_json)?;
    if case.verify {
        verify(programs, &deployment, &report).await?;
    }
    // A clean exit shows that the server finished all calls.
    for server in deployment.servers {
        server.stop(limits::STOP_MAX).await?;
    }
    Ok(Measurement::new(report, model))
}

/// The exit status and the last lines of standard error.
fn exit_text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(6)..];
    format!("{}:\n{}", output.status, last.join("\n"))
}

/// Runs `inventory-api verify` for the busiest and the quietest event.
async fn verify(
    programs: &Programs,
    deployment: &Deployment,
    report: &Value,
) -> Result<(), BenchError> {
    let events = report["events"].as_array().into_iter().flatten();
    let names: Vec<&str> = events.filter_map(|event| event["event"].as_str()).collect();
    let (Some(first), Some(last)) = (names.first(), names.last()) else {
        return Err("the report of the generator has no events".into());
    };
    for event in [first, last] {
        let output = pinned_command(&programs.server, None)
            .args(["verify", event, "--admin", &deployment.admin])
            .stdin(Stdio::null())
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        print(format_args!("verify {event}: {}", text.lines().last().unwrap_or_default()))?;
        if !output.status.success() {
            return Err(format!("verify {event}: {}\n{text}", output.status).into());
        }
    }
    Ok(())
}
