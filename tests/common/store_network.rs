//! The store room behind a network that misbehaves, and answers no local engine gives.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::rustls::ServerConfig;
use inventory_api::limits;
use inventory_core::seats::SeatFacts;
use inventory_core::transaction::{ActionOutcome, StripesRead, TransactionOutcome};
use inventory_store::{NoObserver, Store, StoreConnectError, StoreSettings};

use crate::relay::{Act, Relay, dead_address};
use crate::stage::*;

// ---- Connections --------------------------------------------------------------------------------

#[test]
fn a_lost_answer_is_unknown_and_the_same_token_settles_it() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        create(&store, 10, 1).await;
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        relay.next(Act::LoseAnswer);
        let sent_before = relay.requests();
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
        // It was sent: nobody but the caller may send it again.
        assert_eq!(relay.requests(), sent_before + 1);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
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
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
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
        create(&store, 10, 1).await;
        relay.next(Act::PassAndClose);
        store.read_event(&event(), None).await;
        // Wait without giving the shard a turn: it has not been told that the connection ended.
        let started = Instant::now();
        while relay.closed() == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
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
        assert!(reads.iter().all(|read| *read == StripesRead::NotFound));
        assert_eq!(relay.requests(), calls);
        assert!(relay.connections() <= limits::STORE_CONNECTIONS_MAX);
        // Those over the idle bound are closed when nobody needs them for a while.
        let started = Instant::now();
        while relay.connections() - relay.closed() > limits::STORE_IDLE_CONNECTIONS_MAX {
            assert!(started.elapsed() < Duration::from_secs(10), "spares stay");
            store.read_event(&event, None).await;
            inventory_runtime::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    on_shard(async {
        let dead = dead_address();
        let store = connect(&settings(dead)).await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
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
                matches!(error, StoreConnectError::Endpoint { .. }),
                "{url}: {error}"
            );
        }
    });
}

// ---- Answers no local engine gives --------------------------------------------------------------

pub(crate) fn fault(status: u16, code: &str) -> Act {
    let body = format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"told by the test"}}"#
    );
    Act::Answer(status, body)
}

/// The first request is the SDK's, the next ones go the way it took: with `is_known`, one is made before.
async fn known_way(relay: &Relay, store: &Store, is_known: bool) {
    if is_known {
        relay.next(Act::Answer(200, "{}".to_owned()));
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::NotFound);
    }
}

#[test]
fn every_answer_to_a_whole_call_has_its_outcome() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let settings = settings(relay.address);
        for (status, code, outcome, read) in [
            (
                400,
                "ThrottlingException",
                TransactionOutcome::Throttled,
                StripesRead::Throttled,
            ),
            (
                400,
                "RequestLimitExceeded",
                TransactionOutcome::Throttled,
                StripesRead::Throttled,
            ),
            (
                400,
                "ProvisionedThroughputExceededException",
                TransactionOutcome::Throttled,
                StripesRead::Throttled,
            ),
            (
                400,
                "TransactionInProgressException",
                TransactionOutcome::Conflict,
                StripesRead::Unavailable,
            ),
            (
                400,
                "TransactionConflictException",
                TransactionOutcome::Conflict,
                StripesRead::Unavailable,
            ),
            (
                400,
                "IdempotentParameterMismatchException",
                TransactionOutcome::Rejected,
                StripesRead::Unavailable,
            ),
            (
                400,
                "ValidationException",
                TransactionOutcome::Rejected,
                StripesRead::Unavailable,
            ),
            (
                400,
                "AccessDeniedException",
                TransactionOutcome::Refused,
                StripesRead::Unavailable,
            ),
            (
                400,
                "ResourceNotFoundException",
                TransactionOutcome::Refused,
                StripesRead::Unavailable,
            ),
            (
                400,
                "ExpiredTokenException",
                TransactionOutcome::Refused,
                StripesRead::Unavailable,
            ),
            (
                400,
                "UnrecognizedClientException",
                TransactionOutcome::Refused,
                StripesRead::Unavailable,
            ),
            (
                500,
                "InternalServerError",
                TransactionOutcome::Unknown,
                StripesRead::Unavailable,
            ),
            (
                503,
                "ServiceUnavailable",
                TransactionOutcome::Unknown,
                StripesRead::Unavailable,
            ),
        ] {
            for is_known in [false, true] {
                let witness = Rc::new(Witness::default());
                let store = Store::connect(settings.clone(), witness.clone());
                let store = store.await.unwrap();
                known_way(&relay, &store, is_known).await;
                relay.next(fault(status, code));
                let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
                let quiet = matches!(
                    outcome,
                    TransactionOutcome::Throttled | TransactionOutcome::Conflict
                );
                assert_eq!(store.transact(&batch).await, outcome, "{code}");
                let lines = witness.lines.take();
                let told = lines
                    .iter()
                    .any(|line| line.contains(code) && line.contains("told by"));
                assert_eq!(told, !quiet, "{code}: {lines:?}");
                relay.next(fault(status, code));
                assert_eq!(store.read_event(&event(), None).await, read, "{code}");
            }
        }
        for is_known in [false, true] {
            let store = connect(&settings).await;
            known_way(&relay, &store, is_known).await;
            relay.next(Act::Answer(200, "<html>not DynamoDB</html>".to_owned()));
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Unknown);
        }
    });
}

