//! Rates, latencies, shards and events, computed from two scrapes of one server. Pure: no clock, no terminal, no
//! sockets. Not here: rendering (`view`).
//!
//! The rows are also the JSON output, for scripts: stable names that contain the units; unknown values are null.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::parse::MetricSamples;

/// A scrape and when it was taken.
#[derive(Clone, Debug)]
pub(super) struct TimedScrape {
    /// Since some fixed instant, in seconds.
    pub(super) at: f64,
    /// Since the Unix epoch, in seconds.
    pub(super) wall: f64,
    pub(super) samples: MetricSamples,
}

/// One shard between two scrapes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ShardRow {
    pub(super) shard: String,
    #[serde(serialize_with = "whole")]
    pub(super) connections: f64,
    pub(super) requests_per_second: f64,
    /// Requests that are not answered yet.
    #[serde(serialize_with = "whole")]
    pub(super) active_requests: f64,
    /// Fraction of the time in which the shard was busy, as reported by the server.
    pub(super) busy_ratio: f64,
    /// Reservations that wait for a transaction.
    #[serde(serialize_with = "whole")]
    pub(super) queued_reservations: f64,
    /// Transactions in flight.
    #[serde(serialize_with = "whole")]
    pub(super) transactions_in_flight: f64,
    /// Time since its last heartbeat, in seconds.
    pub(super) tick_age_seconds: f64,
    #[serde(serialize_with = "whole")]
    pub(super) stalls: f64,
}

/// One method: its rate between two scrapes, and its latencies over the server's window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MethodRow {
    /// Without its package, unless two services have it.
    pub(super) method: String,
    pub(super) calls_per_second: f64,
    /// Quantiles in milliseconds; `None` while the window is empty.
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p999_ms: Option<f64>,
    /// Business rejections and invalid arguments: sold out, seats held by others, and so on.
    pub(super) refused_per_second: f64,
    /// Calls that failed because of the server or the store, or missed their deadline.
    pub(super) errors_per_second: f64,
}

/// One operation of the store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StoreOperationRow {
    pub(super) operation: String,
    pub(super) calls_per_second: f64,
    /// Between the two scrapes, in milliseconds.
    pub(super) mean_ms: Option<f64>,
    /// Of those, how many had a status other than `ok`.
    pub(super) not_ok_per_second: f64,
}

/// One event: what this process writes of it, and its units as the store has them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct EventRow {
    pub(super) event_id: String,
    pub(super) reservations_per_second: f64,
    /// `None` until the server has read them.
    #[serde(serialize_with = "whole_if_known")]
    pub(super) total: Option<f64>,
    #[serde(serialize_with = "whole_if_known")]
    pub(super) remaining: Option<f64>,
    /// `None` for a quantity event of a server that does not distinguish held from sold; `sold` likewise.
    #[serde(serialize_with = "whole_if_known")]
    pub(super) held: Option<f64>,
    #[serde(serialize_with = "whole_if_known")]
    pub(super) sold: Option<f64>,
    /// Held or sold.
    #[serde(serialize_with = "whole_if_known")]
    pub(super) taken: Option<f64>,
}

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TopModel {
    pub(super) version: String,
    pub(super) revision: String,
    pub(super) arch: String,
    pub(super) ready: bool,
    pub(super) uptime_seconds: f64,
    /// Server processes of the store, this one included; 0 from a server that does not report them.
    #[serde(serialize_with = "whole")]
    pub(super) members: f64,
    /// Part of the stripes of an event that this one owns as a hint, from 0 to 1.
    pub(super) member_share_ratio: f64,
    /// Seconds between the two scrapes.
    pub(super) over_seconds: f64,
    /// Cores that the process used meanwhile.
    pub(super) cpu_cores: f64,
    #[serde(serialize_with = "whole")]
    pub(super) resident_bytes: f64,
    #[serde(serialize_with = "whole")]
    pub(super) open_files: f64,
    #[serde(serialize_with = "whole")]
    pub(super) open_files_max: f64,
    pub(super) requests_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) shed_per_second: f64,
    pub(super) shards: Vec<ShardRow>,
    pub(super) methods: Vec<MethodRow>,
    pub(super) store: Vec<StoreOperationRow>,
    pub(super) transactions_per_second: f64,
    /// Reservations of one transaction, between the two scrapes.
    pub(super) batch_reservations_mean: Option<f64>,
    /// How long a reservation waited for its transaction, in milliseconds.
    pub(super) lane_wait_mean_ms: Option<f64>,
    /// By reason: conflict, throttled, unknown, split.
    pub(super) retries_per_second: BTreeMap<String, f64>,
    pub(super) write_units_per_second: f64,
    pub(super) read_units_per_second: f64,
    /// Since the server started.
    #[serde(serialize_with = "whole")]
    pub(super) unknown_outcomes: f64,
    /// Since the server started; anything but 0 is an emergency.
    #[serde(serialize_with = "whole")]
    pub(super) invariant_breaches: f64,
    pub(super) events: Vec<EventRow>,
}

