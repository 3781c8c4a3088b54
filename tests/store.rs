//! The store room against a real engine over real sockets: the embedded one, or the one at
//! `DYNAMODB_ENDPOINT` (`http://host:port`), where every test makes tables of its own and leaves
//! them behind.

#![allow(clippy::unwrap_used)]

#[path = "common/store_relay.rs"]
mod store_relay;

use std::cell::RefCell;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_rustls::rustls::ServerConfig;
use inventory_api::domain::ids::{EventId, Fingerprint, OrderId, ReservationId};
use inventory_api::domain::time::UnixMillis;
use inventory_api::domain::transaction::{
    Draw, EventRead, NewRecord, Outcome, Reason, RecordView, ReservationState, StripeUpdate,
    StripeView, Token, Transaction,
};
use inventory_api::embedded::{Data, Engine};
use inventory_api::limits;
use inventory_api::runtime;
use inventory_api::store::{
    ConnectError, CreateEvent, NoObserver, Store, StoreCall, StoreError, StoreObserver,
    StoreSettings, TableNames, tables,
};
use store_relay::{Act, Relay, dead_address};

// ---- The stage ----------------------------------------------------------------------------------

/// Where the tests' engine listens.
fn engine() -> SocketAddr {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    match std::env::var("DYNAMODB_ENDPOINT") {
        Ok(url) => {
            let authority = url.strip_prefix("http://").expect("http://host:port");
            let authority = authority.trim_end_matches('/');
            let mut found = authority.to_socket_addrs().expect("host:port");
            found.next().expect("an address")
        }
        Err(_) => ENGINE
            .get_or_init(|| Engine::start(Data::Memory).unwrap())
            .address(),
    }
}

/// Settings for `address` with table names that nobody else uses.
fn settings(address: SocketAddr) -> StoreSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(
        "t{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    StoreSettings {
        tables: TableNames {
            inventory: format!("{unique}_inventory"),
            seats: format!("{unique}_seats"),
            idempotency: format!("{unique}_idempotency"),
        },
        // Two busy cores: time is what the timeout's own test is about.
        attempt_timeout: Duration::from_secs(20),
        ..StoreSettings::local(address)
    }
}

/// Remembers what the store tells.
#[derive(Default)]
struct Witness {
    calls: RefCell<Vec<(&'static str, String, &'static str)>>,
    lines: RefCell<Vec<String>>,
}

impl StoreObserver for Witness {
    fn called(&self, call: StoreCall<'_>) {
        assert!(call.latency.0 > 0);
        let call = (call.operation, call.table.to_owned(), call.status);
        self.calls.borrow_mut().push(call);
    }

