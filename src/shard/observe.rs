//! From the wire's and the store's hooks, and the domain's counters, to the shard's recorder.

use std::rc::Rc;

use crate::domain::counters::Counters;
use crate::domain::time::Micros;
use crate::store::{StoreCall, StoreObserver};
use crate::telemetry::recorder::Recorder;
use crate::wire::{CallObserver, Code};

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

    fn connection_closed(&self) {
        self.recorder.connection_closed();
    }
}

/// Counts store calls and logs what the store says is wrong.
pub(super) struct StoreCalls {
    recorder: Rc<Recorder>,
}

impl StoreCalls {
    pub(super) fn new(recorder: Rc<Recorder>) -> Self {
        Self { recorder }
    }
}

impl StoreObserver for StoreCalls {
    fn called(&self, call: StoreCall<'_>) {
        self.recorder
            .store_call(call.operation, call.table, call.status, call.latency);
    }

    fn log(&self, line: &str) {
        tracing::warn!(error = line, "store");
    }
}
