//! The processes of one case: the store model and the servers, pinned so that the server has CPUs of its own as
//! far as the machine has enough.
//!
//! Not here: what is measured, which bounds apply.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use inventory_process::{ServerProcess, allowed_cpus, pinned_command};
use tokio::time::timeout;

use crate::{BenchError, http, limits};

/// Gauge of the server: the processes that sell from its store, as far as it knows.
const MEMBERS_METRIC: &str = "inventory_members ";

/// The programs of a case and their CPUs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) baseline: PathBuf,
    pub(crate) generator: PathBuf,
    pub(crate) cpus: CpuLayout,
}

/// CPUs of the programs. On two CPUs the generator and the store model share one.
#[derive(Clone, Debug)]
pub(crate) struct CpuLayout {
    pub(crate) generator: usize,
    pub(crate) model: usize,
    /// At least one.
    pub(crate) servers: Vec<usize>,
}

impl CpuLayout {
    /// # Errors
    /// If the allowed CPUs cannot be read.
    pub(crate) fn of_this_machine() -> Result<Self, BenchError> {
        let allowed = allowed_cpus()?;
        let (first, rest) = allowed.split_first().ok_or("no CPU is allowed")?;
        let (model, servers) = match rest {
            [] => (*first, vec![*first]),
            [one] => (*first, vec![*one]),
            [model, servers @ ..] => (*model, servers.to_vec()),
        };
        Ok(Self { generator: *first, model, servers })
    }
}

/// The server under measurement.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Processes of inventory-api with this many shards each.
    Server {
        processes: usize,
        shards: usize,
        settings: Vec<(&'static str, String)>,
        /// How the processes of a fleet find each other; `None`: the processes are not waited for, and each has a CPU
        /// of its own as far as the machine has enough.
        fleet: Option<FleetMembership>,
    },
    /// The baseline service: one transaction per commit.
    Baseline,
}

/// How the processes of a fleet find each other. All of them share the first CPU of the servers, so that ratios
/// compare the work of processes, not the number of CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FleetMembership {
    /// Announced in the store
    #[default]
    Store,
    /// MEMBERSHIP=static:i/n
    Static,
    /// MEMBERSHIP=off
    Off,
}

impl FleetMembership {
    /// The value of MEMBERSHIP for process `n` of `processes`, from 0; `None`: the default.
    fn setting(self, n: usize, processes: usize) -> Option<String> {
        match self {
            Self::Store => None,
            Self::Static => Some(format!("static:{n}/{processes}")),
            Self::Off => Some("off".to_owned()),
        }
    }
}

/// The running processes of a case. All of them are killed when this is dropped.
pub(crate) struct Deployment {
    pub(crate) servers: Vec<ServerProcess>,
    /// Admin port, `host:port`.
    pub(crate) admin: String,
    pub(crate) model: ServerProcess,
    /// Creates the events for a target without an admin port.
    _admin_server: Option<ServerProcess>,
}