    fn log(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}

fn on_shard<T>(future: impl Future<Output = T>) -> T {
    runtime::run_here(future).unwrap()
}

async fn connect(settings: &StoreSettings) -> Store {
    let observer = Rc::new(NoObserver);
    Store::connect(settings.clone(), observer).await.unwrap()
}

async fn with_tables(settings: &StoreSettings) -> Store {
    let store = connect(settings).await;
    tables::create(&store).await.unwrap();
    store
}

/// An engine's own tables, and a store that reaches them through a relay.
async fn behind_relay() -> (Store, Relay) {
    let direct = settings(engine());
    with_tables(&direct).await;
    let relay = Relay::start(engine(), None);
    let through = StoreSettings {
        endpoint: Some(format!("http://{}", relay.address)),
        ..direct
    };
    (connect(&through).await, relay)
}

fn event() -> EventId {
    "evt_2025_1001".parse().unwrap()
}

fn reservation(id: &str) -> ReservationId {
    id.parse().unwrap()
}

fn confirmed(id: &str, draws: &[(u16, u32)]) -> NewRecord {
    let reservation = reservation(id);
    let qty = draws.iter().map(|(_, units)| units).sum();
    NewRecord {
        fingerprint: Fingerprint::of_quantity(&event(), qty),
        state: ReservationState::Confirmed,
        qty,
        draws: draws
            .iter()
            .map(|&(stripe, units)| Draw { stripe, units })
            .collect(),
        order: Some(OrderId::of(&reservation)),
        payment_intent: "pi_123".to_owned(),
        reservation,
    }
}

fn tombstone(id: &str) -> NewRecord {
    NewRecord {
        reservation: reservation(id),
        fingerprint: Fingerprint::of_quantity(&event(), 1),
        state: ReservationState::Released,
        qty: 1,
        draws: Vec::new(),
        order: None,
        payment_intent: String::new(),
    }
}

/// A transaction under a token of its own.
fn transaction(takes: &[(u16, u64)], records: Vec<NewRecord>) -> Transaction {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let serial = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let process = u128::from(std::process::id()) << 64;
    let started = runtime::clock::now().unix;
    Transaction {
        token: Token(process | u128::from(started.0) << 24 | serial),
        event: event(),
        stripes: takes
            .iter()
            .map(|&(stripe, take)| StripeUpdate { stripe, take })
            .collect(),
        records,
        at: UnixMillis(1_763_800_000_250),
    }
}

async fn stripes(store: &Store) -> Vec<StripeView> {
    match store.read_event(&event(), None).await {
        EventRead::Found(stripes) => stripes,
        other => panic!("{other:?}"),
    }
}

async fn remaining(store: &Store) -> Vec<u64> {
    let stripes = stripes(store).await;
    stripes.iter().map(|stripe| stripe.remaining).collect()
}

/// Waits for `condition` on the shard's own time.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        runtime::sleep(Duration::from_millis(1)).await;
    }
}

// ---- Tables -------------------------------------------------------------------------------------

#[test]
fn tables_are_made_once_and_then_differ_in_nothing() {
    on_shard(async {
        let store = connect(&settings(engine())).await;
        let missing = tables::check(&store).await.unwrap();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing.iter().all(|difference| difference.fatal));
        assert!(missing[0].to_string().contains("tables create"));
        let probe = store.probe().await.unwrap_err();
        assert!(
            matches!(probe, ConnectError::TableMissing { .. }),
            "{probe}"
        );

        assert_eq!(tables::create(&store).await.unwrap().len(), 3);
        assert_eq!(tables::check(&store).await.unwrap(), []);
        assert_eq!(tables::create(&store).await.unwrap(), []);
        store.probe().await.unwrap();
    });
}

#[test]
fn a_table_of_another_shape_is_named_with_its_cure() {
    on_shard(async {
        let right = settings(engine());
        with_tables(&right).await;
        // Each name points at a table that was made for another purpose.
        let swapped = StoreSettings {
            tables: TableNames {
                inventory: right.tables.seats.clone(),
                seats: right.tables.idempotency.clone(),
                idempotency: right.tables.inventory.clone(),
            },
            ..right
        };
        let store = connect(&swapped).await;
        let found = tables::check(&store).await.unwrap();
        let of = |table: &str, words: &str| {
            let named = |d: &&tables::Difference| d.table == table && d.what.contains(words);
            let found = found.iter().find(named);
            found.unwrap_or_else(|| panic!("{table}: {words}: {found:?}"))
        };
        let names = &swapped.tables;
        let key = of(
            &names.inventory,
            "key is event_id (S), seat_id (S), want event_id (S)",
        );
        assert!(key.fatal && key.cure.contains("DDB_TABLE"), "{key}");
        assert!(of(&names.idempotency, "no index expiry").fatal);
        assert!(!of(&names.idempotency, "time to live is off").fatal);
    });
}

#[test]
fn create_adds_what_an_older_table_lacks() {
    on_shard(async {
        let older = settings(engine());
        with_tables(&older).await;
        // The inventory table as an idempotency table: no index, no time to live.
        let newer = StoreSettings {
            tables: TableNames {
                idempotency: older.tables.inventory.clone(),
                inventory: format!("{}_new", older.tables.inventory),
                ..older.tables.clone()
            },
            ..older
        };
        let store = connect(&newer).await;
        let made = tables::create(&store).await.unwrap();
        let table = newer.tables.idempotency.clone();
        assert!(
            made.contains(&tables::Made::Index(table.clone())),
            "{made:?}"
        );
        assert!(made.contains(&tables::Made::Ttl(table.clone())), "{made:?}");
        let left = tables::check(&store).await.unwrap();
        assert_eq!(left.len(), 1, "only its key still differs: {left:?}");
    });
}

