//! Spans of sampled calls and of the transactions they went into: which calls are sampled, what a span
//! says, and its way to the side thread.
//!
//! A call that is not sampled costs a look for one header and a random number. A span that finds the
//! queue full is dropped and counted; a shard never waits for a collector. Must not live here: the
//! export itself (`side::export`), what a call was about (`api`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use super::registry::SpanFacts;
use crate::limits;
use inventory_grpc::SpanIds;

const TRACEPARENT: &str = "traceparent";

/// Which calls are sampled, by the names of OTEL_TRACES_SAMPLER.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Who is called from a sampled span is sampled, and who is called from one that is not is not.
    pub parent_based: bool,
    /// Of the others, this part of them by their trace's id: 0 none, 1 all.
    pub ratio: f64,
}

impl Sampling {
    fn wants(self, parent: Option<&Parent>, trace: u128) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            // As every OpenTelemetry SDK does it: the same trace is sampled everywhere or nowhere.
            _ => ((trace as u64) >> 1) < (self.ratio * (1_u64 << 63) as f64) as u64,
        }
    }
}

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub ids: SpanIds,
    pub sampled: bool,
}

impl Parent {
    /// Reads a W3C `traceparent`; `None` for one that is not as the recommendation says, which is
    /// then as good as absent.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.trim().split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        // Later versions may add parts; version ff is none.
        let is_known = version == "00" && parts.next().is_none();
        let is_later = version > "00" && version < "ff";
        if version.len() != 2 || !(is_known || is_later) {
            return None;
        }
        let ids = SpanIds {
            trace: hex(trace, 32)?,
            span: hex(span, 16)? as u64,
        };
        let flags = hex(flags, 2)?;
        (ids.trace != 0 && ids.span != 0).then_some(Self {
            ids,
            sampled: flags & 1 == 1,
        })
    }
}

/// Exactly so many lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = text.len() == digits && text.bytes().all(is_lower);
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call that a client made.
    Server,
    /// A request to the store.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Int(i64),
    Float(f64),
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    pub ids: SpanIds,
    pub parent: Option<u64>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    pub started: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    /// Other spans it belongs with.
    pub links: Vec<SpanIds>,
    /// Why it counts as failed.
    pub error: Option<&'static str>,
}

/// The writing end of the spans' queue, for any thread.
#[derive(Clone, Debug)]
pub struct SpanSink {
    queue: mpsc::Sender<Span>,
    counts: Arc<SpanCounts>,
}

/// The reading end.
#[derive(Debug)]
pub struct SpanQueue {
    pub queue: mpsc::Receiver<Span>,
    pub counts: Arc<SpanCounts>,
}

/// What became of the spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    queue_full: AtomicU64,
    collector: AtomicU64,
}

impl SpanCounts {
    /// The collector has taken so many.
    pub fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// The collector could not be reached, or has refused so many.
    pub fn failed(&self, spans: usize) {
        self.collector.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub fn read(&self) -> SpanFacts {
        SpanFacts {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: vec![
                ("queue_full", self.queue_full.load(Ordering::Relaxed)),
                ("collector", self.collector.load(Ordering::Relaxed)),
            ],
        }
    }
}

/// A queue of [`limits::SPANS_QUEUED_MAX`] spans.
pub fn spans() -> (SpanSink, SpanQueue) {
    let (sink, queue) = mpsc::channel(limits::SPANS_QUEUED_MAX);
    let counts = Arc::new(SpanCounts::default());
    let read = Arc::clone(&counts);
    (
        SpanSink {
            queue: sink,
            counts,
        },
        SpanQueue {
            queue,
            counts: read,
        },
    )
}

impl SpanSink {
    /// Offers a span; drops and counts it when the queue is full.
    pub fn offer(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One shard's: decides who is sampled, and draws ids.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    pub sink: SpanSink,
    rng: RefCell<SmallRng>,
}

impl Tracer {
    pub fn new(sampling: Sampling, sink: SpanSink) -> Self {
        Self {
            sampling,
            sink,
            rng: RefCell::new(SmallRng::from_os_rng()),
        }
    }

    /// The ids of a call's span, and its parent's, if the call is sampled.
    pub fn sample(&self, headers: &HeaderMap) -> Option<(SpanIds, Option<u64>)> {
        let parent = headers.get(TRACEPARENT);
        let parent = parent.and_then(|text| Parent::parse(text.as_bytes()));
        let trace = match &parent {
            Some(parent) => parent.ids.trace,
            None => self.rng.borrow_mut().random::<u128>().max(1),
        };
        if !self.sampling.wants(parent.as_ref(), trace) {
            return None;
        }
        let span = self.draw();
        Some((SpanIds { trace, span }, parent.map(|p| p.ids.span)))
    }

    /// A new span's id.
    pub fn draw(&self) -> u64 {
        self.rng.borrow_mut().random::<u64>().max(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use super::*;

    fn tracer(parent_based: bool, ratio: f64) -> Tracer {
        let sampling = Sampling {
            parent_based,
            ratio,
        };
        Tracer::new(sampling, spans().0)
    }

    fn called_from(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, traceparent.parse().unwrap());
        headers
    }

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let parent = Parent::parse(SAMPLED.as_bytes()).unwrap();
        assert_eq!(parent.ids.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.ids.span, 0xb7ad_6b71_6920_3331);
        assert!(parent.sampled && !Parent::parse(UNSAMPLED.as_bytes()).unwrap().sampled);
        let later = SAMPLED.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(Parent::parse(later.as_bytes()), Some(parent));
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
            assert_eq!(Parent::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn who_is_called_from_a_sampled_span_is_sampled_in_the_same_trace() {
        let none = tracer(true, 0.0);
        let (ids, parent) = none.sample(&called_from(SAMPLED)).unwrap();
        assert_eq!(ids.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent, Some(0xb7ad_6b71_6920_3331));
        assert_ne!(Some(ids.span), parent);
        assert!(none.sample(&HeaderMap::new()).is_none());
        let all = tracer(true, 1.0);
        assert!(all.sample(&called_from(UNSAMPLED)).is_none());
        let (_, parent) = all.sample(&called_from("nonsense")).unwrap();
        assert_eq!(parent, None, "as good as absent");
        assert!(tracer(false, 0.0).sample(&called_from(SAMPLED)).is_none());
    }

    #[test]
    fn about_the_part_asked_for_is_sampled() {
        let some = tracer(true, 0.1);
        let sampled = (0..20_000).filter(|_| some.sample(&HeaderMap::new()).is_some());
        let sampled = sampled.count();
        assert!((1_800..2_200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_counted() {
        let (sink, mut queue) = spans();
        let span = Span {
            ids: SpanIds { trace: 1, span: 2 },
            parent: None,
            kind: Kind::Server,
            name: "m".into(),
            started: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        };
        for _ in 0..limits::SPANS_QUEUED_MAX + 3 {
            sink.offer(span.clone());
        }
        assert_eq!(queue.counts.read().dropped[0], ("queue_full", 3));
        assert!(queue.queue.try_recv().is_ok());
    }

    /// In release a few tens of nanoseconds; the bound leaves room for an unoptimised build.
    #[test]
    fn a_call_that_is_not_sampled_costs_next_to_nothing() {
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
        // The best of many: what else the machine does is not what this is about.
        let each = (0..100).map(|_| round()).fold(f64::MAX, f64::min);
        println!("{each:.0} ns for each call that is not sampled");
        let most = if cfg!(debug_assertions) {
            3_000.0
        } else {
            100.0
        };
        assert!(each < most, "{each:.0} ns");
    }
}
