//! The store client behind a faulty network, and with answers that no local engine gives.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::rustls::ServerConfig;
use inventory_core::seats::SeatFacts;
use inventory_core::transaction::{ActionOutcome, StripesRead, TransactionOutcome};
use inventory_store::limits;
use inventory_store::{NoObserver, Store, StoreConnectError, StoreSettings};
use inventory_testkit::refusing_address;
use inventory_testkit::store_proxy::{ProxyAction, StoreProxy};

use crate::fixture::*;

// ---- Connections --------------------------------------------------------------------------------

#[test]
fn lost_answer_is_unknown_until_the_token_is_repeated() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        create(&store, 10, 1).await;
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        proxy.next(ProxyAction::LoseAnswer);
        let sent_before = proxy.requests();
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
        // Only the caller may repeat a request that was sent.
        assert_eq!(proxy.requests(), sent_before + 1);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert_eq!(remaining(&store).await, [9]);
    });
}

#[test]
fn stalled_answer_is_unknown_after_the_attempt_timeout() {
    on_shard(async {
        let proxy = StoreProxy::start(engine(), None);
        let hasty = StoreSettings {
            attempt_timeout: Duration::from_millis(150),
            ..settings(proxy.address)
        };
        let store = connect(&hasty).await;
        proxy.next(ProxyAction::Stall);
        let started = Instant::now();
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
        let took = started.elapsed();
        let expected = Duration::from_millis(140)..Duration::from_secs(5);
        assert!(expected.contains(&took), "{took:?}");
        // The connection with the unread answer is closed, not reused.
        until("the connection closes", || proxy.closed() == 1).await;
    });
}

#[test]
fn connections_are_reused() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        for _ in 0..20 {
            store.read_event(&event(), None).await;
        }
        assert_eq!((proxy.requests(), proxy.connections()), (20, 1));
    });
}

#[test]
fn connection_closed_while_idle_is_replaced() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        create(&store, 10, 1).await;
        proxy.next(ProxyAction::PassAndClose);
        store.read_event(&event(), None).await;
        // Block the executor, so that the client does not observe the end of the connection.
        let started = Instant::now();
        while proxy.closed() == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert_eq!(proxy.connections(), 2);
    });
}

