//! The load client against the twin, honest and lying: that a right server passes, and that each
//! broken promise is found. Real sockets on free ports, one process.
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

use inventory_bench::{
    client::{Fate, Fleet, connect, fate},
    load::{self, Plan, Report, ledger::Outcome},
    twin::{Twin, bind, router},
};
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes, inventory_server::Inventory,
};
use tokio::sync::{oneshot, watch};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

const EVENT: &str = "evt";
const TICKETS: i64 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Repeats get another order.
    OtherOrder,
    /// Sells what it does not have.
    Oversell,
    /// Says "sold out" to the first buyers.
    Undersell,
    /// Releases what is confirmed.
    ReleasesCommitted,
    /// Commits what is released.
    CommitsReleased,
    /// Takes other quantities under a known id.
    NoConflict,
    /// Turns every sixth call away before, and every sixth after doing it.
    Flaky,
    /// Loses answers: does the work, then resets the stream.
    DropsAnswers,
    /// Answers two milliseconds after doing the work.
    Slow,
    Internal,
}

#[derive(Clone)]
struct Liar {
    twin: Twin,
    lie: Lie,
    calls: Arc<AtomicU64>,
    first_payload: Arc<Mutex<HashMap<String, i32>>>,
}

impl Liar {
    fn new(twin: Twin, lie: Lie) -> Self {
        Self {
            twin,
            lie,
            calls: Arc::default(),
            first_payload: Arc::default(),
        }
    }
}

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "inventory-api", HashMap::new());
    Status::with_error_details(code, reason, details)
}

#[tonic::async_trait]
impl Inventory for Liar {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        self.twin.check_availability(request).await
    }

    async fn commit_reservation(
        &self,
        mut request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let id = request.get_ref().reservation_id.clone();
        match self.lie {
            Lie::Flaky if call % 6 == 1 => return Err(Status::unavailable("come again")),
            Lie::Undersell if call < 3 => {
                return Err(refusal(Code::Aborted, "INSUFFICIENT_INVENTORY"));
            }
            Lie::Internal if call % 100 == 7 => return Err(Status::internal("broken")),
            Lie::NoConflict => {
                let qty = request.get_ref().qty;
                let first = *self.first_payload.lock().unwrap().entry(id).or_insert(qty);
                request.get_mut().qty = first;
            }
            Lie::Oversell if call.is_multiple_of(2) => {
                return Ok(Response::new(CommitRes {
                    order_id: format!("ord_{id}"),
                    status: "CONFIRMED".to_owned(),
                }));
            }
            _ => {}
        }
        let mut answer = self.twin.commit_reservation(request).await;
        match (self.lie, &mut answer) {
            (Lie::OtherOrder, Ok(answer)) => {
                answer.get_mut().order_id = format!("ord_{call}");
            }
            (Lie::CommitsReleased, Err(status)) if status.code() == Code::FailedPrecondition => {
                return Ok(Response::new(CommitRes {
                    order_id: "ord_1".to_owned(),
                    status: "CONFIRMED".to_owned(),
                }));
            }
            (Lie::Flaky, _) if call % 6 == 2 => return Err(Status::unavailable("come again")),
            (Lie::Slow, _) => tokio::time::sleep(Duration::from_millis(2)).await,
            (Lie::DropsAnswers, Ok(_)) if call.is_multiple_of(5) => pending().await,
            _ => {}
        }
        answer
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        let answer = self.twin.release_hold(request).await;
        if self.lie == Lie::ReleasesCommitted {
            return Ok(Response::new(ReleaseRes {
                status: "RELEASED".to_owned(),
            }));
        }
        answer
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        self.twin.place_hold(request).await
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        self.twin.get_reservation(request).await
    }
}