// ---- Events -------------------------------------------------------------------------------------

#[test]
fn an_event_is_created_once_whoever_repeats_it() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, EventRead::NotFound);
        let created = store.create_event(&event(), 10, 3).await.unwrap();
        let CreateEvent::Created(views) = created else {
            panic!("{created:?}");
        };
        let capacities: Vec<u64> = views.iter().map(|view| view.capacity).collect();
        assert_eq!(capacities, [4, 3, 3]);
        assert_eq!(stripes(&store).await, views);

        let again = store.create_event(&event(), 10, 3).await.unwrap();
        assert_eq!(again, CreateEvent::Existing(views.clone()));
        for (total, count) in [(11, 3), (10, 1), (10, 4)] {
            let other = store.create_event(&event(), total, count).await.unwrap();
            assert_eq!(other, CreateEvent::Conflict(views.clone()));
        }
        let invalid = store.create_event(&event(), 0, 1).await.unwrap_err();
        assert!(matches!(invalid, StoreError::Invalid(_)), "{invalid}");
    });
}

#[test]
fn a_read_finds_all_stripes_whatever_the_hint() {
    on_shard(async {
        let witness = Rc::new(Witness::default());
        let settings = settings(engine());
        let store = Store::connect(settings.clone(), witness.clone())
            .await
            .unwrap();
        tables::create(&store).await.unwrap();
        let most = limits::STRIPES_MAX;
        store.create_event(&event(), 1_000, most).await.unwrap();
        for hint in [None, Some(1), Some(2), Some(most), Some(u16::MAX), Some(0)] {
            witness.calls.borrow_mut().clear();
            let EventRead::Found(found) = store.read_event(&event(), hint).await else {
                panic!("hint {hint:?}");
            };
            assert_eq!(found.len(), usize::from(most));
            assert_eq!(found[0].stripes, Some(most));
            assert!(found[1..].iter().all(|stripe| stripe.stripes.is_none()));
            let total: u64 = found.iter().map(|stripe| stripe.capacity).sum();
            assert_eq!(total, 1_000);
            let is_right = hint.is_some_and(|hint| hint >= most);
            let calls = witness.calls.borrow().len();
            assert_eq!(calls, if is_right { 1 } else { 2 }, "hint {hint:?}");
        }
    });
}

// ---- The transaction ----------------------------------------------------------------------------

#[test]
fn a_batch_of_ninety_nine_moves_stock_and_records_together() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        store.create_event(&event(), 1_000, 1).await.unwrap();
        let mut records: Vec<_> = (0..limits::BATCH_MEMBERS_MAX - 1)
            .map(|n| confirmed(&format!("r{n}"), &[(0, 2)]))
            .collect();
        records.push(tombstone("gone"));
        let batch = transaction(&[(0, 2 * 98)], records.clone());
        assert_eq!(batch.action_count(), limits::TRANSACTION_ACTIONS_MAX);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);
        let after = stripes(&store).await;
        assert_eq!((after[0].remaining, after[0].version), (1_000 - 196, 1));

        let mut found = Vec::new();
        let mut from = None;
        loop {
            let page = store
                .scan_reservations(&event(), from.as_ref())
                .await
                .unwrap();
            found.extend(page.records);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        found.sort_by(|a, b| a.reservation.cmp(&b.reservation));
        records.sort_by(|a, b| a.reservation.cmp(&b.reservation));
        assert_eq!(found.len(), records.len());
        for (found, written) in found.iter().zip(&records) {
            assert_eq!(found.reservation, written.reservation);
            assert_eq!((found.qty, &found.draws), (written.qty, &written.draws));
            assert_eq!(found.event, event());
            assert_eq!(found.view, view_of(written));
        }
        let other = "another_event".parse().unwrap();
        let page = store.scan_reservations(&other, None).await.unwrap();
        assert!(page.records.is_empty());
    });
}

