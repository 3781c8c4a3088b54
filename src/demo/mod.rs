//! `demo`: sells out an event while the user watches, and proves the promises from the content of the store.
//!
//! Runs a real server on free ports, an engine in memory and real clients on real sockets, followed by an
//! [`audit`] that compares the store with every answer.

mod audit;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inventory_client::sale::{self, SalePlan, SaleProgress, SaleReport};
use tokio::sync::{oneshot, watch};

use self::audit::SaleAudit;
use crate::config::{Config, whole_number};
use crate::limits;
use crate::output::{self, OutputError, StandardOutput};
use crate::preflight::Explanation;
use crate::server::{self, CounterReader, Server};
use inventory_core::counters::Counters;
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};

/// The event on sale.
const EVENT: &str = "evt_demo";

/// Interval of the batch size samples; the peak is the best sample.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Samples with fewer transactions are ignored.
const SAMPLE_TRANSACTIONS_MIN: u64 = 5;

/// Options of `demo`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct DemoOptions {
    /// Tickets on sale
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = whole_number(1..=limits::DEMO_TICKETS_MAX))]
    pub(crate) tickets: u64,

    /// Buyers of one to ten tickets each [default: four times the demand]
    #[arg(long, value_name = "N",
          value_parser = whole_number(1..=limits::DEMO_BUYERS_MAX))]
    pub(crate) buyers: Option<u64>,

    /// Connections shared by the buyers
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = whole_number(2..=limits::DEMO_CONNECTIONS_MAX))]
    pub(crate) connections: u32,

    /// Stripes of the event
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = whole_number(1..=limits::STRIPES_MAX))]
    pub(crate) stripes: u16,
}

/// Why a demonstration failed.
#[derive(Debug)]
pub(crate) enum DemoError {
    Start(Explanation),
    Load(String),
    /// The audit could not read the store.
    Audit(String),
    /// A promise was broken; the table shows which.
    Broken,
    /// Standard output could not be written.
    Output(OutputError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(why) => why.fmt(f),
            Self::Load(why) => write!(f, "the sale could not be played: {why}"),
            Self::Audit(why) => write!(f, "the store could not be read back: {why}"),
            Self::Broken => f.write_str("a promise was broken; the table shows which"),
            Self::Output(error) => error.fmt(f),
        }
    }
}

impl From<Explanation> for DemoError {
    fn from(why: Explanation) -> Self {
        Self::Start(why)
    }
}

impl From<OutputError> for DemoError {
    fn from(error: OutputError) -> Self {
        Self::Output(error)
    }
}

/// Runs the sale; an error also when a promise was broken.
///
/// # Errors
/// When the server does not start or the sale breaks a promise.
pub(crate) fn run(config: Config, options: &DemoOptions) -> Result<(), DemoError> {
    let config =
        // Its buyers connect without TLS, on this machine.
        Config { grpc_port: 0, metrics_port: 0, admin: None, grpc_tls: None, ..config.without_default_collector() };
    let engine = EmbeddedEngine::start(EngineStorage::Memory)
        .map_err(|error| DemoError::Load(error.to_string()))?;
    let store = server::dev::engine_store(&config, &engine);
    let stripes =
        u16::try_from(options.tickets).map_or(options.stripes, |t| options.stripes.min(t));
    server::dev::prepare(&store, &config.store, Some((EVENT, options.tickets, stripes)))?;
    let server = Server::start(&config, store.clone(), false)?;

    let plan = plan(options, server.addresses().grpc.port());
    output::print(format_args!(
        "{} buyers on {} connections want {} tickets; {} shard(s), engine in memory\n",
        plan.buyers,
        plan.connections,
        plan.tickets,
        config.shard_cpus.len()
    ))?;
    let (report, batches) = sell(plan, &server)?;
    let stopped = server.stop();
    let audit = SaleAudit::read(&store, EVENT, &report).map_err(DemoError::Audit)?;
    engine.stop();

    output::print(SaleSummary { report: &report, audit: &audit, batches })?;
    let settled =
        stopped.unfinished == crate::shard::UnfinishedWork::default() && !stopped.shard_failed;
    if audit.is_clean() && report.is_clean() && settled {
        Ok(())
    } else {
        for line in audit.broken() {
            output::print(format_args!("broken: {line}"))?;
        }
        for line in report.ledger.violations() {
            output::print(format_args!("broken: {line}"))?;
        }
        for (status, count) in &report.errors {
            output::print(format_args!("error: {count} × {status}"))?;
        }
        for example in &report.error_examples {
            output::print(format_args!("for example: {example}"))?;
        }
        Err(DemoError::Broken)
    }
}

fn plan(options: &DemoOptions, port: u16) -> SalePlan {
    let mut plan = SalePlan::new(vec![format!("127.0.0.1:{port}")], EVENT, options.tickets);
    plan.connections = options.connections as usize;
    if let Some(buyers) = options.buyers {
        plan.buyers = buyers;
    }
    plan
}

