//! Rates and values computed from two scrapes.
#![allow(clippy::unwrap_used)]

use super::*;

fn scrape(at: f64, text: &str) -> TimedScrape {
    TimedScrape { at, wall: 1_000.0 + at, samples: MetricSamples::parse(text).unwrap() }
}

const BEFORE: &str = r#"
inventory_build_info{service="inventory-api",version="1.2.3",revision="3f2a",arch="aarch64"} 1
inventory_ready 1
process_start_time_seconds 940
process_cpu_seconds_total 10
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="OK"} 100
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="INTERNAL"} 1
grpc_requests_total{method="/reservation.v1.InventoryService/CommitReservation",status="OK"} 5
grpc_requests_total{method="/inventory.v1.Inventory/PlaceHold",status="OK"} 50
inventory_admission_rejections_total{reason="deadline"} 0
inventory_admission_rejections_total{reason="queue_full"} 3
inventory_retries_total{reason="conflict"} 4
inventory_retries_total{reason="throttled"} 0
inventory_lane_transactions_total 10
inventory_lane_batch_entries_sum 100
inventory_lane_batch_entries_count 10
inventory_queue_wait_seconds_sum 1
inventory_queue_wait_seconds_count 100
dynamodb_requests_total{operation="TransactWriteItems",table="inventory",status="ok"} 10
dynamodb_operation_duration_seconds_sum{operation="TransactWriteItems",table="inventory"} 0.1
dynamodb_operation_duration_seconds_count{operation="TransactWriteItems",table="inventory"} 10
dynamodb_consumed_units_total{table="inventory",kind="write"} 40
dynamodb_consumed_units_total{table="idempotency",kind="write"} 40
inventory_event_reservations_total{event_id="evt_a"} 10
inventory_event_reservations_total{event_id="evt_b"} 10
inventory_event_reservations_total{event_id="other"} 0
inventory_shard_connections{shard="0"} 3
inventory_shard_requests_total{shard="0"} 100
"#;

const NOW: &str = r#"
inventory_build_info{service="inventory-api",version="1.2.3",revision="3f2a",arch="aarch64"} 1
inventory_ready 0
process_start_time_seconds 940
process_cpu_seconds_total 13
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="OK"} 140
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="INTERNAL"} 3
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="FAILED_PRECONDITION"} 6
grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="RESOURCE_EXHAUSTED"} 8
grpc_requests_total{method="/reservation.v1.InventoryService/CommitReservation",status="OK"} 5
grpc_requests_total{method="/inventory.v1.Inventory/PlaceHold",status="OK"} 20
grpc_request_latency_seconds{method="/inventory.v1.Inventory/CommitReservation",quantile="0.5"} 0.012
grpc_request_latency_seconds{method="/inventory.v1.Inventory/CommitReservation",quantile="0.95"} 0.041
grpc_request_latency_seconds{method="/inventory.v1.Inventory/CommitReservation",quantile="0.99"} NaN
inventory_admission_rejections_total{reason="deadline"} 8
inventory_admission_rejections_total{reason="queue_full"} 3
inventory_retries_total{reason="conflict"} 8
inventory_retries_total{reason="throttled"} 1
inventory_lane_transactions_total 14
inventory_lane_batch_entries_sum 180
inventory_lane_batch_entries_count 14
inventory_queue_wait_seconds_sum 1.4
inventory_queue_wait_seconds_count 180
dynamodb_requests_total{operation="TransactWriteItems",table="inventory",status="ok"} 14
dynamodb_requests_total{operation="TransactWriteItems",table="inventory",status="cancelled"} 2
dynamodb_operation_duration_seconds_sum{operation="TransactWriteItems",table="inventory"} 0.2
dynamodb_operation_duration_seconds_count{operation="TransactWriteItems",table="inventory"} 15
dynamodb_consumed_units_total{table="inventory",kind="write"} 48
dynamodb_consumed_units_total{table="idempotency",kind="write"} 60
inventory_event_reservations_total{event_id="evt_a"} 12
inventory_event_reservations_total{event_id="evt_b"} 30
inventory_event_reservations_total{event_id="other"} 400
inventory_event_units{event_id="evt_a",state="total"} 100
inventory_event_units{event_id="evt_a",state="remaining"} 88
inventory_event_units{event_id="evt_a",state="taken"} 12
inventory_event_units{event_id="evt_b",state="total"} 50
inventory_event_units{event_id="evt_b",state="remaining"} 20
inventory_event_units{event_id="evt_b",state="held"} 10
inventory_event_units{event_id="evt_b",state="sold"} 19
inventory_event_units{event_id="evt_b",state="blocked"} 1
inventory_shard_connections{shard="0"} 4
inventory_shard_connections{shard="1"} 2
inventory_shard_requests_total{shard="0"} 130
inventory_shard_requests_total{shard="1"} 10
inventory_shard_busy_ratio{shard="1"} 0.5
inventory_queue_depth{shard="1"} 7
inventory_shard_heartbeat_age_seconds{shard="1"} 2.5
inventory_shard_stalls_total{shard="1"} 1
inventory_invariant_breaches_total{kind="damaged_stripe"} 0
"#;

