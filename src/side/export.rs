//! Sends spans to a collector, over OTLP/gRPC, on the side thread.
//!
//! Spans are gathered for a moment and sent together, one export at a time. A collector that does not
//! answer costs the spans and nothing else: while it is waited for the queue fills, what finds it full is
//! dropped, and every drop is counted. Must not live here: which spans there are (`telemetry::trace`).

use std::time::UNIX_EPOCH;

use http::Uri;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _, SpanLinks};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::stopped;
use crate::limits;
use crate::telemetry::trace::{Kind, Span, SpanQueue, Value};
use inventory_grpc::SpanIds;

/// Where spans go, and what they say of this process.
#[derive(Debug)]
pub struct ExportSettings {
    pub spans: SpanQueue,
    /// `None`: where the exporter's own variable for spans says.
    pub endpoint: Option<Uri>,
    /// SERVICE_NAME, unless OTEL_SERVICE_NAME names another.
    pub service: String,
    /// SERVICE_VERSION.
    pub version: String,
}

/// Makes the exporter. Inside a runtime; nothing is connected yet.
///
/// # Errors
/// When a variable that the exporter reads by itself cannot be used.
pub(super) fn exporter(settings: &ExportSettings) -> Result<SpanExporter, ExporterBuildError> {
    let mut builder = SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.to_string());
    }
    let mut exporter = builder.build()?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", settings.version.clone()));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(settings.service.clone());
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Exports until told to stop, and then what is left.
pub(super) async fn run(
    exporter: SpanExporter,
    settings: ExportSettings,
    stopping: watch::Receiver<bool>,
) {
    let ExportSettings { mut spans, .. } = settings;
    let mut complained: Option<Instant> = None;
    let mut batch = Vec::new();
    let mut is_over = false;
    while !is_over {
        is_over = select! {
            is_over = gather(&mut spans, &mut batch) => is_over,
            () = stopped(stopping.clone()) => {
                let room = limits::SPANS_EXPORTED_AT_ONCE.saturating_sub(batch.len());
                while batch.len() < room && let Ok(span) = spans.queue.try_recv() {
                    batch.push(span);
                }
                true
            }
        };
        let sent = batch.len();
        if sent == 0 {
            continue;
        }
        let batch = std::mem::take(&mut batch).into_iter().map(data).collect();
        let limit = match is_over {
            true => limits::SIDE_STOP_GRACE / 2,
            false => limits::SPAN_EXPORT_TIMEOUT,
        };
        let error = match timeout(limit, exporter.export(batch)).await {
            Ok(Ok(())) => {
                spans.counts.exported(sent);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        spans.counts.failed(sent);
        if complained.is_none_or(|at| at.elapsed() >= limits::SPANS_COMPLAIN_EVERY) {
            complained = Some(Instant::now());
            tracing::warn!(
                error,
                spans = sent,
                "spans were dropped: the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not take them; \
                 without one, set OTEL_TRACES_EXPORTER=none"
            );
        }
    }
}

/// Waits for a span and gathers what follows it for a moment. True: nobody is left who has any.
async fn gather(spans: &mut SpanQueue, batch: &mut Vec<Span>) -> bool {
    let Some(first) = spans.queue.recv().await else {
        return true;
    };
    batch.push(first);
    let until = Instant::now() + limits::SPANS_LINGER;
    while batch.len() < limits::SPANS_EXPORTED_AT_ONCE {
        select! {
            next = spans.queue.recv() => match next {
                Some(span) => batch.push(span),
                None => return true,
            },
            () = sleep_until(until) => break,
        }
    }
    false
}

/// A span as the exporter wants it.
fn data(span: Span) -> SpanData {
    let started = span.started.max(UNIX_EPOCH);
    let parent = span.parent.map_or(SpanId::INVALID, SpanId::from);
    let links = span.links.into_iter();
    let links = links.map(|ids| Link::with_context(context(ids)));
    let mut linked = SpanLinks::default();
    linked.links = links.collect();
    SpanData {
        span_context: context(span.ids),
        parent_span_id: parent,
        parent_span_is_remote: span.kind == Kind::Server,
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        },
        name: span.name,
        start_time: started,
        end_time: started.checked_add(span.took).unwrap_or(started),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: opentelemetry_sdk::trace::SpanEvents::default(),
        links: linked,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn context(ids: SpanIds) -> SpanContext {
    SpanContext::new(
        TraceId::from(ids.trace),
        SpanId::from(ids.span),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

fn attribute((key, value): (&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(key, text),
        Value::Int(number) => KeyValue::new(key, number),
        Value::Float(number) => KeyValue::new(key, number),
    }
}
