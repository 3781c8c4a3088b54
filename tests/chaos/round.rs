//! One round: a store, three servers, a load, the faults of a seed, and what must hold at the end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use inventory_history::{
    CallEffect, CallOperation, CheckRules, History, HistoryRecorder, RecordedCall,
};
use inventory_testkit::server::{ServerCommand, report_skipped};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::clients::{FailureCounts, RecordingClient, ServerEndpoints};
use crate::faults::{CLOCK_STEP_MAX, ChaosTarget, FaultOutcome};
use crate::http::get_status;
use crate::load::{ChaosLoad, HALL, SCARCE, ServerProbe, UNITS};
use crate::moved_holds::MovedHolds;
use crate::report::{RoundReport, report};
use crate::schedule::{ChaosFault, ChaosSlot, RoundShape, slots};
use crate::server::{ChaosServer, SERVERS};
use crate::settings::ChaosSettings;
use crate::store::StoreUnderTest;
use crate::stored_state::{EVENTS, create_events, held_reservations, read_state};

/// Successful calls in a row, at each server, after which a server is back to normal.
const NORMAL_CALLS: usize = 5;

/// Time within which all processes are back to normal after a fault: the ten seconds within which the outage drill
/// demands all stock back, three times that for a debug build on a machine that runs other tests.
const NORMAL_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 10 });

/// Time within which the stock of expired holds is back: from here on `verify` reports an overdue hold as a breach. A
/// process whose part of the index has dead first readers finds a hold within 45 s (docs/adr/0012-expiry.md).
const HOLDS_BACK_MAX: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Numbers of clients that are not workers.
const PROBE_CLIENTS: u32 = 100;
const MOVED_CLIENT: u32 = 200;

/// Lines of each log that a violation is reported with.
const LOG_LINES: usize = 40;

/// A running round.
struct ChaosRound {
    target: ChaosTarget,
    addresses: Vec<ServerEndpoints>,
    recorder: HistoryRecorder,
    probes: Vec<ServerProbe>,
    report: RoundReport,
    failures: FailureCounts,
    /// Prints a line per slot.
    is_verbose: bool,
}

/// Runs the round of a seed. Even seeds have the engine on disk, odd seeds the model.
pub(crate) async fn run_round(settings: &ChaosSettings, seed: u64) -> RoundReport {
    let began = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let has_disk = seed.is_multiple_of(2);
    let mut round = ChaosRound::start(seed, has_disk, directory.path()).await;
    round.is_verbose = settings.is_full;
    let shape = RoundShape { has_disk, is_full: settings.is_full, outage: settings.outage };
    if let Err(violation) = round.run(slots(seed, shape)).await {
        round.report.violations.push(violation);
    }
    if !round.report.violations.is_empty() {
        round.print_logs().await;
    }
    round.report.took = began.elapsed();
    round.report
}