/// Plays the sale with a live line, and watches the batches meanwhile.
fn sell(plan: SalePlan, server: &Server) -> Result<(SaleReport, BatchSizes), DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DemoError::Load(error.to_string()))?;
    let (progress, seen) = watch::channel(SaleProgress::default());
    let over = Arc::new(AtomicBool::new(false));
    let totals = server.counter_reader();
    let line = StatusLine::new()?;
    let (unread, output_failed) = oneshot::channel();
    let (played, batches) = std::thread::scope(|scope| {
        let watching = scope.spawn({
            let over = Arc::clone(&over);
            move || watch_batches(&totals, &seen, &over, line, unread)
        });
        let played = runtime.block_on(async {
            tokio::select! {
                played = sale::run(plan, Some(progress)) => {
                    played.map_err(|error| DemoError::Load(error.to_string()))
                }
                // A sale that nobody watches ends.
                Ok(error) = output_failed => Err(DemoError::Output(error)),
            }
        });
        over.store(true, Ordering::Release);
        (played, watching.join())
    });
    let batches = batches.map_err(|_| DemoError::Load("the progress thread panicked".into()))?;
    Ok((played?, batches?))
}

/// Reservations per transaction.
#[derive(Clone, Copy, Debug, Default)]
struct BatchSizes {
    transactions: u64,
    members: u64,
    /// Of the best interval.
    peak: f64,
    largest: u64,
}

fn watch_batches(
    totals: &CounterReader,
    progress: &watch::Receiver<SaleProgress>,
    over: &AtomicBool,
    mut line: StatusLine,
    unread: oneshot::Sender<OutputError>,
) -> Result<BatchSizes, OutputError> {
    let mut batches = BatchSizes::default();
    let mut before = Counters::default();
    let mut unread = Some(unread);
    while !over.load(Ordering::Acquire) {
        std::thread::sleep(SAMPLE_EVERY);
        let now = totals.read();
        let transactions = now.transactions.saturating_sub(before.transactions);
        let members = now.entries.saturating_sub(before.entries);
        if transactions >= SAMPLE_TRANSACTIONS_MIN {
            batches.peak = batches.peak.max(members as f64 / transactions as f64);
        }
        before = now;
        if let Err(error) = line.show(&progress.borrow())
            && let Some(unread) = unread.take()
        {
            let _ = unread.send(error);
        }
    }
    let all = totals.read();
    batches.transactions = all.transactions;
    batches.members = all.entries;
    batches.largest = all.entries_max;
    line.end()?;
    Ok(batches)
}

/// The live line: rewritten in place on a terminal, a line a second elsewhere.
struct StatusLine {
    out: StandardOutput,
    last: Instant,
}

impl StatusLine {
    fn new() -> Result<Self, OutputError> {
        Ok(Self { out: StandardOutput::open()?, last: Instant::now() })
    }

    fn show(&mut self, progress: &SaleProgress) -> Result<(), OutputError> {
        if self.out.is_terminal() {
            return self.out.write(&format!("\r\x1b[2K{progress}"));
        }
        if self.last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.last = Instant::now();
        self.out.write(&format!("{progress}\n"))
    }

    fn end(&mut self) -> Result<(), OutputError> {
        let end = if self.out.is_terminal() { "\r\x1b[2K" } else { "\n" };
        self.out.write(end)
    }
}

/// The table at the end.
struct SaleSummary<'a> {
    report: &'a SaleReport,
    audit: &'a SaleAudit,
    batches: BatchSizes,
}

impl fmt::Display for SaleSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, audit, batches } = self;
        let counts = report.ledger.counts();
        let ms =
            |percentile: f64| format!("{:.1} ms", report.latency_us_at(percentile) as f64 / 1e3);
        let per_transaction = batches.members as f64 / batches.transactions.max(1) as f64;
        let rows = [
            ("tickets", report.tickets.to_string(), ""),
            ("sold", audit.sold.to_string(), "units of confirmed records in the store"),
            ("remaining", audit.remaining.to_string(), "in the store, over all stripes"),
            ("confirmed", counts.confirmed.to_string(), "reservations"),
            ("refused", counts.sold_out.to_string(), "reservations, not enough left"),
            (
                "released first",
                counts.late_commits_refused.to_string(),
                "their late commit refused",
            ),
            (
                "released after",
                counts.late_releases_refused.to_string(),
                "refused: a sold ticket stays sold",
            ),
            (
                "other payload",
                counts.conflicts_refused.to_string(),
                "refused: same id, other quantity",
            ),
            ("duplicates", counts.duplicates_identical.to_string(), "answered identically"),
            ("", counts.duplicates_different.to_string(), "answered differently"),
            ("oversold", audit.oversold.max(report.oversold_units()).to_string(), "units"),
            ("undersold", report.undersold_units().to_string(), "units"),
            ("latency p50", ms(50.0), ""),
            ("        p95", ms(95.0), ""),
            ("        p99", ms(99.0), ""),
            ("        max", format!("{:.1} ms", report.latency_us.max() as f64 / 1e3), ""),
            (
                "requests",
                format!("{:.0}/s", report.requests_per_second()),
                "buyers, server and engine on this machine",
            ),
            ("batches", format!("{per_transaction:.1}"), "reservations per transaction"),
            ("  peak", format!("{:.1}", batches.peak), "in the best fifth of a second"),
            ("  largest", batches.largest.to_string(), "of 99 that fit"),
        ];
        for (name, value, note) in rows {
            let row = format!("  {name:<15}{value:>12}   {note}");
            writeln!(f, "{}", row.trim_end())?;
        }
        let verdict = if self.audit.is_clean() && self.report.is_clean() {
            "every promise kept: the store matches every answer"
        } else {
            "A PROMISE WAS BROKEN"
        };
        write!(f, "\n{verdict}")
    }
}
