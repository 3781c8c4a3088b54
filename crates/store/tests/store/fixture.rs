//! What the store tests share: an engine, settings with table names of their own, records and transactions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::{Client, Config};
use inventory_core::ids::{EventId, Fingerprint, OrderId, ReservationId, SeatId, Seats};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    ExpiryCondition, RecordWrite, RequestToken, ReservationState, StripeAllocation, StripeUpdate,
    StripeView, StripesRead, Transaction,
};
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{
    CreateEventOutcome, NewEvent, NoObserver, ShardHttp, ShardSleep, Store, StoreCall,
    StoreObserver, StoreSettings, TableNames, tables,
};

use inventory_testkit::store_proxy::{ProxyAction, StoreProxy};

/// Address of the engine.
pub(crate) fn engine() -> SocketAddr {
    static ENGINE: OnceLock<EmbeddedEngine> = OnceLock::new();
    match std::env::var("DYNAMODB_ENDPOINT") {
        Ok(url) => {
            let authority = url.strip_prefix("http://").expect("http://host:port");
            let authority = authority.trim_end_matches('/');
            let mut found = authority.to_socket_addrs().expect("host:port");
            found.next().expect("an address")
        }
        Err(_) => {
            ENGINE.get_or_init(|| EmbeddedEngine::start(EngineStorage::Memory).unwrap()).address()
        }
    }
}

/// Settings for `address` with unique table names.
pub(crate) fn settings(address: SocketAddr) -> StoreSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    StoreSettings {
        tables: TableNames {
            inventory: format!("{unique}_inventory"),
            seats: format!("{unique}_seats"),
            idempotency: format!("{unique}_idempotency"),
        },
        // Long enough for a busy machine; the test of the timeout sets its own.
        attempt_timeout: Duration::from_secs(20),
        // Most tests are about the answer to a single attempt.
        read_retries: 0,
        ..StoreSettings::local(address)
    }
}

/// Records calls and log lines.
#[derive(Default)]
pub(crate) struct StoreRecorder {
    pub(crate) calls: RefCell<Vec<(&'static str, String, &'static str)>>,
    pub(crate) lines: RefCell<Vec<String>>,
}

impl StoreObserver for StoreRecorder {
    fn called(&self, call: StoreCall<'_>) {
        assert!(call.latency.0 > 0);
        let call = (call.operation, call.table.to_owned(), call.status);
        self.calls.borrow_mut().push(call);
    }

    fn log(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}

pub(crate) fn on_shard<T>(future: impl Future<Output = T>) -> T {
    // Boxed: without optimisation each layer below copies the whole future on the small stack of a test thread.
    inventory_runtime::run_unpinned(Box::pin(future)).unwrap()
}

pub(crate) async fn connect(settings: &StoreSettings) -> Store {
    let observer = Rc::new(NoObserver);
    Store::connect(settings.clone(), observer).await.unwrap()
}

pub(crate) async fn with_tables(settings: &StoreSettings) -> Store {
    let store = connect(settings).await;
    tables::create(&store).await.unwrap();
    store
}

/// The SDK, for items that the store client would not write.
fn raw(settings: &StoreSettings) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(ShardHttp::new(None).unwrap())
        .sleep_impl(ShardSleep)
        .region(Region::new(settings.region_name().to_owned()))
        .endpoint_url(settings.endpoint.clone().unwrap())
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .build();
    Client::from_conf(config)
}

/// Puts an item without a condition.
pub(crate) async fn raw_put(
    settings: &StoreSettings,
    table: &str,
    item: Vec<(&str, AttributeValue)>,
) {
    let item = item.into_iter().map(|(name, v)| (name.to_owned(), v));
    let put = raw(settings).put_item().table_name(table);
    put.set_item(Some(item.collect())).send().await.unwrap();
}

/// The stored item.
pub(crate) async fn raw_item(
    settings: &StoreSettings,
    table: &str,
    key: &[(&str, &str)],
) -> HashMap<String, AttributeValue> {
    let key = key.iter().map(|(name, id)| ((*name).to_owned(), text(id)));
    let get = raw(settings).get_item().table_name(table);
    let found = get.set_key(Some(key.collect())).send().await.unwrap();
    found.item.unwrap()
}

/// The stored item of a seat of [`event`], whose seats have one partition key.
pub(crate) async fn raw_seat(
    settings: &StoreSettings,
    seat: &str,
) -> HashMap<String, AttributeValue> {
    let event = event();
    let key = [("event_id", event.as_str()), ("seat_id", seat)];
    raw_item(settings, &settings.tables.seats, &key).await
}

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A store client with tables of its own that reaches the engine through a proxy.
pub(crate) async fn behind_proxy() -> (Store, StoreProxy) {
    let direct = settings(engine());
    with_tables(&direct).await;
    let proxy = StoreProxy::start(engine(), None);
    let through = StoreSettings { endpoint: Some(format!("http://{}", proxy.address)), ..direct };
    (connect(&through).await, proxy)
}

pub(crate) fn event() -> EventId {
    "evt_2025_1001".parse().unwrap()
}

pub(crate) fn reservation(id: &str) -> ReservationId {
    id.parse().unwrap()
}