fn view_of(record: &NewRecord) -> RecordView {
    RecordView {
        fingerprint: record.fingerprint,
        state: record.state,
        order: record.order,
    }
}

#[test]
fn several_stripes_and_draws_go_in_one_transaction() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        store.create_event(&event(), 10, 3).await.unwrap();
        let split = confirmed("split", &[(0, 4), (2, 1)]);
        let batch = transaction(&[(0, 4), (2, 1)], vec![split.clone()]);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);
        assert_eq!(remaining(&store).await, [0, 3, 2]);
        let page = store.scan_reservations(&event(), None).await.unwrap();
        assert_eq!(page.records[0].draws, split.draws);
    });
}

#[test]
fn a_duplicate_is_answered_with_what_is_stored_and_nothing_moves() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        store.create_event(&event(), 10, 1).await.unwrap();
        let (first, gone) = (confirmed("r1", &[(0, 2)]), tombstone("r2"));
        let batch = transaction(&[(0, 2)], vec![first.clone(), gone.clone()]);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);

        let repeats = vec![
            confirmed("r1", &[(0, 3)]),
            confirmed("r2", &[(0, 1)]),
            confirmed("r3", &[(0, 1)]),
        ];
        let outcome = store.transact(&transaction(&[(0, 5)], repeats)).await;
        let expected = vec![
            Reason::Fine,
            Reason::Record(view_of(&first)),
            Reason::Record(view_of(&gone)),
            Reason::Fine,
        ];
        assert_eq!(outcome, Outcome::Cancelled(expected));
        assert_eq!(remaining(&store).await, [8]);
    });
}

#[test]
fn a_short_stripe_a_missing_one_and_a_duplicate_are_all_told_at_once() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        store.create_event(&event(), 5, 2).await.unwrap();
        let first = confirmed("r1", &[(0, 1)]);
        let batch = transaction(&[(0, 1)], vec![first.clone()]);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);

        let records = vec![confirmed("r1", &[(0, 3)]), confirmed("r2", &[(7, 1)])];
        let batch = transaction(&[(0, 3), (1, 1), (7, 1)], records);
        let short = StripeView {
            capacity: 3,
            remaining: 2,
            version: 1,
            stripes: Some(2),
        };
        let expected = vec![
            Reason::Stripe(Some(short)),
            Reason::Fine,
            Reason::Stripe(None),
            Reason::Record(view_of(&first)),
            Reason::Fine,
        ];
        let outcome = store.transact(&batch).await;
        assert_eq!(outcome, Outcome::Cancelled(expected));
        assert_eq!(remaining(&store).await, [2, 2]);
    });
}

#[test]
fn the_last_unit_can_be_sold_and_no_more() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        store.create_event(&event(), 2, 1).await.unwrap();
        let all = transaction(&[(0, 2)], vec![confirmed("r1", &[(0, 2)])]);
        assert_eq!(store.transact(&all).await, Outcome::Committed);
        let more = transaction(&[(0, 1)], vec![confirmed("r2", &[(0, 1)])]);
        let Outcome::Cancelled(reasons) = store.transact(&more).await else {
            panic!("oversold");
        };
        let Reason::Stripe(Some(stripe)) = &reasons[0] else {
            panic!("{reasons:?}");
        };
        assert_eq!(stripe.remaining, 0);
    });
}

