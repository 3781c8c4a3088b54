//! What one run plays on: a model of the store, and servers in front of it, each a process of its
//! own, pinned so that the server has its core to itself as far as the machine has cores.
//!
//! Must not live here: what is measured, what is good enough.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use inventory_process::{ServerProcess, allowed_cpus};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::limits;

pub(crate) type Error = Box<dyn std::error::Error>;

/// The programs that take part, and the cores they stay on.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) baseline: PathBuf,
    pub(crate) generator: PathBuf,
    pub(crate) cores: Cores,
}

/// Who stays where. On two cores the generator and the model share one.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    pub(crate) generator: usize,
    pub(crate) model: usize,
    /// At least one.
    pub(crate) servers: Vec<usize>,
}

impl Cores {
    /// # Errors
    /// When this process may use no core, or cannot know which.
    pub(crate) fn of_this_machine() -> Result<Self, Error> {
        let allowed = allowed_cpus()?;
        let (first, rest) = allowed.split_first().ok_or("no core may be used")?;
        let (model, servers) = match rest {
            [] => (*first, vec![*first]),
            [one] => (*first, vec![*one]),
            [model, servers @ ..] => (*model, servers.to_vec()),
        };
        Ok(Self {
            generator: *first,
            model,
            servers,
        })
    }
}

/// What runs in front of the model.
#[derive(Clone, Debug)]
pub(crate) enum Serving {
    /// This many processes of the server, of this many shards each.
    Ours {
        processes: usize,
        shards: usize,
        settings: Vec<(&'static str, String)>,
    },
    /// One process that writes a transaction for each commit.
    Twin { arguments: Vec<&'static str> },
}

/// See the module's head. Everything ends when it is dropped.
pub(crate) struct Stage {
    pub(crate) servers: Vec<ServerProcess>,
    /// Where events are made.
    pub(crate) admin: Option<String>,
    /// `host:port`.
    pub(crate) store: String,
    pub(crate) store_pid: u32,
    /// Makes the events where the servers under measurement cannot.
    _operator: Option<ServerProcess>,
    _model: Child,
}

impl Stage {
    /// # Errors
    /// Whatever did not start, by its name and why.
    pub(crate) async fn set(
        programs: &Programs,
        model: &[String],
        serving: &Serving,
    ) -> Result<Self, Error> {
        let (child, store) = start_model(programs, model).await?;
        let store_pid = child.id().ok_or("the model ended at once")?;
        let url = format!("http://{store}");
        let aws = aws(&url);
        let made = pinned(&programs.server, None)
            .args(["tables", "create"])
            .envs(aws)
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .status();
        let made = timeout(limits::START_MAX, made).await??;
        if !made.success() {
            return Err(format!("tables create: {made}").into());
        }
        let mut stage = Self {
            servers: Vec::new(),
            admin: None,
            store,
            store_pid,
            _operator: None,
            _model: child,
        };
        match serving {
            Serving::Ours {
                processes,
                shards,
                settings,
            } => {
                for n in 0..*processes {
                    let port = free_port()?;
                    let cores = &programs.cores.servers;
                    let core = (*shards == 1).then(|| cores[n % cores.len()]);
                    let shards = shards.to_string();
                    let admin = port.to_string();
                    let mut variables = aws.to_vec();
                    variables.extend([("SHARDS", &*shards), ("ADMIN_PORT", &*admin)]);
                    variables.extend(settings.iter().map(|(name, value)| (*name, &**value)));
                    let program = &programs.server;
                    let server =
                        ServerProcess::start("server", program, &["serve"], core, &variables)
                            .await?;
                    stage.servers.push(server);
                    stage.admin.get_or_insert(format!("127.0.0.1:{port}"));
                }
            }
            Serving::Twin { arguments } => {
                // It makes no events: a server of ours does, on the model's core, and is then idle.
                let port = free_port()?;
                let admin = port.to_string();
                let mut variables = aws.to_vec();
                variables.extend([("SHARDS", "1"), ("ADMIN_PORT", &*admin)]);
                let program = &programs.server;
                let core = Some(programs.cores.model);
                let operator =
                    ServerProcess::start("operator", program, &["serve"], core, &variables).await?;
                stage._operator = Some(operator);
                stage.admin = Some(format!("127.0.0.1:{port}"));
                let core = programs.cores.servers.first().copied();
                let program = &programs.baseline;
                let baseline = ServerProcess::start("baseline", program, arguments, core, &aws).await?;
                stage.servers.push(baseline);
            }
        }
        Ok(stage)
    }

    pub(crate) fn targets(&self) -> String {
        let targets: Vec<&str> = self.servers.iter().map(|s| &*s.address).collect();
        targets.join(",")
    }

    pub(crate) fn pids(&self) -> String {
        let pids: Vec<String> = self.servers.iter().map(|s| s.pid.to_string()).collect();
        pids.join(",")
    }
}

/// What sends a program to the model instead of to AWS.
pub(crate) fn aws(url: &str) -> [(&'static str, &str); 4] {
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", url),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_REGION", "ap-northeast-2"),
    ]
}

async fn start_model(programs: &Programs, flags: &[String]) -> Result<(Child, String), Error> {
    let program = &programs.model;
    if !program.is_file() {
        return Err(format!("{} is not there: build it first", program.display()).into());
    }
    let mut child = pinned(program, Some(programs.cores.model))
        .args(["--port", "0"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().ok_or("the model has no output")?;
    let mut lines = BufReader::new(out).lines();
    let address = async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, address)) = line.split_once("listening on ") {
                return Ok::<_, Error>(address.trim().to_owned());
            }
        }
        Err("the model ended without saying where it listens".into())
    };
    let address = timeout(limits::START_MAX, address).await??;
    // Read on, so that it never waits on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, address))
}

/// `program`, kept on `core` if one is given.
pub(crate) fn pinned(program: &Path, core: Option<usize>) -> Command {
    match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Tells the process to end and waits until it has: what it has under way settles first.
pub(crate) async fn stop(pid: u32) -> Result<Duration, Error> {
    let began = std::time::Instant::now();
    let id = libc::pid_t::try_from(pid)?;
    // SAFETY: kill takes two integers and has no other precondition; the process is a child that
    // has not been waited for, so the number is still its own.
    unsafe { libc::kill(id, libc::SIGTERM) };
    while is_running(pid) {
        if began.elapsed() > limits::STOP_MAX {
            return Err(format!("process {pid} has not ended after {:?}", limits::STOP_MAX).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}

/// A zombie has ended.
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')
                .map(|(_, rest)| rest.trim_start().to_owned())
        })
        .is_some_and(|rest| !rest.starts_with('Z'))
}
