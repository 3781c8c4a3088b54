//! The load of a round: workers in a closed loop, each with one reservation at a time, and one prober per server.
//!
//! A worker repeats a call without an outcome at the next server, as docs/clients.md says. After a number of attempts it
//! goes on with another reservation and repeats the call at the end of the round: every reservation gets an outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inventory_history::{CallEffect, CallOperation, StockSelection};
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::clients::{RecordingClient, RepeatableCall, unix_ms};
use crate::server::SERVERS;

/// Units without end.
pub(crate) const UNITS: &str = "evt_units";
/// Units that sell out.
pub(crate) const SCARCE: &str = "evt_scarce";
/// A hall: most of its seats are released, or their holds expire, and they are sold again.
pub(crate) const HALL: &str = "evt_hall";
/// What the probers buy.
pub(crate) const PROBE: &str = "evt_probe";

/// Number of seats of the hall. Few, so that they are contested.
pub(crate) const HALL_SEATS: usize = 240;

const WORKERS: u32 = if cfg!(debug_assertions) { 6 } else { 12 };

/// Longest pause of a worker between two reservations.
const PAUSE_MAX: Duration = Duration::from_millis(60);

/// Pause between two probes of one server, after a success and after a failure.
const PROBE_PAUSE: Duration = Duration::from_millis(25);
const FAILED_PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Attempts of a call before it is postponed to the end of the round.
const ATTEMPTS: u32 = 6;

/// Pause after the first attempt without an outcome; doubled each time.
const BACKOFF: Duration = Duration::from_millis(40);
const BACKOFF_MAX: Duration = Duration::from_millis(400);

/// Time within which a postponed call gets its outcome when all faults are over.
const OUTCOME_MAX: Duration = Duration::from_secs(20);

/// Lengths of holds, in milliseconds: most expire within the round, many within an outage.
const HOLD_MS: std::ops::Range<u64> = 800..6_000;

/// The id of a seat of the hall.
pub(crate) fn seat_id(number: usize) -> String {
    format!("S-{}-{}", number / 24, number % 24 + 1)
}

/// Workers until [`ChaosLoad::finish`].
pub(crate) struct ChaosLoad {
    is_stopped: Arc<AtomicBool>,
    workers: JoinSet<Vec<RepeatableCall>>,
}

impl ChaosLoad {
    pub(crate) fn start(seed: u64, client: impl Fn(u32) -> RecordingClient) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let mut worker = LoadWorker {
                client: client(number),
                draws: SmallRng::seed_from_u64(seed << 8 | u64::from(number)),
                number,
                is_stopped: is_stopped.clone(),
                postponed: Vec::new(),
            };
            workers.spawn(async move {
                for n in 0.. {
                    if worker.is_stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    worker.next_reservation(n).await;
                    let pause = PAUSE_MAX.mul_f64(worker.draws.random());
                    tokio::time::sleep(pause).await;
                }
                worker.finish().await
            });
        }
        Self { is_stopped, workers }
    }

    /// Stops the workers. Returns the calls that never got an outcome.
    pub(crate) async fn finish(mut self) -> Vec<RepeatableCall> {
        self.is_stopped.store(true, Ordering::Relaxed);
        let mut pending = Vec::new();
        while let Some(calls) = self.workers.join_next().await {
            pending.extend(calls.unwrap());
        }
        pending
    }
}

struct LoadWorker {
    client: RecordingClient,
    draws: SmallRng,
    number: u32,
    is_stopped: Arc<AtomicBool>,
    postponed: Vec<RepeatableCall>,
}

impl LoadWorker {
    /// Makes one reservation, with all its calls.
    async fn next_reservation(&mut self, n: u64) {
        let reservation = format!("w{}-{n}", self.number);
        let call = |event: &str, operation| RepeatableCall {
            reservation: reservation.clone(),
            event: event.to_owned(),
            operation,
        };
        match self.draws.random_range(0..100) {
            0..35 => {
                let event = if self.draws.random_bool(0.9) { UNITS } else { SCARCE };
                let commit = CallOperation::Commit { selection: self.units() };
                self.repeat(&call(event, commit)).await;
            }
            35..45 => {
                let commit = call(UNITS, CallOperation::Commit { selection: self.units() });
                let (one, other) = (self.server(), self.server());
                let first = self.client.attempt(one, &commit);
                let second = self.client.attempt(other, &commit);
                futures::join!(first, second);
                self.repeat(&commit).await;
            }
            45..70 => {
                let event = if self.draws.random_bool(0.7) { UNITS } else { SCARCE };
                let units = self.units();
                self.hold_and_end(event, units, &reservation).await;
            }
            70..97 => {
                let seats = self.seats();
                self.hold_and_end(HALL, seats, &reservation).await;
            }
            _ => {
                let commit = CallOperation::Commit { selection: self.seats() };
                self.repeat(&call(HALL, commit)).await;
            }
        }
    }

    /// Places a hold, then commits it, releases it, or leaves it to its expiry.
    async fn hold_and_end(&mut self, event: &str, selection: StockSelection, reservation: &str) {
        let (reservation, event) = (reservation.to_owned(), event.to_owned());
        let call = |operation| RepeatableCall {
            reservation: reservation.clone(),
            event: event.clone(),
            operation,
        };
        let length = self.draws.random_range(HOLD_MS);
        let expires_at_ms = Some(unix_ms() + length);
        let hold = CallOperation::Hold { selection: selection.clone(), expires_at_ms };
        let effect = self.repeat(&call(hold)).await;
        // Without an outcome the hold may exist; the next call is right in any case.
        let selection = match (effect, selection) {
            (CallEffect::Held { .. } | CallEffect::Unknown, selection) => selection,
            _ => return,
        };
        let end = self.draws.random_range(0..100);
        if end < 15 {
            // A buyer who pays late.
            tokio::time::sleep(Duration::from_millis(length.min(2_000))).await;
        }
        // Few seats are sold for good, so that they are held and released again until the end of the round.
        let commits = if event == HALL { 8 } else { 40 };
        match end {
            end if end < commits => {
                self.repeat(&call(CallOperation::Commit { selection })).await;
            }
            end if end < 65 => {
                self.repeat(&call(CallOperation::Release { selection })).await;
            }
            _ => {}
        }
    }

