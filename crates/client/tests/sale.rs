//! The sale against the stub server: a correct server passes, and each planted fault is found. Real sockets
//! on free ports, one process.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use inventory_baseline::{BaselineService, MemoryBackend, bind, router};
use inventory_client::{
    CallOutcome, FailoverClient,
    sale::{self, SalePlan, SaleReport, ledger::ReservationOutcome},
};
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes, inventory_server::Inventory,
};
use tokio::sync::{oneshot, watch};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

const EVENT: &str = "evt";
const TICKETS: u64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlantedFault {
    None,
    /// Repeats get a different order id.
    OtherOrder,
    /// Sells more than the stock.
    Oversell,
    /// Refuses the first buyers as sold out.
    Undersell,
    /// Releases confirmed reservations.
    ReleasesCommitted,
    /// Commits released reservations.
    CommitsReleased,
    /// Accepts different quantities under a known id.
    NoConflict,
    /// Rejects every sixth call before, and every sixth after executing it.
    Flaky,
    /// Loses answers: executes the call, then resets the stream.
    DropsAnswers,
    /// Answers two milliseconds after executing the call.
    Slow,
    Internal,
}

#[derive(Clone)]
struct FaultyStub {
    stub: BaselineService<MemoryBackend>,
    fault: PlantedFault,
    calls: Arc<AtomicU64>,
    first_payload: Arc<Mutex<HashMap<String, i32>>>,
}

impl FaultyStub {
    fn new(backend: MemoryBackend, fault: PlantedFault) -> Self {
        Self { stub: stub(backend), fault, calls: Arc::default(), first_payload: Arc::default() }
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "inventory-api", HashMap::new());
    Status::with_error_details(code, reason, details)
}

#[tonic::async_trait]
impl Inventory for FaultyStub {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        self.stub.check_availability(request).await
    }

    async fn commit_reservation(
        &self,
        mut request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let id = request.get_ref().reservation_id.clone();
        match self.fault {
            PlantedFault::Flaky if call % 6 == 1 => return Err(Status::unavailable("come again")),
            PlantedFault::Undersell if call < 3 => {
                return Err(refusal(Code::Aborted, "INSUFFICIENT_INVENTORY"));
            }
            PlantedFault::Internal if call % 100 == 7 => return Err(Status::internal("broken")),
            PlantedFault::NoConflict => {
                let qty = request.get_ref().qty;
                let first = *self.first_payload.lock().unwrap().entry(id).or_insert(qty);
                request.get_mut().qty = first;
            }
            PlantedFault::Oversell if call.is_multiple_of(2) => {
                return Ok(Response::new(CommitRes {
                    order_id: format!("ord_{id}"),
                    status: "CONFIRMED".to_owned(),
                }));
            }
            _ => {}
        }
        let mut answer = self.stub.commit_reservation(request).await;
        match (self.fault, &mut answer) {
            (PlantedFault::OtherOrder, Ok(answer)) => {
                answer.get_mut().order_id = format!("ord_{call}");
            }
            (PlantedFault::CommitsReleased, Err(status))
                if status.code() == Code::FailedPrecondition =>
            {
                return Ok(Response::new(CommitRes {
                    order_id: "ord_1".to_owned(),
                    status: "CONFIRMED".to_owned(),
                }));
            }
            (PlantedFault::Flaky, _) if call % 6 == 2 => {
                return Err(Status::unavailable("come again"));
            }
            (PlantedFault::Slow, _) => tokio::time::sleep(Duration::from_millis(2)).await,
            (PlantedFault::DropsAnswers, Ok(_)) if call.is_multiple_of(5) => pending().await,
            _ => {}
        }
        answer
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        let answer = self.stub.release_hold(request).await;
        if self.fault == PlantedFault::ReleasesCommitted {
            return Ok(Response::new(ReleaseRes { status: "RELEASED".to_owned() }));
        }
        answer
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        self.stub.place_hold(request).await
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        self.stub.get_reservation(request).await
    }
}

