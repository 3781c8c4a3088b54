//! The stub server in this process, on a real socket, with planted faults.

#![allow(dead_code)] // Each test file uses its part.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inventory_baseline::{BaselineService, MemoryBackend, bind};
use inventory_generator::run::RunOptions;
use inventory_generator::scenario::Scenario;
use inventory_proto::inventory::v1::inventory_server::{Inventory, InventoryServer};
use inventory_proto::inventory::v1::*;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

/// Calls that the stub server executes at the same time.
const CONCURRENCY: usize = 100_000;

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

/// Counts of the server.
#[derive(Default)]
struct ServerState {
    /// Last status by reservation.
    statuses: HashMap<String, String>,
    calls: u64,
    repeated_commits: u64,
    first_call: Option<Instant>,
}

#[derive(Clone)]
struct FaultyService {
    stub: BaselineService<MemoryBackend>,
    faults: ServerFaults,
    state: Arc<Mutex<ServerState>>,
}

/// A running server. Stops when dropped.
pub(crate) struct FaultyServer {
    pub(crate) address: SocketAddr,
    stock: MemoryBackend,
    state: Arc<Mutex<ServerState>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FaultyServer {
    pub(crate) fn start(faults: ServerFaults, stock: &[(&str, u64)]) -> Self {
        let stock = MemoryBackend::new(stock.iter().copied());
        let service = FaultyService {
            stub: BaselineService::new(stock.clone(), CONCURRENCY),
            faults,
            state: Arc::default(),
        };
        let state = Arc::clone(&service.state);
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
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
            stock,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn remaining(&self, event: &str) -> u64 {
        self.stock.remaining(event).unwrap()
    }

    /// Number of reservations with a status.
    pub(crate) fn count(&self, status: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.statuses.values().filter(|of| *of == status).count()
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

impl FaultyService {
    async fn inject_faults(&self) -> Result<(), Status> {
        let (n, since_first) = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            let first = *state.first_call.get_or_insert_with(Instant::now);
            (state.calls, first.elapsed())
        };
        if self.faults.silent {
            std::future::pending::<()>().await;
        }
        if let Some((from, to)) = self.faults.stall
            && (from..to).contains(&since_first)
        {
            tokio::time::sleep(to - since_first).await;
        }
        match self.faults.sheds {
            Some(every) if n.is_multiple_of(every) => Err(Status::resource_exhausted("overloaded")),
            _ => Ok(()),
        }
    }

    /// Records the status of a successful call and returns the previous one.
    fn record(&self, reservation: String, status: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        state.statuses.insert(reservation, status.to_owned())
    }

    /// Whether this repeat of a commit is answered with another order.
    fn is_other_order(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.repeated_commits += 1;
        let repeats = state.repeated_commits;
        (self.faults.other_order).is_some_and(|every| repeats.is_multiple_of(every))
    }
}

#[tonic::async_trait]
impl Inventory for FaultyService {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        self.inject_faults().await?;
        self.stub.check_availability(request).await
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        self.inject_faults().await?;
        let reservation = request.get_ref().reservation_id.clone();
        let mut answer = self.stub.commit_reservation(request).await?;
        let status = answer.get_ref().status.clone();
        let previous = self.record(reservation, &status);
        if previous.is_some_and(|previous| previous == status) && self.is_other_order() {
            answer.get_mut().order_id = format!("ord_{:032x}", 7);
        }
        Ok(answer)
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        self.inject_faults().await?;
        let reservation = request.get_ref().reservation_id.clone();
        let answer = self.stub.release_hold(request).await?;
        self.record(reservation, &answer.get_ref().status);
        Ok(answer)
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        self.inject_faults().await?;
        let reservation = request.get_ref().reservation_id.clone();
        let answer = self.stub.place_hold(request).await?;
        self.record(reservation, &answer.get_ref().status);
        Ok(answer)
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        self.stub.get_reservation(request).await
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
