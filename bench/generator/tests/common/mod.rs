//! A server of `inventory.v1` in this process, on a real socket, with planted faults.

#![allow(dead_code)] // Each test file uses its part.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inventory_baseline::bind;
use inventory_generator::run::RunOptions;
use inventory_generator::scenario::Scenario;
use inventory_proto::inventory::v1::inventory_server::{Inventory, InventoryServer};
use inventory_proto::inventory::v1::*;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Planted faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerFaults {
    /// Calls are not answered in this interval after the first call.
    pub(crate) stall: Option<(Duration, Duration)>,
    /// Every n-th repeat of a commit is answered with a different order id.
    pub(crate) other_order: Option<u64>,
    /// Every n-th call is shed.
    pub(crate) sheds: Option<u64>,
    /// Stream limit of a connection.
    pub(crate) streams: Option<u32>,
    /// No call is answered.
    pub(crate) silent: bool,
}

#[derive(Default)]
struct ServerState {
    stock: HashMap<String, i64>,
    /// Event, units and status: "HELD", "CONFIRMED", "RELEASED".
    records: HashMap<String, (String, i32, &'static str)>,
    calls: u64,
    repeats: u64,
    first: Option<Instant>,
}

/// A running server. Stops when dropped.
pub(crate) struct FaultyServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<ServerState>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct FaultyService {
    faults: ServerFaults,
    state: Arc<Mutex<ServerState>>,
}

impl FaultyServer {
    pub(crate) fn start(faults: ServerFaults, stock: &[(&str, i64)]) -> Self {
        let state = Arc::new(Mutex::new(ServerState {
            stock: stock.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect(),
            ..ServerState::default()
        }));
        let service = FaultyService {
            faults,
            state: Arc::clone(&state),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let incoming = bind("127.0.0.1:0".parse().unwrap()).unwrap();
                bound.send(incoming.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = tonic::transport::Server::builder()
                        .max_concurrent_streams(service.faults.streams)
                        .add_service(InventoryServer::new(service))
                        .serve_with_incoming(incoming) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address.recv().unwrap(),
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn remaining(&self, event: &str) -> i64 {
        self.state.lock().unwrap().stock[event]
    }

    /// Number of reservations with a status.
    pub(crate) fn count(&self, status: &str) -> usize {
        self.state
            .lock()
            .unwrap()
            .records
            .values()
            .filter(|record| record.2 == status)
            .count()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "test", [("k".to_owned(), "v".to_owned())]);
    Status::with_error_details(code, reason, details)
}

impl FaultyService {
    async fn inject_faults(&self) -> Result<(), Status> {
        let (n, since) = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            let first = *state.first.get_or_insert_with(Instant::now);
            (state.calls, first.elapsed())
        };
        if self.faults.silent {
            std::future::pending::<()>().await;
        }
        if let Some((from, to)) = self.faults.stall
            && (from..to).contains(&since)
        {
            tokio::time::sleep(to - since).await;
        }
        match self.faults.sheds {
            Some(every) if n.is_multiple_of(every) => {
                Err(Status::new(Code::ResourceExhausted, "overloaded"))
            }
            _ => Ok(()),
        }
    }

    fn take(&self, id: &str, event: &str, qty: i32, to: &'static str) -> Result<bool, Status> {
        let mut state = self.state.lock().unwrap();
        if let Some((_, units, status)) = state.records.get(id).cloned() {
            if units != qty {
                return Err(refusal(Code::AlreadyExists, "IDEMPOTENCY_CONFLICT"));
            }
            return match (status, to) {
                ("RELEASED", _) => Err(refusal(Code::FailedPrecondition, "RESERVATION_RELEASED")),
                ("CONFIRMED", "HELD") => {
                    Err(refusal(Code::FailedPrecondition, "RESERVATION_COMMITTED"))
                }
                ("HELD", "CONFIRMED") => {
                    state.records.get_mut(id).unwrap().2 = to;
                    Ok(false)
                }
                _ => Ok(true),
            };
        }
        let Some(left) = state.stock.get_mut(event) else {
            return Err(refusal(Code::NotFound, "EVENT_NOT_FOUND"));
        };
        if *left < i64::from(qty) {
            return Err(refusal(Code::Aborted, "INSUFFICIENT_INVENTORY"));
        }
        *left -= i64::from(qty);
        state
            .records
            .insert(id.to_owned(), (event.to_owned(), qty, to));
        Ok(false)
    }
}

fn order_of(id: &str) -> String {
    let sum = id
        .bytes()
        .fold(7_u128, |sum, b| sum.wrapping_mul(1_000_003) ^ u128::from(b));
    format!("ord_{sum:032x}")
}

#[tonic::async_trait]
impl Inventory for FaultyService {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        self.inject_faults().await?;
        let request = request.into_inner();
        let left = self
            .state
            .lock()
            .unwrap()
            .stock
            .get(&request.event_id)
            .copied();
        let left = left.ok_or_else(|| refusal(Code::NotFound, "EVENT_NOT_FOUND"))?;
        Ok(Response::new(CheckRes {
            available: left >= i64::from(request.qty),
            unavailable_seats: vec![],
        }))
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        self.inject_faults().await?;
        let request = request.into_inner();
        let id = &request.reservation_id;
        let repeat = self.take(id, &request.event_id, request.qty, "CONFIRMED")?;
        let mut order_id = order_of(id);
        if repeat {
            let mut state = self.state.lock().unwrap();
            state.repeats += 1;
            if self
                .faults
                .other_order
                .is_some_and(|every| state.repeats.is_multiple_of(every))
            {
                order_id = order_of(&order_id);
            }
        }
        Ok(Response::new(CommitRes {
            order_id,
            status: "CONFIRMED".to_owned(),
        }))
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        self.inject_faults().await?;
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let (event, units, status) = state.records.entry(request.reservation_id).or_insert((
            request.event_id,
            0,
            "RELEASED",
        ));
        match *status {
            "CONFIRMED" => return Err(refusal(Code::FailedPrecondition, "RESERVATION_COMMITTED")),
            "HELD" => {
                *status = "RELEASED";
                let (event, units) = (event.clone(), i64::from(*units));
                *state.stock.get_mut(&event).unwrap() += units;
            }
            _ => {}
        }
        Ok(Response::new(ReleaseRes {
            status: "RELEASED".to_owned(),
        }))
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        self.inject_faults().await?;
        let request = request.into_inner();
        self.take(
            &request.reservation_id,
            &request.event_id,
            request.qty,
            "HELD",
        )?;
        Ok(Response::new(PlaceHoldRes {
            status: "HELD".to_owned(),
            hold_expires_at: Some(prost_types::Timestamp {
                seconds: 2_000_000_000,
                nanos: 0,
            }),
            seat_ids: vec![],
        }))
    }

    async fn get_reservation(
        &self,
        _: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        Err(Status::unimplemented("not used by the generator"))
    }
}

/// Parses and checks a scenario.
pub(crate) fn scenario(text: &str) -> Scenario {
    let scenario = Scenario::parse(text).unwrap();
    scenario.check().unwrap();
    scenario
}

/// Options for a run against `server` with existing events. The lateness bound is loose: tests share CPUs.
pub(crate) fn options(server: &FaultyServer) -> RunOptions {
    RunOptions {
        targets: vec![server.address.to_string()],
        lateness_max: Duration::from_secs(1),
        run: Some("t".to_owned()),
        ..RunOptions::default()
    }
}
