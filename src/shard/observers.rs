//! Passes the events of gRPC and of the store to the shard's recorder, tracer and log.

use std::cell::RefCell;
use std::rc::Rc;

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::spans;

use crate::telemetry::code_name;
use crate::telemetry::heartbeat::{Activity, HeartbeatWriter};
use crate::telemetry::log_interval::LogInterval;
use crate::telemetry::recorder::{DAMAGED_STRIPE, Recorder};
use crate::telemetry::store_health::StoreHealthWriter;
use crate::telemetry::trace::Tracer;
use inventory_core::time::Micros;
use inventory_grpc::{CallObserver, CallTrace, Code, ConnectionEnd, PeerProtocol, SpanIds};
use inventory_runtime::clock;
use inventory_store::{CapacityKind, StoreCall, StoreObserver, TableNames};

/// Logs one call with the field names of the server that this one replaces. Empty fields are left out.
macro_rules! log_call {
    ($level:ident, $method:expr, $code:expr, $latency:expr, $attributes:expr, $trace:expr) => {
        tracing::$level!(
            method = $method.trim_start_matches('/'),
            event_id = named(&$attributes.event),
            reservation_id = named(&$attributes.reservation),
            latency_ms = $latency.0 as f64 / 1e3,
            ddb_rcu = $attributes.read_units,
            ddb_wcu = $attributes.write_units,
            outcome = match $attributes.outcome {
                "" => code_name($code as usize),
                outcome => outcome,
            },
            trace_id = $trace.span.map(|(span, _)| format!("{:032x}", span.trace)),
            "call"
        )
    };
}

fn named(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// Records calls and connections; logs and traces the selected calls.
pub(super) struct ShardCallObserver {
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    tracer: Option<Rc<Tracer>>,
    /// Fraction of calls that are logged at info; at debug all calls are logged.
    log_ratio: f64,
    rng: RefCell<SmallRng>,
    wrong_protocols: LogInterval,
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
            wrong_protocols: LogInterval::default(),
        }
    }

    fn wrong_protocol(&self, protocol: PeerProtocol) {
        let (label, hint) = match protocol {
            PeerProtocol::Tls => (
                "tls",
                "this port has no TLS: connect without it, or set TLS_CERT_FILE and TLS_KEY_FILE",
            ),
            PeerProtocol::Http1 => (
                "http1",
                "this port serves gRPC over HTTP/2; metrics and probes are on METRICS_PORT",
            ),
            PeerProtocol::Other => ("other", "this port serves gRPC over HTTP/2"),
        };
        self.recorder.wrong_protocol(label);
        if let Some(suppressed) = self.wrong_protocols.due() {
            tracing::warn!(protocol = label, hint, suppressed, "client speaks another protocol");
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
        let is_log_sampled = self.sample_log();
        match sampled {
            Some(sampled) => {
                let span = SpanIds {
                    trace: u128::from_be_bytes(sampled.trace.to_bytes()),
                    span: u64::from_be_bytes(sampled.span.to_bytes()),
                };
                let parent = sampled.parent.map(|id| u64::from_be_bytes(id.to_bytes()));
                Some(Rc::new(CallTrace::sampled(span, parent, is_log_sampled)))
            }
            None if is_log_sampled || tracing::enabled!(tracing::Level::DEBUG) => {
                Some(Rc::new(CallTrace::unsampled(is_log_sampled)))
            }
            None => None,
        }
    }

    fn call_traced(&self, method: &'static str, code: Code, latency: Micros, trace: &CallTrace) {
        let attributes = trace.attributes();
        if let (Some(span), Some(tracer)) = (trace.span, &self.tracer) {
            let span = spans::call_span(span, method, code, latency, &attributes);
            tracer.sink.offer(span);
        }
        match trace.is_log_sampled {
            true => log_call!(info, method, code, latency, &attributes, trace),
            false => log_call!(debug, method, code, latency, &attributes, trace),
        }
    }

    fn connection_opened(&self) {
        self.recorder.connection_opened();
    }

    fn connection_closed(&self, ended: ConnectionEnd) {
        match ended {
            ConnectionEnd::Evicted => self.recorder.connection_evicted(),
            ConnectionEnd::WrongProtocol(protocol) => self.wrong_protocol(protocol),
            _ => {}
        }
        self.recorder.connection_closed();
    }
}

/// Records the requests to the store and logs its errors.
pub(super) struct ShardStoreObserver {
    recorder: Rc<Recorder>,
    health: StoreHealthWriter,
    /// The names of the three tables, as labels.
    tables: [&'static str; 3],
}

impl ShardStoreObserver {
    pub(super) fn new(
        recorder: Rc<Recorder>,
        health: StoreHealthWriter,
        tables: &TableNames,
    ) -> Self {
        // Labels are `'static`; three short names per shard are leaked once.
        let label = |name: &str| -> &'static str { Box::leak(name.to_owned().into_boxed_str()) };
        Self {
            recorder,
            health,
            tables: [label(&tables.inventory), label(&tables.seats), label(&tables.idempotency)],
        }
    }

    fn label(&self, table: &str) -> &'static str {
        let known = self.tables.iter().find(|name| **name == table);
        known.copied().unwrap_or("other")
    }
}

impl StoreObserver for ShardStoreObserver {
    fn called(&self, call: StoreCall<'_>) {
        let table = self.label(call.table);
        self.recorder.store_call(call.operation, table, call.status, call.latency);
        self.health.called(&call, clock::monotonic());
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
