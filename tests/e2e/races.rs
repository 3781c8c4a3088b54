//! Crowds on two server processes with one store. Each race ends with `inventory-api verify`, which must find no breach.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use crate::fake_store::FakeStore;
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, PlaceHoldRes, SeatRef};
use inventory_testkit::server::{ServerCommand, TestServer, command};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::client::*;
use crate::items::{HallSeat, row, seat_event};

/// Two processes on one store, and clients that alternate between them.
struct TestCluster {
    store: FakeStore,
    servers: [TestServer; 2],
    clients: Vec<InventoryClient>,
}

impl TestCluster {
    async fn new(connections: usize) -> Self {
        let store = FakeStore::start();
        let servers = [store.start_server(), store.start_server()];
        let mut clients = Vec::new();
        for n in 0..2 * connections {
            clients.push(client(&servers[n % 2]).await);
        }
        Self { store, servers, clients }
    }

    fn client(&self, n: usize) -> InventoryClient {
        self.clients[n % self.clients.len()].clone()
    }

    /// Runs `inventory-api verify`.
    fn verify(&self, event: &str) {
        let ran = ServerCommand {
            command: command(&["verify", event, "--admin", &self.servers[0].admin]),
        }
        .run();
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    }
}

fn hold(reservation: &str, event: &str, qty: i32, lasts: Duration) -> PlaceHoldReq {
    PlaceHoldReq {
        reservation_id: reservation.to_owned(),
        event_id: event.to_owned(),
        qty,
        seat_ids: Vec::new(),
        section: String::new(),
        hold_expires_at: Some((SystemTime::now() + lasts).into()),
    }
}

async fn holds(client: InventoryClient, call: PlaceHoldReq) -> Result<PlaceHoldRes, Status> {
    let answer = client.clone().place_hold(with_deadline(call)).await;
    answer.map(tonic::Response::into_inner)
}

fn ids(seats: &[SeatRef]) -> Vec<String> {
    seats.iter().map(|seat| seat.seat_id.clone()).collect()
}

const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn two_hundred_buyers_for_the_last_twenty_tickets() {
    const EVENT: &str = "evt_last_twenty";
    let cluster = TestCluster::new(4).await;
    cluster.store.create_event(EVENT, 20, 2);
    let mut buyers = JoinSet::new();
    for n in 0..200 {
        let client = cluster.client(n);
        buyers.spawn(async move {
            let id = format!("b{n}");
            // Half of the buyers hold first.
            if n % 2 == 0 {
                holds(client.clone(), hold(&id, EVENT, 1, LONG)).await?;
            }
            client.try_commit(commit(&id, EVENT, 1)).await
        });
    }
    let mut orders = BTreeSet::new();
    while let Some(bought) = buyers.join_next().await {
        match bought.unwrap() {
            Ok(answer) => assert!(orders.insert(answer.order_id), "order id used twice"),
            Err(status) => {
                assert_eq!(status.code(), Code::Aborted, "{status:?}");
                assert_eq!(reason(&status), "INSUFFICIENT_INVENTORY");
            }
        }
    }
    assert_eq!(orders.len(), 20);
    assert_eq!(cluster.store.read_event(EVENT).remaining(), 0);
    cluster.verify(EVENT);
}