#[test]
fn the_same_token_applies_once() {
    on_shard(async {
        let witness = Rc::new(Witness::default());
        let settings = settings(engine());
        let store = Store::connect(settings.clone(), witness.clone())
            .await
            .unwrap();
        tables::create(&store).await.unwrap();
        store.create_event(&event(), 10, 1).await.unwrap();
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        for _ in 0..3 {
            assert_eq!(store.transact(&batch).await, Outcome::Committed);
        }
        assert_eq!(remaining(&store).await, [9]);
        // Another body under it is refused, and loudly.
        let mut other = transaction(&[(0, 2)], vec![confirmed("r2", &[(0, 2)])]);
        other.token = batch.token;
        assert_eq!(store.transact(&other).await, Outcome::Rejected);
        assert_eq!(remaining(&store).await, [9]);
        let lines = witness.lines.borrow();
        assert!(lines.iter().any(|line| line.contains("BUG")), "{lines:?}");
        let inventory = settings.tables.inventory.clone();
        let rejected = ("TransactWriteItems", inventory, "rejected");
        assert!(witness.calls.borrow().contains(&rejected));
    });
}

#[test]
fn a_missing_table_is_a_refusal_not_a_guess() {
    on_shard(async {
        let store = connect(&settings(engine())).await;
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, Outcome::Refused);
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, EventRead::Unavailable);
    });
}

// ---- The network --------------------------------------------------------------------------------

#[test]
fn a_lost_answer_is_unknown_and_the_same_token_settles_it() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        store.create_event(&event(), 10, 1).await.unwrap();
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        relay.next(Act::LoseAnswer);
        let sent_before = relay.requests();
        assert_eq!(store.transact(&batch).await, Outcome::Unknown);
        // It was sent: nobody but the caller may send it again.
        assert_eq!(relay.requests(), sent_before + 1);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);
        assert_eq!(remaining(&store).await, [9]);
    });
}

#[test]
fn a_stalled_answer_is_unknown_after_the_attempt_timeout() {
    on_shard(async {
        let relay = Relay::start(engine(), None);
        let hasty = StoreSettings {
            attempt_timeout: Duration::from_millis(150),
            ..settings(relay.address)
        };
        let store = connect(&hasty).await;
        relay.next(Act::Stall);
        let started = Instant::now();
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, Outcome::Unknown);
        let took = started.elapsed();
        let expected = Duration::from_millis(140)..Duration::from_secs(5);
        assert!(expected.contains(&took), "{took:?}");
        // The connection with the unread answer is closed, not used again.
        until("the connection closes", || relay.closed() == 1).await;
    });
}

#[test]
fn connections_are_used_again() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        for _ in 0..20 {
            store.read_event(&event(), None).await;
        }
        assert_eq!((relay.requests(), relay.connections()), (20, 1));
    });
}

#[test]
fn a_connection_closed_while_idle_costs_nothing() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        store.create_event(&event(), 10, 1).await.unwrap();
        relay.next(Act::PassAndClose);
        store.read_event(&event(), None).await;
        // Wait without giving the shard a turn: it has not been told that the connection ended.
        let started = Instant::now();
        while relay.closed() == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, Outcome::Committed);
        assert_eq!(relay.connections(), 2);
    });
}

#[test]
fn calls_side_by_side_stay_within_the_connection_bound() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        let calls = limits::STORE_CONNECTIONS_MAX + 40;
        let event = event();
        let reads = (0..calls).map(|_| store.read_event(&event, None));
        let reads = futures::future::join_all(reads).await;
        assert!(reads.iter().all(|read| *read == EventRead::NotFound));
        assert_eq!(relay.requests(), calls);
        assert!(relay.connections() <= limits::STORE_CONNECTIONS_MAX);
        // Those over the idle bound are closed.
        let kept = limits::STORE_IDLE_CONNECTIONS_MAX;
        until("spare connections close", || {
            relay.connections() - relay.closed() <= kept
        })
        .await;
    });
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    on_shard(async {
        let dead = dead_address();
        let store = connect(&settings(dead)).await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, Outcome::Unknown);
        let error = store.probe().await.unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
        assert!(
            error.contains(&format!("cannot connect to {dead}")),
            "{error}"
        );
        assert!(error.contains("refused"), "{error}");
    });
}