/// A running server. Stops gracefully, or with the runtime of the test.
struct RunningServer {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

fn stub(backend: MemoryBackend) -> BaselineService<MemoryBackend> {
    BaselineService::new(backend, 1_000)
}

fn serve(service: impl Inventory) -> RunningServer {
    let incoming = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = router(service).serve_with_incoming_shutdown(incoming, async move {
        let _ = stopped.await;
    });
    RunningServer {
        address,
        stop: Some(stop),
        ended: tokio::spawn(async move { server.await.unwrap() }),
    }
}

fn plan(addresses: &[&str]) -> SalePlan {
    let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
    SalePlan {
        connections: 4,
        calls_per_connection: 16,
        ..SalePlan::new(addresses, EVENT, TICKETS)
    }
}

async fn sell_out(fault: PlantedFault) -> (SaleReport, MemoryBackend) {
    let backend = MemoryBackend::new([(EVENT, TICKETS)]);
    let served = serve(FaultyStub::new(backend.clone(), fault));
    let mut plan = plan(&[&served.address]);
    if fault == PlantedFault::DropsAnswers {
        plan.call_timeout = Duration::from_millis(40);
    }
    (sale::run(plan, None).await.unwrap(), backend)
}

#[tokio::test]
async fn a_correct_server_sells_out_and_every_rule_is_tested() {
    let (report, backend) = sell_out(PlantedFault::None).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sold_units(), TICKETS);
    assert_eq!(backend.remaining(EVENT), Some(0));
    let counts = report.ledger.counts();
    for (name, tested) in [
        ("sold out", counts.sold_out),
        ("duplicates", counts.duplicates_identical),
        ("released first", counts.late_commits_refused),
        ("released after", counts.late_releases_refused),
        ("other payload", counts.conflicts_refused),
    ] {
        assert!(tested > 0, "{name} was never tested\n{report}");
    }
    assert_eq!(report.latency_us.len(), report.calls);
    assert_eq!(report.retries_total(), 0);
}

#[tokio::test]
async fn each_fault_is_found() {
    for fault in [
        PlantedFault::OtherOrder,
        PlantedFault::Oversell,
        PlantedFault::Undersell,
        PlantedFault::ReleasesCommitted,
        PlantedFault::CommitsReleased,
        PlantedFault::NoConflict,
        PlantedFault::Internal,
    ] {
        let (report, _) = sell_out(fault).await;
        let counts = report.ledger.counts();
        assert!(!report.is_clean(), "{fault:?}\n{report}");
        match fault {
            PlantedFault::OtherOrder => assert!(counts.duplicates_different > 0, "{report}"),
            PlantedFault::Oversell => assert!(report.oversold_units() > 0, "{report}"),
            PlantedFault::Undersell => assert!(counts.refused_too_early > 0, "{report}"),
            PlantedFault::Internal => assert!(report.errors.contains_key("INTERNAL "), "{report}"),
            _ => assert!(counts.violations > 0, "{fault:?}\n{report}"),
        }
    }
}

#[tokio::test]
async fn an_early_sold_out_with_remaining_stock_is_undersold() {
    let backend = MemoryBackend::new([(EVENT, TICKETS)]);
    let served = serve(FaultyStub::new(backend, PlantedFault::Undersell));
    let plan = SalePlan {
        buyers: 40,
        shares: sale::BuyerShares { repeated_at_end: 0, ..sale::BuyerShares::default() },
        ..plan(&[&served.address])
    };
    let report = sale::run(plan, None).await.unwrap();
    assert!(report.undersold_units() > 0, "{report}");
}

#[tokio::test]
async fn rejected_calls_are_retried_with_the_same_id() {
    let (report, backend) = sell_out(PlantedFault::Flaky).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sold_units(), TICKETS);
    assert_eq!(backend.remaining(EVENT), Some(0));
    assert!(report.retries["UNAVAILABLE"] > 100, "{report}");
}

#[tokio::test]
async fn lost_answers_are_resolved_by_retries() {
    let (report, backend) = sell_out(PlantedFault::DropsAnswers).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(backend.remaining(EVENT), Some(0));
    assert_eq!(report.sold_units(), TICKETS);
    assert!(report.retries_total() > 10, "{report}");
    assert!(report.latency_us.max() >= 40_000, "a lost answer takes a deadline\n{report}");
    assert!(report.latency_us_at(1.0) > 10, "{report}");
}

