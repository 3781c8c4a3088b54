//! HTTP on METRICS_PORT.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use inventory_api::control_plane::{ControlPlane, Readiness};
use inventory_api::limits;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{FakeShards, channel, client, connect, exchange, get, settings, start};

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

const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n";

/// Sends a probe on a connection that stays open.
fn probe(stream: &mut TcpStream) {
    stream.write_all(PROBE).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut some = [0; 256];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

/// Whether the server has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0)) || stream.take_error().unwrap().is_some()
}

#[test]
fn a_new_connection_takes_the_place_of_the_idlest() {
    let (control_plane, _readiness) = start();
    let at = control_plane.metrics_address();
    let mut open: Vec<_> = (0..limits::HTTP_CONNECTIONS_MAX).map(|_| connect(at)).collect();
    open.iter_mut().for_each(probe);
    // The oldest connection is no longer the idlest.
    probe(&mut open[0]);
    let mut late = connect(at);
    probe(&mut late);
    assert!(is_closed(&mut open[1]), "the idlest gives way");
    probe(&mut open[0]);
    open.iter_mut().skip(2).for_each(probe);
}

#[test]
fn connections_that_send_nothing_or_read_nothing_keep_no_probe_out() {
    let (control_plane, readiness) = start();
    readiness.set_ready();
    let at = control_plane.metrics_address();
    let silent: Vec<_> = (0..limits::HTTP_CONNECTIONS_MAX).map(|_| connect(at)).collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(at, path).0, 200, "{path} beside silent connections");
    }
    // Requests without an end of their headers, and pipelined scrapes whose responses nobody reads.
    let unread = b"GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n".repeat(200);
    let stuck: Vec<_> = (0..2 * limits::HTTP_CONNECTIONS_MAX)
        .map(|n| {
            let mut stream = connect(at);
            stream.set_nonblocking(true).unwrap();
            let request =
                if n % 2 == 0 { &b"GET /metrics HTTP/1.1\r\nhost: "[..] } else { &unread };
            let _ = stream.write(request);
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(at, path).0, 200, "{path} beside stuck connections");
    }
    drop((silent, stuck));
}

#[test]
fn idle_connections_keep_no_admin_call_out() {
    let (control_plane, readiness) = start();
    readiness.set_ready();
    let at = control_plane.admin_address().unwrap();
    let idle: Vec<_> = (0..2 * limits::ADMIN_CONNECTIONS_MAX).map(|_| connect(at)).collect();
    client(async {
        let mut health = HealthClient::new(channel(at));
        for _ in 0..3 {
            health.check(HealthCheckRequest::default()).await.unwrap();
        }
    });
    drop(idle);
}

#[test]
fn concurrent_scrapes_refuse_nobody() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(FakeShards { all: false });
    let control_plane = ControlPlane::start(settings).unwrap();
    let at = control_plane.metrics_address();
    let began = Instant::now();
    let scrapes: Vec<_> =
        (0..30).map(|_| std::thread::spawn(move || get(at, "/metrics").0)).collect();
    for scrape in scrapes {
        assert_eq!(scrape.join().unwrap(), 200);
    }
    assert!(began.elapsed() < 10 * limits::SCRAPE_TIMEOUT, "{:?}", began.elapsed());
}
