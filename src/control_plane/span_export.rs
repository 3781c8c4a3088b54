//! Exports spans to a collector over OTLP.
//!
//! Spans are collected for [`limits::SPAN_EXPORT_DELAY`] and exported in batches, one at a time. An export that the
//! collector refuses for the moment is repeated within its time limit. While a collector does not answer, the queue fills
//! and further spans are dropped and counted. Not here: sampling (`telemetry::trace`), the protocol (`otlp`).

mod otlp;
#[cfg(test)]
mod tests;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SpanData;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::otlp::{ExportError, OtlpClient, OtlpTarget};
use super::stop_requested;
use crate::config::OtlpConfig;
use crate::limits;
use crate::telemetry::trace::SpanQueue;
use inventory_store::Proxies;

/// Destination of spans and the resource attributes of this process.
#[derive(Debug)]
pub struct SpanExportConfig {
    pub(crate) spans: SpanQueue,
    target: OtlpTarget,
    /// Attributes of all spans.
    resource: Vec<(String, String)>,
}

impl SpanExportConfig {
    /// # Errors
    /// Why the collector cannot be reached with these settings: a PEM file, a name, or a proxy.
    pub(crate) fn new(
        spans: SpanQueue,
        otlp: OtlpConfig,
        resource: Vec<(String, String)>,
    ) -> Result<Self, String> {
        let proxies = Proxies::from_environment().map_err(|error| error.to_string())?;
        Ok(Self { spans, target: OtlpTarget::new(otlp, &proxies)?, resource })
    }
}

/// Exports spans until the stop, then one last batch. Runs inside a runtime.
pub(super) async fn run(config: SpanExportConfig, stopping: watch::Receiver<bool>) {
    let SpanExportConfig { mut spans, target, resource } = config;
    let usual_limit = target.timeout();
    let mut exporter = SpanExporter { client: target.client(), resource: as_resource(resource) };
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
            false => usual_limit,
        };
        let export = exporter.export(std::mem::take(&mut batch));
        let (rejected, error) = match timeout(limit, export).await {
            Ok(Ok(0)) => (0, String::new()),
            Ok(Ok(rejected)) => (rejected.min(count), format!("the collector rejected {rejected}")),
            Ok(Err(error)) => (count, error.text),
            Err(_elapsed) => (count, format!("no response within {limit:?}")),
        };
        spans.counts.exported(count - rejected);
        spans.counts.failed(rejected);
        let may_warn =
            last_warning.is_none_or(|at| at.elapsed() >= limits::SPAN_EXPORT_WARNING_INTERVAL);
        if rejected > 0 && may_warn {
            last_warning = Some(Instant::now());
            tracing::warn!(
                error,
                spans = rejected,
                hint = "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL, or set OTEL_TRACES_EXPORTER=none",
                "spans dropped: collector unavailable"
            );
        }
    }
}

struct SpanExporter {
    client: OtlpClient,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter {
    /// Exports `spans`; returns how many of them the collector rejected.
    async fn export(&mut self, spans: Vec<SpanData>) -> Result<usize, ExportError> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        let mut pause = limits::SPAN_EXPORT_RETRY_PAUSE;
        let mut tries = 1;
        loop {
            let error = match self.client.export(request.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(error) => error,
            };
            if !error.is_transient || tries >= limits::SPAN_EXPORT_TRIES_MAX {
                return Err(error);
            }
            sleep(error.retry_after.unwrap_or(pause)).await;
            pause *= 2;
            tries += 1;
        }
    }
}

fn as_resource(attributes: Vec<(String, String)>) -> ResourceAttributesWithSchema {
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes)
        .build();
    ResourceAttributesWithSchema::from(&resource)
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
