//! The turns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::call::Slot;
use super::timer::Timer;
use super::{Live, Plan, PlayError, Played};
use crate::ledger::Ledger;
use crate::limits;
use crate::outcome::{Answer, Method, Outcome};
use crate::schedule::Arrivals;
use crate::script::{Call, Repeat, Script};
use crate::tally::Tally;
use crate::wire::bell::Desk;
use crate::wire::connection::{Conn, Told};
use crate::wire::request::{Encoder, Wanted};

/// Bells of connections have this bit beside their number.
const CONN: u32 = 1 << 31;

/// A repeat that waits for its time. Ordered by it.
type Later = Reverse<(u64, u32)>;

pub(super) struct Player {
    plan: Arc<Plan>,
    part: u32,
    live: Arc<Mutex<Live>>,
    desk: Arc<Desk>,
    rung: Vec<u32>,
    start: Instant,
    /// Nanoseconds since the start: when measuring begins, and when nothing more is due.
    measure: u64,
    end: u64,

    conns: Vec<Conn>,
    /// Where the search for a connection begins.
    next_conn: usize,
    /// Calls in a row that went there.
    row: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    in_flight_max: usize,
    overdue: u64,

    arrivals: Peekable<Arrivals>,
    later: BinaryHeap<Later>,
    /// Calls of `later`, by the number there, and the connection of the first.
    waiting: Vec<(Call, u32)>,
    waiting_free: Vec<u32>,
    script: Script,
    encoder: Encoder,
    seats: Vec<u32>,
    ledger: Ledger,
    tally: Tally,

    /// Due instants of what was handed to connections in this turn.
    unwritten: Vec<u64>,
    housekeeping: u64,
    second: usize,
    cpu: [Option<Duration>; 2],
    losses: Vec<String>,
}

impl Player {
    pub(super) fn new(
        plan: &Arc<Plan>,
        part: u32,
        live: Arc<Mutex<Live>>,
    ) -> Result<Self, PlayError> {
        let scenario = &plan.scenario;
        let threads = plan.threads.max(1);
        let target = plan.targets.first().map_or("", String::as_str);
        let hold = (scenario.hold_seconds > 0).then(|| Duration::from_secs(scenario.hold_seconds));
        let encoder = Encoder::new(
            scenario.contract,
            target,
            &plan.run,
            scenario.deadline_ms,
            hold,
        );
        let encoder = encoder.map_err(|_| PlayError::Target {
            target: target.to_owned(),
        })?;
        let whole = scenario.whole();
        let nanos = |seconds: f64| (seconds * 1e9) as u64;
        let gives_back = scenario.mix.gives_back();
        let arrivals = Arrivals::new(&whole, scenario.spacing, scenario.seed, part, threads);
        let mut ledger = Ledger::new(&plan.run, scenario.events.count, gives_back, part, threads);
        // Untouched memory costs nothing.
        let reserving = whole.calls() / f64::from(threads) * (1.0 - scenario.mix.check / 100.0);
        ledger.reserve((reserving * 1.02) as usize + 1_000);
        Ok(Self {
            part,
            live,
            desk: Arc::default(),
            rung: Vec::new(),
            start: Instant::now(),
            measure: nanos(scenario.warmup),
            end: nanos(whole.seconds()),
            conns: Vec::new(),
            next_conn: 0,
            row: 0,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            in_flight_max: (scenario.in_flight / threads as usize).max(1),
            overdue: nanos((scenario.deadline() + limits::DEADLINE_SLACK).as_secs_f64()),
            arrivals: arrivals.peekable(),
            later: BinaryHeap::new(),
            waiting: Vec::new(),
            waiting_free: Vec::new(),
            script: Script::new(scenario, part),
            encoder,
            seats: Vec::new(),
            ledger,
            tally: Tally::new(),
            unwritten: Vec::new(),
            housekeeping: 0,
            second: 0,
            cpu: [None; 2],
            losses: Vec::new(),
            plan: Arc::clone(plan),
        })
    }