#[test]
fn concurrent_calls_stay_within_the_connection_limit() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        let calls = limits::STORE_CONNECTIONS_MAX + 40;
        let event = event();
        let reads = (0..calls).map(|_| store.read_event(&event, None));
        let reads = futures::future::join_all(reads).await;
        assert!(reads.iter().all(|read| *read == StripesRead::NotFound));
        assert_eq!(proxy.requests(), calls);
        assert!(proxy.connections() <= limits::STORE_CONNECTIONS_MAX);
        // Idle connections over the limit are closed after a while.
        let started = Instant::now();
        while proxy.connections() - proxy.closed() > limits::STORE_IDLE_CONNECTIONS_MAX {
            assert!(started.elapsed() < Duration::from_secs(10), "spares stay");
            store.read_event(&event, None).await;
            inventory_runtime::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn refused_connection_is_reported_with_the_address() {
    on_shard(async {
        let dead = refusing_address();
        let store = connect(&settings(dead)).await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        // Nothing was sent: no unknown outcome.
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        let error = store.probe().await.unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
        assert!(error.contains(&format!("cannot connect to {dead}")), "{error}");
        assert!(error.contains("refused"), "{error}");
    });
}

#[test]
fn connect_that_hangs_is_refused_and_later_calls_fail_at_once() {
    // The queue of this listener is full, so the kernel drops further connects.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: shortens the queue of a socket that this function owns.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let wait = Duration::from_millis(100);
    let queued = || std::net::TcpStream::connect_timeout(&address, wait).ok();
    let _queued: Vec<_> = std::iter::from_fn(queued).collect();
    on_shard(async move {
        let hasty = StoreSettings { attempt_timeout: wait, ..settings(address) };
        let store = connect(&hasty).await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        let started = Instant::now();
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
        // Once the connect has timed out, calls no longer wait for another one.
        let mut fast = 0;
        while fast < 10 {
            let called = Instant::now();
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
            fast += u32::from(called.elapsed() < wait / 2);
            assert!(started.elapsed() < Duration::from_secs(20), "{fast} calls failed at once");
        }
    });
}

#[test]
fn store_is_reconnected_after_an_outage() {
    on_shard(async {
        let there = settings(engine());
        with_tables(&there).await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let endpoint = Some(format!("http://{address}"));
        let store = connect(&StoreSettings { endpoint, ..there }).await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        for _ in 0..50 {
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        }
        let proxy = StoreProxy::start_at(address, engine(), None);
        let started = Instant::now();
        while store.transact(&batch).await != TransactionOutcome::Committed {
            assert!(started.elapsed() < Duration::from_secs(10), "still refused");
            inventory_runtime::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(proxy.connections(), 1);
    });
}

#[test]
fn host_names_are_resolved_and_unknown_ones_reported() {
    on_shard(async {
        let mut by_name = settings(engine());
        by_name.endpoint = Some(format!("http://localhost:{}", engine().port()));
        with_tables(&by_name).await.probe().await.unwrap();
        by_name.endpoint = Some("http://no-such-host.invalid:8000".to_owned());
        let error = connect(&by_name).await.probe().await.unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    });
}

#[test]
fn endpoint_that_is_not_a_url_is_rejected() {
    on_shard(async {
        for url in ["127.0.0.1:8000", "ftp://x", "", "http://"] {
            let mut wrong = settings(engine());
            wrong.endpoint = Some(url.to_owned());
            let error = Store::connect(wrong, Rc::new(NoObserver)).await.unwrap_err();
            assert!(matches!(error, StoreConnectError::Endpoint { .. }), "{url}: {error}");
        }
    });
}

// ---- Answers that no local engine gives --------------------------------------------------------------

/// The SDK sends the first request; the direct client takes its template from that request and sends the next ones. With
/// `is_direct`, one request is sent before the test.
async fn prepare_client(proxy: &StoreProxy, store: &Store, is_direct: bool) {
    if is_direct {
        proxy.next(ProxyAction::Answer(200, "{}".to_owned()));
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::NotFound);
    }
}

#[test]
fn each_store_error_maps_to_its_outcome() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let settings = settings(proxy.address);
        let outcomes = [
            (
                TransactionOutcome::Throttled,
                StripesRead::Throttled,
                "400 ThrottlingException RequestLimitExceeded ProvisionedThroughputExceededException",
            ),
            (
                TransactionOutcome::Conflict,
                StripesRead::Unavailable,
                "400 TransactionInProgressException TransactionConflictException",
            ),
            (
                TransactionOutcome::Rejected,
                StripesRead::Unavailable,
                "400 IdempotentParameterMismatchException ValidationException",
            ),
            (
                TransactionOutcome::Refused,
                StripesRead::Unavailable,
                "400 AccessDeniedException ResourceNotFoundException ExpiredTokenException \
                 UnrecognizedClientException",
            ),
            (TransactionOutcome::Unknown, StripesRead::Unavailable, "500 InternalServerError"),
            (TransactionOutcome::Unknown, StripesRead::Unavailable, "503 ServiceUnavailable"),
        ];
        for (outcome, read, errors) in &outcomes {
            let (status, codes) = errors.split_once(' ').unwrap();
            let status = status.parse().unwrap();
            let both = |code| [(code, false), (code, true)];
            for (code, is_direct) in codes.split(' ').flat_map(both) {
                let recorder = Rc::new(StoreRecorder::default());
                let store = Store::connect(settings.clone(), recorder.clone());
                let store = store.await.unwrap();
                prepare_client(&proxy, &store, is_direct).await;
                proxy.next(store_fault(status, code));
                let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
                let is_expected =
                    matches!(outcome, TransactionOutcome::Throttled | TransactionOutcome::Conflict);
                assert_eq!(store.transact(&batch).await, *outcome, "{code}");
                let lines = recorder.lines.take();
                let is_logged =
                    lines.iter().any(|line| line.contains(code) && line.contains(FAULT_TEXT));
                assert_eq!(is_logged, !is_expected, "{code}: {lines:?}");
                proxy.next(store_fault(status, code));
                assert_eq!(store.read_event(&event(), None).await, *read, "{code}");
            }
        }
        for is_direct in [false, true] {
            let store = connect(&settings).await;
            prepare_client(&proxy, &store, is_direct).await;
            proxy.next(ProxyAction::Answer(200, "<html>not DynamoDB</html>".to_owned()));
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
        }
    });
}

