//! A run: create the events, run the workers, read the store back, report.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inventory_client::ClientTls;

use crate::admin::{self, CreateEventsError};
use crate::ledger::RunLedger;
use crate::limits;
use crate::processes::ProcessGroup;
use crate::report::{self, RunReport};
use crate::scenario::Scenario;
use crate::stats::RunStats;
use crate::store::{self, ReadBackError, StoreOptions};
use crate::worker::{self, LiveStats, RunPlan, WorkerError, WorkerResult};

/// Options of a run that are not part of the scenario.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub targets: Vec<String>,
    /// TLS of the connections to the targets; `None`: without TLS.
    pub tls: Option<ClientTls>,
    /// Admin port for the creation of the events; `None`: the events exist, named `PREFIX_0` and so on.
    pub admin: Option<String>,
    /// File with the token of the admin port.
    pub admin_token: Option<PathBuf>,
    pub store: Option<StoreOptions>,
    pub server_pids: Vec<u32>,
    pub store_pids: Vec<u32>,
    pub threads: u32,
    /// Prefix of reservation ids; `None`: derived from the clock.
    pub run: Option<String>,
    /// Lateness at the 99th percentile above which the run is invalid.
    pub lateness_max: Duration,
    /// CPUs of the workers.
    pub pin: Vec<usize>,
    /// Set to true to end the run early.
    pub stop: Arc<AtomicBool>,
    /// Progress lines on standard error.
    pub progress: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            tls: None,
            admin: None,
            admin_token: None,
            store: None,
            server_pids: Vec::new(),
            store_pids: Vec::new(),
            threads: 1,
            run: None,
            lateness_max: limits::LATENESS_P99_MAX,
            pin: Vec::new(),
            stop: Arc::default(),
            progress: false,
        }
    }
}

