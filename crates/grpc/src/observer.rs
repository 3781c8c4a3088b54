//! The hooks through which the server counts, logs and traces calls and connections.

use std::rc::Rc;

use http::HeaderMap;

use super::call_trace::CallTrace;
use super::connection_end::ConnectionEnd;
use super::status::Code;
use inventory_core::time::Micros;

/// Receives what happens on a shard's connections. Called on the hot path: implementations count, and
/// neither wait nor allocate for a call that is not traced.
///
/// `method` is `/package.Service/Method` of a contract, the service alone (`package.Service`) for an
/// auxiliary call, and [`UNKNOWN_METHOD`] for a request that was rejected before its method was known.
pub trait CallObserver {
    fn call_started(&self, method: &'static str);

    /// Follows every [`CallObserver::call_started`] exactly once. `latency` is the time from reading the
    /// headers to handing the response to HTTP/2. A call whose caller disconnected ends with
    /// [`Code::Cancelled`].
    fn call_finished(&self, method: &'static str, code: Code, latency: Micros);

    /// The trace to fill for a call of a contract; `None` for a call that is neither traced nor logged.
    /// Called after the headers are read and before the handler runs.
    fn trace_call(&self, _method: &'static str, _headers: &HeaderMap) -> Option<Rc<CallTrace>> {
        None
    }

    /// Follows the [`CallObserver::call_finished`] of a traced call.
    fn call_traced(&self, _method: &'static str, _code: Code, _latency: Micros, _: &CallTrace) {}

    fn connection_opened(&self) {}

    fn connection_closed(&self, _end: ConnectionEnd) {}
}

/// The method name of a request that was rejected before its method was known.
pub(super) const UNKNOWN_METHOD: &str = "unknown";
