//! A stage for the peer: an engine with the server's tables, and the peer on a socket before it.

use std::net::SocketAddr;
use std::time::Duration;

use inventory_client::{InventoryClient, connect, reason};
use inventory_peers::sale::{Mode, Sale};
use inventory_peers::service::Peer;
use inventory_peers::store::{Place, Store};
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, ReleaseReq};
use tonic::{Code, Request, Status};

pub(crate) const EVENT: &str = "evt_2025_1001";

/// Long past any answer: a test that comes to it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A peer on a free port of this test's runtime, with `retries` of its own.
pub(crate) async fn peer(
    endpoint: &str,
    mode: Mode,
    retries: u32,
    concurrency: usize,
) -> SocketAddr {
    let place = Place {
        endpoint: endpoint.to_owned(),
        region: "ap-northeast-2".to_owned(),
        inventory: crate::engine::INVENTORY.to_owned(),
        idempotency: crate::engine::IDEMPOTENCY.to_owned(),
    };
    let store = Store::new(place).unwrap();
    let peer = Peer::new(Sale::new(store, mode, retries), concurrency);
    let local = "127.0.0.1:0".parse().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::bind(local).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(peer.router().serve_with_incoming(incoming));
    address
}

/// An engine, a peer on it, a client of that.
pub(crate) async fn stage(mode: Mode) -> (crate::engine::Engine, InventoryClient) {
    let engine = crate::engine::Engine::start();
    engine.create_tables().await;
    let address = peer(&engine.endpoint(), mode, 50, 1_000).await;
    let client = connect(&address.to_string()).await.unwrap();
    (engine, client)
}

pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(crate) fn commit(reservation: &str, qty: i32) -> Request<CommitReq> {
    let message = CommitReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        payment_intent_id: "pay_1".to_owned(),
        ..CommitReq::default()
    };
    timed(message, PATIENCE)
}

pub(crate) fn hold(reservation: &str, qty: i32) -> Request<PlaceHoldReq> {
    let message = PlaceHoldReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..PlaceHoldReq::default()
    };
    timed(message, PATIENCE)
}

pub(crate) fn release(reservation: &str, qty: i32) -> Request<ReleaseReq> {
    let message = ReleaseReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..ReleaseReq::default()
    };
    timed(message, PATIENCE)
}

/// What a refusal says, as clients decide by it.
pub(crate) fn said<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.unwrap_err();
    (status.code(), reason(&status))
}