/// A running server; stops gracefully, or with the test's runtime.
struct Served {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

fn serve(service: impl Inventory) -> Served {
    let incoming = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = router(service).serve_with_incoming_shutdown(incoming, async move {
        let _ = stopped.await;
    });
    Served {
        address,
        stop: Some(stop),
        ended: tokio::spawn(async move { server.await.unwrap() }),
    }
}

fn plan(addresses: &[&str]) -> Plan {
    let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
    Plan {
        connections: 4,
        calls_per_connection: 16,
        ..Plan::new(addresses, EVENT, TICKETS as u64)
    }
}

async fn sell_out(lie: Lie) -> (Report, Twin) {
    let twin = Twin::new([(EVENT, TICKETS)]);
    let served = serve(Liar::new(twin.clone(), lie));
    let mut plan = plan(&[&served.address]);
    if lie == Lie::DropsAnswers {
        plan.call_timeout = Duration::from_millis(40);
    }
    (load::run(plan, None).await.unwrap(), twin)
}

#[tokio::test]
async fn an_honest_server_sells_out_cleanly_and_every_rule_is_tried() {
    let (report, twin) = sell_out(Lie::None).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sold_units(), TICKETS as u64);
    assert_eq!(twin.remaining(EVENT), Some(0));
    let counts = report.ledger.counts();
    for (name, tried) in [
        ("sold out", counts.sold_out),
        ("duplicates", counts.duplicates_identical),
        ("released first", counts.late_commits_refused),
        ("released after", counts.late_releases_refused),
        ("other payload", counts.conflicts_refused),
    ] {
        assert!(tried > 0, "{name} was never tried\n{report}");
    }
    assert_eq!(report.latency_us.len(), report.calls);
    assert_eq!(report.retries_total(), 0);
}

#[tokio::test]
async fn each_lie_is_found() {
    for lie in [
        Lie::OtherOrder,
        Lie::Oversell,
        Lie::Undersell,
        Lie::ReleasesCommitted,
        Lie::CommitsReleased,
        Lie::NoConflict,
        Lie::Internal,
    ] {
        let (report, _) = sell_out(lie).await;
        let counts = report.ledger.counts();
        assert!(!report.is_clean(), "{lie:?}\n{report}");
        match lie {
            Lie::OtherOrder => assert!(counts.duplicates_different > 0, "{report}"),
            Lie::Oversell => assert!(report.oversold_units() > 0, "{report}"),
            Lie::Undersell => assert!(counts.refused_too_early > 0, "{report}"),
            Lie::Internal => assert!(report.errors.contains_key("INTERNAL "), "{report}"),
            _ => assert!(counts.violations > 0, "{lie:?}\n{report}"),
        }
    }
}

#[tokio::test]
async fn an_early_sold_out_is_undersold_when_stock_is_left() {
    let twin = Twin::new([(EVENT, TICKETS)]);
    let served = serve(Liar::new(twin, Lie::Undersell));
    let plan = Plan {
        buyers: 40,
        shares: load::Shares {
            repeated_at_end: 0,
            ..load::Shares::default()
        },
        ..plan(&[&served.address])
    };
    let report = load::run(plan, None).await.unwrap();
    assert!(report.undersold_units() > 0, "{report}");
}

#[tokio::test]
async fn calls_turned_away_are_repeated_with_the_same_id() {
    let (report, twin) = sell_out(Lie::Flaky).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sold_units(), TICKETS as u64);
    assert_eq!(twin.remaining(EVENT), Some(0));
    assert!(report.retries["UNAVAILABLE"] > 100, "{report}");
}

#[tokio::test]
async fn lost_answers_are_resolved_by_repeating() {
    let (report, twin) = sell_out(Lie::DropsAnswers).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(twin.remaining(EVENT), Some(0));
    assert_eq!(report.sold_units(), TICKETS as u64);
    assert!(report.retries_total() > 10, "{report}");
    assert!(
        report.latency_us.max() >= 40_000,
        "a lost answer costs a deadline\n{report}"
    );
    assert!(report.latency_us_at(1.0) > 10, "{report}");
}

#[tokio::test]
async fn without_a_server_every_outcome_is_reported_unknown() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let plan = Plan {
        buyers: 50,
        patience: Duration::from_millis(50),
        ..plan(&[&address])
    };
    let report = load::run(plan, None).await.unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.ledger.counts().unknown, 50, "{report}");
    assert!(
        report
            .ledger
            .entries()
            .all(|e| e.outcome == Outcome::Unknown)
    );
    assert!(report.errors.contains_key("no answer, last UNAVAILABLE"));
}

#[tokio::test]
async fn progress_is_told_to_the_end() {
    let served = serve(Twin::new([(EVENT, TICKETS)]));
    let (sender, receiver) = watch::channel(load::Progress::default());
    let report = load::run(plan(&[&served.address]), Some(sender))
        .await
        .unwrap();
    let last = *receiver.borrow();
    assert_eq!(last.units_sold, report.sold_units());
    assert_eq!(last.buyers_done, last.buyers);
    assert_eq!(last.calls, report.calls);
}