#[tokio::test]
async fn five_hundred_buyers_for_one_row_of_twenty_seats() {
    const EVENT: &str = "evt_one_row";
    let cluster = TestCluster::new(4).await;
    let places = row("A", "1", 20, 9_900);
    seat_event(&cluster.store, EVENT, 1, &places);
    let row: Vec<String> = places.into_iter().map(|place| place.id).collect();
    let mut buyers = JoinSet::new();
    for n in 0..500 {
        let client = cluster.client(n);
        // Single seats, overlapping pairs, and best available.
        let wanted: Vec<&str> = match n % 5 {
            0..=2 => vec![&row[n % 20]],
            3 => vec![&row[n % 20], &row[(n + 1) % 20]],
            _ => Vec::new(),
        };
        let wanted = seats(&wanted);
        buyers.spawn(async move {
            let id = format!("b{n}");
            let mut call = hold(&id, EVENT, 1, LONG);
            call.seat_ids.clone_from(&wanted);
            let held = holds(client.clone(), call).await?;
            let sold = CommitReq { seat_ids: held.seat_ids.clone(), ..commit(&id, EVENT, 0) };
            let answer = client.try_commit(sold).await;
            assert!(answer.is_ok(), "a hold that cannot be confirmed: {answer:?}");
            Ok::<_, Status>((id, ids(&held.seat_ids)))
        });
    }
    let mut owner: BTreeMap<String, String> = BTreeMap::new();
    while let Some(bought) = buyers.join_next().await {
        match bought.unwrap() {
            Ok((id, seats)) => {
                for seat in seats {
                    let before = owner.insert(seat.clone(), id.clone());
                    assert_eq!(before, None, "{seat} twice");
                }
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Aborted, "{status:?}");
                let why = reason(&status);
                assert!(
                    ["SEAT_UNAVAILABLE", "INSUFFICIENT_INVENTORY"].contains(&&*why),
                    "{status:?}"
                );
            }
        }
    }
    assert_eq!(owner.len(), 20, "unsold seat: {owner:?}");
    cluster.verify(EVENT);
}

#[tokio::test]
async fn a_thousand_duplicated_holds() {
    const EVENT: &str = "evt_duplicates";
    let cluster = TestCluster::new(4).await;
    cluster.store.create_event(EVENT, 10_000, 1);
    let mut calls = JoinSet::new();
    for n in 0..1_000 {
        let id = format!("d{}", n % 250);
        let client = cluster.client(n / 250 + n);
        let qty = 1 + i32::try_from(n % 250 % 3).unwrap();
        // Each copy has another expiry: the first write decides.
        let lasts = LONG + Duration::from_secs(n as u64);
        calls.spawn(async move { (id.clone(), holds(client, hold(&id, EVENT, qty, lasts)).await) });
    }
    let mut expiries: BTreeMap<String, _> = BTreeMap::new();
    while let Some(call) = calls.join_next().await {
        let (id, answer) = call.unwrap();
        let ends = answer.unwrap().hold_expires_at.unwrap();
        let first = *expiries.entry(id.clone()).or_insert(ends);
        assert_eq!(first, ends, "{id} has two expiries");
    }
    assert_eq!(expiries.len(), 250);
    let held: u64 = (0..250).map(|n| 1 + n % 3).sum();
    assert_eq!(cluster.store.read_event(EVENT).remaining(), 10_000 - held);
    cluster.verify(EVENT);
}

/// Results of a commit and a release.
type CommitAndRelease = (Result<String, String>, Result<(), String>);