    /// Connects this worker's share of the connections, all at once.
    pub(super) async fn connect(&mut self) -> Result<(), PlayError> {
        let threads = self.plan.threads.max(1) as usize;
        let part = self.part as usize;
        let all = self.plan.scenario.connections;
        let mine = (all / threads + usize::from(part < all % threads)).max(1);
        for n in 0..mine {
            self.dial(part + n * threads, Duration::ZERO);
        }
        let deadline = Instant::now() + limits::CONNECT_TIMEOUT * 2;
        let opening = poll_fn(|cx| {
            self.desk.awake();
            self.serve_bells();
            self.flush();
            if let Some(why) = self.losses.first() {
                return Poll::Ready(Err(PlayError::Connection(why.clone())));
            }
            if self.conns.iter().all(Conn::is_open) {
                return Poll::Ready(Ok(()));
            }
            if !self.desk.sleep(cx.waker()) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        match tokio::time::timeout_at(deadline.into(), opening).await {
            Ok(opened) => opened,
            Err(_) => Err(PlayError::Connection(
                "not every connection could be made in time".to_owned(),
            )),
        }
    }

    fn dial(&mut self, number: usize, pause: Duration) {
        let bell = CONN | u32::try_from(self.conns.len()).unwrap_or(!CONN);
        let target = self.plan.targets[number % self.plan.targets.len()].clone();
        self.conns
            .push(Conn::new(target, self.desk.bell(bell), pause));
    }

    /// Plays until everything due was sent and everything sent has ended.
    pub(super) async fn play(&mut self, start: Instant) -> io::Result<()> {
        self.start = start;
        // Settings have arrived while everyone waited for the start.
        self.conns.iter_mut().for_each(Conn::renew_streams);
        let mut timer = Timer::new()?;
        // One future does everything: there is nobody to be fair to.
        tokio::task::unconstrained(poll_fn(|cx| self.turn(cx, &mut timer))).await
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn turn(&mut self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<io::Result<()>> {
        self.desk.awake();
        let mut budget = limits::CALLS_PER_TURN_MAX;
        let mut busy = true;
        for _ in 0..limits::ROUNDS_PER_TURN_MAX {
            let sent = self.send_due(&mut budget);
            busy = self.serve_bells() || sent;
            if !busy {
                break;
            }
        }
        self.flush();
        let now = self.now();
        for due in self.unwritten.drain(..) {
            if due >= self.measure {
                self.tally
                    .written(Duration::from_nanos(now.saturating_sub(due)));
            }
        }
        self.mark_cpu(now);
        if now >= self.housekeeping {
            self.keep_house(now);
        }
        let due = self.next_due();
        if due.is_none() && self.in_flight == 0 && now >= self.end {
            return Poll::Ready(Ok(()));
        }
        let soonest = now + limits::TURN_MIN.as_nanos() as u64;
        let due = due.unwrap_or(u64::MAX);
        timer.arm(cx, due.max(soonest).min(self.housekeeping), now)?;
        // While calls fall due all the time, answers wait for the next turn instead of each causing one.
        let dense = due <= soonest;
        if busy || !dense && !self.desk.sleep(cx.waker()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn next_due(&mut self) -> Option<u64> {
        let planned = self.arrivals.peek().copied();
        let later = self.later.peek().map(|Reverse((due, _))| *due);
        match (planned, later) {
            (Some(planned), Some(later)) => Some(planned.min(later)),
            (planned, later) => planned.or(later),
        }
    }

    /// Sends what is due; true: something was sent.
    fn send_due(&mut self, budget: &mut usize) -> bool {
        let mut sent = false;
        let now = self.now();
        while *budget > 0 {
            let Some(due) = self.next_due().filter(|due| *due <= now) else {
                break;
            };
            let measured = due >= self.measure;
            let conn = self.free_conn(None);
            let late = now - due > limits::LATE_MAX.as_nanos() as u64;
            if conn.is_none() && !late && self.in_flight < self.in_flight_max {
                break;
            }
            *budget -= 1;
            let repeat = self
                .later
                .peek()
                .is_some_and(|Reverse((later, _))| *later == due);
            let (Some(conn), true) = (conn, self.in_flight < self.in_flight_max) else {
                self.tally.due(due, false, repeat, measured);
                match repeat {
                    true => drop(self.pop_later()),
                    false => drop(self.arrivals.next()),
                }
                continue;
            };
            match repeat {
                true => {
                    if let Some((call, first)) = self.pop_later() {
                        let other = self.plan.scenario.duplicates.other_connection;
                        let conn = self.free_conn(other.then_some(first)).unwrap_or(conn);
                        self.send(call, due, now, conn);
                    }
                }
                false => {
                    self.arrivals.next();
                    let call = self.script.next(&mut self.ledger, now);
                    self.send(call, due, now, conn);
                    self.send_repeat(call, due, now, conn);
                }
            }
            sent = true;
        }
        sent
    }

    fn pop_later(&mut self) -> Option<(Call, u32)> {
        let Reverse((_, number)) = self.later.pop()?;
        self.waiting_free.push(number);
        self.waiting.get(number as usize).copied()
    }

    /// Makes the call once more, now or later, if it is one of those.
    fn send_repeat(&mut self, call: Call, due: u64, now: u64, conn: u32) {
        let after = match self.script.repeat(&call) {
            Repeat::Never => return,
            Repeat::Now => 0,
            Repeat::After(after) => after.as_nanos() as u64,
        };
        let call = Call {
            repeat: true,
            ..call
        };
        let at = due + after;
        if after == 0 || at >= self.end || self.later.len() >= limits::LATER_REPEATS_MAX {
            let other = self.plan.scenario.duplicates.other_connection;
            let conn = self.free_conn(other.then_some(conn)).unwrap_or(conn);
            if self.in_flight < self.in_flight_max {
                self.send(call, due, now, conn);
            } else {
                self.tally.due(due, false, true, due >= self.measure);
            }
            return;
        }
        let number = self.waiting_free.pop().unwrap_or_else(|| {
            self.waiting.push((call, conn));
            u32::try_from(self.waiting.len() - 1).unwrap_or(u32::MAX)
        });
        self.waiting[number as usize] = (call, conn);
        self.later.push(Reverse((at, number)));
    }

    /// The next connection in turn with room, other than `not` if there is another.
    fn free_conn(&mut self, not: Option<u32>) -> Option<u32> {
        let count = self.conns.len();
        for step in 0..count {
            let at = (self.next_conn + step) % count;
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            if Some(number) != not && self.conns[at].has_room() {
                if not.is_none() {
                    self.row = if step == 0 { self.row + 1 } else { 1 };
                    self.next_conn = at;
                    if self.row >= limits::CALLS_IN_A_ROW {
                        (self.next_conn, self.row) = (at + 1, 0);
                    }
                }
                return Some(number);
            }
        }
        None
    }

    fn send(&mut self, call: Call, due: u64, now: u64, conn: u32) {
        self.seats.clear();
        if let Some(seat) = call.seat {
            self.seats.extend(seat..seat + u32::from(call.qty));
        }
        let wanted = Wanted {
            method: call.method,
            event: &self.plan.events[usize::from(call.event)],
            reservation: self.ledger.number(call.place),
            qty: u32::from(call.qty),
            seats: &self.seats,
        };
        let message = self.encoder.message(&wanted);
        let mut conn = conn;
        let mut sent =
            self.conns[conn as usize].send(self.encoder.head(call.method), message.clone());
        // One that the server is leaving takes no more: another one does.
        for _ in 1..self.conns.len() {
            if sent.is_some() {
                break;
            }
            let Some(other) = self.free_conn(Some(conn)) else {
                break;
            };
            conn = other;
            sent = self.conns[conn as usize].send(self.encoder.head(call.method), message.clone());
        }
        self.tally
            .due(due, sent.is_some(), call.repeat, due >= self.measure);
        let Some(response) = sent else {
            return;
        };
        let number = self.free.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.slots.len()).unwrap_or(CONN - 1);
            self.slots.push(Slot::new(self.desk.bell(number)));
            number
        });
        let slot = &mut self.slots[number as usize];
        (slot.call, slot.due, slot.sent, slot.conn) = (call, due, now, conn);
        slot.start(response);
        self.unwritten.push(due);
        self.in_flight += 1;
        self.tally.in_flight_most = self.tally.in_flight_most.max(self.in_flight);
        // The first poll leaves the bell with h2.
        self.hear(number);
    }

    /// Polls whoever has rung; true: somebody had.
    fn serve_bells(&mut self) -> bool {
        let mut rung = std::mem::take(&mut self.rung);
        self.desk.take(&mut rung);
        for bell in &rung {
            match bell & CONN {
                0 => self.hear(*bell),
                _ => self.serve_conn(bell & !CONN),
            }
        }
        let any = !rung.is_empty();
        self.rung = rung;
        any
    }

    fn serve_conn(&mut self, number: u32) {
        let Some(conn) = self.conns.get_mut(number as usize) else {
            return;
        };
        if let Told::Ended(why) = conn.poll() {
            if self.losses.len() < limits::QUOTED_MAX {
                self.losses.push(why);
            }
            if self.tally.reconnects < limits::RECONNECTS_MAX {
                self.tally.reconnects += 1;
                self.redial(number);
            }
        }
    }

    /// Makes the connection anew in its place; its calls keep their slots and hear of the loss.
    fn redial(&mut self, number: u32) {
        let target = &self.plan.targets[number as usize % self.plan.targets.len()];
        let bell = self.desk.bell(CONN | number);
        let lost = Conn::new(target.clone(), bell, limits::RECONNECT_PAUSE);
        let in_flight = self.conns[number as usize].in_flight;
        self.conns[number as usize] = lost;
        self.conns[number as usize].in_flight = in_flight;
    }

    /// Goes on with a call.
    fn hear(&mut self, number: u32) {
        let contract = self.plan.scenario.contract;
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        if let Poll::Ready(answer) = slot.poll(contract) {
            self.end(number, &answer);
        }
    }

    fn end(&mut self, number: u32, answer: &Answer) {
        let now = self.now();
        let slot = &mut self.slots[number as usize];
        let (call, due) = (slot.call, slot.due);
        let conn = slot.conn as usize;
        slot.free();
        self.free.push(number);
        self.in_flight -= 1;
        self.conns[conn].in_flight = self.conns[conn].in_flight.saturating_sub(1);
        self.tally
            .answered(call.method, answer.outcome, due, now, due >= self.measure);
        if call.method != Method::Check {
            self.script.hear(&call, answer, &self.ledger, now);
            self.ledger.enter(call.place, call.method, answer, now);
        }
    }

    fn flush(&mut self) {
        for conn in &mut self.conns {
            // What does not fit into the socket is written when the connection's bell rings.
            conn.flush();
        }
    }

    fn mark_cpu(&mut self, now: u64) {
        for (mark, at) in self.cpu.iter_mut().zip([self.measure, self.end]) {
            if mark.is_none() && now >= at {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                *mark = Some(Duration::new(
                    seconds,
                    u32::try_from(time.tv_nsec).unwrap_or(0),
                ));
            }
        }
    }

    fn keep_house(&mut self, now: u64) {
        self.housekeeping = now + limits::HOUSEKEEPING_PERIOD.as_nanos() as u64;
        for number in 0..self.slots.len() {
            let slot = &self.slots[number];
            if !slot.is_free() && now.saturating_sub(slot.sent) > self.overdue {
                self.end(number as u32, &Answer::of(Outcome::Deadline));
            }
        }
        self.conns.iter_mut().for_each(Conn::renew_streams);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = &self.tally.seconds;
        let sum = |part: fn(&crate::tally::Second) -> u64| seconds.iter().map(part).sum();
        live.ok = sum(|second| second.ok);
        live.refused = sum(|second| second.refused);
        live.shed = sum(|second| second.shed);
        live.errors = sum(|second| second.errors);
        live.sent = self.tally.sent;
        live.not_sent = self.tally.not_sent;
        live.in_flight = self.in_flight;
        let second = (now / 1_000_000_000) as usize;
        if second > self.second {
            self.second = second;
            if let Some(last) = seconds.get(second - 1) {
                let p95 = |of: &Option<Box<crate::tally::Latencies>>| {
                    of.as_ref().map_or(0, |of| of.value_at_quantile(0.95))
                };
                (live.check_p95, live.write_p95) = (p95(&last.checks), p95(&last.writes));
            }
        }
    }

    pub(super) fn finish(mut self) -> Played {
        if let [Some(from), Some(to)] = self.cpu {
            self.tally.cpu_measured = to - from;
        }
        self.tally.substituted = self.script.substituted;
        Played {
            tally: self.tally,
            ledger: self.ledger,
            losses: self.losses,
        }
    }
}