/// A tonic server told to stop sends GOAWAY: calls move to the second server, none is without an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_loses_no_call_to_a_graceful_stop() {
    let twin = Twin::new([(EVENT, 1_000_000)]);
    let mut first = serve(twin.clone());
    let second = serve(twin);
    let fleet = Fleet::new(&[&first.address, &second.address], 0).unwrap();
    let calls: Vec<_> = (0..32)
        .map(|caller| {
            let fleet = fleet.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let commit = CommitReq {
                        reservation_id: format!("r-{caller}-{number}"),
                        event_id: EVENT.to_owned(),
                        qty: 1,
                        ..CommitReq::default()
                    };
                    let limit = Duration::from_secs(10);
                    let mut answer = fleet.commit(&commit, limit).await;
                    // A call that crosses the end of its connection on the wire breaks, and nobody can
                    // tell whether it was processed: it is the caller's to repeat.
                    if answer.as_ref().is_err_and(|s| fate(s) == Fate::Lost) {
                        answer = fleet.commit(&commit, limit).await;
                    }
                    answer.unwrap();
                }
            })
        })
        .collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while fleet.tally().answered < 300 {
        assert!(tokio::time::Instant::now() < deadline, "too slow");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.stop.take().unwrap().send(()).unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let tally = fleet.tally();
    assert_eq!(tally.answered, 32 * 100);
    assert!(
        tally.moved > tally.failed,
        "the stop came too late to prove anything: {tally:?}"
    );
    first.ended.await.unwrap();
}

/// A server on a thread of its own, so that it can die with all its connections at once. It is
/// slow to answer, so that it always dies with answers owed.
fn serve_mortal(twin: Twin, address: std::net::SocketAddr) -> (std::net::SocketAddr, Mortal) {
    let (bound, address_of) = std::sync::mpsc::channel();
    let (kill, killed) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let incoming = bind(address).unwrap();
            bound.send(incoming.local_addr().unwrap()).unwrap();
            tokio::select! {
                ended = router(Liar::new(twin, Lie::Slow)).serve_with_incoming(incoming) => ended.unwrap(),
                _ = killed => {}
            }
        });
    });
    let address = address_of.recv().unwrap();
    (address, Mortal { kill, thread })
}

struct Mortal {
    kill: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Mortal {
    fn die(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_sale_survives_the_death_and_return_of_its_only_server() {
    let tickets = 5_000;
    let twin = Twin::new([(EVENT, tickets)]);
    let (address, server) = serve_mortal(twin.clone(), "127.0.0.1:0".parse().unwrap());
    let plan = Plan {
        tickets: tickets as u64,
        buyers: 3_000,
        ..plan(&[&address.to_string()])
    };
    // On a thread of its own: the sale keeps this one busy, and could be over before it is noticed.
    let sold = twin.clone();
    let fate = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while sold.remaining(EVENT) > Some(tickets - 500) {
            assert!(std::time::Instant::now() < deadline, "nothing is sold");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.die();
        serve_mortal(sold, address).1
    });
    let report = load::run(plan, None).await.unwrap();
    fate.join().unwrap().die();
    assert!(report.is_clean(), "{report}");
    assert!(
        report.retries_total() > 0,
        "it died too late to matter\n{report}"
    );
    assert_eq!(
        twin.remaining(EVENT),
        Some(tickets - report.sold_units() as i64)
    );
}

#[tokio::test]
async fn the_twin_answers_by_the_contract() {
    let served = serve(Twin::new([(EVENT, 3)]));
    let mut client = connect(&served.address).await.unwrap();
    let commit = |id: &str, qty| CommitReq {
        reservation_id: id.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..CommitReq::default()
    };
    let first = client.commit_reservation(commit("a", 2)).await.unwrap();
    let order = first.into_inner().order_id;
    assert!(order.starts_with("ord_") && order.len() == 36, "{order}");
    let again = client.commit_reservation(commit("a", 2)).await.unwrap();
    assert_eq!(again.into_inner().order_id, order);
    for (id, qty, code) in [
        ("a", 1, Code::AlreadyExists),
        ("b", 2, Code::Aborted),
        ("c", 0, Code::InvalidArgument),
        ("c", 11, Code::InvalidArgument),
    ] {
        let status = client
            .commit_reservation(commit(id, qty))
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{id} {qty}");
        assert!(status.get_details_error_info().is_some());
    }
}