#[test]
fn a_name_is_resolved_and_an_unknown_one_is_named() {
    on_shard(async {
        let mut by_name = settings(engine());
        by_name.endpoint = Some(format!("http://localhost:{}", engine().port()));
        with_tables(&by_name).await.probe().await.unwrap();
        by_name.endpoint = Some("http://no-such-host.invalid:8000".to_owned());
        let error = connect(&by_name).await.probe().await.unwrap_err();
        assert!(
            error.to_string().contains("no-such-host.invalid"),
            "{error}"
        );
    });
}

#[test]
fn an_endpoint_that_is_no_url_is_refused_at_once() {
    on_shard(async {
        for url in ["127.0.0.1:8000", "ftp://x", "", "http://"] {
            let mut wrong = settings(engine());
            wrong.endpoint = Some(url.to_owned());
            let error = Store::connect(wrong, Rc::new(NoObserver))
                .await
                .unwrap_err();
            assert!(
                matches!(error, ConnectError::Endpoint { .. }),
                "{url}: {error}"
            );
        }
    });
}

// ---- Answers no local engine gives --------------------------------------------------------------

fn fault(status: u16, code: &str) -> Act {
    let body = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"told by the test"}}"#
    );
    Act::Answer(status, body)
}

#[test]
fn every_answer_to_a_whole_call_has_its_outcome() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let witness = Rc::new(Witness::default());
        let settings = settings(relay.address);
        let store = Store::connect(settings, witness.clone()).await.unwrap();
        for (status, code, outcome, read) in [
            (
                400,
                "ThrottlingException",
                Outcome::Throttled,
                EventRead::Throttled,
            ),
            (
                400,
                "RequestLimitExceeded",
                Outcome::Throttled,
                EventRead::Throttled,
            ),
            (
                400,
                "ProvisionedThroughputExceededException",
                Outcome::Throttled,
                EventRead::Throttled,
            ),
            (
                400,
                "TransactionInProgressException",
                Outcome::Conflict,
                EventRead::Unavailable,
            ),
            (
                400,
                "TransactionConflictException",
                Outcome::Conflict,
                EventRead::Unavailable,
            ),
            (
                400,
                "IdempotentParameterMismatchException",
                Outcome::Rejected,
                EventRead::Unavailable,
            ),
            (
                400,
                "ValidationException",
                Outcome::Rejected,
                EventRead::Unavailable,
            ),
            (
                400,
                "AccessDeniedException",
                Outcome::Refused,
                EventRead::Unavailable,
            ),
            (
                400,
                "ResourceNotFoundException",
                Outcome::Refused,
                EventRead::Unavailable,
            ),
            (
                400,
                "ExpiredTokenException",
                Outcome::Refused,
                EventRead::Unavailable,
            ),
            (
                400,
                "UnrecognizedClientException",
                Outcome::Refused,
                EventRead::Unavailable,
            ),
            (
                500,
                "InternalServerError",
                Outcome::Unknown,
                EventRead::Unavailable,
            ),
            (
                503,
                "ServiceUnavailable",
                Outcome::Unknown,
                EventRead::Unavailable,
            ),
        ] {
            witness.lines.borrow_mut().clear();
            relay.next(fault(status, code));
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            let quiet = matches!(outcome, Outcome::Throttled | Outcome::Conflict);
            assert_eq!(store.transact(&batch).await, outcome, "{code}");
            let lines = witness.lines.take();
            let told = lines
                .iter()
                .any(|line| line.contains(code) && line.contains("told by"));
            assert_eq!(told, !quiet, "{code}: {lines:?}");
            relay.next(fault(status, code));
            assert_eq!(store.read_event(&event(), None).await, read, "{code}");
            // The log's bound is per second; this test is about each line.
            until("the next second", {
                let second = runtime::clock::monotonic().0 / 1_000_000;
                let few = witness.calls.borrow().len() % 8 != 0;
                move || few || runtime::clock::monotonic().0 / 1_000_000 != second
            })
            .await;
        }
        relay.next(Act::Answer(200, "<html>not DynamoDB</html>".to_owned()));
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, Outcome::Unknown);
    });
}

