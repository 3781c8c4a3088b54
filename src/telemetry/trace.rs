//! Spans of sampled calls and of their transactions: the sampling decision, and the queue to the exporter.
//!
//! An unsampled call costs one header lookup and one random number. A span that finds the queue full is dropped and
//! counted; a shard never waits for a collector. Not here: the export (`control_plane::span_export`) or the
//! attributes of spans (`shard::spans`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData,
};
use tokio::sync::mpsc;

use super::aggregate::SpanMetrics;
use crate::limits;

const TRACEPARENT: &str = "traceparent";

/// Parses a W3C `traceparent` header; `None` if it is not valid, which counts as absent. Unlike the propagator of the SDK
/// it requires the exact number of lower-case hexadecimal digits, as the recommendation does.
pub(crate) fn parse_traceparent(text: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.trim().split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    // Later versions may add parts; version ff is invalid.
    let is_known = version == "00" && parts.next().is_none();
    let is_later = version > "00" && version < "ff";
    if version.len() != 2 || !(is_known || is_later) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from(lower_hex(trace, 32)?),
        SpanId::from(lower_hex(span, 16)? as u64),
        TraceFlags::new(lower_hex(flags, 2)? as u8) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// Parses exactly `digits` lower-case hexadecimal digits.
fn lower_hex(text: &str, digits: usize) -> Option<u128> {
    let is_lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = text.len() == digits && text.bytes().all(is_lower);
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Sending end of the span queue, for any thread.
#[derive(Clone, Debug)]
pub(crate) struct SpanSink {
    queue: mpsc::Sender<SpanData>,
    counts: Arc<SpanCounts>,
}

/// Receiving end of the span queue.
#[derive(Debug)]
pub(crate) struct SpanQueue {
    pub(crate) queue: mpsc::Receiver<SpanData>,
    pub(crate) counts: Arc<SpanCounts>,
}

/// Exported and dropped spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    exported: AtomicU64,
    queue_full: AtomicU64,
    collector: AtomicU64,
}

impl SpanCounts {
    /// Counts spans that the collector accepted.
    pub(crate) fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Counts spans that the collector did not accept.
    pub(crate) fn failed(&self, spans: usize) {
        self.collector.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> SpanMetrics {
        SpanMetrics {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: vec![
                ("queue_full", self.queue_full.load(Ordering::Relaxed)),
                ("collector", self.collector.load(Ordering::Relaxed)),
            ],
        }
    }
}

/// A queue of [`limits::SPANS_QUEUED_MAX`] spans.
pub(crate) fn span_queue() -> (SpanSink, SpanQueue) {
    let (sink, queue) = mpsc::channel(limits::SPANS_QUEUED_MAX);
    let counts = Arc::new(SpanCounts::default());
    let sink = SpanSink { queue: sink, counts: Arc::clone(&counts) };
    (sink, SpanQueue { queue, counts })
}

impl SpanSink {
    /// Enqueues a span; drops and counts it if the queue is full.
    pub(crate) fn offer(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.counts.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ids of the span of a sampled call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SampledSpan {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    /// Span of the caller.
    pub(crate) parent: Option<SpanId>,
}

/// Samples the calls of one shard and generates span ids.
#[derive(Debug)]
pub(crate) struct Tracer {
    sampler: Sampler,
    ids: RandomIdGenerator,
    pub(crate) sink: SpanSink,
}

impl Tracer {
    pub(crate) fn new(sampler: Sampler, sink: SpanSink) -> Self {
        Self { sampler, ids: RandomIdGenerator::default(), sink }
    }

    /// Ids for the span of a call; `None` if the call is not sampled.
    pub(crate) fn sample(&self, headers: &HeaderMap) -> Option<SampledSpan> {
        let parent = headers.get(TRACEPARENT);
        let parent = parent.and_then(|text| parse_traceparent(text.as_bytes()));
        let trace = match &parent {
            Some(parent) => parent.trace_id(),
            None => self.ids.new_trace_id(),
        };
        let parent_span = parent.as_ref().map(SpanContext::span_id);
        let context = parent.map(|parent| Context::new().with_remote_span_context(parent));
        let result =
            self.sampler.should_sample(context.as_ref(), trace, "", &SpanKind::Server, &[], &[]);
        (result.decision == SamplingDecision::RecordAndSample).then(|| SampledSpan {
            trace,
            span: self.new_span_id(),
            parent: parent_span,
        })
    }

    pub(crate) fn new_span_id(&self) -> SpanId {
        self.ids.new_span_id()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Instant, SystemTime};

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::Status;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    /// The span of a sampled call, without a parent.
    pub(crate) fn call_span() -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(7_u128),
                SpanId::from(9_u64),
                TraceFlags::SAMPLED,
                true,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "call".into(),
            start_time: SystemTime::now(),
            end_time: SystemTime::now(),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    fn tracer(parent_based: bool, ratio: f64) -> Tracer {
        let root = Sampler::TraceIdRatioBased(ratio);
        let sampler = match parent_based {
            true => Sampler::ParentBased(Box::new(root)),
            false => root,
        };
        Tracer::new(sampler, span_queue().0)
    }

    fn called_from(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, traceparent.parse().unwrap());
        headers
    }

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const SPAN: u64 = 0xb7ad_6b71_6920_3331;

    #[test]
    fn traceparent_is_parsed_strictly() {
        let parent = parse_traceparent(SAMPLED.as_bytes()).unwrap();
        assert_eq!(parent.trace_id(), TraceId::from(TRACE));
        assert_eq!(parent.span_id(), SpanId::from(SPAN));
        let unsampled = parse_traceparent(UNSAMPLED.as_bytes()).unwrap();
        assert!(parent.is_sampled() && !unsampled.is_sampled());
        let later = SAMPLED.replacen("00", "cc", 1) + "-added-by-a-later-version";
        assert_eq!(parse_traceparent(later.as_bytes()), Some(parent));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse_traceparent(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn parent_based_sampling_follows_the_caller() {
        let none = tracer(true, 0.0);
        let sampled = none.sample(&called_from(SAMPLED)).unwrap();
        assert_eq!(sampled.trace, TraceId::from(TRACE));
        assert_eq!(sampled.parent, Some(SpanId::from(SPAN)));
        assert_ne!(Some(sampled.span), sampled.parent);
        assert!(none.sample(&HeaderMap::new()).is_none());
        let all = tracer(true, 1.0);
        assert!(all.sample(&called_from(UNSAMPLED)).is_none());
        let invalid = all.sample(&called_from("nonsense")).unwrap();
        assert_eq!(invalid.parent, None, "an invalid header counts as absent");
        assert!(tracer(false, 0.0).sample(&called_from(SAMPLED)).is_none());
    }

    #[test]
    fn sampled_share_matches_the_ratio() {
        let some = tracer(true, 0.1);
        let sampled = (0..20_000).filter(|_| some.sample(&HeaderMap::new()).is_some());
        let sampled = sampled.count();
        assert!((1_800..2_200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted() {
        let (sink, mut queue) = span_queue();
        let span = call_span();
        for _ in 0..limits::SPANS_QUEUED_MAX + 3 {
            sink.offer(span.clone());
        }
        assert_eq!(queue.counts.read().dropped[0], ("queue_full", 3));
        assert!(queue.queue.try_recv().is_ok());
    }

    /// Some tens of nanoseconds in a release build; the bound allows for an unoptimised one.
    #[test]
    fn unsampled_call_takes_less_than_100_ns() {
        let tracer = tracer(true, 0.0);
        let mut headers = HeaderMap::new();
        for name in ["content-type", "te", "user-agent", "grpc-timeout"] {
            headers.insert(name, "x".parse().unwrap());
        }
        let calls = 1_000;
        let round = || {
            let began = Instant::now();
            let sampled = (0..calls).filter(|_| {
                let sampled = tracer.sample(std::hint::black_box(&headers));
                sampled.is_some()
            });
            assert_eq!(sampled.count(), 0);
            began.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        // The minimum of many rounds excludes noise from other processes.
        let each = (0..100).map(|_| round()).fold(f64::MAX, f64::min);
        let most = if cfg!(debug_assertions) { 3_000.0 } else { 100.0 };
        assert!(each < most, "{each:.0} ns");
    }
}
