//! Calls, metrics and assertions that the end-to-end tests share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use inventory_client::connect;
pub(crate) use inventory_client::{InventoryClient, reason};
use inventory_grpc::ERROR_DOMAIN;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, CreateEventRequest, EventStock, GetEventRequest,
    ReleaseReq, ReleaseRes, SeatRef,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use inventory_testkit::DEADLINE;
use inventory_testkit::server::TestServer;

/// A client with a connection of its own.
pub(crate) async fn client(server: &TestServer) -> InventoryClient {
    connect(&server.grpc).await.unwrap()
}

pub(crate) async fn clients(server: &TestServer, count: usize) -> Vec<InventoryClient> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(client(server).await);
    }
    all
}

pub(crate) fn commit(reservation: &str, event: &str, qty: i32) -> CommitReq {
    CommitReq {
        reservation_id: reservation.to_owned(),
        event_id: event.to_owned(),
        qty,
        seat_ids: Vec::new(),
        payment_intent_id: "pi_1".to_owned(),
    }
}

pub(crate) fn release(reservation: &str, event: &str, qty: i32) -> ReleaseReq {
    ReleaseReq {
        reservation_id: reservation.to_owned(),
        event_id: event.to_owned(),
        qty,
        seat_ids: Vec::new(),
    }
}

pub(crate) fn check(event: &str, qty: i32) -> CheckReq {
    CheckReq { event_id: event.to_owned(), qty, seat_ids: Vec::new() }
}

pub(crate) fn seats(ids: &[&str]) -> Vec<SeatRef> {
    let seat = |id: &&str| SeatRef { seat_id: (*id).to_owned() };
    ids.iter().map(seat).collect()
}

/// A request with a deadline that a busy machine keeps.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    within(message, DEADLINE)
}

pub(crate) fn within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Calls with a deadline that a busy machine keeps.
pub(crate) trait InventoryCalls {
    async fn try_commit(&self, call: CommitReq) -> Result<CommitRes, Status>;
    async fn try_release(&self, call: ReleaseReq) -> Result<ReleaseRes, Status>;
    async fn try_check(&self, call: CheckReq) -> Result<CheckRes, Status>;

    /// Commits a reservation that must be confirmed; returns the order id.
    async fn order(&self, call: CommitReq) -> String {
        let answer = self.try_commit(call.clone()).await;
        let answer = answer.unwrap_or_else(|status| panic!("{call:?}: {status:?}"));
        assert_eq!(answer.status, "CONFIRMED");
        answer.order_id
    }
}

impl InventoryCalls for InventoryClient {
    async fn try_commit(&self, call: CommitReq) -> Result<CommitRes, Status> {
        let answer = self.clone().commit_reservation(with_deadline(call)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn try_release(&self, call: ReleaseReq) -> Result<ReleaseRes, Status> {
        let answer = self.clone().release_hold(with_deadline(call)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn try_check(&self, call: CheckReq) -> Result<CheckRes, Status> {
        let answer = self.clone().check_availability(with_deadline(call)).await;
        answer.map(tonic::Response::into_inner)
    }
}

/// Checks code, reason, domain, event and reservation of an error, and that gRPC clients do not retry a final one.
#[track_caller]
pub(crate) fn assert_rejected(status: &Status, code: Code, reason: &str, event: &str, id: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.reason, reason, "{status:?}");
    assert_eq!(info.domain, ERROR_DOMAIN);
    let metadata = |key: &str| info.metadata.get(key).map_or("", String::as_str);
    assert_eq!(metadata("event_id"), event, "{status:?}");
    assert_eq!(metadata("reservation_id"), id, "{status:?}");
    assert_ne!(status.message(), "");
    let is_final = matches!(
        code,
        Code::Aborted
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::NotFound
    );
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.is_some_and(|value| *value == "-1"), is_final, "{status:?}");
}

/// Checks that an error has RetryInfo and a pushback with the same delay.
#[track_caller]
pub(crate) fn assert_retryable(status: &Status) {
    let pause = status.get_details_retry_info().and_then(|r| r.retry_delay);
    let pause = pause.unwrap_or_else(|| panic!("no RetryInfo: {status:?}"));
    assert!(pause > Duration::ZERO && pause <= Duration::from_secs(1));
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback.unwrap_or_else(|| panic!("no pushback: {status:?}"));
    assert_eq!(*pushback, pause.as_millis().to_string());
}

// ---- The admin port -----------------------------------------------------------------------------

pub(crate) async fn admin(server: &TestServer) -> InventoryAdminClient<Channel> {
    let url = format!("http://{}", server.admin);
    let endpoint = Endpoint::from_shared(url).unwrap();
    InventoryAdminClient::new(endpoint.connect().await.unwrap())
}

pub(crate) async fn create(server: &TestServer, event: &str, total: i64, stripes: i32) {
    let wanted = CreateEventRequest {
        event_id: event.to_owned(),
        total,
        stripes,
        ..CreateEventRequest::default()
    };
    let made = admin(server).await.create_event(wanted).await.unwrap();
    assert!(made.into_inner().created);
}

/// The event, read from the store by the admin service.
pub(crate) async fn stock(server: &TestServer, event: &str) -> EventStock {
    let wanted = GetEventRequest { event_id: event.to_owned() };
    let found = admin(server).await.get_event(wanted).await.unwrap();
    let stock = found.into_inner().event.unwrap();
    assert_eq!(stock.total, stock.remaining + stock.held + stock.confirmed);
    stock
}

// ---- The metrics port ---------------------------------------------------------------------------

/// GET on the metrics port; status code and body.
pub(crate) async fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split_whitespace().nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code.parse().unwrap_or(0), body.to_owned()))
}

/// The samples of one scrape, by name and labels as in the text format: `name{label="value"}`.
pub(crate) struct MetricsSample(HashMap<String, f64>);

impl MetricsSample {
    pub(crate) async fn scrape(server: &TestServer) -> Self {
        let (code, text) = http_get(&server.metrics, "/metrics").await.unwrap();
        assert_eq!(code, 200, "{text}");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(sample).collect())
    }

    /// The value of one series; 0 if absent.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// The sum over all series of a name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_name = |key: &&String| key.split('{').next() == Some(name);
        self.0.keys().filter(of_name).map(|key| self.get(key)).sum()
    }
}

/// A number from the environment, for drills.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: must be a whole number"))
    })
}

/// Polls `condition` until it holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
