//! From the wire's and the store's hooks to the shard's recorder.

use std::rc::Rc;

use crate::domain::time::Micros;
use crate::store::{StoreCall, StoreObserver, TableNames};
use crate::telemetry::recorder::Recorder;
use crate::wire::{CallObserver, Code, Ended};

/// Counts calls and connections.
pub(super) struct Calls {
    recorder: Rc<Recorder>,
}

impl Calls {
    pub(super) fn new(recorder: Rc<Recorder>) -> Self {
        Self { recorder }
    }
}

impl CallObserver for Calls {
    fn call_started(&self, _method: &'static str) {
        self.recorder.call_started();
    }

    fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        self.recorder.call_finished(method, code, latency);
    }

    fn connection_opened(&self) {
        self.recorder.connection_opened();
    }

    fn connection_closed(&self, _ended: Ended) {
        self.recorder.connection_closed();
    }
}

/// Counts store calls and logs what the store says is wrong.
pub(super) struct StoreCalls {
    recorder: Rc<Recorder>,
    /// The three names, as labels.
    tables: [&'static str; 3],
}

impl StoreCalls {
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

impl StoreObserver for StoreCalls {
    fn called(&self, call: StoreCall<'_>) {
        let table = self.tables.iter().find(|name| **name == call.table);
        self.recorder.store_call(
            call.operation,
            table.copied().unwrap_or("other"),
            call.status,
            call.latency,
        );
    }

    fn log(&self, line: &str) {
        tracing::warn!(error = line, "store");
    }
}