#[test]
fn conflicts_and_throttles_are_told_action_by_action() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let store = connect(&settings(relay.address)).await;
        let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"TransactionConflict","Message":"ongoing"},{"Code":"None"},
            {"Code":"ThrottlingError","Message":"slow"},{"Code":"ValidationError","Message":"bad"},
            {"Code":"ConditionalCheckFailed","Message":"exists","Item":{
                "reservation_id":{"S":"r4"},"status":{"S":"HELD"}}}]}"#;
        relay.next(Act::Answer(400, body.to_owned()));
        let records = ["r1", "r2", "r3", "r4"].map(tombstone).to_vec();
        let outcome = store.transact(&transaction(&[(0, 1)], records)).await;
        let expected = vec![
            Reason::Conflict,
            Reason::Fine,
            Reason::Throttled,
            Reason::Invalid,
            Reason::RecordUnreadable,
        ];
        assert_eq!(outcome, Outcome::Cancelled(expected));
    });
}

#[test]
fn unprocessed_keys_are_asked_for_again_and_not_for_ever() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let settings = settings(relay.address);
        let store = connect(&settings).await;
        let table = &settings.tables.inventory;
        let item = |key: &str, stripes: &str| {
            format!(
                r#"{{"event_id":{{"S":"{key}"}},"remaining":{{"N":"1"}},"version":{{"N":"0"}},
                "total_seats":{{"N":"1"}}{stripes}}}"#
            )
        };
        let second = format!(
            r#"{{"{table}":{{"ConsistentRead":true,"Keys":[{{"event_id":{{"S":"evt_2025_1001#1"}}}}]}}}}"#
        );
        let first = item("evt_2025_1001", r#","stripes":{"N":"2"}"#);
        let partly =
            format!(r#"{{"Responses":{{"{table}":[{first}]}},"UnprocessedKeys":{second}}}"#);
        let rest = item("evt_2025_1001#1", "");
        let wholly = format!(r#"{{"Responses":{{"{table}":[{rest}]}},"UnprocessedKeys":{{}}}}"#);
        relay.next(Act::Answer(200, partly.clone()));
        relay.next(Act::Answer(200, wholly));
        let EventRead::Found(found) = store.read_event(&event(), Some(2)).await else {
            panic!("not found");
        };
        assert_eq!(found.len(), 2);

        let rounds = limits::STORE_UNPROCESSED_ROUNDS_MAX;
        (0..rounds).for_each(|_| relay.next(Act::Answer(200, partly.clone())));
        let read = store.read_event(&event(), Some(2)).await;
        assert_eq!(read, EventRead::Throttled);
    });
}

#[test]
fn a_store_without_transactions_is_refused_by_name() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let store = connect(&settings(relay.address)).await;
        relay.next(fault(400, "UnknownOperationException"));
        let error = store.probe().await.unwrap_err();
        assert!(
            matches!(error, ConnectError::NoTransactions { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("TransactWriteItems"), "{error}");
        // One that takes a transaction and ignores its condition is no better.
        relay.next(Act::Answer(200, "{}".to_owned()));
        let error = store.probe().await.unwrap_err();
        assert!(
            matches!(error, ConnectError::NoTransactions { .. }),
            "{error}"
        );
        relay.next(fault(400, "AccessDeniedException"));
        let error = store.probe().await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    });
}

#[test]
fn a_missing_stripe_is_damage_not_an_empty_shelf() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let settings = settings(relay.address);
        let witness = Rc::new(Witness::default());
        let store = Store::connect(settings.clone(), witness.clone())
            .await
            .unwrap();
        let table = &settings.tables.inventory;
        let body = format!(
            r#"{{"Responses":{{"{table}":[{{"event_id":{{"S":"evt_2025_1001"}},"remaining":{{"N":"1"}},
            "version":{{"N":"0"}},"total_seats":{{"N":"1"}},"stripes":{{"N":"2"}}}}]}},"UnprocessedKeys":{{}}}}"#
        );
        relay.next(Act::Answer(200, body));
        let read = store.read_event(&event(), Some(2)).await;
        assert_eq!(read, EventRead::Unavailable);
        let lines = witness.lines.borrow();
        assert!(lines[0].contains("stripe 1 of 2 is missing"), "{lines:?}");
    });
}