#[test]
fn a_read_is_tried_again_as_often_as_it_is_set() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let stubborn = StoreSettings {
            read_retries: 2,
            ..settings(relay.address)
        };
        let store = connect(&stubborn).await;
        for trouble in [
            fault(400, "ThrottlingException"),
            fault(500, "InternalServerError"),
        ] {
            // Twice in vain, and the third try has the answer: there is no such event.
            (0..2).for_each(|_| relay.next(trouble.clone()));
            relay.next(Act::Answer(200, "{}".to_owned()));
            let read = store.read_event(&event(), None).await;
            assert_eq!(read, StripesRead::NotFound);
            (0..3).for_each(|_| relay.next(trouble.clone()));
            let read = store.read_event(&event(), None).await;
            assert_ne!(read, StripesRead::NotFound);
        }
        // What cannot get better by itself is not asked again.
        let before = relay.requests();
        relay.next(fault(400, "AccessDeniedException"));
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::Unavailable);
        assert_eq!(relay.requests(), before + 1);
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
            ActionOutcome::Conflict,
            ActionOutcome::Fine,
            ActionOutcome::Throttled,
            ActionOutcome::Invalid,
            ActionOutcome::RecordUnreadable,
        ];
        assert_eq!(outcome, TransactionOutcome::Cancelled(expected));
    });
}

/// As an import meets a partition that takes fewer seats a second than it brings.
#[test]
fn a_write_of_many_seats_waits_for_a_partition_it_outruns() {
    on_shard(async {
        let relay = Relay::start(dead_address(), None);
        let store = connect(&settings(relay.address)).await;
        let throttled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"None"},{"Code":"ThrottlingError","Message":"slow"}]}"#;
        // More often than any other write is tried.
        for _ in 0..limits::STORE_ADMIN_TRIES_MAX + 3 {
            relay.next(Act::Answer(400, throttled.to_owned()));
        }
        relay.next(Act::Answer(200, "{}".to_owned()));
        let seats = ["A-1", "A-2"].map(|id| (id.parse().unwrap(), SeatFacts::default()));
        store.put_seats(&event(), 1, &seats).await.unwrap();
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
        let StripesRead::Found(found) = store.read_event(&event(), Some(2)).await else {
            panic!("not found");
        };
        assert_eq!(found.len(), 2);

        let rounds = limits::STORE_UNPROCESSED_ROUNDS_MAX;
        (0..rounds).for_each(|_| relay.next(Act::Answer(200, partly.clone())));
        let read = store.read_event(&event(), Some(2)).await;
        assert_eq!(read, StripesRead::Throttled);
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
            matches!(error, StoreConnectError::NoTransactions { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("TransactWriteItems"), "{error}");
        // One that takes a transaction and ignores its condition is no better.
        relay.next(Act::Answer(200, "{}".to_owned()));
        let error = store.probe().await.unwrap_err();
        assert!(
            matches!(error, StoreConnectError::NoTransactions { .. }),
            "{error}"
        );
        relay.next(fault(400, "AccessDeniedException"));
        let error = store.probe().await.unwrap_err();
        assert!(
            matches!(error, StoreConnectError::Refused { .. }),
            "{error}"
        );
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
        assert_eq!(read, StripesRead::Unavailable);
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
            create(&store, 5, 2).await;
            let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
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
        assert!(matches!(error, StoreConnectError::CaBundle(_)), "{error}");
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
            inventory_runtime::sleep(Duration::from_millis(5)).await;
        }
    });
}
