//! Signals and the stop of the control plane.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use inventory_api::control_plane::{ControlPlane, Readiness, ShutdownSignal};
use inventory_api::limits;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{FakeShards, SOON, channel, client, connect, get, settings};

#[test]
fn first_signal_requests_drain_and_second_one_abort() {
    let mut settings = settings(&Readiness::new());
    settings.signals = true;
    let control_plane = ControlPlane::start(settings).unwrap();
    let mut shutdown = control_plane.shutdown();
    assert_eq!(*shutdown.borrow(), ShutdownSignal::None);
    let mut send = |signal| {
        // SAFETY: kill has no memory effects, and this process handles both signals.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
        client(async { shutdown.changed().await.unwrap() });
        *shutdown.borrow_and_update()
    };
    assert_eq!(send(libc::SIGTERM), ShutdownSignal::Drain { by: "SIGTERM" });
    // The sender signals the process and its group.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGTERM) }, 0);
    let mut unchanged = control_plane.shutdown();
    unchanged.mark_unchanged();
    let change = async {
        tokio::time::timeout(limits::REPEATED_SIGNAL_WINDOW / 4, unchanged.changed()).await.is_ok()
    };
    let has_changed = client(change);
    assert!(!has_changed, "the same signal at once is no second one");
    assert_eq!(send(libc::SIGINT), ShutdownSignal::Abort { by: "SIGINT" });
    assert_eq!(
        get(control_plane.metrics_address(), "/healthz").0,
        200,
        "the end is the server's to make"
    );
}

#[test]
fn stop_frees_the_ports_with_misbehaving_clients() {
    let (dropped, task_dropped) = std::sync::mpsc::channel::<()>();
    let mut settings = settings(&Readiness::new());
    settings.tasks.push(Box::pin(async move {
        let _held = dropped;
        std::future::pending::<()>().await;
    }));
    let control_plane = ControlPlane::start(settings).unwrap();
    let (metrics, admin) =
        (control_plane.metrics_address(), control_plane.admin_address().unwrap());
    // One client sends nothing, one stops within a header, one has an endless watch.
    let _silent = (connect(metrics), connect(admin));
    let mut halting = connect(metrics);
    halting.write_all(b"GET /metr").unwrap();
    client(async {
        let mut health = HealthClient::new(channel(admin));
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        let began = Instant::now();
        control_plane.stop(SOON).unwrap();
        assert!(began.elapsed() < limits::CONTROL_PLANE_STOP_GRACE + SOON / 2);
    });
    assert!(task_dropped.recv_timeout(SOON).is_err_and(|e| e == RecvTimeoutError::Disconnected));
    for port in [metrics, admin] {
        assert!(TcpStream::connect(port).is_err(), "{port} is still listened on");
    }
}

#[test]
fn stop_lets_a_running_request_finish() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(FakeShards { all: false });
    let control_plane = ControlPlane::start(settings).unwrap();
    let mut scrape = connect(control_plane.metrics_address());
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n";
    scrape.write_all(head.as_bytes()).unwrap();
    // A response on another connection proves that the first one is accepted.
    get(control_plane.metrics_address(), "/healthz");
    control_plane.stop(SOON).unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("inventory_scrape_incomplete 1"), "{text}");
}
