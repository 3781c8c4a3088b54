//! Exports spans to a collector over OTLP/gRPC.
//!
//! Spans are collected for [`limits::SPAN_EXPORT_DELAY`] and exported in batches, one at a time. While a collector does not
//! answer, the queue fills and further spans are dropped and counted. Not here: sampling (`telemetry::trace`).

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::stop_requested;
use crate::limits;
use crate::telemetry::trace::SpanQueue;

/// Destination of spans and the resource attributes of this process.
#[derive(Debug)]
pub struct SpanExportConfig {
    pub(crate) spans: SpanQueue,
    /// `None`: the exporter reads OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.
    pub(crate) endpoint: Option<Uri>,
    /// SERVICE_NAME, unless OTEL_SERVICE_NAME is set.
    pub(crate) service: String,
    /// SERVICE_VERSION.
    pub(crate) version: String,
}

/// Creates the exporter inside a runtime, without a connection.
///
/// # Errors
/// If a variable that the exporter reads is not valid.
pub(super) fn exporter(config: &SpanExportConfig) -> Result<SpanExporter, ExporterBuildError> {
    let mut builder = SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.to_string());
    }
    let mut exporter = builder.build()?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", config.version.clone()));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(config.service.clone());
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Exports spans until the stop, then one last batch.
pub(super) async fn run(
    exporter: SpanExporter,
    config: SpanExportConfig,
    stopping: watch::Receiver<bool>,
) {
    let SpanExportConfig { mut spans, .. } = config;
    let mut last_warning: Option<Instant> = None;
    let mut batch = Vec::new();
    let mut is_last = false;
    while !is_last {
        is_last = select! {
            is_last = collect(&mut spans, &mut batch) => is_last,
            () = stop_requested(stopping.clone()) => {
                let room = limits::SPAN_EXPORT_BATCH_MAX.saturating_sub(batch.len());
                while batch.len() < room && let Ok(span) = spans.queue.try_recv() {
                    batch.push(span);
                }
                true
            }
        };
        let count = batch.len();
        if count == 0 {
            continue;
        }
        let limit = match is_last {
            true => limits::CONTROL_PLANE_STOP_GRACE / 2,
            false => limits::SPAN_EXPORT_TIMEOUT,
        };
        let export = exporter.export(std::mem::take(&mut batch));
        let error = match timeout(limit, export).await {
            Ok(Ok(())) => {
                spans.counts.exported(count);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no response within {limit:?}"),
        };
        spans.counts.failed(count);
        if last_warning.is_none_or(|at| at.elapsed() >= limits::SPAN_EXPORT_WARNING_INTERVAL) {
            last_warning = Some(Instant::now());
            tracing::warn!(
                error,
                spans = count,
                hint = "check OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_TRACES_EXPORTER=none",
                "spans dropped: collector unavailable"
            );
        }
    }
}

/// Waits for a span and collects further ones for a while. True if the queue is closed.
async fn collect(spans: &mut SpanQueue, batch: &mut Vec<SpanData>) -> bool {
    let Some(first) = spans.queue.recv().await else {
        return true;
    };
    batch.push(first);
    let until = Instant::now() + limits::SPAN_EXPORT_DELAY;
    while batch.len() < limits::SPAN_EXPORT_BATCH_MAX {
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