fn seen() -> TopModel {
    figures(&scrape(60.0, BEFORE), &scrape(62.0, NOW))
}

#[test]
fn rates_are_differences_per_second() {
    let seen = seen();
    assert_eq!((seen.version.as_str(), seen.arch.as_str()), ("1.2.3", "aarch64"));
    assert_eq!(seen.revision, "3f2a");
    assert!(!seen.ready);
    assert_eq!((seen.uptime_seconds, seen.over_seconds), (122.0, 2.0));
    assert_eq!(seen.cpu_cores, 1.5);
    assert_eq!(seen.shed_per_second, 4.0);
    assert_eq!(seen.transactions_per_second, 2.0);
    // Of what came meanwhile, not of all since the start.
    assert_eq!(seen.batch_reservations_mean, Some(20.0));
    assert!((seen.lane_wait_mean_ms.unwrap() - 5.0).abs() < 1e-9);
    assert_eq!((seen.retries("conflict"), seen.retries("throttled")), (2.0, 0.5));
    assert_eq!(seen.write_units_per_second, 14.0);
    assert_eq!(seen.invariant_breaches, 0.0);
}

#[test]
fn rejections_errors_and_shed_calls_of_a_method_are_counted_separately() {
    let seen = seen();
    let commit = &seen.methods[0];
    // Two services have a method of this name.
    assert_eq!(commit.method, "inventory.v1.Inventory/CommitReservation");
    assert_eq!(commit.calls_per_second, 28.0);
    assert_eq!(commit.refused_per_second, 3.0);
    assert_eq!(commit.errors_per_second, 1.0);
    assert_eq!(seen.errors_per_second, 1.0);
    // An empty window is no latency of NaN.
    let quantiles = [commit.p50_ms, commit.p95_ms, commit.p99_ms, commit.p999_ms];
    assert_eq!(quantiles, [Some(12.0), Some(41.0), None, None]);
    // A counter that fell began anew: it grew by what it is.
    let hold = seen.methods.iter().find(|one| one.method == "PlaceHold").unwrap();
    assert_eq!(hold.calls_per_second, 10.0);
}

#[test]
fn shards_operations_and_events_are_listed_separately() {
    let seen = seen();
    let [first, second] = &seen.shards[..] else { panic!("{:?}", seen.shards) };
    assert_eq!((first.connections, first.requests_per_second), (4.0, 15.0));
    // It was not there before.
    assert_eq!((second.connections, second.requests_per_second), (2.0, 5.0));
    assert_eq!((second.busy_ratio, second.queued_reservations), (0.5, 7.0));
    assert_eq!((second.tick_age_seconds, second.stalls), (2.5, 1.0));

    let [write] = &seen.store[..] else { panic!("{:?}", seen.store) };
    assert_eq!((write.calls_per_second, write.not_ok_per_second), (3.0, 1.0));
    assert!((write.mean_ms.unwrap() - 20.0).abs() < 1e-9);

    let rates: Vec<_> = seen
        .events
        .iter()
        .map(|one| (one.event_id.as_str(), one.reservations_per_second, one.remaining, one.taken))
        .collect();
    assert_eq!(
        rates,
        [
            ("evt_b", 10.0, Some(20.0), Some(29.0)),
            ("evt_a", 1.0, Some(88.0), Some(12.0)),
            ("other", 200.0, None, None),
        ]
    );
}

#[test]
fn samples_of_one_instant_or_without_data_give_numbers() {
    let empty = "inventory_build_info{version=\"1\",arch=\"x\"} 1\n";
    let seen = figures(&scrape(1.0, empty), &scrape(1.0, empty));
    assert_eq!((seen.requests_per_second, seen.cpu_cores), (0.0, 0.0));
    assert_eq!((seen.batch_reservations_mean, seen.lane_wait_mean_ms), (None, None));
    assert!(seen.shards.is_empty() && seen.methods.is_empty() && seen.events.is_empty());
}
