//! Builds metric families and metrics of the Prometheus data model.
//!
//! Not here: the list of metrics (`metrics`, `aggregate`).

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile,
    Summary,
};
use tonic::Code;

use super::series::{LatencyHistogram, Series};
use inventory_core::counters::TIME_BOUNDS_US;
use inventory_core::spread::Spread;
use inventory_core::time::Micros;

/// Name of a gRPC status code as in the specification.
pub(crate) fn code_name(code: usize) -> &'static str {
    inventory_client::code_name(Code::from_i32(code as i32))
}

pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: impl IntoIterator<Item = Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

/// A counter per label set.
pub(super) fn counters<const L: usize>(
    name: &str,
    help: &str,
    names: [&'static str; L],
    series: &Series<L, u64>,
) -> MetricFamily {
    let metrics = series.iter().map(|(values, count)| {
        let mut labels = [("", ""); L];
        for (label, pair) in labels.iter_mut().zip(names.iter().zip(values)) {
            *label = (*pair.0, *pair.1);
        }
        counter(&labels, *count)
    });
    family(name, help, MetricType::COUNTER, metrics)
}

/// A counter per value of one label.
pub(super) fn counters_by<const N: usize>(
    name: &str,
    help: &str,
    label: &str,
    counts: [(&str, u64); N],
) -> MetricFamily {
    let metrics = counts.map(|(value, count)| counter(&[(label, value)], count));
    family(name, help, MetricType::COUNTER, metrics)
}

/// One counter without labels.
pub(super) fn total(name: &str, help: &str, count: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, [counter(&[], count)])
}

pub(super) fn counter(labels: &[(&str, &str)], count: u64) -> Metric {
    float_counter(labels, count as f64)
}

/// A counter with a fractional value.
pub(super) fn float_counter(labels: &[(&str, &str)], amount: f64) -> Metric {
    let mut value = Counter::default();
    value.set_value(amount);
    let mut metric = labelled(labels);
    metric.set_counter(value);
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], level: u64) -> Metric {
    float_gauge(labels, level as f64)
}

/// A gauge with a fractional value.
pub(super) fn float_gauge(labels: &[(&str, &str)], level: f64) -> Metric {
    let mut value = Gauge::default();
    value.set_value(level);
    let mut metric = labelled(labels);
    metric.set_gauge(value);
    metric
}

pub(super) fn histogram(labels: &[(&str, &str)], latency: &LatencyHistogram) -> Metric {
    let counts = latency.cumulative(&TIME_BOUNDS_US);
    let bounds = TIME_BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
    let total = (latency.count(), latency.sum_seconds());
    buckets(labels, bounds.zip(counts), total)
}

/// Quantiles of a recent window, with the count and the sum since process start.
pub(super) fn summary<const N: usize>(
    labels: &[(&str, &str)],
    quantiles: [(f64, Option<Micros>); N],
    total: &LatencyHistogram,
) -> Metric {
    let known = quantiles.into_iter().filter_map(|(q, value)| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(q);
        quantile.set_value(value?.0 as f64 / 1e6);
        Some(quantile)
    });
    let mut value = Summary::default();
    value.set_quantile(known.collect());
    value.set_sample_count(total.count());
    value.set_sample_sum(total.sum_seconds());
    let mut metric = labelled(labels);
    metric.set_summary(value);
    metric
}

/// A histogram with bounds and values in `unit`s: 1e-6 converts microseconds to seconds.
pub(super) fn spread<const N: usize>(bounds: &[u64; N], unit: f64, spread: &Spread<N>) -> Metric {
    // Division, because a multiplication would not give exactly 0.04.
    let scale = 1.0 / unit;
    let scaled = |value: u64| value as f64 / scale.round();
    let total = (spread.count(), scaled(spread.sum()));
    buckets(&[], bounds.map(scaled).into_iter().zip(spread.at_most()), total)
}

fn buckets(
    labels: &[(&str, &str)],
    cumulative: impl Iterator<Item = (f64, u64)>,
    (count, sum): (u64, f64),
) -> Metric {
    let buckets = cumulative.map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut value = Histogram::default();
    value.set_bucket(buckets.collect());
    value.set_sample_count(count);
    value.set_sample_sum(sum);
    let mut metric = labelled(labels);
    metric.set_histogram(value);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
