//! From the wire's and the store's hooks to the shard's recorder.

use std::cell::RefCell;
use std::rc::Rc;

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::spans;

use crate::telemetry::code_name;
use crate::telemetry::heartbeat::{Activity, HeartbeatWriter};
use crate::telemetry::recorder::{DAMAGED_STRIPE, Recorder};
use crate::telemetry::trace::Tracer;
use inventory_core::time::Micros;
use inventory_grpc::{CallObserver, CallTrace, Code, ConnectionEnd, SpanIds};
use inventory_store::{CapacityKind, StoreCall, StoreObserver, TableNames};

/// A line about one call, in the fields that the seed's logs have. Empty ones are left out.
macro_rules! log_call {
    ($level:ident, $method:expr, $code:expr, $latency:expr, $about:expr, $note:expr) => {
        tracing::$level!(
            method = $method.trim_start_matches('/'),
            event_id = named(&$about.event),
            reservation_id = named(&$about.reservation),
            latency_ms = $latency.0 as f64 / 1e3,
            ddb_rcu = $about.read_units,
            ddb_wcu = $about.write_units,
            outcome = match $about.outcome {
                "" => code_name($code as usize),
                outcome => outcome,
            },
            trace_id = $note.span.map(|(span, _)| format!("{:032x}", span.trace)),
            "call"
        )
    };
}

fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// Counts calls and connections, and tells more of those that somebody wants to know more of.
pub(super) struct ShardCallObserver {
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    tracer: Option<Rc<Tracer>>,
    /// The part of all calls that is log_ratio at info; all of them at debug.
    log_ratio: f64,
    rng: RefCell<SmallRng>,
}

impl ShardCallObserver {
    pub(super) fn new(
        recorder: Rc<Recorder>,
        heartbeat: HeartbeatWriter,
        tracer: Option<Rc<Tracer>>,
        log_ratio: f64,
    ) -> Self {
        Self {
            recorder,
            heartbeat,
            tracer,
            log_ratio,
            rng: RefCell::new(SmallRng::from_os_rng()),
        }
    }

    fn sample_log(&self) -> bool {
        self.log_ratio > 0.0 && self.rng.borrow_mut().random_bool(self.log_ratio)
    }
}

impl CallObserver for ShardCallObserver {
    fn call_started(&self, _method: &'static str) {
        self.heartbeat.set_activity(Activity::Call);
        self.recorder.call_started();
    }

    fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        self.recorder.call_finished(method, code, latency);
    }

    fn trace_call(&self, _method: &'static str, headers: &HeaderMap) -> Option<Rc<CallTrace>> {
        let sampled = self.tracer.as_ref().and_then(|t| t.sample(headers));
        let is_drawn = self.sample_log();
        match sampled {
            Some(sampled) => {
                let span = SpanIds {
                    trace: u128::from_be_bytes(sampled.trace.to_bytes()),
                    span: u64::from_be_bytes(sampled.span.to_bytes()),
                };
                let parent = sampled.parent.map(|id| u64::from_be_bytes(id.to_bytes()));
                Some(Rc::new(CallTrace::sampled(span, parent, is_drawn)))
            }
            None if is_drawn || tracing::enabled!(tracing::Level::DEBUG) => {
                Some(Rc::new(CallTrace::unsampled(is_drawn)))
            }
            None => None,
        }
    }

    fn call_traced(&self, method: &'static str, code: Code, latency: Micros, note: &CallTrace) {
        let about = note.attributes();
        if let (Some(span), Some(tracer)) = (note.span, &self.tracer) {
            let span = spans::call_span(span, method, code, latency, &about);
            tracer.sink.offer(span);
        }
        match note.is_log_sampled {
            true => log_call!(info, method, code, latency, &about, note),
            false => log_call!(debug, method, code, latency, &about, note),
        }
    }

    fn connection_opened(&self) {
        self.recorder.connection_opened();
    }

    fn connection_closed(&self, _ended: ConnectionEnd) {
        self.recorder.connection_closed();
    }
}

/// Counts store calls and logs what the store says is wrong.
pub(super) struct ShardStoreObserver {
    recorder: Rc<Recorder>,
    /// The three names, as labels.
    tables: [&'static str; 3],
}

impl ShardStoreObserver {
    pub(super) fn new(recorder: Rc<Recorder>, tables: &TableNames) -> Self {
        // Labels live as long as the process; three short names per shard, once.
        let label = |name: &str| -> &'static str { Box::leak(name.to_owned().into_boxed_str()) };
        Self {
            recorder,
            tables: [
                label(&tables.inventory),
                label(&tables.seats),
                label(&tables.idempotency),
            ],
        }
    }
}

impl ShardStoreObserver {
    fn label(&self, table: &str) -> &'static str {
        let known = self.tables.iter().find(|name| **name == table);
        known.copied().unwrap_or("other")
    }
}

impl StoreObserver for ShardStoreObserver {
    fn called(&self, call: StoreCall<'_>) {
        let table = self.label(call.table);
        self.recorder
            .store_call(call.operation, table, call.status, call.latency);
    }

    fn consumed(&self, table: &str, kind: CapacityKind, units: f64) {
        let kind = match kind {
            CapacityKind::Read => "read",
            CapacityKind::Write => "write",
        };
        self.recorder.consumed(self.label(table), kind, units);
    }

    fn damaged(&self) {
        self.recorder.breach(DAMAGED_STRIPE);
    }

    fn log(&self, line: &str) {
        tracing::warn!(error = line, "store");
    }
}
