//! The turns of a worker.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::iter::Peekable;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::call::CallSlot;
use super::timer::PreciseTimer;
use super::{LiveStats, RunPlan, WorkerError, WorkerResult};
use crate::ledger::WorkerLedger;
use crate::limits;
use crate::outcome::{CallAnswer, CallMethod, OutcomeKind};
use crate::schedule::Arrivals;
use crate::stats::{LatencyHistogram, RunStats, SecondStats};
use crate::wire::connection::{ClientConnection, ConnectionEvent};
use crate::wire::ready::ReadyList;
use crate::wire::request::{CallSpec, HoldEnd, RequestEncoder};
use crate::workload::{PlannedCall, RepeatDecision, Workload};

/// Set in the waker numbers of connections; wakers of calls do not have it.
const CONNECTION_BIT: u32 = 1 << 31;

/// A delayed repeat: when it is due, and its index in `delayed_calls`.
type DelayedRepeat = Reverse<(u64, u32)>;

pub(super) struct EventLoop {
    plan: Arc<RunPlan>,
    part: u32,
    live: Arc<Mutex<LiveStats>>,
    ready_list: Arc<ReadyList>,
    woken: Vec<u32>,
    start: Instant,
    /// Nanoseconds since the start: the measured part begins, and no more calls are due.
    measured_from: u64,
    end: u64,

    connections: Vec<ClientConnection>,
    /// Where the search for a free connection starts.
    next_connection: usize,
    /// Consecutive calls on that connection.
    consecutive: u32,
    slots: Vec<CallSlot>,
    free: Vec<u32>,
    in_flight: usize,
    in_flight_max: usize,
    call_timeout: u64,

    /// Open loop.
    arrivals: Peekable<Arrivals>,
    /// Closed loop.
    users: Option<ClosedLoop>,
    delayed: BinaryHeap<DelayedRepeat>,
    /// Calls of `delayed`, with the connection of the first attempt.
    delayed_calls: Vec<(PlannedCall, u32)>,
    delayed_free: Vec<u32>,
    workload: Workload,
    encoder: RequestEncoder,
    seats: Vec<u32>,
    ledger: WorkerLedger,
    stats: RunStats,

    /// Due times of the calls passed to connections in this turn.
    unwritten: Vec<u64>,
    next_housekeeping: u64,
    second: usize,
    cpu: [Option<Duration>; 2],
    losses: Vec<String>,
}

/// Users of this worker in a closed loop: each sends its next call after the answer to the previous one.
struct ClosedLoop {
    users: usize,
    calls_left: u64,
}

/// Origin of the next due call.
enum DueCall {
    New(u64),
    Repeat(u64),
}

impl DueCall {
    fn at(&self) -> u64 {
        match self {
            Self::New(at) | Self::Repeat(at) => *at,
        }
    }
}