/// A gauge or count, which is whole.
fn whole<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(*number as u64)
}

fn whole_if_known<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(|number| number as u64).serialize(serializer)
}

impl TopModel {
    pub(super) fn retries(&self, reason: &str) -> f64 {
        self.retries_per_second.get(reason).copied().unwrap_or(0.0)
    }
}

/// The statuses that are the server's or the store's fault, or missed deadlines. The others are business rejections.
/// Shed calls are counted apart.
const ERRORS: [&str; 6] =
    ["INTERNAL", "UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED", "DATA_LOSS", "UNIMPLEMENTED"];

/// Label value of the events that the server does not show by name.
const REST: &str = "other";

/// Two scrapes of one server, the older first.
struct ScrapePair<'a> {
    before: &'a MetricSamples,
    now: &'a MetricSamples,
    seconds: f64,
}

impl ScrapePair<'_> {
    /// A counter that is smaller than before was reset by a restart.
    fn grown(before: f64, now: f64) -> f64 {
        if now < before { now } else { now - before }
    }

    fn rate(&self, name: &str) -> f64 {
        Self::grown(self.before.sum(name), self.now.sum(name)) / self.seconds
    }

    fn rate_of(&self, name: &str, label: &str, value: &str) -> f64 {
        let of = |samples: &MetricSamples| samples.sum_of(name, label, value);
        Self::grown(of(self.before), of(self.now)) / self.seconds
    }

    /// The increase of `NAME_sum` divided by that of `NAME_count`; `None` if nothing was counted.
    fn mean(&self, name: &str, only: Option<(&str, &str)>) -> Option<f64> {
        let growth = |name: &str| match only {
            Some((label, value)) => self.rate_of(name, label, value),
            None => self.rate(name),
        };
        let count = growth(&format!("{name}_count"));
        (count > 0.0).then(|| growth(&format!("{name}_sum")) / count)
    }
}

/// What happened between two scrapes of the same server.
pub(super) fn figures(before: &TimedScrape, now: &TimedScrape) -> TopModel {
    let pair = ScrapePair {
        before: &before.samples,
        now: &now.samples,
        // Avoids a division by zero: two scrapes of the same instant have no rates.
        seconds: (now.at - before.at).max(0.001),
    };
    let at = pair.now;
    let label = |name: &str| {
        at.first("inventory_build_info")
            .map_or_else(String::new, |info| info.label(name).to_owned())
    };
    let methods = methods(&pair);
    let mut events = events(&pair);
    events.sort_by(|one, other| {
        let (one_rate, other_rate) = (one.reservations_per_second, other.reservations_per_second);
        // The row of all other events comes last, however many reservations it has.
        let is_rest = |event: &EventRow| event.event_id == REST;
        is_rest(one)
            .cmp(&is_rest(other))
            .then(other_rate.total_cmp(&one_rate))
            .then(one.event_id.cmp(&other.event_id))
    });
    TopModel {
        version: label("version"),
        revision: label("revision"),
        arch: label("arch"),
        ready: at.sum("inventory_ready") > 0.0,
        uptime_seconds: (now.wall - at.sum("process_start_time_seconds")).max(0.0),
        members: at.sum("inventory_members"),
        member_share_ratio: at.sum("inventory_member_share_ratio"),
        over_seconds: now.at - before.at,
        cpu_cores: pair.rate("process_cpu_seconds_total"),
        resident_bytes: at.sum("process_resident_memory_bytes"),
        open_files: at.sum("process_open_fds"),
        open_files_max: at.sum("process_max_fds"),
        requests_per_second: pair.rate("grpc_requests_total"),
        errors_per_second: methods.iter().map(|one| one.errors_per_second).sum(),
        shed_per_second: pair.rate("inventory_admission_rejections_total"),
        shards: shards(&pair),
        methods,
        store: operations(&pair),
        transactions_per_second: pair.rate("inventory_lane_transactions_total"),
        batch_reservations_mean: pair.mean("inventory_lane_batch_entries", None),
        lane_wait_mean_ms: pair
            .mean("inventory_queue_wait_seconds", None)
            .map(|seconds| seconds * 1e3),
        retries_per_second: at
            .values_of("inventory_retries_total", "reason")
            .into_iter()
            .map(|reason| {
                let rate = pair.rate_of("inventory_retries_total", "reason", &reason);
                (reason, rate)
            })
            .collect(),
        write_units_per_second: pair.rate_of("dynamodb_consumed_units_total", "kind", "write"),
        read_units_per_second: pair.rate_of("dynamodb_consumed_units_total", "kind", "read"),
        unknown_outcomes: at.sum("inventory_unknown_outcomes_total"),
        invariant_breaches: at.sum("inventory_invariant_breaches_total"),
        events,
    }
}

