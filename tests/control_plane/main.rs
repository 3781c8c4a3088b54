//! Tests of the control plane over sockets: probes and metrics, auxiliary services, admin, signals and stop; and of the log of a
//! whole process.
#![allow(clippy::unwrap_used)]

mod admin;
mod auxiliary;
mod probes;
mod process_log;
mod stop;

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use inventory_api::control_plane::{
    AdminAccess, ControlPlane, ControlPlaneConfig, MetricsSource, Readiness,
};
use inventory_api::telemetry::aggregate::BuildInfo;
use inventory_api::telemetry::recorder::{Recorder, ShardGauges, ShardMetrics};
use inventory_core::time::Micros;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const SOON: Duration = Duration::from_secs(10);

/// Shard 0 answers scrapes; shard 1 only if `all` is set.
struct FakeShards {
    all: bool,
}

#[tonic::async_trait]
impl MetricsSource for FakeShards {
    fn shards(&self) -> usize {
        2
    }

    async fn take(&self, shard: usize) -> Option<ShardMetrics> {
        if shard == 1 && !self.all {
            std::future::pending::<()>().await;
        }
        let recorder = Recorder::new(shard);
        recorder.call_started();
        recorder.call_finished("CommitReservation", Code::Ok, Micros::from_millis(12));
        Some(recorder.take(ShardGauges::default()))
    }
}

fn free_port() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn settings(readiness: &Readiness) -> ControlPlaneConfig {
    ControlPlaneConfig {
        metrics: free_port(),
        admin: Some((free_port(), Arc::new(admin::Events::default()))),
        admin_access: AdminAccess::default(),
        audit: None,
        scrape: Arc::new(FakeShards { all: true }),
        readiness: readiness.clone(),
        build: BuildInfo {
            service: "inventory-api".to_owned(),
            version: "1.0.0".to_owned(),
            revision: "3f2a1b0c9d8e".to_owned(),
        },
        export: None,
        signals: false,
        reload: None,
        tasks: Vec::new(),
    }
}

fn start() -> (ControlPlane, Readiness) {
    let readiness = Readiness::new();
    (ControlPlane::start(settings(&readiness)).unwrap(), readiness)
}

fn client<T>(calls: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, calls).await.expect("in time") })
}

fn channel(to: SocketAddr) -> Channel {
    Endpoint::try_from(format!("http://{to}")).unwrap().connect_lazy()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `head` and reads the response to its end.
fn exchange(to: SocketAddr, head: &str) -> String {
    let mut stream = connect(to);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status and body of a GET.
fn get(to: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = exchange(to, &head);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