/// Why a run has no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Admin(#[from] CreateEventsError),
    #[error(transparent)]
    Play(#[from] WorkerError),
    #[error("reading the store back: {0}")]
    Store(#[from] ReadBackError),
    #[error("{what}: {why}")]
    System { what: &'static str, why: std::io::Error },
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |why| RunError::System { what, why }
}

/// Runs `scenario` and checks its promises.
///
/// # Errors
/// If the run or the read-back failed. Broken promises and an invalid run are in the report.
pub fn run(scenario: Scenario, options: &RunOptions) -> Result<RunReport, RunError> {
    let run = options.run.clone().unwrap_or_else(run_id_from_clock);
    let events = event_ids(&scenario, &run, options.admin.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("the tokio runtime"))?;
    if let Some(address) = &options.admin {
        runtime.block_on(admin::create(
            address,
            options.admin_token.as_deref(),
            &scenario,
            &events,
        ))?;
    }
    let plan = Arc::new(RunPlan {
        scenario,
        targets: options.targets.clone(),
        tls: options.tls.clone(),
        events,
        run,
        threads: options.threads.max(1),
        stop: Arc::clone(&options.stop),
    });
    let mut groups = Vec::new();
    for (name, pids) in [("server", &options.server_pids), ("store", &options.store_pids)] {
        if !pids.is_empty() {
            groups.push(ProcessGroup::new(name, pids.clone()));
        }
    }
    groups.push(ProcessGroup::new("generator", vec![std::process::id()]));
    let results = run_workers(&plan, options, &mut groups)?;
    let mut stats = RunStats::new();
    let (mut ledgers, mut losses) = (Vec::new(), Vec::new());
    for part in results {
        stats.merge(part.stats);
        ledgers.push(part.ledger);
        losses.extend(part.losses);
    }
    let mut run_ledger = RunLedger::new(ledgers);
    let mut violations = run_ledger.take_violations();
    let read = match &options.store {
        None => None,
        Some(store) => {
            if options.progress {
                inventory_process::report("reading the store back …");
            }
            let read = runtime.block_on(store::read_back(store, &plan.events, &mut run_ledger))?;
            violations.absorb(read.violations.clone());
            Some(read)
        }
    };
    Ok(report::make(&report::RunResults {
        plan: &plan,
        lateness_max: options.lateness_max,
        stats: &stats,
        ledger: &run_ledger,
        violations: &violations,
        read: read.as_ref(),
        groups: &groups,
        losses: &losses,
    }))
}

fn run_id_from_clock() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("g{:x}", since.as_millis() & 0xff_ffff_ffff)
}

fn event_ids(scenario: &Scenario, run: &str, created: bool) -> Vec<String> {
    let prefix = &scenario.events.prefix;
    (0..scenario.events.count)
        .map(|n| match created {
            true => format!("{prefix}_{run}_{n}"),
            false => format!("{prefix}_{n}"),
        })
        .collect()
}

/// Runs the workers; meanwhile samples processes and shows progress.
fn run_workers(
    plan: &Arc<RunPlan>,
    options: &RunOptions,
    groups: &mut [ProcessGroup],
) -> Result<Vec<WorkerResult>, RunError> {
    let lives: Vec<_> =
        (0..plan.threads).map(|_| Arc::new(Mutex::new(LiveStats::default()))).collect();
    let (ready, is_ready) = mpsc::channel();
    let mut workers = Vec::new();
    let mut starts = Vec::new();
    for (part, live) in (0..plan.threads).zip(&lives) {
        let (go, wait) = mpsc::channel();
        starts.push(go);
        let (plan, live, ready) = (Arc::clone(plan), Arc::clone(live), ready.clone());
        let cpu = match options.pin.is_empty() {
            true => None,
            false => Some(options.pin[part as usize % options.pin.len()]),
        };
        let work = move || {
            if let Some(cpu) = cpu {
                pin(cpu).map_err(|why| WorkerError::System { what: "--pin", why })?;
            }
            worker::run(&plan, part, &live, &ready, &wait)
        };
        let thread = std::thread::Builder::new().name(format!("worker-{part}"));
        workers.push(thread.spawn(work).map_err(system("a worker thread"))?);
    }
    drop(ready);
    let all_ready = (0..plan.threads).all(|_| is_ready.recv().is_ok());
    let start = Instant::now() + Duration::from_millis(50);
    if all_ready {
        for go in &starts {
            // The error of a worker that has ended is returned below.
            let _ = go.send(start);
        }
        sample_until(plan, options, groups, &lives, start, || {
            workers.iter().all(std::thread::JoinHandle::is_finished)
        })?;
    }
    drop(starts);
    let mut results = Vec::new();
    for worker in workers {
        match worker.join() {
            Ok(result) => results.extend(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(results)
}

fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Samples the processes each second, at the end of the warm-up and at the end of the schedule, until `done`.
fn sample_until(
    plan: &RunPlan,
    options: &RunOptions,
    groups: &mut [ProcessGroup],
    lives: &[Arc<Mutex<LiveStats>>],
    start: Instant,
    done: impl Fn() -> bool,
) -> Result<(), RunError> {
    let warmup = plan.scenario.warmup;
    let end = plan.scenario.whole().seconds();
    let mut sample = |at: f64| {
        groups
            .iter_mut()
            .try_for_each(|group| group.sample(at))
            .map_err(system("a measured process"))
    };
    let mut progress = ProgressLine::new(options.progress, end);
    let mut marks: Vec<f64> = (0..=end as u32).map(f64::from).chain([warmup, end]).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let mut marks = marks.into_iter().peekable();
    while !done() {
        let now = Instant::now().saturating_duration_since(start).as_secs_f64();
        if marks.peek().is_some_and(|mark| *mark <= now) {
            while marks.next_if(|mark| *mark <= now).is_some() {}
            sample(now)?;
            progress.show(now, lives);
        }
        // Short: `done` is polled.
        let wait = marks.peek().map_or(0.02, |mark| (mark - now).clamp(0.001, 0.02));
        std::thread::sleep(Duration::from_secs_f64(wait));
    }
    let now = start.elapsed().as_secs_f64();
    sample(now)?;
    progress.end();
    Ok(())
}

struct ProgressLine {
    shown: bool,
    terminal: bool,
    end: f64,
    last: (f64, LiveStats),
}

impl ProgressLine {
    fn new(shown: bool, end: f64) -> Self {
        Self {
            shown,
            terminal: std::io::stderr().is_terminal(),
            end,
            last: (0.0, LiveStats::default()),
        }
    }

    fn show(&mut self, now: f64, lives: &[Arc<Mutex<LiveStats>>]) {
        if !self.shown || now - self.last.0 < 0.5 {
            return;
        }
        let mut all = LiveStats::default();
        for live in lives {
            let live = *live.lock().unwrap_or_else(PoisonError::into_inner);
            all.sent += live.sent;
            all.not_sent += live.not_sent;
            all.ok += live.ok;
            all.refused += live.refused;
            all.shed += live.shed;
            all.errors += live.errors;
            all.in_flight += live.in_flight;
            all.check_p95 = all.check_p95.max(live.check_p95);
            all.write_p95 = all.write_p95.max(live.write_p95);
        }
        let (then, last) = self.last;
        let rate = |now_count: u64, last_count: u64| {
            (now_count.saturating_sub(last_count) as f64 / (now - then)).round()
        };
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let line = format!(
            "{now:6.1} of {:.0} s  {:>7}/s sent  {:>7}/s ok  {} refused  {} shed  {} errors  {} not sent  {} in flight  p95 {:.1} ms, checks {:.1} ms",
            self.end,
            rate(all.sent, last.sent),
            rate(all.ok, last.ok),
            all.refused,
            all.shed,
            all.errors,
            all.not_sent,
            all.in_flight,
            ms(all.write_p95),
            ms(all.check_p95),
        );
        let mut err = std::io::stderr().lock();
        // A failed write of the progress line does not stop the run.
        let _ = match self.terminal {
            true => write!(err, "\r\x1b[K{line}"),
            false => writeln!(err, "{line}"),
        };
        self.last = (now, all);
    }

    fn end(&self) {
        if self.shown && self.terminal {
            inventory_process::report("");
        }
    }
}
