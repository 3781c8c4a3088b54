//! Spans of calls and transactions, with names and attributes of the OpenTelemetry semantic conventions.
//!
//! Not here: sampling (`telemetry::trace`) or the export (`control_plane::span_export`).

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::limits;
use crate::telemetry::code_name;
use inventory_core::time::Micros;
use inventory_core::transaction::{Transaction, TransactionOutcome};
use inventory_grpc::{CallAttributes, Code, SpanIds};

/// The span of a transaction in flight that contains sampled calls.
pub(super) struct TransactionSpan {
    ids: SpanIds,
    parent: u64,
    links: Vec<SpanIds>,
    start: SystemTime,
}

impl TransactionSpan {
    /// A child of the span of the first call, in its trace, with links to all calls; `None` without calls.
    pub(super) fn start(
        calls: impl Iterator<Item = SpanIds>,
        new_id: impl FnOnce() -> SpanId,
    ) -> Option<Self> {
        let links: Vec<SpanIds> = calls.take(limits::SPAN_LINKS_MAX).collect();
        let first = *links.first()?;
        Some(Self {
            ids: SpanIds { trace: first.trace, span: u64::from_be_bytes(new_id().to_bytes()) },
            parent: first.span,
            links,
            start: SystemTime::now(),
        })
    }

    pub(super) fn finish(
        self,
        transaction: &Transaction,
        table: &str,
        outcome: &TransactionOutcome,
        units: f64,
    ) -> SpanData {
        let (outcome, error) = outcome_name(outcome);
        let reservations = transaction.records.len() as i64;
        let mut attributes = vec![
            KeyValue::new("db.system.name", "aws.dynamodb"),
            KeyValue::new("db.operation.name", "TransactWriteItems"),
            KeyValue::new("db.collection.name", table.to_owned()),
            KeyValue::new("db.operation.batch.size", reservations),
            KeyValue::new("inventory.event_id", transaction.event.to_string()),
            KeyValue::new("inventory.outcome", outcome),
            KeyValue::new("inventory.write_units", units),
        ];
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        let links = self.links.into_iter();
        SpanData {
            links: {
                let mut all = SpanLinks::default();
                all.links = links.map(|ids| Link::with_context(context(ids))).collect();
                all
            },
            ..span(
                SpanKind::Client,
                format!("TransactWriteItems {table}").into(),
                (self.ids, Some(self.parent)),
                (self.start, self.start.elapsed().unwrap_or_default()),
                attributes,
                error,
            )
        }
    }
}

/// Name of an outcome, and the error if it is one.
fn outcome_name(outcome: &TransactionOutcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        TransactionOutcome::Committed => ("committed", None),
        // A failed condition is a business outcome.
        TransactionOutcome::Cancelled(_) => ("cancelled", None),
        TransactionOutcome::Conflict => ("conflict", None),
        TransactionOutcome::Throttled => ("throttled", Some("throttled")),
        TransactionOutcome::Rejected => ("rejected", Some("rejected")),
        TransactionOutcome::Refused => ("refused", Some("refused")),
        TransactionOutcome::Unknown => ("unknown", Some("unknown")),
    }
}

/// The span of a finished call.
pub(super) fn call_span(
    ids: (SpanIds, Option<u64>),
    method: &'static str,
    code: Code,
    latency: Micros,
    about: &CallAttributes,
) -> SpanData {
    let duration = Duration::from_micros(latency.0);
    let method = method.trim_start_matches('/');
    let status = code_name(code as usize);
    let error = is_server_error(code).then_some(status);
    let mut attributes = vec![
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method),
        KeyValue::new("rpc.response.status_code", status),
    ];
    let names =
        [("inventory.event_id", &about.event), ("inventory.reservation_id", &about.reservation)];
    for (name, value) in names {
        if !value.is_empty() {
            attributes.push(KeyValue::new(name, value.clone()));
        }
    }
    if !about.outcome.is_empty() {
        attributes.push(KeyValue::new("inventory.outcome", about.outcome));
    }
    attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
    let start = SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH);
    let timing = (start, duration);
    span(SpanKind::Server, method.into(), ids, timing, attributes, error)
}

fn span(
    span_kind: SpanKind,
    name: Cow<'static, str>,
    (ids, parent): (SpanIds, Option<u64>),
    (start, duration): (SystemTime, Duration),
    attributes: Vec<KeyValue>,
    error: Option<&'static str>,
) -> SpanData {
    SpanData {
        span_context: context(ids),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span_kind == SpanKind::Server,
        span_kind,
        name,
        start_time: start,
        end_time: start.checked_add(duration).unwrap_or(start),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn context(ids: SpanIds) -> SpanContext {
    let (trace, span) = (ids.trace.into(), ids.span.into());
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

/// Whether a status is a server error by the semantic conventions.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use opentelemetry::Value;

    use super::*;

    fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
        let mut attributes = span.attributes.iter();
        attributes
            .find(|attribute| attribute.key.as_str() == name)
            .map(|attribute| &attribute.value)
    }

    #[test]
    fn business_rejection_is_no_error_and_missed_deadline_is_one() {
        let ids = (SpanIds { trace: 1, span: 2 }, Some(3));
        let about = CallAttributes {
            event: "evt".to_owned(),
            outcome: "INSUFFICIENT_INVENTORY",
            ..CallAttributes::default()
        };
        let span = |code| call_span(ids, "/p.S/M", code, Micros(1_500), &about);
        let rejected = span(Code::Aborted);
        assert_eq!((&rejected.status, rejected.name.as_ref()), (&Status::Unset, "p.S/M"));
        assert_eq!(attribute(&rejected, "rpc.response.status_code"), Some(&"ABORTED".into()));
        assert_eq!(attribute(&rejected, "inventory.event_id"), Some(&"evt".into()));
        assert_eq!(attribute(&rejected, "inventory.reservation_id"), None);
        let duration = rejected.end_time.duration_since(rejected.start_time);
        assert_eq!(duration.ok(), Some(Duration::from_micros(1_500)));
        let late = span(Code::DeadlineExceeded);
        assert_eq!(late.status, Status::error("DEADLINE_EXCEEDED"));
    }

    #[test]
    fn transaction_span_is_child_of_the_first_call_and_linked_to_all() {
        let calls = [SpanIds { trace: 7, span: 1 }, SpanIds { trace: 8, span: 2 }];
        let span = TransactionSpan::start(calls.into_iter(), || 99.into()).expect("two calls");
        assert_eq!(span.ids, SpanIds { trace: 7, span: 99 });
        assert_eq!((span.parent, span.links.as_slice()), (1, &calls[..]));
        assert!(TransactionSpan::start(std::iter::empty(), || 1.into()).is_none());
    }
}
