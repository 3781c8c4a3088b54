//! Content and colours of the screen.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::cli::top::model::StoreOperationRow;

fn figures() -> TopModel {
    TopModel {
        version: "1.2.3".to_owned(),
        revision: "3f2a1b0c9d8e".to_owned(),
        arch: "aarch64".to_owned(),
        ready: true,
        uptime_seconds: 3_700.0,
        members: 3.0,
        member_share_ratio: 0.25,
        over_seconds: 1.0,
        cpu_cores: 1.25,
        resident_bytes: 64.0 * 1024.0 * 1024.0,
        open_files: 91.0,
        open_files_max: 20_000.0,
        requests_per_second: 30_021.0,
        errors_per_second: 0.0,
        shed_per_second: 0.0,
        shards: vec![ShardRow {
            shard: "0".to_owned(),
            connections: 4.0,
            requests_per_second: 30_021.0,
            active_requests: 12.0,
            busy_ratio: 0.5,
            queued_reservations: 40.0,
            transactions_in_flight: 20.0,
            tick_age_seconds: 0.1,
            stalls: 0.0,
        }],
        methods: vec![MethodRow {
            method: "CommitReservation".to_owned(),
            calls_per_second: 30_021.0,
            p50_ms: Some(12.0),
            p95_ms: Some(31.0),
            p99_ms: Some(39.0),
            p999_ms: None,
            refused_per_second: 0.0,
            errors_per_second: 0.0,
        }],
        store: vec![StoreOperationRow {
            operation: "TransactWriteItems".to_owned(),
            calls_per_second: 700.0,
            mean_ms: Some(23.4),
            not_ok_per_second: 1.0,
        }],
        transactions_per_second: 700.0,
        batch_reservations_mean: Some(42.9),
        lane_wait_mean_ms: Some(4.2),
        retries_per_second: [("throttled".to_owned(), 0.0)].into(),
        write_units_per_second: 60_000.0,
        read_units_per_second: 3.0,
        unknown_outcomes: 0.0,
        invariant_breaches: 0.0,
        events: vec![
            event("evt_hot", 900.0, Some(12_000_000.0)),
            event("evt_cold", 1.0, Some(0.0)),
            event("evt_new", 0.5, None),
        ],
    }
}

fn event(id: &str, rate: f64, remaining: Option<f64>) -> EventRow {
    EventRow {
        event_id: id.to_owned(),
        reservations_per_second: rate,
        total: remaining.map(|left| left + 10.0),
        remaining,
        held: remaining.map(|_| 3.0),
        sold: remaining.map(|_| 7.0),
        taken: remaining.map(|_| 10.0),
    }
}

fn screen(figures: TopModel) -> Screen {
    Screen {
        server: "http://127.0.0.1:9090".to_owned(),
        figures: Some(figures),
        colours: true,
        keys: true,
        ..Screen::default()
    }
}

fn drawn(screen: &Screen, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen.render(area, &mut buffer);
    buffer
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y| (0..area.width).map(move |x| buffer[(x, y)].symbol());
    (0..area.height).map(|y| line(y).collect::<String>().trim_end().to_owned()).collect()
}

/// The text that is red, in the order of reading.
fn red(buffer: &Buffer) -> String {
    let cells = buffer.content.iter();
    let cells = cells.filter(|cell| cell.fg == Color::Red);
    let text: String = cells.map(|cell| cell.symbol()).collect();
    text.trim().to_owned()
}

#[test]
fn healthy_server_is_shown_completely_and_nothing_is_red() {
    let buffer = drawn(&screen(figures()), 88, 24);
    let seen = lines(&buffer);
    let wanted = [
        "inventory-api 1.2.3 aarch64  http://127.0.0.1:9090  ready  up 1 h 1 min  revision 3f2a1b",
        "30,021 calls/s  0 errors/s  0 shed/s  1.25 cores  64 MiB  91 of 20,000 files",
        "3 processes on this store, share of this one 25 %",
        "SHARDS                                calls/s   busy  conns active queued writing stalls",
        "shard 0                                30,021   50 %      4     12     40      20      0",
        "",
        "METHODS (ms)                          calls/s    p50    p95    p99  p99.9 refused errors",
        "CommitReservation                      30,021   12.0   31.0   39.0      -       0      0",
        "",
        "STORE (ms)                                                        calls/s   mean  not ok",
        "TransactWriteItems                                                    700   23.4     1.0",
        "",
        "700 transactions/s of 42.9 each, 4.20 ms wait; 0 conflicts/s, 0 throttled/s; 60,000 WCU/s",
    ];
    assert_eq!(seen[..12], wanted[..12], "{seen:#?}");
    // The last words of a line that is too long are cut, and are the least of it.
    assert!(wanted[12].starts_with(&seen[12]), "{}", seen[12]);
    assert!(seen[14].starts_with("EVENTS"), "{seen:#?}");
    assert!(seen[15].starts_with("evt_hot") && seen[15].ends_with("12.0M"));
    assert!(seen[16].starts_with("evt_cold") && seen[16].ends_with("sold out"));
    assert!(seen[17].ends_with('-'), "{}", seen[17]);
    assert!(seen[23].starts_with("q quit"));
    assert_eq!(red(&buffer), "");
}

