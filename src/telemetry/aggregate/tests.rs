//! Checks the rendered text line by line against the rules of the exposition format.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;

use super::*;
use crate::telemetry::membership::{BeatReport, MembershipSource};
use crate::telemetry::recorder::{InventoryType, Recorder};
use inventory_core::counters::Counters;
use inventory_core::membership::ProcessId;
use inventory_core::time::Micros;

const NOW: Duration = Duration::from_secs(60);

fn build() -> BuildInfo {
    BuildInfo {
        service: "inventory-api".to_owned(),
        version: "a \"quoted\" \\ version".to_owned(),
        revision: "3f2a1b0c9d8e".to_owned(),
    }
}

/// Samples by name and labels. Checks that each family is declared once with a type, in one block, and that no sample is
/// duplicated.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && !types.contains_key(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert!(types.insert(name, kind).is_none(), "typed twice: {line}");
            current = name;
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let name = key.split('{').next().unwrap();
            let base = match types[current] {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap(),
                "summary" => {
                    ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
                }
                _ => name,
            };
            assert_eq!(base, current, "outside its family: {line}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            assert!(samples.insert(key.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

fn busy_shard(shard: usize, latencies_ms: &[u64]) -> (Recorder, ShardGauges) {
    let recorder = Recorder::new(shard);
    recorder.connection_opened();
    for ms in latencies_ms {
        recorder.call_started();
        recorder.call_finished("CommitReservation", Code::Ok, Micros::from_millis(*ms));
        recorder.store_call("TransactWriteItems", "inventory", "ok", Micros::from_millis(*ms));
        recorder.commit(InventoryType::Quantity, "confirmed");
    }
    recorder.store_call("TransactWriteItems", "inventory", "conflict", Micros(900));
    recorder.call_started();
    recorder.release(InventoryType::Quantity, "released");
    recorder.check(InventoryType::Quantity, "available");
    recorder.conflict("insufficient_inventory");
    recorder.idempotency("commit", true);
    recorder.idempotency("commit", false);
    let counters = Counters {
        transactions: 1,
        entries: latencies_ms.len() as u64,
        unknown_outcomes: 1,
        conflicts: 1,
        snapshot_answers: 9,
        read_answers: 2,
        snapshot_refreshes: 3,
        stock_moves_applied: 4,
        stock_moves_conflicted: 3,
        stock_moves_short: 2,
        stock_moves_failed: 1,
        stock_moved_units: 200,
        ..Counters::default()
    };
    let gauges = ShardGauges { counters, ..ShardGauges::default() };
    (recorder, gauges)
}

/// Of two shards and two scrapes.
const SUMS: &[(&str, f64)] = &[
    (r#"grpc_requests_total{method="CommitReservation",status="OK"}"#, 7.0),
    (r#"grpc_requests_total{method="CommitReservation",status="ABORTED"}"#, 1.0),
    ("grpc_active_requests", 1.0),
    (r#"inventory_commit_reservations_total{inventory_type="quantity",status="confirmed"}"#, 7.0),
    (r#"inventory_release_holds_total{inventory_type="quantity",status="released"}"#, 2.0),
    (r#"inventory_check_availability_total{inventory_type="quantity",result="available"}"#, 2.0),
    (r#"inventory_conflicts_total{conflict_type="insufficient_inventory"}"#, 2.0),
    (
        r#"dynamodb_requests_total{operation="TransactWriteItems",table="inventory",status="ok"}"#,
        7.0,
    ),
    (
        r#"dynamodb_requests_total{operation="TransactWriteItems",table="inventory",status="conflict"}"#,
        2.0,
    ),
    (
        r#"dynamodb_operation_duration_seconds_count{operation="TransactWriteItems",table="inventory"}"#,
        9.0,
    ),
    (r#"idempotency_hits_total{operation_type="commit"}"#, 2.0),
    (r#"idempotency_misses_total{operation_type="commit"}"#, 2.0),
    (r#"inventory_retries_total{reason="conflict"}"#, 2.0),
    ("inventory_lane_transactions_total", 2.0),
    ("inventory_lane_entries_total", 7.0),
    ("inventory_unknown_outcomes_total", 2.0),
    (r#"inventory_queries_total{source="snapshot"}"#, 18.0),
    (r#"inventory_queries_total{source="read"}"#, 4.0),
    ("inventory_snapshot_refreshes_total", 6.0),
    (r#"inventory_stock_moves_total{result="applied"}"#, 8.0),
    (r#"inventory_stock_moves_total{result="conflict"}"#, 6.0),
    (r#"inventory_stock_moves_total{result="short"}"#, 4.0),
    (r#"inventory_stock_moves_total{result="failed"}"#, 2.0),
    ("inventory_stock_moved_units_total", 400.0),
    (r#"inventory_shard_connections{shard="0"}"#, 1.0),
    (r#"inventory_shard_connections{shard="1"}"#, 1.0),
    ("inventory_scrape_incomplete", 1.0),
    ("inventory_log_lines_dropped_total", 5.0),
    (r#"grpc_request_latency_seconds{method="CommitReservation",quantile="0.5"}"#, 0.030_015),
    (r#"grpc_request_latency_seconds_count{method="CommitReservation"}"#, 8.0),
    ("inventory_ready", 0.0),
    (r#"inventory_shard_requests_total{shard="0"}"#, 4.0),
    (r#"inventory_shard_requests_total{shard="1"}"#, 4.0),
    (r#"inventory_invariant_breaches_total{kind="damaged_stripe"}"#, 0.0),
];

#[test]
fn metrics_of_two_shards_and_two_scrapes_are_summed() {
    let shards = [busy_shard(0, &[1, 30, 39, 41]), busy_shard(1, &[4, 40, 70_000])];
    let mut aggregate = MetricsAggregate::new(2, build());
    for (recorder, gauges) in &shards {
        aggregate.absorb(NOW, recorder.take(*gauges));
    }
    shards[1].0.call_finished("CommitReservation", Code::Aborted, Micros::from_millis(2));
    for (recorder, gauges) in &shards {
        aggregate.absorb(NOW, recorder.take(*gauges));
    }
    let server =
        ServerMetrics { shards_missing: 1, log_lines_dropped: 5, ..ServerMetrics::default() };
    let samples = parse(&aggregate.render(&server).unwrap());

    let duration = |end: &str, le: &str| {
        samples[&format!("grpc_request_duration_seconds{end}{{method=\"CommitReservation\"{le}}}")]
    };
    assert_eq!(duration("_bucket", ",le=\"0.0005\""), 0.0);
    assert_eq!(duration("_bucket", ",le=\"0.005\""), 3.0);
    assert_eq!(duration("_bucket", ",le=\"0.03\""), 4.0);
    assert_eq!(duration("_bucket", ",le=\"0.04\""), 6.0);
    assert_eq!(duration("_bucket", ",le=\"60\""), 7.0);
    assert_eq!(duration("_bucket", ",le=\"+Inf\""), 8.0);
    assert_eq!(duration("_count", ""), 8.0);
    assert!((duration("_sum", "") - 70.157).abs() < 1e-9);

    let build = r#"version="a \"quoted\" \\ version""#;
    let is_build = |key: &String| key.starts_with("inventory_build_info{") && key.contains(build);
    assert!(samples.keys().any(is_build), "{samples:?}");
    for (key, expected) in SUMS {
        assert_eq!(samples.get(*key), Some(expected), "{key}");
    }
}

#[test]
fn buckets_are_cumulative_and_end_at_the_count() {
    let mut aggregate = MetricsAggregate::new(1, build());
    let (recorder, gauges) = busy_shard(0, &[1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]);
    aggregate.absorb(NOW, recorder.take(gauges));
    let text = aggregate.render(&ServerMetrics::default()).unwrap();
    let prefix = "grpc_request_duration_seconds_bucket";
    let counts: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(prefix))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(counts.len(), TIME_BOUNDS_US.len() + 1);
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&11.0));
    assert!(TIME_BOUNDS_US.is_sorted());
}

#[test]
fn idle_server_renders_zeros() {
    let samples =
        parse(&MetricsAggregate::new(2, build()).render(&ServerMetrics::default()).unwrap());
    assert_eq!(samples["inventory_unknown_outcomes_total"], 0.0);
    assert_eq!(samples["grpc_active_requests"], 0.0);
    assert_eq!(samples[r#"inventory_shard_connections{shard="1"}"#], 0.0);
}

#[test]
fn status_codes_have_distinct_names() {
    let names: BTreeSet<_> = (0..CODES).map(code_name).collect();
    assert_eq!(names.len(), CODES);
}

/// `docs/reference/metrics.md` lists every family. With UPDATE_DOCS=1 the test rewrites the table.
#[test]
fn reference_lists_every_metric() {
    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
    let (aggregate, server) = everything_recorded();
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in aggregate.families(&server) {
        let metrics = family.get_metric();
        assert!(!metrics.is_empty(), "{}: nothing recorded", family.name());
        let labels: BTreeSet<String> = metrics
            .iter()
            .flat_map(|metric| metric.get_label())
            .map(|label| format!("`{}`", label.name()))
            .collect();
        let labels: Vec<String> = labels.into_iter().collect();
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let (name, labels, help) = (family.name(), labels.join(", "), family.help());
        table += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    inventory_testkit::documents::check_block(DOCUMENT.as_ref(), "metrics", &table);
}

/// An aggregate in which every label set exists.
fn everything_recorded() -> (MetricsAggregate, ServerMetrics) {
    let (recorder, gauges) = busy_shard(0, &[1]);
    let event: EventId = "evt_1".parse().unwrap();
    recorder.hold(InventoryType::Seat, "held");
    recorder.consumed("inventory", "write", 2.0);
    recorder.handshake("ok");
    recorder.wrong_protocol("tls");
    recorder.reclaimed(InventoryType::Seat, Micros::from_millis(1));
    recorder.written(&event, 3);
    let mut aggregate = MetricsAggregate::new(1, build());
    aggregate.absorb(NOW, recorder.take(gauges));
    assert_eq!(aggregate.stale_events(NOW), std::slice::from_ref(&event));
    aggregate.set_event_status(&event, EventStatus::default());
    let server = ServerMetrics {
        clock_skew: Some(0.25),
        credentials_expiry: Some(1.8e9),
        membership: Some((members(), Micros::from_millis(4_000))),
        heartbeats: vec![HeartbeatMetrics::default()],
        spans: SpanMetrics { exported: 1, dropped: vec![("queue_full", 1)] },
        tls: vec![PortTlsMetrics {
            port: "grpc",
            not_after: 1_900_000_000,
            reloads: 2,
            failures: 1,
            is_rejected: true,
            handshakes: vec![("ok", 3)],
        }],
        process: ProcessUsage {
            resident_bytes: Some(1),
            open_fds: Some(1),
            max_fds: Some(1),
            started: Some(NOW),
            ..ProcessUsage::default()
        },
        ..ServerMetrics::default()
    };
    (aggregate, server)
}

fn members() -> MembershipReport {
    let difference = (ProcessId(2), Duration::from_millis(1_500));
    MembershipReport {
        source: MembershipSource::Store,
        members: Vec::new(),
        own_share: 0.25,
        beats: Some(BeatReport {
            succeeded_at: Micros::from_millis(1_500),
            succeeded: 7,
            failed: 2,
            is_unlisted: true,
            unreadable: 3,
            clock_difference: Some(difference),
        }),
    }
}

#[test]
fn beats_are_rendered_and_absent_with_configured_members() {
    let (aggregate, mut server) = everything_recorded();
    let text = aggregate.render(&server).unwrap();
    for line in [
        "inventory_member_share_ratio 0.25",
        "inventory_member_beats_total{result=\"failed\"} 2",
        "inventory_member_beat_age_seconds 2.5",
        "inventory_member_unlisted 1",
        "inventory_member_entries_unreadable 3",
        "inventory_member_clock_difference_seconds 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
    }
    let configured = MembershipReport { beats: None, ..members() };
    server.membership = Some((configured, Micros(0)));
    let text = aggregate.render(&server).unwrap();
    assert!(text.contains("inventory_members 0") && !text.contains("inventory_member_beat"));
}
