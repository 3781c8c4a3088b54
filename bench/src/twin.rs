//! The reservation contract on tonic and tokio, kept in memory: the peer that wire cost is
//! compared with, and a right-answering server for the load client's own tests.
//!
//! It is an honest peer: tonic's defaults, TCP_NODELAY, one short lock, no work a plain
//! implementation would not do. It keeps nothing on disk and shares nothing between processes.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
};

use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes, SeatRef,
    inventory_server::{Inventory, InventoryServer},
};
use tonic::{
    Code, Request, Response, Status,
    transport::server::{Router, Server, TcpIncoming},
};
use tonic_types::{ErrorDetails, StatusExt};

/// The most units of one reservation, as the server's default.
const QTY_MAX: i32 = 10;

/// The twin. Clones share its stock.
#[derive(Clone, Default)]
pub struct Twin {
    state: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    remaining: HashMap<String, i64>,
    reservations: HashMap<String, Record>,
}

struct Record {
    event_id: String,
    units: i32,
    /// `None`: released.
    order_id: Option<String>,
}

/// One commit or release, checked.
struct Wanted {
    reservation_id: String,
    event_id: String,
    units: i32,
}

impl Twin {
    /// A twin with these events and their tickets.
    pub fn new<S: Into<String>>(events: impl IntoIterator<Item = (S, i64)>) -> Self {
        let remaining = events.into_iter().map(|(id, n)| (id.into(), n)).collect();
        Self {
            state: Arc::new(RwLock::new(State {
                remaining,
                reservations: HashMap::new(),
            })),
        }
    }

    /// What is left of an event.
    pub fn remaining(&self, event_id: &str) -> Option<i64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.remaining.get(event_id).copied()
    }

    /// The answer to a repeat, read under the shared lock.
    fn known_order(&self, wanted: &Wanted) -> Option<Result<String, Status>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state
            .reservations
            .get(&wanted.reservation_id)
            .map(|record| record.repeat(wanted))
    }

    fn take(&self, wanted: Wanted) -> Result<String, Status> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = state.reservations.get(&wanted.reservation_id) {
            return record.repeat(&wanted);
        }
        let Some(remaining) = state.remaining.get_mut(&wanted.event_id) else {
            return Err(refuse(Code::NotFound, "EVENT_NOT_FOUND", &wanted));
        };
        if *remaining < i64::from(wanted.units) {
            return Err(refuse(Code::Aborted, "INSUFFICIENT_INVENTORY", &wanted));
        }
        *remaining -= i64::from(wanted.units);
        let order_id = order_id(&wanted.reservation_id);
        let record = Record {
            event_id: wanted.event_id,
            units: wanted.units,
            order_id: Some(order_id.clone()),
        };
        state.reservations.insert(wanted.reservation_id, record);
        Ok(order_id)
    }
}

impl Record {
    fn repeat(&self, wanted: &Wanted) -> Result<String, Status> {
        if self.event_id != wanted.event_id || self.units != wanted.units {
            return Err(refuse(Code::AlreadyExists, "IDEMPOTENCY_CONFLICT", wanted));
        }
        self.order_id
            .clone()
            .ok_or_else(|| refuse(Code::FailedPrecondition, "RESERVATION_RELEASED", wanted))
    }
}

#[tonic::async_trait]
impl Inventory for Twin {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        let check = request.into_inner();
        let wanted = wanted("check", check.event_id, check.qty, &check.seat_ids)?;
        let remaining = self
            .remaining(&wanted.event_id)
            .ok_or_else(|| refuse(Code::NotFound, "EVENT_NOT_FOUND", &wanted))?;
        Ok(Response::new(CheckRes {
            available: remaining >= i64::from(wanted.units),
            unavailable_seats: Vec::new(),
        }))
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        let commit = request.into_inner();
        let wanted = wanted(
            commit.reservation_id,
            commit.event_id,
            commit.qty,
            &commit.seat_ids,
        )?;
        let order_id = match self.known_order(&wanted) {
            Some(answer) => answer?,
            None => self.take(wanted)?,
        };
        Ok(Response::new(CommitRes {
            order_id,
            status: "CONFIRMED".to_owned(),
        }))
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        let release = request.into_inner();
        let wanted = wanted(
            release.reservation_id,
            release.event_id,
            release.qty,
            &release.seat_ids,
        )?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = state.reservations.get(&wanted.reservation_id) {
            if record.order_id.is_some() {
                return Err(refuse(
                    Code::FailedPrecondition,
                    "RESERVATION_COMMITTED",
                    &wanted,
                ));
            }
        } else {
            let record = Record {
                event_id: wanted.event_id,
                units: wanted.units,
                order_id: None,
            };
            state.reservations.insert(wanted.reservation_id, record);
        }
        Ok(Response::new(ReleaseRes {
            status: "RELEASED".to_owned(),
        }))
    }

    async fn place_hold(&self, _: Request<PlaceHoldReq>) -> Result<Response<PlaceHoldRes>, Status> {
        Err(Status::unimplemented("the twin sells, it does not hold"))
    }

    async fn get_reservation(
        &self,
        _: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        Err(Status::unimplemented("the twin shows no reservations"))
    }
}

/// A tonic server of `service`, to be run with `serve_with_incoming`.
pub fn router(service: impl Inventory) -> Router {
    Server::builder().add_service(InventoryServer::new(service))
}

/// Binds `address` (`host:port`, port 0 for a free one) with TCP_NODELAY on what it accepts.
/// Needs a tokio runtime.
pub fn bind(address: std::net::SocketAddr) -> std::io::Result<TcpIncoming> {
    Ok(TcpIncoming::bind(address)?.with_nodelay(Some(true)))
}

fn wanted(
    reservation_id: impl Into<String>,
    event_id: String,
    qty: i32,
    seats: &[SeatRef],
) -> Result<Wanted, Status> {
    let wanted = Wanted {
        reservation_id: reservation_id.into(),
        event_id,
        units: if seats.is_empty() {
            qty
        } else {
            i32::try_from(seats.len()).unwrap_or(i32::MAX)
        },
    };
    for (field, bad) in [
        ("reservation_id", !is_id(&wanted.reservation_id)),
        ("event_id", !is_id(&wanted.event_id)),
        ("qty", !(1..=QTY_MAX).contains(&wanted.units)),
    ] {
        if bad {
            let mut details = details("INVALID_ARGUMENT", &wanted);
            details.add_bad_request_violation(field, "is missing or out of bounds");
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                format!("{field} is missing or out of bounds"),
                details,
            ));
        }
    }
    Ok(wanted)
}

fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

fn details(reason: &str, wanted: &Wanted) -> ErrorDetails {
    ErrorDetails::with_error_info(
        reason,
        "inventory-api",
        [
            ("event_id".to_owned(), wanted.event_id.clone()),
            ("reservation_id".to_owned(), wanted.reservation_id.clone()),
        ],
    )
}

#[cold]
fn refuse(code: Code, reason: &str, wanted: &Wanted) -> Status {
    Status::with_error_details(code, reason, details(reason, wanted))
}

/// `ord_` and 128 bits drawn from the reservation: the shape of the server's, not its value.
fn order_id(reservation_id: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, reservation_id).hash(&mut hasher);
        hasher.finish()
    };
    format!("ord_{:016x}{:016x}", half(0), half(1))
}