impl EventLoop {
    pub(super) fn new(
        plan: &Arc<RunPlan>,
        part: u32,
        live: Arc<Mutex<LiveStats>>,
    ) -> Result<Self, WorkerError> {
        let scenario = &plan.scenario;
        let threads = plan.threads.max(1);
        let target = plan.targets.first().map_or("", String::as_str);
        let hold = match (scenario.hold_until_ms, scenario.hold_seconds) {
            (Some(ms), _) => HoldEnd::AtUnixMs(ms),
            (None, 0) => HoldEnd::ServerDefault,
            (None, seconds) => HoldEnd::After(Duration::from_secs(seconds)),
        };
        let encoder =
            RequestEncoder::new(scenario.contract, target, &plan.run, scenario.deadline_ms, hold);
        let encoder = encoder.map_err(|_| WorkerError::Target { target: target.to_owned() })?;
        let whole = scenario.whole();
        let nanos = |seconds: f64| (seconds * 1e9) as u64;
        let returns_stock = scenario.mix.returns_stock();
        let arrivals = Arrivals::new(&whole, scenario.spacing, scenario.seed, part, threads);
        let mut ledger =
            WorkerLedger::new(&plan.run, scenario.events.count, returns_stock, part, threads);
        // Pages that are never written cost no memory.
        let calls = scenario.expected_calls() / f64::from(threads);
        let reserving = calls * (1.0 - scenario.mix.check / 100.0);
        ledger.reserve((reserving * 1.02) as usize + 1_000);
        Ok(Self {
            part,
            live,
            ready_list: Arc::default(),
            woken: Vec::new(),
            start: Instant::now(),
            measured_from: nanos(scenario.warmup),
            end: nanos(whole.seconds()),
            connections: Vec::new(),
            next_connection: 0,
            consecutive: 0,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            in_flight_max: (scenario.in_flight / threads as usize).max(1),
            call_timeout: nanos((scenario.deadline() + limits::DEADLINE_SLACK).as_secs_f64()),
            arrivals: arrivals.peekable(),
            users: scenario.users.map(|users| ClosedLoop {
                users: share_of(users, part, threads).max(1),
                calls_left: share_of(scenario.call_limit(), part, threads) as u64,
            }),
            delayed: BinaryHeap::new(),
            delayed_calls: Vec::new(),
            delayed_free: Vec::new(),
            workload: Workload::new(scenario, part),
            encoder,
            seats: Vec::new(),
            ledger,
            stats: RunStats::new(),
            unwritten: Vec::new(),
            next_housekeeping: 0,
            second: 0,
            cpu: [None; 2],
            losses: Vec::new(),
            plan: Arc::clone(plan),
        })
    }