    /// Repeats a call until it has an outcome, or postpones it.
    async fn repeat(&mut self, call: &RepeatableCall) -> CallEffect {
        let first = self.server();
        let mut backoff = BACKOFF;
        for attempt in 0..ATTEMPTS {
            if let CallOperation::Hold { expires_at_ms: Some(expiry), .. } = call.operation
                && expiry <= unix_ms()
            {
                // A hold must end in the future.
                return CallEffect::Unknown;
            }
            let effect = self.client.attempt((first + attempt as usize) % SERVERS, call).await;
            if !matches!(effect, CallEffect::Unknown | CallEffect::Refused) {
                self.read_or_repeat(call).await;
                return effect;
            }
            tokio::time::sleep(backoff.mul_f64(self.draws.random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.postponed.push(call.clone());
        CallEffect::Unknown
    }

    /// Calls once more after an outcome: reads the reservation, repeats the call, repeats it with another payload, or
    /// refunds what it bought, at any server.
    async fn read_or_repeat(&mut self, call: &RepeatableCall) {
        let operation = match (self.draws.random_range(0..100), &call.operation) {
            (0..15, _) => CallOperation::Read,
            (15..18, CallOperation::Commit { selection: StockSelection::Units(units) }) => {
                CallOperation::Commit { selection: StockSelection::Units(units + 1) }
            }
            (18..22, CallOperation::Commit { selection }) => {
                CallOperation::Release { selection: selection.clone() }
            }
            (22..28, CallOperation::Commit { .. } | CallOperation::Release { .. }) => {
                call.operation.clone()
            }
            (28..40, CallOperation::Commit { .. }) => CallOperation::Refund,
            _ => return,
        };
        let server = self.server();
        self.client.attempt(server, &RepeatableCall { operation, ..call.clone() }).await;
    }

    /// Repeats the postponed calls. Returns those without an outcome.
    async fn finish(self) -> Vec<RepeatableCall> {
        let deadline = Instant::now() + OUTCOME_MAX;
        let mut pending = Vec::new();
        for call in self.postponed {
            // The hold of an earlier time cannot be placed any more.
            if matches!(call.operation, CallOperation::Hold { .. }) {
                continue;
            }
            let mut server = self.number as usize;
            loop {
                let effect = self.client.attempt(server % SERVERS, &call).await;
                if !matches!(effect, CallEffect::Unknown | CallEffect::Refused) {
                    break;
                }
                if Instant::now() > deadline {
                    pending.push(call);
                    break;
                }
                server += 1;
                tokio::time::sleep(BACKOFF).await;
            }
        }
        pending
    }

    fn server(&mut self) -> usize {
        self.draws.random_range(0..SERVERS)
    }

    fn units(&mut self) -> StockSelection {
        StockSelection::Units(self.draws.random_range(1..=3))
    }

    /// One to three seats by id, or as many that the server chooses.
    fn seats(&mut self) -> StockSelection {
        let count = self.draws.random_range(1..=3);
        match self.draws.random_bool(0.3) {
            true => StockSelection::AnySeats(count as u32),
            false => {
                let seats = sample(&mut self.draws, HALL_SEATS, count);
                StockSelection::seats(seats.into_iter().map(seat_id))
            }
        }
    }
}

/// Successive calls to one server, one at a time.
pub(crate) struct ServerProbe {
    results: Arc<std::sync::Mutex<Vec<ProbeResult>>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct ProbeResult {
    began: Instant,
    ended: Instant,
    is_success: bool,
}

impl ServerProbe {
    pub(crate) fn start(server: usize, client: RecordingClient) -> Self {
        let results = Arc::new(std::sync::Mutex::new(Vec::new()));
        let shared = Arc::clone(&results);
        let task = tokio::spawn(async move {
            for n in 0.. {
                let call = RepeatableCall {
                    reservation: format!("p{server}-{n}"),
                    event: PROBE.to_owned(),
                    operation: CallOperation::Commit { selection: StockSelection::Units(1) },
                };
                let began = Instant::now();
                let effect = client.attempt(server, &call).await;
                let is_success = matches!(effect, CallEffect::Confirmed { .. });
                let result = ProbeResult { began, ended: Instant::now(), is_success };
                shared.lock().unwrap().push(result);
                let pause = if is_success { PROBE_PAUSE } else { FAILED_PROBE_PAUSE };
                tokio::time::sleep(pause).await;
            }
        });
        Self { results, task }
    }

    /// When the first `count` successive successful calls were answered, of those that began after `since`.
    pub(crate) fn normal_at(&self, since: Instant, count: usize) -> Option<Instant> {
        let results = self.results.lock().unwrap();
        let from = results.partition_point(|result| result.began < since);
        let run = results[from..].windows(count);
        let mut run = run.filter(|run| run.iter().all(|result| result.is_success));
        Some(run.next()?.last()?.ended)
    }
}

impl Drop for ServerProbe {
    fn drop(&mut self) {
        self.task.abort();
    }
}