/// Time of the transactions, in epoch milliseconds.
pub(crate) const AT: UnixMillis = UnixMillis(1_763_800_000_250);

/// The first write of a reservation, with units from these stripes.
pub(crate) fn first(id: &str, to: ReservationState, draws: &[(u16, u32)]) -> RecordWrite {
    let reservation = reservation(id);
    let qty = draws.iter().map(|(_, units)| units).sum();
    let is_confirmed = to == ReservationState::Confirmed;
    let selection = Selection::AsRecorded;
    let order = is_confirmed.then(|| OrderId::of(&reservation));
    let expires_at = (to == ReservationState::Held).then_some(UnixMillis(AT.0 + 60_000));
    RecordWrite {
        // A write takes the reservation and the payment from its operation, and nothing else.
        operation: Operation {
            payment_intent: payment_of(to),
            ..Operation::new(Verb::Commit, reservation, event(), selection, Micros(0))
        },
        fingerprint: Fingerprint::of_quantity(&event(), qty),
        from: None,
        due: ExpiryCondition::Any,
        to,
        qty,
        draws: draws.iter().map(|&(stripe, units)| StripeAllocation { stripe, units }).collect(),
        seats: None,
        order,
        expires_at,
        payment_added_to: None,
        counted: to == ReservationState::Held,
    }
}

/// The payment that a write to this state stores.
fn payment_of(to: ReservationState) -> String {
    match to {
        ReservationState::Confirmed => "pi_123".to_owned(),
        _ => String::new(),
    }
}

pub(crate) fn confirmed(id: &str, draws: &[(u16, u32)]) -> RecordWrite {
    first(id, ReservationState::Confirmed, draws)
}

pub(crate) fn held(id: &str, draws: &[(u16, u32)]) -> RecordWrite {
    first(id, ReservationState::Held, draws)
}

pub(crate) fn tombstone(id: &str) -> RecordWrite {
    RecordWrite {
        fingerprint: Fingerprint::of_quantity(&event(), 1),
        qty: 1,
        ..first(id, ReservationState::Released, &[])
    }
}

/// The transition of `record` to the next state, with the same stock.
pub(crate) fn transition(record: &RecordWrite, to: ReservationState) -> RecordWrite {
    RecordWrite {
        operation: Operation { payment_intent: payment_of(to), ..record.operation.clone() },
        from: Some(record.to),
        to,
        order: match to {
            ReservationState::Confirmed => Some(OrderId::of(record.reservation())),
            _ => record.order,
        },
        ..record.clone()
    }
}

/// `record` with seats instead of units.
pub(crate) fn of_seats(record: RecordWrite, seats: &[&str]) -> RecordWrite {
    let seats: Seats = seats.iter().map(|seat| seat_id(seat)).collect();
    RecordWrite {
        fingerprint: Fingerprint::of_seats(&event(), &seats),
        qty: seats.len() as u32,
        seats: Some(seats),
        counted: false,
        ..record
    }
}

pub(crate) fn seat_id(id: &str) -> SeatId {
    id.parse().unwrap()
}

/// A transaction with a new token that takes units.
pub(crate) fn transaction(takes: &[(u16, u64)], records: Vec<RecordWrite>) -> Transaction {
    let take = |&(stripe, take)| StripeUpdate { stripe, take, ..StripeUpdate::default() };
    transaction_of(takes.iter().map(take).collect(), records)
}

/// A transaction with a new token that returns units.
pub(crate) fn returning(gives: &[(u16, u64)], records: Vec<RecordWrite>) -> Transaction {
    let give = |&(stripe, give)| StripeUpdate { stripe, give, ..StripeUpdate::default() };
    transaction_of(gives.iter().map(give).collect(), records)
}

pub(crate) fn transaction_of(stripes: Vec<StripeUpdate>, records: Vec<RecordWrite>) -> Transaction {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let serial = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let process = u128::from(std::process::id()) << 64;
    let started = inventory_runtime::clock::now().unix;
    Transaction {
        token: RequestToken(process | u128::from(started.0) << 24 | serial),
        event: event(),
        seat_keys: 1,
        stripes,
        records,
        counter: None,
        at: AT,
    }
}

/// Creates [`event`].
pub(crate) async fn create(store: &Store, total: u64, stripes: u16) -> CreateEventOutcome {
    let new_event = NewEvent::of_quantity(event(), total, stripes);
    store.create_event(&new_event).await.unwrap()
}

pub(crate) async fn stripes(store: &Store) -> Vec<StripeView> {
    match store.read_event(&event(), None).await {
        StripesRead::Found(stripes) => stripes,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn remaining(store: &Store) -> Vec<u64> {
    let stripes = stripes(store).await;
    stripes.iter().map(|stripe| stripe.remaining).collect()
}

/// Polls `condition` on the shard's executor.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        inventory_runtime::sleep(Duration::from_millis(1)).await;
    }
}

/// An answer with this HTTP status and DynamoDB error code.
pub(crate) fn store_fault(status: u16, code: &str) -> ProxyAction {
    let body = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"{FAULT_TEXT}"}}"#
    );
    ProxyAction::Answer(status, body)
}

/// Message of the errors of [`store_fault`].
pub(crate) const FAULT_TEXT: &str = "error of the test";