#[tokio::test]
async fn without_a_server_every_outcome_is_unknown() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let plan = SalePlan { buyers: 50, retry_for: Duration::from_millis(50), ..plan(&[&address]) };
    let report = sale::run(plan, None).await.unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.ledger.counts().unknown, 50, "{report}");
    assert!(report.ledger.entries().all(|e| e.outcome == ReservationOutcome::Unknown));
    assert!(report.errors.contains_key("no answer, last UNAVAILABLE"));
}

#[tokio::test]
async fn progress_is_reported_to_the_end() {
    let served = serve(stub(MemoryBackend::new([(EVENT, TICKETS)])));
    let (sender, receiver) = watch::channel(sale::SaleProgress::default());
    let report = sale::run(plan(&[&served.address]), Some(sender)).await.unwrap();
    let last = *receiver.borrow();
    assert_eq!(last.units_sold, report.sold_units());
    assert_eq!(last.buyers_done, last.buyers);
    assert_eq!(last.calls, report.calls);
}

/// A tonic server that stops sends GOAWAY: calls move to the second server, and each gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_client_loses_no_call_to_a_graceful_stop() {
    let backend = MemoryBackend::new([(EVENT, 1_000_000)]);
    let mut first = serve(stub(backend.clone()));
    let second = serve(stub(backend));
    let client = FailoverClient::new(&[&first.address, &second.address], 0).unwrap();
    let calls: Vec<_> = (0..32)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let commit = CommitReq {
                        reservation_id: format!("r-{caller}-{number}"),
                        event_id: EVENT.to_owned(),
                        qty: 1,
                        ..CommitReq::default()
                    };
                    let limit = Duration::from_secs(10);
                    let mut answer = client.commit(&commit, limit).await;
                    // A call in flight while its connection closes is lost: it may have been processed, and
                    // repeating it is up to the caller.
                    if answer.as_ref().is_err_and(|s| CallOutcome::of(s) == CallOutcome::Lost) {
                        answer = client.commit(&commit, limit).await;
                    }
                    answer.unwrap();
                }
            })
        })
        .collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while client.stats().answered < 300 {
        assert!(tokio::time::Instant::now() < deadline, "too slow");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.stop.take().unwrap().send(()).unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let stats = client.stats();
    assert_eq!(stats.answered, 32 * 100);
    assert!(stats.moved > stats.failed, "the stop came after the calls: {stats:?}");
    first.ended.await.unwrap();
}

/// A server on its own thread, so that all its connections can break at once. It answers slowly, so that
/// calls are always in flight when it is killed.
fn serve_on_thread(
    backend: MemoryBackend,
    address: std::net::SocketAddr,
) -> (std::net::SocketAddr, ServerThread) {
    let (bound, address_of) = std::sync::mpsc::channel();
    let (kill, killed) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let incoming = bind(address).unwrap();
            bound.send(incoming.local_addr().unwrap()).unwrap();
            tokio::select! {
                ended = router(FaultyStub::new(backend, PlantedFault::Slow)).serve_with_incoming(incoming) => ended.unwrap(),
                _ = killed => {}
            }
        });
    });
    let address = address_of.recv().unwrap();
    (address, ServerThread { kill, thread })
}

struct ServerThread {
    kill: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl ServerThread {
    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_sale_survives_a_crash_and_restart_of_its_only_server() {
    let tickets = 5_000;
    let backend = MemoryBackend::new([(EVENT, tickets)]);
    let (address, server) = serve_on_thread(backend.clone(), "127.0.0.1:0".parse().unwrap());
    let plan = SalePlan { tickets, buyers: 3_000, ..plan(&[&address.to_string()]) };
    // On its own thread: the sale keeps this thread busy.
    let sold = backend.clone();
    let restart = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while sold.remaining(EVENT) > Some(tickets - 500) {
            assert!(std::time::Instant::now() < deadline, "nothing is sold");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        serve_on_thread(sold, address).1
    });
    let report = sale::run(plan, None).await.unwrap();
    restart.join().unwrap().kill();
    assert!(report.is_clean(), "{report}");
    assert!(report.retries_total() > 0, "the crash came after the sale\n{report}");
    assert_eq!(backend.remaining(EVENT), Some(tickets - report.sold_units()));
}