fn shards(pair: &ScrapePair<'_>) -> Vec<ShardRow> {
    let now = |name: &str, shard: &str| pair.now.sum_of(name, "shard", shard);
    pair.now
        .values_of("inventory_shard_connections", "shard")
        .into_iter()
        .map(|shard| ShardRow {
            connections: now("inventory_shard_connections", &shard),
            requests_per_second: pair.rate_of("inventory_shard_requests_total", "shard", &shard),
            active_requests: now("inventory_shard_active_requests", &shard),
            busy_ratio: now("inventory_shard_busy_ratio", &shard),
            queued_reservations: now("inventory_queue_depth", &shard),
            transactions_in_flight: now("inventory_shard_transactions_in_flight", &shard),
            tick_age_seconds: now("inventory_shard_heartbeat_age_seconds", &shard),
            stalls: now("inventory_shard_stalls_total", &shard),
            shard,
        })
        .collect()
}

fn methods(pair: &ScrapePair<'_>) -> Vec<MethodRow> {
    let paths = pair.now.values_of("grpc_requests_total", "method");
    let short = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let rate = |path: &str, wanted: &dyn Fn(&str) -> bool| {
        let sum = |samples: &MetricSamples| -> f64 {
            samples
                .of("grpc_requests_total")
                .filter(|one| one.label("method") == path && wanted(one.label("status")))
                .map(|one| one.value)
                .sum()
        };
        ScrapePair::grown(sum(pair.before), sum(pair.now)) / pair.seconds
    };
    paths
        .iter()
        .map(|path| {
            let twice = paths.iter().filter(|other| short(other) == short(path));
            let quantile_ms = |wanted: &str| {
                pair.now
                    .of("grpc_request_latency_seconds")
                    .find(|one| one.label("method") == path && one.label("quantile") == wanted)
                    .map(|one| one.value * 1e3)
                    .filter(|ms| ms.is_finite())
            };
            MethodRow {
                method: match twice.count() {
                    1 => short(path),
                    _ => path.trim_start_matches('/').to_owned(),
                },
                calls_per_second: rate(path, &|_| true),
                p50_ms: quantile_ms("0.5"),
                p95_ms: quantile_ms("0.95"),
                p99_ms: quantile_ms("0.99"),
                p999_ms: quantile_ms("0.999"),
                refused_per_second: rate(path, &|status| {
                    status != "OK" && status != "RESOURCE_EXHAUSTED" && !ERRORS.contains(&status)
                }),
                errors_per_second: rate(path, &|status| ERRORS.contains(&status)),
            }
        })
        .collect()
}

fn operations(pair: &ScrapePair<'_>) -> Vec<StoreOperationRow> {
    pair.now
        .values_of("dynamodb_requests_total", "operation")
        .into_iter()
        .map(|name| {
            let not_ok = |samples: &MetricSamples| -> f64 {
                samples
                    .of("dynamodb_requests_total")
                    .filter(|one| one.label("operation") == name && one.label("status") != "ok")
                    .map(|one| one.value)
                    .sum()
            };
            let only = Some(("operation", name.as_str()));
            StoreOperationRow {
                calls_per_second: pair.rate_of("dynamodb_requests_total", "operation", &name),
                mean_ms: pair
                    .mean("dynamodb_operation_duration_seconds", only)
                    .map(|seconds| seconds * 1e3),
                not_ok_per_second: ScrapePair::grown(not_ok(pair.before), not_ok(pair.now))
                    / pair.seconds,
                operation: name,
            }
        })
        .collect()
}

/// The row of all other events is shown if it has any reservations.
fn events(pair: &ScrapePair<'_>) -> Vec<EventRow> {
    let units = |event: &str, state: &str| {
        pair.now
            .of("inventory_event_units")
            .find(|one| one.label("event_id") == event && one.label("state") == state)
            .map(|one| one.value)
    };
    pair.now
        .values_of("inventory_event_reservations_total", "event_id")
        .into_iter()
        .map(|id| EventRow {
            reservations_per_second: pair.rate_of(
                "inventory_event_reservations_total",
                "event_id",
                &id,
            ),
            total: units(&id, "total"),
            remaining: units(&id, "remaining"),
            held: units(&id, "held"),
            sold: units(&id, "sold"),
            taken: units(&id, "taken").or_else(|| Some(units(&id, "held")? + units(&id, "sold")?)),
            event_id: id,
        })
        .filter(|event| event.event_id != REST || event.reservations_per_second > 0.0)
        .collect()
}

#[cfg(test)]
mod tests;