impl ChaosRound {
    async fn start(seed: u64, has_disk: bool, directory: &Path) -> Self {
        let store = match has_disk {
            true => StoreUnderTest::start_disk(directory).await,
            false => StoreUnderTest::start_model(seed),
        };
        create_events(store.address()).await;
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let address = store.address.clone();
            servers.push(ChaosServer::prepare(number, address, seed, directory).await);
        }
        let started = join_all(servers.iter_mut().map(ChaosServer::start)).await;
        started.into_iter().collect::<Result<(), _>>().unwrap();
        let report = RoundReport { seed, store: store.name(), ..RoundReport::default() };
        let addresses = |server: &ChaosServer| ServerEndpoints {
            grpc: server.relay.address,
            admin: server.admin.clone(),
        };
        let addresses = servers.iter().map(addresses).collect();
        let target = ChaosTarget {
            fronts: servers.iter().map(|server| server.front.clone()).collect(),
            relays: servers.iter().map(|server| server.relay.clone()).collect(),
            servers: servers.into_iter().map(Mutex::new).collect(),
            store: Mutex::new(store),
        };
        let mut round = Self {
            target,
            addresses,
            recorder: HistoryRecorder::new(),
            probes: Vec::new(),
            report,
            failures: FailureCounts::default(),
            is_verbose: false,
        };
        let probe = |server| {
            let client = round.client(PROBE_CLIENTS + server as u32);
            ServerProbe::start(server, client)
        };
        round.probes = (0..SERVERS).map(probe).collect();
        round
    }

    fn client(&self, number: u32) -> RecordingClient {
        self.client_of(number, &self.recorder)
    }

    fn client_of(&self, number: u32, recorder: &HistoryRecorder) -> RecordingClient {
        RecordingClient::new(number, &self.addresses, recorder.clone(), self.failures.clone())
    }

    /// # Errors
    /// A violation after which the round cannot go on.
    async fn run(&mut self, slots: Vec<ChaosSlot>) -> Result<(), String> {
        self.wait_for_normal("the start", Instant::now()).await?;
        let load = ChaosLoad::start(self.report.seed, |number| self.client(number));
        let mut faults = Ok(());
        for slot in slots {
            faults = self.run_slot(&slot).await;
            if faults.is_err() {
                break;
            }
        }
        let pending = load.finish().await;
        let without = pending.iter().map(|call| format!("no outcome after all faults: {call:?}"));
        self.report.violations.extend(without);
        self.probes.clear();
        self.report.affected = self.target.fronts.iter().map(|front| front.affected()).sum();
        // A process that is slow to return does not excuse what the history shows.
        let holds = self.wait_for_holds().await;
        self.check().await;
        faults.and(holds)?;
        for server in &self.target.servers {
            server.lock().await.drain().await?;
        }
        Ok(())
    }

    /// Does the faults of a slot at the same time and measures the return to normal.
    async fn run_slot(&mut self, slot: &ChaosSlot) -> Result<(), String> {
        let outage = slot.iter().find(|fault| fault.kind == ChaosFault::StoreOutage);
        let moved = match outage {
            // Recorded apart: their expiry is not the one that they were placed with.
            Some(_) => {
                let client = self.client_of(MOVED_CLIENT, &HistoryRecorder::new());
                Some(MovedHolds::place(&client, 0).await?)
            }
            None => None,
        };
        let store = self.target.store.lock().await.address();
        let moving = async {
            if let (Some(moved), Some(outage)) = (&moved, outage) {
                tokio::time::sleep(outage.after + outage.lasts / 2).await;
                moved.move_back(store).await;
            }
        };
        let faults = join_all(slot.iter().map(|fault| self.target.execute(*fault)));
        let (outcomes, ()) = futures::join!(faults, moving);
        let ended = Instant::now();
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = slot.iter().map(|fault| fault.kind.name()).collect();
        let names = names.join("; ");
        let normal = self.wait_for_normal(&names, ended).await?;
        if self.is_verbose {
            report(&format!("  seed {}: {normal:>7.1?}  {names}", self.report.seed));
        }
        for (fault, outcome) in slot.iter().zip(outcomes) {
            if let FaultOutcome::Skipped(why) = outcome {
                report_skipped(&format!("chaos: {}", fault.kind.name()), why);
            }
            self.report.faults.push((fault.kind, outcome, normal));
        }
        if let Some(moved) = moved {
            while moved.held(store).await > 0 {
                if ended.elapsed() > HOLDS_BACK_MAX {
                    let held = moved.held(store).await;
                    return Err(format!("{held} holds that expired long ago are not back"));
                }
                tokio::time::sleep(POLL).await;
            }
            self.report.moved_holds_back = ended.elapsed();
        }
        self.check_processes().await
    }

    /// Waits until each server has answered successive calls successfully. Returns the time since `since`.
    async fn wait_for_normal(&self, what: &str, since: Instant) -> Result<Duration, String> {
        let mut slowest = Duration::ZERO;
        for (number, probe) in self.probes.iter().enumerate() {
            let normal_at = loop {
                if let Some(at) = probe.normal_at(since, NORMAL_CALLS) {
                    break at;
                }
                if since.elapsed() > NORMAL_MAX {
                    return Err(format!(
                        "server {number} is not back to normal {NORMAL_MAX:?} after {what}"
                    ));
                }
                tokio::time::sleep(POLL).await;
            };
            slowest = slowest.max(normal_at - since);
        }
        Ok(slowest)
    }

    /// No server has ended by itself, and all are ready.
    async fn check_processes(&mut self) -> Result<(), String> {
        for server in &self.target.servers {
            let mut server = server.lock().await;
            if let Some(status) = server.exit_status() {
                return Err(format!("server {} has ended by itself: {status}", server.number));
            }
            let began = Instant::now();
            while get_status(&server.metrics, "/readyz").await != 200 {
                if began.elapsed() > NORMAL_MAX {
                    return Err(format!("server {} answers, but is not ready", server.number));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Waits until all holds of the load have expired and their stock is back.
    async fn wait_for_holds(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let store = self.target.store.lock().await.address();
        for event in [UNITS, SCARCE, HALL] {
            loop {
                let held = held_reservations(store, event).await;
                if held == 0 {
                    break;
                }
                if began.elapsed() > HOLDS_BACK_MAX {
                    return Err(format!("{event}: {held} holds are not back"));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        self.report.last_holds_back = began.elapsed();
        Ok(())
    }

    /// Checks the store by `verify`, and the history against the store.
    async fn check(&mut self) {
        for (event, server) in EVENTS.iter().zip((0..SERVERS).cycle()) {
            let admin = self.target.servers[server].lock().await.admin.clone();
            let verify = move || ServerCommand::new(&["verify", event, "--admin", &admin]).run();
            let verified = spawn_blocking(verify).await.unwrap();
            if verified.code != Some(0) {
                let (out, err) = (verified.out, verified.err);
                self.report.violations.push(format!("verify {event}:\n{out}{err}"));
            }
        }
        let store = self.target.store.lock().await.address();
        let state = Arc::new(read_state(store, self.recorder.now()).await);
        let history = Arc::new(self.recorder.history());
        self.count(&history);
        let (checked_history, final_state) = (history.clone(), state.clone());
        let check =
            move || inventory_history::check(&checked_history, &final_state, &check_rules());
        let checked = spawn_blocking(check).await.unwrap();
        self.report.summary = checked.summary;
        self.report.violations.extend(checked.violations.iter().map(ToString::to_string));
        if checked.summary.not_decided > 0 {
            let text = format!("histories without a decision: {}", checked.summary.not_decided);
            self.report.violations.push(text);
        }
        for id in &checked.foreign_records {
            let record = &state.reservations[id];
            let calls: Vec<&RecordedCall> =
                history.calls.iter().filter(|call| call.reservation_id == *id).collect();
            let text =
                format!("a record that no call has made: {id}: {record:?}, calls: {calls:?}");
            self.report.violations.push(text);
        }
    }

    fn count(&mut self, history: &History) {
        for call in &history.calls {
            let operation = match &call.operation {
                CallOperation::Hold { .. } => "hold",
                CallOperation::Commit { .. } => "commit",
                CallOperation::Release { .. } => "release",
                CallOperation::Read => "read",
                CallOperation::Refund => "refund",
            };
            let counted = (operation, effect_name(&call.effect));
            *self.report.calls.entry(counted).or_insert(0) += 1;
            self.report.acknowledged += usize::from(is_success(&call.effect));
        }
        self.report.failures.clone_from(&self.failures.lock().unwrap());
    }

    async fn print_logs(&self) {
        for violation in &self.report.violations {
            report(&format!("violation (seed {}): {violation}", self.report.seed));
        }
        for server in &self.target.servers {
            let server = server.lock().await;
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            report(&format!("end of the log of server {}:\n{}", server.number, last.join("\n")));
        }
    }
}

/// The clocks of the servers are moved, and frozen servers answer late.
fn check_rules() -> CheckRules {
    let defaults = CheckRules::default();
    CheckRules { clock_difference: defaults.clock_difference + CLOCK_STEP_MAX, ..defaults }
}

fn is_success(effect: &CallEffect) -> bool {
    matches!(
        effect,
        CallEffect::Confirmed { .. }
            | CallEffect::Held { .. }
            | CallEffect::Released
            | CallEffect::Refunded
    )
}

fn effect_name(effect: &CallEffect) -> &'static str {
    match effect {
        CallEffect::Unknown => "unknown",
        CallEffect::Refused => "refused, not executed",
        CallEffect::Confirmed { .. } => "CONFIRMED",
        CallEffect::Held { .. } => "HELD",
        CallEffect::Released => "RELEASED",
        CallEffect::Refunded => "REFUNDED",
        CallEffect::ReservationNotConfirmed => "RESERVATION_NOT_CONFIRMED",
        CallEffect::SoldOut => "INSUFFICIENT_INVENTORY",
        CallEffect::SeatUnavailable { .. } => "SEAT_UNAVAILABLE",
        CallEffect::HoldExpired => "HOLD_EXPIRED",
        CallEffect::ReservationReleased => "RESERVATION_RELEASED",
        CallEffect::ReservationCommitted => "RESERVATION_COMMITTED",
        CallEffect::ReservationNotFound => "RESERVATION_NOT_FOUND",
        CallEffect::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
        CallEffect::Read { .. } => "OK",
        _ => "other",
    }
}