#[test]
fn reads_are_retried_as_often_as_configured() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let stubborn = StoreSettings { read_retries: 2, ..settings(proxy.address) };
        let store = connect(&stubborn).await;
        for trouble in
            [store_fault(400, "ThrottlingException"), store_fault(500, "InternalServerError")]
        {
            // Two failed attempts; the third reports that there is no such event.
            (0..2).for_each(|_| proxy.next(trouble.clone()));
            proxy.next(ProxyAction::Answer(200, "{}".to_owned()));
            let read = store.read_event(&event(), None).await;
            assert_eq!(read, StripesRead::NotFound);
            (0..3).for_each(|_| proxy.next(trouble.clone()));
            let read = store.read_event(&event(), None).await;
            assert_ne!(read, StripesRead::NotFound);
        }
        // Permanent errors are not retried.
        let before = proxy.requests();
        proxy.next(store_fault(400, "AccessDeniedException"));
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::Unavailable);
        assert_eq!(proxy.requests(), before + 1);
    });
}

#[test]
fn cancellation_reasons_are_mapped_per_action() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let store = connect(&settings(proxy.address)).await;
        let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"TransactionConflict","Message":"ongoing"},{"Code":"None"},
            {"Code":"ThrottlingError","Message":"slow"},{"Code":"ValidationError","Message":"bad"},
            {"Code":"ConditionalCheckFailed","Message":"exists","Item":{
                "reservation_id":{"S":"r4"},"status":{"S":"HELD"}}}]}"#;
        proxy.next(ProxyAction::Answer(400, body.to_owned()));
        let records = ["r1", "r2", "r3", "r4"].map(tombstone).to_vec();
        let outcome = store.transact(&transaction(&[(0, 1)], records)).await;
        let expected = vec![
            ActionOutcome::Conflict,
            ActionOutcome::Fine,
            ActionOutcome::Throttled,
            ActionOutcome::Invalid,
            ActionOutcome::RecordUnreadable,
        ];
        assert_eq!(outcome, TransactionOutcome::Cancelled(expected));
    });
}

#[test]
fn import_waits_for_a_throttled_partition() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let store = connect(&settings(proxy.address)).await;
        let throttled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"None"},{"Code":"ThrottlingError","Message":"slow"}]}"#;
        // More often than the retries of any other write.
        for _ in 0..limits::STORE_ADMIN_ATTEMPTS_MAX + 3 {
            proxy.next(ProxyAction::Answer(400, throttled.to_owned()));
        }
        proxy.next(ProxyAction::Answer(200, "{}".to_owned()));
        let seats = ["A-1", "A-2"].map(|id| (id.parse().unwrap(), SeatFacts::default()));
        store.put_seats(&event(), 1, &seats).await.unwrap();
    });
}

#[test]
fn unprocessed_keys_are_requested_again_up_to_a_limit() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let settings = settings(proxy.address);
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
        proxy.next(ProxyAction::Answer(200, partly.clone()));
        proxy.next(ProxyAction::Answer(200, wholly));
        let StripesRead::Found(found) = store.read_event(&event(), Some(2)).await else {
            panic!("not found");
        };
        assert_eq!(found.len(), 2);

        let rounds = limits::STORE_UNPROCESSED_ROUNDS_MAX;
        (0..rounds).for_each(|_| proxy.next(ProxyAction::Answer(200, partly.clone())));
        let read = store.read_event(&event(), Some(2)).await;
        assert_eq!(read, StripesRead::Throttled);
    });
}

#[test]
fn store_without_transactions_is_rejected() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let store = connect(&settings(proxy.address)).await;
        proxy.next(store_fault(400, "UnknownOperationException"));
        let error = store.probe().await.unwrap_err();
        assert!(matches!(error, StoreConnectError::NoTransactions { .. }), "{error}");
        assert!(error.to_string().contains("TransactWriteItems"), "{error}");
        // So is a store that accepts a transaction and ignores its condition.
        proxy.next(ProxyAction::Answer(200, "{}".to_owned()));
        let error = store.probe().await.unwrap_err();
        assert!(matches!(error, StoreConnectError::NoTransactions { .. }), "{error}");
        proxy.next(store_fault(400, "AccessDeniedException"));
        let error = store.probe().await.unwrap_err();
        assert!(matches!(error, StoreConnectError::Refused { .. }), "{error}");
    });
}