    /// Opens this worker's share of the connections, all at the same time.
    pub(super) async fn connect(&mut self) -> Result<(), WorkerError> {
        let threads = self.plan.threads.max(1);
        let share = share_of(self.plan.scenario.connections, self.part, threads).max(1);
        for n in 0..share {
            let waker = self.ready_list.waker(CONNECTION_BIT | n as u32);
            let number = self.part as usize + n * threads as usize;
            let target = self.plan.targets[number % self.plan.targets.len()].clone();
            self.connections.push(ClientConnection::new(
                target,
                self.plan.tls.clone(),
                waker,
                Duration::ZERO,
            ));
        }
        let deadline = Instant::now() + limits::CONNECT_TIMEOUT * 2;
        let opening = poll_fn(|cx| {
            self.ready_list.set_running();
            self.poll_woken();
            self.flush();
            if let Some(why) = self.losses.first() {
                return Poll::Ready(Err(WorkerError::Connection(why.clone())));
            }
            if self.connections.iter().all(ClientConnection::is_open) {
                return Poll::Ready(Ok(()));
            }
            if !self.ready_list.set_sleeping(cx.waker()) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        match tokio::time::timeout_at(deadline.into(), opening).await {
            Ok(opened) => opened,
            Err(_) => Err(WorkerError::Connection(
                "not all connections could be opened in time".to_owned(),
            )),
        }
    }

    /// Runs until all due calls were sent and all sent calls have ended.
    pub(super) async fn run(&mut self, start: Instant) -> io::Result<()> {
        self.start = start;
        // The settings of the servers have arrived by now.
        self.connections.iter_mut().for_each(ClientConnection::update_stream_limit);
        let mut timer = PreciseTimer::new()?;
        // The only future of the runtime: cooperative scheduling is not needed.
        tokio::task::unconstrained(poll_fn(|cx| self.turn(cx, &mut timer))).await
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn turn(&mut self, cx: &mut Context<'_>, timer: &mut PreciseTimer) -> Poll<io::Result<()>> {
        self.ready_list.set_running();
        if self.plan.stop.load(Ordering::Relaxed) {
            self.end = self.end.min(self.now());
        }
        let mut budget = limits::CALLS_PER_TURN_MAX;
        let mut busy = true;
        for _ in 0..limits::ROUNDS_PER_TURN_MAX {
            let sent = self.send_due(&mut budget);
            busy = self.poll_woken() || sent;
            if !busy {
                break;
            }
        }
        self.flush();
        let now = self.now();
        for due in self.unwritten.drain(..) {
            if due >= self.measured_from {
                self.stats.record_written(Duration::from_nanos(now.saturating_sub(due)));
            }
        }
        self.mark_cpu(now);
        if now >= self.next_housekeeping {
            self.housekeep(now);
        }
        let due = self.next_due(now).map(|due| due.at());
        let calls_left = self.users.as_ref().is_none_or(|users| users.calls_left > 0);
        if due.is_none() && self.in_flight == 0 && (now >= self.end || !calls_left) {
            return Poll::Ready(Ok(()));
        }
        let soonest = now + limits::TURN_MIN.as_nanos() as u64;
        let due = due.unwrap_or(u64::MAX);
        timer.arm(cx, due.max(soonest).min(self.next_housekeeping), now)?;
        // While calls are due continuously, answers wait for the next turn instead of causing one each.
        let dense = due <= soonest;
        if busy || !dense && !self.ready_list.set_sleeping(cx.waker()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The next call and when it is due. In a closed loop a call is due as soon as a user is idle.
    fn next_due(&mut self, now: u64) -> Option<DueCall> {
        let planned = match &self.users {
            None => self.arrivals.peek().copied().filter(|due| *due <= self.end),
            Some(users) => {
                let idle = self.in_flight < users.users && users.calls_left > 0 && now < self.end;
                idle.then_some(now)
            }
        };
        let repeat = self.delayed.peek().map(|Reverse((due, _))| *due);
        match (planned, repeat) {
            (Some(planned), Some(repeat)) if planned < repeat => Some(DueCall::New(planned)),
            (_, Some(repeat)) => Some(DueCall::Repeat(repeat)),
            (planned, None) => planned.map(DueCall::New),
        }
    }

    fn count_planned(&mut self) {
        match &mut self.users {
            None => drop(self.arrivals.next()),
            Some(users) => users.calls_left -= 1,
        }
    }

    /// Sends the calls that are due. True: at least one was sent.
    fn send_due(&mut self, budget: &mut usize) -> bool {
        let mut sent = false;
        let now = self.now();
        while *budget > 0 {
            let Some(next) = self.next_due(now).filter(|next| next.at() <= now) else {
                break;
            };
            let due = next.at();
            let measured = due >= self.measured_from;
            let connection = self.free_connection(None);
            let late = now - due > limits::LATE_MAX.as_nanos() as u64;
            if connection.is_none() && !late && self.in_flight < self.in_flight_max {
                break;
            }
            *budget -= 1;
            let (Some(connection), true) = (connection, self.in_flight < self.in_flight_max) else {
                let repeat = matches!(next, DueCall::Repeat(_));
                self.stats.record_due(due, false, repeat, measured);
                match repeat {
                    true => drop(self.pop_delayed()),
                    false => self.count_planned(),
                }
                continue;
            };
            match next {
                DueCall::Repeat(_) => {
                    if let Some((call, first)) = self.pop_delayed() {
                        let connection = self.connection_for_repeat(first).unwrap_or(connection);
                        self.send(call, due, now, connection);
                    }
                }
                DueCall::New(_) => {
                    self.count_planned();
                    let call = self.workload.next(&mut self.ledger, now);
                    self.send(call, due, now, connection);
                    self.send_repeat(call, due, now, connection);
                }
            }
            sent = true;
        }
        sent
    }

    fn pop_delayed(&mut self) -> Option<(PlannedCall, u32)> {
        let Reverse((_, number)) = self.delayed.pop()?;
        self.delayed_free.push(number);
        self.delayed_calls.get(number as usize).copied()
    }

    fn connection_for_repeat(&mut self, first: u32) -> Option<u32> {
        let other = self.plan.scenario.duplicates.other_connection;
        self.free_connection(other.then_some(first))
    }

    /// Repeats the call, now or later, if the workload requests it.
    fn send_repeat(&mut self, call: PlannedCall, due: u64, now: u64, connection: u32) {
        let after = match self.workload.repeat(&call) {
            RepeatDecision::Never => return,
            RepeatDecision::Now => 0,
            RepeatDecision::After(after) => after.as_nanos() as u64,
        };
        let call = PlannedCall { repeat: true, ..call };
        let at = due + after;
        if after == 0 || at >= self.end || self.delayed.len() >= limits::DELAYED_REPEATS_MAX {
            let connection = self.connection_for_repeat(connection).unwrap_or(connection);
            if self.in_flight < self.in_flight_max {
                self.send(call, due, now, connection);
            } else {
                self.stats.record_due(due, false, true, due >= self.measured_from);
            }
            return;
        }
        let number = self.delayed_free.pop().unwrap_or_else(|| {
            self.delayed_calls.push((call, connection));
            u32::try_from(self.delayed_calls.len() - 1).unwrap_or(u32::MAX)
        });
        self.delayed_calls[number as usize] = (call, connection);
        self.delayed.push(Reverse((at, number)));
    }

    /// The next connection with a free stream, other than `not`.
    fn free_connection(&mut self, not: Option<u32>) -> Option<u32> {
        let count = self.connections.len();
        for step in 0..count {
            let at = (self.next_connection + step) % count;
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            if Some(number) != not && self.connections[at].has_room() {
                if not.is_none() {
                    self.consecutive = if step == 0 { self.consecutive + 1 } else { 1 };
                    self.next_connection = at;
                    if self.consecutive >= limits::CONSECUTIVE_CALLS {
                        (self.next_connection, self.consecutive) = (at + 1, 0);
                    }
                }
                return Some(number);
            }
        }
        None
    }

    fn send(&mut self, call: PlannedCall, due: u64, now: u64, connection: u32) {
        self.seats.clear();
        if let Some(seat) = call.seat {
            self.seats.extend(seat..seat + u32::from(call.qty));
        }
        let spec = CallSpec {
            method: call.method,
            event: &self.plan.events[usize::from(call.event)],
            reservation: self.ledger.number(call.place),
            qty: u32::from(call.qty),
            seats: &self.seats,
        };
        let message = self.encoder.message(&spec);
        let mut connection = connection;
        let mut sent = self.connections[connection as usize]
            .send(self.encoder.head(call.method), message.clone());
        // A connection that received GOAWAY accepts no call: try the others.
        for _ in 1..self.connections.len() {
            if sent.is_some() {
                break;
            }
            let Some(other) = self.free_connection(Some(connection)) else {
                break;
            };
            connection = other;
            sent = self.connections[connection as usize]
                .send(self.encoder.head(call.method), message.clone());
        }
        let measured = due >= self.measured_from;
        self.stats.record_due(due, sent.is_some(), call.repeat, measured);
        let Some(response) = sent else {
            return;
        };
        let number = self.free.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.slots.len()).unwrap_or(CONNECTION_BIT - 1);
            self.slots.push(CallSlot::new(self.ready_list.waker(number)));
            number
        });
        let slot = &mut self.slots[number as usize];
        (slot.call, slot.due, slot.sent, slot.connection) = (call, due, now, connection);
        slot.start(response);
        self.unwritten.push(due);
        self.in_flight += 1;
        self.stats.in_flight_most = self.stats.in_flight_most.max(self.in_flight);
        // The first poll registers the waker with h2.
        self.poll_call(number);
    }

    /// Polls the woken calls and connections. True: there was at least one.
    fn poll_woken(&mut self) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready_list.drain_into(&mut woken);
        for number in &woken {
            match number & CONNECTION_BIT {
                0 => self.poll_call(*number),
                _ => self.poll_connection(number & !CONNECTION_BIT),
            }
        }
        let any = !woken.is_empty();
        self.woken = woken;
        any
    }

    fn poll_connection(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(number as usize) else {
            return;
        };
        if let ConnectionEvent::Ended(why) = connection.poll() {
            if self.losses.len() < limits::EXAMPLES_MAX {
                self.losses.push(why);
            }
            if self.stats.reconnects < limits::RECONNECTS_MAX {
                self.stats.reconnects += 1;
                self.reconnect(number);
            }
        }
    }

    /// Replaces a lost connection. Its calls keep their slots and end as broken.
    fn reconnect(&mut self, number: u32) {
        let target = &self.plan.targets[number as usize % self.plan.targets.len()];
        let waker = self.ready_list.waker(CONNECTION_BIT | number);
        let replacement = ClientConnection::new(
            target.clone(),
            self.plan.tls.clone(),
            waker,
            limits::RECONNECT_DELAY,
        );
        let in_flight = self.connections[number as usize].in_flight;
        self.connections[number as usize] = replacement;
        self.connections[number as usize].in_flight = in_flight;
    }

    fn poll_call(&mut self, number: u32) {
        let contract = self.plan.scenario.contract;
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        if let Poll::Ready(answer) = slot.poll(contract) {
            self.finish_call(number, &answer);
        }
    }

    fn finish_call(&mut self, number: u32, answer: &CallAnswer) {
        let now = self.now();
        let slot = &mut self.slots[number as usize];
        let (call, due) = (slot.call, slot.due);
        let connection = slot.connection as usize;
        slot.free();
        self.free.push(number);
        self.in_flight -= 1;
        let in_flight = &mut self.connections[connection].in_flight;
        *in_flight = in_flight.saturating_sub(1);
        let measured = due >= self.measured_from;
        self.stats.record_answer(call.method, answer.outcome, due, now, measured);
        if call.method != CallMethod::Check {
            self.workload.on_answer(&call, answer, &self.ledger, now);
            self.ledger.record(call.place, call.method, answer, now);
        }
    }

    fn flush(&mut self) {
        for connection in &mut self.connections {
            // The rest is written when the socket is writable again.
            connection.flush();
        }
    }

    fn mark_cpu(&mut self, now: u64) {
        for (mark, at) in self.cpu.iter_mut().zip([self.measured_from, self.end]) {
            if mark.is_none() && now >= at {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                *mark = Some(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)));
            }
        }
    }

    fn housekeep(&mut self, now: u64) {
        self.next_housekeeping = now + limits::HOUSEKEEPING_PERIOD.as_nanos() as u64;
        for number in 0..self.slots.len() {
            let slot = &self.slots[number];
            if !slot.is_free() && now.saturating_sub(slot.sent) > self.call_timeout {
                self.finish_call(number as u32, &CallAnswer::of(OutcomeKind::Deadline));
            }
        }
        self.connections.iter_mut().for_each(ClientConnection::update_stream_limit);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = &self.stats.seconds;
        let sum = |part: fn(&SecondStats) -> u64| seconds.iter().map(part).sum();
        live.ok = sum(|second| second.ok);
        live.refused = sum(|second| second.refused);
        live.shed = sum(|second| second.shed);
        live.errors = sum(|second| second.errors);
        live.sent = self.stats.sent;
        live.not_sent = self.stats.not_sent;
        live.in_flight = self.in_flight;
        let second = (now / 1_000_000_000) as usize;
        if second > self.second {
            self.second = second;
            if let Some(last) = seconds.get(second - 1) {
                let p95 = |of: &Option<Box<LatencyHistogram>>| {
                    of.as_ref().map_or(0, |of| of.value_at_quantile(0.95))
                };
                (live.check_p95, live.write_p95) = (p95(&last.checks), p95(&last.writes));
            }
        }
    }

    pub(super) fn finish(mut self) -> WorkerResult {
        if let [Some(from), Some(to)] = self.cpu {
            self.stats.cpu_measured = to - from;
        }
        self.stats.substituted = self.workload.substituted;
        WorkerResult { stats: self.stats, ledger: self.ledger, losses: self.losses }
    }
}

/// Share of `all` that falls to part `part` of `parts`.
fn share_of(all: usize, part: u32, parts: u32) -> usize {
    let (part, parts) = (part as usize, parts as usize);
    all / parts + usize::from(part < all % parts)
}