/// Places a hold that ends soon. On a busy machine the call may arrive after that, and is refused: repeated with a longer
/// hold each time.
async fn hold_shortly(
    client: &InventoryClient,
    reservation: &str,
    event: &str,
    lasts: Duration,
) -> PlaceHoldRes {
    for attempt in 1..=5 {
        match holds(client.clone(), hold(reservation, event, 1, lasts * attempt)).await {
            Err(status) if status.code() == Code::InvalidArgument => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("{reservation}: five holds have ended before they arrived");
}

/// How long before the expiry of its hold the earliest race begins.
const BEFORE_EXPIRY: Duration = Duration::from_millis(100);

/// A short hold, and a commit and a release at the same time: [`BEFORE_EXPIRY`], or later by `delay`.
async fn race_at_expiry(
    one: InventoryClient,
    other: InventoryClient,
    (id, event): (String, &'static str),
    lasts: Duration,
    delay: Duration,
) -> CommitAndRelease {
    let held = hold_shortly(&one, &id, event, lasts).await;
    let ends = SystemTime::try_from(held.hold_expires_at.unwrap()).unwrap();
    // The time relative to the expiry is the subject of this race.
    let wait = (ends - BEFORE_EXPIRY + delay).duration_since(SystemTime::now());
    tokio::time::sleep(wait.unwrap_or_default()).await;
    let seats = held.seat_ids;
    let qty = i32::from(seats.is_empty());
    let sold = CommitReq { seat_ids: seats.clone(), ..commit(&id, event, qty) };
    let gone =
        inventory_proto::inventory::v1::ReleaseReq { seat_ids: seats, ..release(&id, event, qty) };
    let (sold, gone) = tokio::join!(one.try_commit(sold), other.try_release(gone));
    (
        sold.map(|answer| answer.order_id).map_err(|s| reason(&s)),
        gone.map(drop).map_err(|s| reason(&s)),
    )
}

/// A thousand races in ten waves; the number of confirmed reservations.
async fn race_in_waves(cluster: &TestCluster, event: &'static str, seated: bool) -> u64 {
    let mut confirmed = 0;
    let mut seen = BTreeSet::new();
    for wave in 0..10 {
        let mut races = JoinSet::new();
        for n in 0..100 {
            let ms = Duration::from_millis;
            let spread = n as u64 % 40;
            let lasts = ms(400 + 5 * spread);
            let (one, other) = (cluster.client(n), cluster.client(n + 1));
            let reservation = (format!("w{wave}-{n}"), event);
            // From 100 ms before the expiry to 95 ms after it.
            races.spawn(race_at_expiry(one, other, reservation, lasts, ms(5 * spread)));
        }
        while let Some(race) = races.join_next().await {
            let (sold, gone) = race.unwrap();
            confirmed += u64::from(sold.is_ok());
            match (&sold, &gone) {
                (Err(why), _) => {
                    assert!(["RESERVATION_RELEASED", "HOLD_EXPIRED"].contains(&&**why), "{why}")
                }
                (Ok(_), Err(why)) => assert_eq!(why, "RESERVATION_COMMITTED"),
                // Released after the expiry, and then reacquired by the commit.
                (Ok(_), Ok(())) => {}
            }
            seen.insert((sold.is_ok(), gone.is_ok()));
        }
    }
    assert!(seen.contains(&(true, false)) && seen.contains(&(false, true)), "{seen:?}");
    // The reclaimers of both processes return expired stock.
    let total = if seated { 0 } else { 5_000 };
    until("expired stock is returned", async || {
        let stored = cluster.store.read_event(event);
        stored.held_count() == 0 && (seated || stored.remaining() == total - confirmed)
    })
    .await;
    confirmed
}

#[tokio::test]
async fn commit_release_and_expiry_of_one_reservation_a_thousand_times() {
    const EVENT: &str = "evt_ends";
    let cluster = TestCluster::new(4).await;
    cluster.store.create_event(EVENT, 5_000, 2);
    let confirmed = race_in_waves(&cluster, EVENT, false).await;
    assert_eq!(cluster.store.read_event(EVENT).confirmed_count() as u64, confirmed);
    cluster.verify(EVENT);
}

#[tokio::test]
async fn commit_release_and_expiry_of_seats_a_thousand_times() {
    const EVENT: &str = "evt_seat_ends";
    let cluster = TestCluster::new(4).await;
    // Several partition keys, as usual for this size.
    let hall: Vec<HallSeat> = ["A", "B", "C", "D", "E", "F"]
        .iter()
        .flat_map(|section| row(section, "1", 250, 5_000))
        .collect();
    seat_event(&cluster.store, EVENT, 4, &hall);
    let confirmed = race_in_waves(&cluster, EVENT, true).await;
    assert_eq!(cluster.store.read_event(EVENT).confirmed_count() as u64, confirmed);
    cluster.verify(EVENT);
}
