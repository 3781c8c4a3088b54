//! What a shard has to say of a call and of a transaction, as spans and as a log line: names and
//! attributes by OpenTelemetry's semantic conventions.
//!
//! Must not live here: who is sampled (`telemetry::trace`), the export.

use std::time::{Duration, SystemTime};

use crate::limits;
use crate::telemetry::code_name;
use crate::telemetry::trace::{Kind, Span, Value};
use inventory_core::time::Micros;
use inventory_core::transaction::{Outcome, Transaction};
use inventory_grpc::{CallAttributes, Code, SpanIds};

/// A transaction on its way that sampled calls are in.
pub(super) struct TransactionSpan {
    ids: SpanIds,
    parent: u64,
    links: Vec<SpanIds>,
    at: SystemTime,
}

impl TransactionSpan {
    /// `None` without links. In the trace of the first call, as a child of its span; linked to all.
    pub(super) fn start(
        links: impl Iterator<Item = SpanIds>,
        draw: impl FnOnce() -> u64,
    ) -> Option<Self> {
        let links: Vec<SpanIds> = links.take(limits::SPAN_LINKS_MAX).collect();
        let first = *links.first()?;
        Some(Self {
            ids: SpanIds {
                trace: first.trace,
                span: draw(),
            },
            parent: first.span,
            links,
            at: SystemTime::now(),
        })
    }

    pub(super) fn finish(
        self,
        transaction: &Transaction,
        table: &str,
        outcome: &Outcome,
        units: f64,
    ) -> Span {
        let (outcome_text, error) = outcome_label(outcome);
        let reservations = transaction.records.len() as i64;
        let mut attributes = vec![
            ("db.system.name", text("aws.dynamodb")),
            ("db.operation.name", text("TransactWriteItems")),
            ("db.collection.name", owned(table)),
            ("db.operation.batch.size", Value::Int(reservations)),
            ("inventory.event_id", owned(transaction.event.as_str())),
            ("inventory.outcome", text(outcome_text)),
            ("inventory.write_units", Value::Float(units)),
        ];
        if let Some(error) = error {
            attributes.push(("error.type", text(error)));
        }
        Span {
            ids: self.ids,
            parent: Some(self.parent),
            kind: Kind::Client,
            name: format!("TransactWriteItems {table}").into(),
            started: self.at,
            took: self.at.elapsed().unwrap_or_default(),
            attributes,
            links: self.links,
            error,
        }
    }
}

/// What became of a transaction, and whether that is a fault.
fn outcome_label(outcome: &Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Committed => ("committed", None),
        // The conditions did their work.
        Outcome::Cancelled(_) => ("cancelled", None),
        Outcome::Conflict => ("conflict", None),
        Outcome::Throttled => ("throttled", Some("throttled")),
        Outcome::Rejected => ("rejected", Some("rejected")),
        Outcome::Refused => ("refused", Some("refused")),
        Outcome::Unknown => ("unknown", Some("unknown")),
    }
}

/// The span of a call that has just ended.
pub(super) fn call_span(
    (ids, parent): (SpanIds, Option<u64>),
    method: &'static str,
    code: Code,
    latency: Micros,
    about: &CallAttributes,
) -> Span {
    let took = Duration::from_micros(latency.0);
    let method = method.trim_start_matches('/');
    let status = code_name(code as usize);
    let error = is_fault(code).then_some(status);
    let mut attributes = vec![
        ("rpc.system.name", text("grpc")),
        ("rpc.method", text(method)),
        ("rpc.response.status_code", text(status)),
    ];
    let named = [
        ("inventory.event_id", &about.event),
        ("inventory.reservation_id", &about.reservation),
    ];
    for (name, value) in named {
        if !value.is_empty() {
            attributes.push((name, owned(value)));
        }
    }
    if !about.outcome.is_empty() {
        attributes.push(("inventory.outcome", text(about.outcome)));
    }
    if let Some(error) = error {
        attributes.push(("error.type", text(error)));
    }
    Span {
        ids,
        parent,
        kind: Kind::Server,
        name: method.into(),
        started: SystemTime::now()
            .checked_sub(took)
            .unwrap_or(SystemTime::UNIX_EPOCH),
        took,
        attributes,
        links: Vec::new(),
        error,
    }
}

/// Whether a status means that the server has failed; the conventions' list for a server span.
fn is_fault(code: Code) -> bool {
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

fn text(value: &'static str) -> Value {
    Value::Text(value.into())
}

fn owned(value: &str) -> Value {
    Value::Text(value.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
        let found = span.attributes.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value)
    }

    #[test]
    fn a_refused_sale_is_no_fault_of_the_server_and_a_late_answer_is() {
        let ids = (SpanIds { trace: 1, span: 2 }, Some(3));
        let about = CallAttributes {
            event: "evt".to_owned(),
            outcome: "INSUFFICIENT_INVENTORY",
            ..CallAttributes::default()
        };
        let of = |code| call_span(ids, "/p.S/M", code, Micros(1_500), &about);
        let refused = of(Code::Aborted);
        assert_eq!((refused.error, refused.name.as_ref()), (None, "p.S/M"));
        assert_eq!(
            attribute(&refused, "rpc.response.status_code"),
            Some(&text("ABORTED"))
        );
        assert_eq!(
            attribute(&refused, "inventory.event_id"),
            Some(&owned("evt"))
        );
        assert_eq!(attribute(&refused, "inventory.reservation_id"), None);
        assert_eq!(refused.took, Duration::from_micros(1_500));
        assert_eq!(of(Code::DeadlineExceeded).error, Some("DEADLINE_EXCEEDED"));
    }

    #[test]
    fn a_transaction_is_in_the_trace_of_its_first_call_and_linked_to_all() {
        let calls = [SpanIds { trace: 7, span: 1 }, SpanIds { trace: 8, span: 2 }];
        let begun = TransactionSpan::start(calls.into_iter(), || 99).expect("two calls");
        assert_eq!(begun.ids, SpanIds { trace: 7, span: 99 });
        assert_eq!((begun.parent, begun.links.as_slice()), (1, &calls[..]));
        assert!(TransactionSpan::start(std::iter::empty(), || 1).is_none());
    }
}
