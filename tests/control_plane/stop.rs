//! Signals, and the end of the side thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use inventory_api::control_plane::{ControlPlane, Readiness, ShutdownSignal};
use inventory_api::limits;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{SOON, Shards, channel, client, connect, get, settings};

#[test]
fn the_first_signal_asks_for_a_graceful_end_and_the_second_for_one_at_once() {
    let mut settings = settings(&Readiness::new());
    settings.signals = true;
    let side = ControlPlane::start(settings).unwrap();
    let mut shutdown = side.shutdown();
    assert_eq!(*shutdown.borrow(), ShutdownSignal::None);
    let mut send = |signal| {
        // SAFETY: kill has no memory effects, and this process handles both signals by now.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
        client(async { shutdown.changed().await.unwrap() });
        *shutdown.borrow_and_update()
    };
    assert_eq!(send(libc::SIGTERM), ShutdownSignal::Drain { by: "SIGTERM" });
    assert_eq!(send(libc::SIGINT), ShutdownSignal::Abort { by: "SIGINT" });
    assert_eq!(
        get(side.metrics_address(), "/healthz").0,
        200,
        "the end is the server's to make"
    );
}

#[test]
fn a_stop_frees_the_ports_however_the_clients_behave() {
    let (dropped, task_dropped) = std::sync::mpsc::channel::<()>();
    let mut settings = settings(&Readiness::new());
    settings.tasks.push(Box::pin(async move {
        let _held = dropped;
        std::future::pending::<()>().await;
    }));
    let side = ControlPlane::start(settings).unwrap();
    let (metrics, admin) = (side.metrics_address(), side.admin_address().unwrap());
    // One says nothing, one stops in the middle of a header, one watches for ever.
    let _silent = (connect(metrics), connect(admin));
    let mut halting = connect(metrics);
    halting.write_all(b"GET /metr").unwrap();
    client(async {
        let mut health = HealthClient::new(channel(admin));
        let mut watch = health
            .watch(HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner();
        watch.message().await.unwrap().unwrap();
        let began = Instant::now();
        side.stop(SOON).unwrap();
        assert!(began.elapsed() < limits::CONTROL_PLANE_STOP_GRACE + SOON / 2);
    });
    assert!(
        task_dropped
            .recv_timeout(SOON)
            .is_err_and(|e| e == RecvTimeoutError::Disconnected)
    );
    for port in [metrics, admin] {
        assert!(
            TcpStream::connect(port).is_err(),
            "{port} is still listened on"
        );
    }
}

#[test]
fn a_stop_lets_a_request_finish() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(Shards { all: false });
    let side = ControlPlane::start(settings).unwrap();
    let mut scrape = connect(side.metrics_address());
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n";
    scrape.write_all(head.as_bytes()).unwrap();
    // Answered on another connection: by now the side thread has seen the first as well.
    get(side.metrics_address(), "/healthz");
    side.stop(SOON).unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("inventory_scrape_incomplete 1"), "{text}");
}