#[test]
fn missing_stripe_is_damage_not_sold_out() {
    on_shard(async {
        let proxy = StoreProxy::start(refusing_address(), None);
        let settings = settings(proxy.address);
        let recorder = Rc::new(StoreRecorder::default());
        let store = Store::connect(settings.clone(), recorder.clone()).await.unwrap();
        let table = &settings.tables.inventory;
        let body = format!(
            r#"{{"Responses":{{"{table}":[{{"event_id":{{"S":"evt_2025_1001"}},"remaining":{{"N":"1"}},
            "version":{{"N":"0"}},"total_seats":{{"N":"1"}},"stripes":{{"N":"2"}}}}]}},"UnprocessedKeys":{{}}}}"#
        );
        proxy.next(ProxyAction::Answer(200, body));
        let read = store.read_event(&event(), Some(2)).await;
        assert_eq!(read, StripesRead::Unavailable);
        let lines = recorder.lines.borrow();
        assert!(lines[0].contains("stripe 1 of 2 is missing"), "{lines:?}");
    });
}

// ---- TLS ----------------------------------------------------------------------------------------

const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

/// A certificate authority: its PEM, and a server configuration with a certificate of it for `hosts`.
pub(crate) fn authority(name: &str, hosts: &[&str]) -> (String, Arc<ServerConfig>) {
    use futures_rustls::rustls::crypto::ring;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let names = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
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

fn over_tls(proxy: &StoreProxy, host: &str, bundle: Option<&Path>) -> StoreSettings {
    StoreSettings {
        endpoint: Some(format!("https://{host}:{}", proxy.address.port())),
        ca_bundle: bundle.map(Path::to_owned),
        ..settings(proxy.address)
    }
}

#[test]
fn tls_needs_the_configured_authority() {
    let (pem, config) = authority("ours", &LOCAL);
    let (stranger, _) = authority("a stranger", &LOCAL);
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("ca.pem"), dir.path().join("stranger.pem"));
    std::fs::write(&right, pem).unwrap();
    std::fs::write(&wrong, stranger).unwrap();
    let proxy = StoreProxy::start(engine(), Some(config));
    on_shard(async {
        for host in ["localhost", "127.0.0.1"] {
            let store = with_tables(&over_tls(&proxy, host, Some(&right))).await;
            create(&store, 5, 2).await;
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        }
        for bundle in [Some(wrong.as_path()), None] {
            let store = connect(&over_tls(&proxy, "localhost", bundle)).await;
            let error = store.probe().await.unwrap_err().to_string();
            assert!(error.contains("UnknownIssuer"), "{error}");
            assert!(error.contains("AWS_CA_BUNDLE"), "{error}");
        }
        let missing = over_tls(&proxy, "localhost", Some(Path::new("/nowhere/ca.pem")));
        let error = Store::connect(missing, Rc::new(NoObserver)).await.unwrap_err();
        assert!(matches!(error, StoreConnectError::CaBundle(_)), "{error}");
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    });
}

#[test]
fn slow_handshake_outlives_its_attempt() {
    let (pem, config) = authority("ours", &LOCAL);
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), pem).unwrap();
    let proxy = StoreProxy::start(engine(), Some(config));
    on_shard(async {
        let hasty = StoreSettings {
            attempt_timeout: Duration::from_micros(500),
            ..over_tls(&proxy, "localhost", Some(bundle.path()))
        };
        let store = connect(&hasty).await;
        store.read_event(&event(), None).await;
        assert_eq!(proxy.requests(), 0, "the attempt was meant to be too short");
        until("the connection is there", || proxy.connections() == 1).await;
        // Attempts too short for a handshake of their own use the finished connection.
        let started = Instant::now();
        while proxy.requests() == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            store.read_event(&event(), None).await;
            inventory_runtime::sleep(Duration::from_millis(5)).await;
        }
    });
}
