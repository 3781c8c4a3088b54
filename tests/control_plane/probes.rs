//! HTTP on METRICS_PORT.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inventory_api::control_plane::{ControlPlane, Readiness};
use inventory_api::limits;

use crate::{FakeShards, SOON, connect, exchange, get, settings, start};

#[test]
fn probes_follow_readiness_and_give_the_reason() {
    let (control_plane, readiness) = start();
    let at = control_plane.metrics_address();
    assert_eq!(get(at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(at, "/readyz"), (503, "not ready: starting\n".to_owned()));
    readiness.set_ready();
    assert_eq!(get(at, "/readyz"), (200, "ready\n".to_owned()));
    readiness.set_draining("SIGTERM");
    assert_eq!(get(at, "/readyz"), (503, "not ready: draining (SIGTERM)\n".to_owned()));
    assert_eq!(get(at, "/healthz").0, 200, "draining is alive");
    let (status, body) = get(at, "/favicon.ico");
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"));
    let post = exchange(
        at,
        "POST /metrics HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[test]
fn metrics_are_the_sum_of_all_shards() {
    let (control_plane, _readiness) = start();
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let first = exchange(control_plane.metrics_address(), head);
    assert!(first.contains("content-type: text/plain; version=0.0.4\r\n"), "{first}");
    let (status, text) = get(control_plane.metrics_address(), "/metrics");
    assert_eq!(status, 200);
    let count = "grpc_request_duration_seconds_count{method=\"CommitReservation\"} 4\n";
    assert!(text.contains(count), "{text}");
    assert!(text.contains("inventory_scrape_incomplete 0\n"), "{text}");
}

#[test]
fn silent_shard_delays_only_the_scrape_for_a_bounded_time() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(FakeShards { all: false });
    let control_plane = ControlPlane::start(settings).unwrap();
    let at = control_plane.metrics_address();
    let began = Instant::now();
    let mut scrape = connect(at);
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(get(at, "/healthz").0, 200);
    assert!(began.elapsed() < limits::SCRAPE_TIMEOUT, "the probe did not wait for the scrape");
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(began.elapsed() < 3 * limits::SCRAPE_TIMEOUT);
    assert!(text.contains("inventory_scrape_incomplete 1\n"), "{text}");
    assert!(text.contains("_count{method=\"CommitReservation\"} 1\n"), "{text}");
}

#[test]
fn oversized_header_is_refused_before_its_end() {
    let (control_plane, _readiness) = start();
    let long = "x".repeat(limits::HTTP_HEADER_BYTES_MAX + 1024);
    let answer =
        exchange(control_plane.metrics_address(), &format!("GET /healthz HTTP/1.1\r\nx: {long}"));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn connection_beyond_the_maximum_waits_for_a_slot() {
    let (control_plane, _readiness) = start();
    let at = control_plane.metrics_address();
    let mut idle: Vec<_> = (0..limits::HTTP_CONNECTIONS_MAX).map(|_| connect(at)).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let mut late = connect(at);
    late.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(late.read(&mut [0; 12]).is_err(), "every slot is taken");
    late.set_read_timeout(Some(SOON)).unwrap();
    drop(idle.pop());
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