#[test]
fn only_problems_are_red() {
    type Damage = fn(&mut TopModel);
    let cases: [(Damage, &str); 9] = [
        (|f| f.ready = false, "NOT READY"),
        (|f| f.errors_per_second = 2.0, "2.0 errors/s"),
        (|f| f.shed_per_second = 10.0, "10 shed/s"),
        (|f| f.shards[0].busy_ratio = 0.95, "95 %"),
        (|f| f.shards[0].stalls = 3.0, "3"),
        (|f| f.methods[0].p95_ms = Some(40.1), "40.1"),
        (|f| f.methods[0].errors_per_second = 7.0, "7.0"),
        (|f| f.retries_per_second = [("throttled".to_owned(), 5.0)].into(), "5.0 throttled/s"),
        (
            |f| f.invariant_breaches = 2.0,
            "2 BREACHES of an invariant since the start: verify the events",
        ),
    ];
    for (damage, wanted) in cases {
        let mut hurt = figures();
        damage(&mut hurt);
        assert_eq!(red(&drawn(&screen(hurt.clone()), 100, 30)), wanted);
        let mut plain = screen(hurt);
        plain.colours = false;
        let buffer = drawn(&plain, 100, 30);
        assert_eq!(red(&buffer), "", "NO_COLOR");
        assert!(lines(&buffer).join("\n").contains(wanted));
    }
}

#[test]
fn stalled_shard_is_red_with_its_duration() {
    let mut hurt = figures();
    hurt.shards[0].tick_age_seconds = 7.0;
    let seen = red(&drawn(&screen(hurt), 100, 30));
    assert!(seen.starts_with("shard 0") && seen.ends_with("7 s"), "{seen}");
}

#[test]
fn unreachable_server_keeps_its_last_values() {
    let mut away = screen(figures());
    away.trouble = Some(("no server listens there".to_owned(), 75));
    let seen = lines(&drawn(&away, 100, 30));
    assert_eq!(seen[2], "no metrics for 1 min 15 s: no server listens there");
    assert!(seen[4].starts_with("shard 0"));
    away.figures = None;
    let seen = lines(&drawn(&away, 100, 30));
    assert!(seen[2].contains("no server listens there"), "{seen:#?}");
}

#[test]
fn small_terminals_show_fewer_tables_and_a_note() {
    let seen = lines(&drawn(&screen(figures()), SMALLEST.0, SMALLEST.1));
    assert!(seen[3].starts_with("SHARDS") && seen[11].starts_with("q quit"), "{seen:#?}");
    let seen = lines(&drawn(&screen(figures()), SMALLEST.0 - 1, SMALLEST.1));
    assert_eq!(seen[0], "the terminal is smaller than 72x12");
    // No size makes it panic.
    for width in [0, 1, 71, 72, 300] {
        for height in [0, 1, 11, 12, 13, 200] {
            drawn(&screen(figures()), width, height);
        }
    }
}

#[test]
fn events_are_sorted_as_the_keys_say() {
    let figures = figures();
    let ids = |sort: EventOrder| {
        sort.of(&figures.events).iter().map(|one| one.event_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(EventOrder::Rate), ["evt_hot", "evt_cold", "evt_new"]);
    let sort = EventOrder::Rate.next();
    assert_eq!(ids(sort), ["evt_cold", "evt_hot", "evt_new"]);
    assert_eq!(ids(sort.next()), ["evt_cold", "evt_hot", "evt_new"]);
    assert_eq!(sort.next().next(), EventOrder::Rate);
}

#[test]
fn json_has_the_figures_with_whole_counts() {
    let seen = serde_json::to_value(screen(figures())).unwrap();
    let keys: Vec<_> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "arch",
        "batch_reservations_mean",
        "cpu_cores",
        "errors_per_second",
        "events",
        "invariant_breaches",
        "lane_wait_mean_ms",
        "member_share_ratio",
        "members",
        "methods",
        "open_files",
        "open_files_max",
        "over_seconds",
        "read_units_per_second",
        "ready",
        "requests_per_second",
        "resident_bytes",
        "retries_per_second",
        "revision",
        "server",
        "shards",
        "shed_per_second",
        "store",
        "transactions_per_second",
        "unknown_outcomes",
        "uptime_seconds",
        "version",
        "write_units_per_second",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&seen["open_files"], &seen["cpu_cores"]), (&91.into(), &1.25.into()));
    let shard = serde_json::json!({
        "shard": "0", "requests_per_second": 30_021.0, "busy_ratio": 0.5, "connections": 4,
        "active_requests": 12, "queued_reservations": 40, "transactions_in_flight": 20,
        "tick_age_seconds": 0.1, "stalls": 0,
    });
    assert_eq!(seen["shards"][0], shard);
    let method = serde_json::json!({
        "method": "CommitReservation", "calls_per_second": 30_021.0, "p50_ms": 12.0,
        "p95_ms": 31.0, "p99_ms": 39.0, "p999_ms": null, "refused_per_second": 0.0,
        "errors_per_second": 0.0,
    });
    assert_eq!(seen["methods"][0], method);
    let operation = serde_json::json!({
        "operation": "TransactWriteItems", "calls_per_second": 700.0, "mean_ms": 23.4,
        "not_ok_per_second": 1.0,
    });
    assert_eq!(seen["store"][0], operation);
    let event = serde_json::json!({
        "event_id": "evt_new", "reservations_per_second": 0.5, "total": null, "held": null,
        "sold": null, "taken": null, "remaining": null,
    });
    assert_eq!(seen["events"][2], event);
    assert_eq!(seen["retries_per_second"], serde_json::json!({ "throttled": 0.0 }));
}