impl Deployment {
    /// # Errors
    /// If a process does not start; the error names it.
    pub(crate) async fn start(
        programs: &Programs,
        model_flags: &[String],
        target: &Target,
    ) -> Result<Self, BenchError> {
        let cpus = &programs.cpus;
        let flags = ["--port", "0"].into_iter().map(str::to_owned);
        let flags = flags.chain(model_flags.iter().cloned());
        let model =
            ServerProcess::start("model", &programs.model, flags, Some(cpus.model), &[]).await?;
        let url = format!("http://{}", model.address);
        let aws = aws_variables(&url);
        let created = pinned_command(&programs.server, None)
            .args(["tables", "create"])
            .envs(aws)
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .status();
        let created = timeout(limits::PREPARE_MAX, created).await??;
        if !created.success() {
            return Err(format!("tables create: {created}").into());
        }
        let mut servers = Vec::new();
        let mut admin_ports = Vec::new();
        let mut admin_server = None;
        match target {
            Target::Server { processes, shards, settings, fleet } => {
                let mut metrics_ports = Vec::new();
                for n in 0..*processes {
                    let own = if fleet.is_some() { 0 } else { n % cpus.servers.len() };
                    let cpu = (*shards == 1).then(|| cpus.servers[own]);
                    let mut variables = aws.to_vec();
                    variables.extend(settings.iter().map(|(name, value)| (*name, &**value)));
                    let shards = shards.to_string();
                    variables.push(("SHARDS", &shards));
                    let membership = fleet.and_then(|fleet| fleet.setting(n, *processes));
                    if let Some(membership) = &membership {
                        variables.push(("MEMBERSHIP", membership));
                    }
                    let metrics_port = free_port()?;
                    let metrics_text = metrics_port.to_string();
                    variables.push(("METRICS_PORT", &metrics_text));
                    let (server, port) = start_server(programs, "server", cpu, variables).await?;
                    servers.push(server);
                    admin_ports.push(port);
                    metrics_ports.push(metrics_port);
                }
                if *fleet == Some(FleetMembership::Store) {
                    wait_for_members(&metrics_ports).await?;
                }
            }
            Target::Baseline => {
                // Idle after the creation of the events.
                let (server, port) =
                    start_server(programs, "admin", Some(cpus.model), aws.to_vec()).await?;
                admin_server = Some(server);
                admin_ports.push(port);
                let cpu = cpus.servers.first().copied();
                let arguments = ["--port", "0"];
                let program = &programs.baseline;
                servers
                    .push(ServerProcess::start("baseline", program, arguments, cpu, &aws).await?);
            }
        }
        let port = admin_ports.first().ok_or("a case without a server")?;
        Ok(Self { servers, admin: format!("127.0.0.1:{port}"), model, _admin_server: admin_server })
    }

    /// Addresses of the servers, comma-separated.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.servers.iter().map(|s| &*s.address).collect();
        addresses.join(",")
    }

    /// Process ids of the servers, comma-separated.
    pub(crate) fn pids(&self) -> String {
        let pids: Vec<String> = self.servers.iter().map(|s| s.pid.to_string()).collect();
        pids.join(",")
    }
}

/// `inventory-api serve` with an admin port.
async fn start_server(
    programs: &Programs,
    name: &'static str,
    cpu: Option<usize>,
    mut variables: Vec<(&str, &str)>,
) -> Result<(ServerProcess, u16), BenchError> {
    let port = free_port()?;
    let text = port.to_string();
    variables.push(("ADMIN_PORT", &text));
    let program = &programs.server;
    let server = ServerProcess::start(name, program, ["serve"], cpu, &variables).await?;
    Ok((server, port))
}

/// Waits until every process counts all of them as members, so that the first seconds of a run are like the rest.
/// Returns at once for a server without the metric.
async fn wait_for_members(metrics_ports: &[u16]) -> Result<(), BenchError> {
    let give_up = Instant::now() + limits::MEMBERS_MAX;
    for port in metrics_ports {
        loop {
            let metrics = http::get(&format!("127.0.0.1:{port}"), "/metrics").await?;
            let count = metrics.lines().find_map(|line| {
                let value = line.strip_prefix(MEMBERS_METRIC)?;
                value.trim().parse::<f64>().ok()
            });
            match count {
                None => return Ok(()),
                Some(count) if count as usize == metrics_ports.len() => break,
                Some(count) if Instant::now() > give_up => {
                    let all = metrics_ports.len();
                    return Err(format!("a process counts {count} members of {all}").into());
                }
                Some(_) => tokio::time::sleep(limits::MEMBERS_POLL).await,
            }
        }
    }
    Ok(())
}

/// Environment that directs the SDK to the store model.
fn aws_variables(url: &str) -> [(&'static str, &str); 4] {
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", url),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_REGION", "ap-northeast-2"),
    ]
}

pub(crate) fn free_port() -> Result<u16, BenchError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