// ---- TLS ----------------------------------------------------------------------------------------

/// A certificate authority: its PEM, and a server's configuration signed by it.
fn authority(name: &str) -> (String, Arc<ServerConfig>) {
    use futures_rustls::rustls::crypto::ring;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (issuer.pem(), Arc::new(config))
}

fn over_tls(relay: &Relay, host: &str, bundle: Option<&Path>) -> StoreSettings {
    StoreSettings {
        endpoint: Some(format!("https://{host}:{}", relay.address.port())),
        ca_bundle: bundle.map(Path::to_owned),
        ..settings(relay.address)
    }
}

#[test]
fn tls_works_with_the_right_authority_and_says_what_is_wrong_without() {
    let (pem, config) = authority("ours");
    let (stranger, _) = authority("a stranger");
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("ca.pem"), dir.path().join("stranger.pem"));
    std::fs::write(&right, pem).unwrap();
    std::fs::write(&wrong, stranger).unwrap();
    let relay = Relay::start(engine(), Some(config));
    on_shard(async {
        for host in ["localhost", "127.0.0.1"] {
            let store = with_tables(&over_tls(&relay, host, Some(&right))).await;
            store.create_event(&event(), 5, 2).await.unwrap();
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            assert_eq!(store.transact(&batch).await, Outcome::Committed);
        }
        for bundle in [Some(wrong.as_path()), None] {
            let store = connect(&over_tls(&relay, "localhost", bundle)).await;
            let error = store.probe().await.unwrap_err().to_string();
            assert!(error.contains("UnknownIssuer"), "{error}");
            assert!(error.contains("AWS_CA_BUNDLE"), "{error}");
        }
        let missing = over_tls(&relay, "localhost", Some(Path::new("/nowhere/ca.pem")));
        let error = Store::connect(missing, Rc::new(NoObserver))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::CaBundle(_)), "{error}");
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    });
}

#[test]
fn a_slow_handshake_outlives_the_attempt_that_began_it() {
    let (pem, config) = authority("ours");
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), pem).unwrap();
    let relay = Relay::start(engine(), Some(config));
    on_shard(async {
        let hasty = StoreSettings {
            attempt_timeout: Duration::from_micros(500),
            ..over_tls(&relay, "localhost", Some(bundle.path()))
        };
        let store = connect(&hasty).await;
        store.read_event(&event(), None).await;
        assert_eq!(relay.requests(), 0, "the attempt was meant to be too short");
        until("the connection is there", || relay.connections() == 1).await;
        // Tries that are too short for a handshake of their own get to use it in the end.
        let started = Instant::now();
        while relay.requests() == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            store.read_event(&event(), None).await;
            runtime::sleep(Duration::from_millis(5)).await;
        }
    });
}

// ---- The engine on disk -------------------------------------------------------------------------

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::Dir(dir.path().to_owned());
    let names = settings(engine()).tables;
    let open = || {
        let engine = Engine::start(data.clone()).unwrap();
        let settings = StoreSettings {
            tables: names.clone(),
            ..settings(engine.address())
        };
        (engine, settings)
    };
    let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
    let (engine, first) = open();
    on_shard(async {
        let store = with_tables(&first).await;
        store.create_event(&event(), 10, 1).await.unwrap();
        assert_eq!(store.transact(&batch).await, Outcome::Committed);
    });
    engine.stop();
    let (_engine, second) = open();
    on_shard(async {
        let store = connect(&second).await;
        assert_eq!(tables::check(&store).await.unwrap(), []);
        assert_eq!(remaining(&store).await, [9]);
        // The engine forgot the token; the record did not.
        let outcome = store.transact(&batch).await;
        assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
        assert_eq!(remaining(&store).await, [9]);
    });
}
