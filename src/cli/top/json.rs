//! The JSON output, for scripts: stable names that contain the units. Not here: how values are computed (`model`).

use serde_json::{Map, Value, json};

use super::model::TopModel;

/// A gauge or count as a whole number.
fn whole(number: f64) -> u64 {
    number as u64
}

/// The output as one object. Unknown values are null.
pub(super) fn of(server: &str, figures: &TopModel) -> Value {
    json!({
        "server": server,
        "version": figures.version,
        "revision": figures.revision,
        "arch": figures.arch,
        "ready": figures.ready,
        "uptime_seconds": figures.uptime_seconds,
        "members": whole(figures.members),
        "member_share_ratio": figures.member_share,
        "over_seconds": figures.over_seconds,
        "cpu_cores": figures.cores,
        "resident_bytes": whole(figures.resident_bytes),
        "open_files": whole(figures.open_files),
        "open_files_max": whole(figures.open_files_max),
        "requests_per_second": figures.requests_per_second,
        "errors_per_second": figures.errors_per_second,
        "shed_per_second": figures.shed_per_second,
        "transactions_per_second": figures.transactions_per_second,
        "batch_reservations_mean": figures.batch_mean,
        "lane_wait_mean_ms": figures.wait_mean_ms,
        "retries_per_second": retries(figures),
        "write_units_per_second": figures.write_units_per_second,
        "read_units_per_second": figures.read_units_per_second,
        "unknown_outcomes": whole(figures.unknown_outcomes),
        "invariant_breaches": whole(figures.breaches),
        "shards": shards(figures),
        "methods": methods(figures),
        "store": operations(figures),
        "events": events(figures),
    })
}

fn shards(figures: &TopModel) -> Vec<Value> {
    figures
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard,
                "requests_per_second": shard.requests_per_second,
                "busy_ratio": shard.busy,
                "connections": whole(shard.connections),
                "active_requests": whole(shard.active),
                "queued_reservations": whole(shard.queue),
                "transactions_in_flight": whole(shard.in_flight),
                "tick_age_seconds": shard.tick_age,
                "stalls": whole(shard.stalls),
            })
        })
        .collect()
}

fn methods(figures: &TopModel) -> Vec<Value> {
    figures
        .methods
        .iter()
        .map(|method| {
            let [p50, p95, p99, p999] = method.quantiles_ms;
            json!({
                "method": method.name,
                "calls_per_second": method.calls_per_second,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "p999_ms": p999,
                "refused_per_second": method.refused_per_second,
                "errors_per_second": method.errors_per_second,
            })
        })
        .collect()
}

fn operations(figures: &TopModel) -> Vec<Value> {
    figures
        .operations
        .iter()
        .map(|operation| {
            json!({
                "operation": operation.name,
                "calls_per_second": operation.per_second,
                "mean_ms": operation.mean_ms,
                "not_ok_per_second": operation.not_ok_per_second,
            })
        })
        .collect()
}

fn retries(figures: &TopModel) -> Map<String, Value> {
    figures.retries_per_second.iter().map(|(reason, rate)| (reason.clone(), json!(rate))).collect()
}

fn events(figures: &TopModel) -> Vec<Value> {
    figures
        .events
        .iter()
        .map(|event| {
            json!({
                "event_id": event.id,
                "reservations_per_second": event.reservations_per_second,
                "total": event.total.map(whole),
                "held": event.held.map(whole),
                "sold": event.sold.map(whole),
                "taken": event.taken.map(whole),
                "remaining": event.remaining.map(whole),
            })
        })
        .collect()
}
