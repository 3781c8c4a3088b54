//! Requests that go the way of the SDK's without it: the store must not be able to tell them apart.

use std::collections::BTreeMap;

use aws_sigv4::sign::v4;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use inventory_core::transaction::{SeatsRead, StripesRead, TransactionOutcome};
use inventory_store::{Store, StoreSettings};
use sha2::{Digest, Sha256};

use crate::network::fault;
use crate::relay::Relay;
use crate::stage::*;

/// One request as it came in.
struct Seen {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Seen {
    fn newest(relay: &Relay) -> Self {
        let text = relay.last_request();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self {
            line: line.to_owned(),
            headers: headers.lines().map(header).collect(),
            body: body.to_owned(),
        }
    }

    /// The SDK numbers its invocations.
    fn is_of_the_sdk(&self) -> bool {
        self.headers.contains_key("amz-sdk-invocation-id")
    }

    fn header(&self, name: &str) -> &str {
        &self.headers[name]
    }

    /// The part of `authorization` after `name`.
    fn authorized(&self, name: &str) -> &str {
        let (_, rest) = self.header("authorization").split_once(name).unwrap();
        rest.split(',').next().unwrap()
    }

    /// What a store does: the signature of what arrived, by the rules of AWS Signature Version 4, must be
    /// the one that came with it. Of the signer's code only the keyed hashes are used.
    fn check_signature(&self) {
        let signed = self.authorized("SignedHeaders=");
        let headers: String = signed
            .split(';')
            .map(|name| format!("{name}:{}\n", self.header(name)))
            .collect();
        let body = hex(&self.body);
        let canonical = format!("POST\n/\n\n{headers}\n{signed}\n{body}");
        let scope = self.authorized("Credential=");
        let (key, scope) = scope.split_once('/').unwrap();
        assert_eq!(key, "local");
        let [_, region, service, end] = scope.split('/').collect::<Vec<_>>()[..] else {
            panic!("{scope}");
        };
        assert_eq!((service, end), ("dynamodb", "aws4_request"));
        let date = self.header("x-amz-date");
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&canonical));
        let extended = format!(
            "{}-{}-{}:{}:{}",
            &date[..4],
            &date[4..6],
            &date[6..11],
            &date[11..13],
            &date[13..]
        );
        let at = DateTime::from_str(&extended, Format::DateTime).unwrap();
        let key = v4::generate_signing_key("local", at.try_into().unwrap(), region, service);
        let expected = v4::calculate_signature(key, text.as_bytes());
        assert_eq!(self.authorized("Signature="), expected, "{canonical}");
    }
}

fn hex(text: &str) -> String {
    let bytes = Sha256::digest(text.as_bytes());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn read(store: &Store) {
    let read = store.read_event(&event(), Some(1)).await;
    assert!(matches!(read, StripesRead::Found(_)), "{read:?}");
}

/// What both send, of the requests that `first` and then `second` were.
fn compare(first: &Seen, second: &Seen) {
    assert!(first.is_of_the_sdk() && !second.is_of_the_sdk());
    assert_eq!(first.line, second.line);
    for name in ["host", "content-type", "x-amz-target", "user-agent"] {
        assert_eq!(first.header(name), second.header(name));
        let signs = |seen: &Seen| {
            let mut names = seen.authorized("SignedHeaders=").split(';');
            names.any(|signed| signed == name)
        };
        assert_eq!(signs(first), signs(second), "{name}");
    }
    // Without key and day: midnight may lie between them.
    let scope = |seen: &Seen| {
        let parts = seen.authorized("Credential=").split('/');
        parts.skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(scope(first), scope(second));
    first.check_signature();
    second.check_signature();
}

#[test]
fn a_transaction_is_the_request_that_the_sdk_would_have_made() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        let by_sdk = Seen::newest(&relay);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        let short = Seen::newest(&relay);
        compare(&by_sdk, &short);
        assert_eq!(by_sdk.body, short.body);
    });
}

#[test]
fn reads_are_the_requests_that_the_sdk_would_have_made() {
    for kind in [Kind::OneStripe, Kind::Stripes, Kind::Seats] {
        read_twice(kind);
    }
}

/// A `GetItem`, a `BatchGetItem`, a `Query`.
#[derive(Clone, Copy, Debug)]
enum Kind {
    OneStripe,
    Stripes,
    Seats,
}

impl Kind {
    async fn read(self, store: &Store) {
        match self {
            Kind::OneStripe => read(store).await,
            Kind::Stripes => {
                let read = store.read_event(&event(), Some(2)).await;
                assert!(matches!(read, StripesRead::Found(_)), "{read:?}");
            }
            Kind::Seats => {
                let read = store.read_seats(&event(), 1).await;
                assert_eq!(read, SeatsRead::Found(Vec::new()));
            }
        }
    }
}

fn read_twice(kind: Kind) {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        // Through another client: this one has made no request yet.
        let direct = StoreSettings {
            tables: store.tables().clone(),
            ..settings(engine())
        };
        let stripes = match kind {
            Kind::Stripes => 2,
            Kind::OneStripe | Kind::Seats => 1,
        };
        create(&connect(&direct).await, 10, stripes).await;
        kind.read(&store).await;
        let by_sdk = Seen::newest(&relay);
        kind.read(&store).await;
        let short = Seen::newest(&relay);
        compare(&by_sdk, &short);
        let json = |seen: &Seen| serde_json::from_str::<serde_json::Value>(&seen.body).unwrap();
        assert_eq!(json(&by_sdk), json(&short));
    });
}

#[test]
fn after_a_refusal_the_sdk_makes_the_next_request() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        create(&store, 10, 1).await;
        read(&store).await;
        assert!(!Seen::newest(&relay).is_of_the_sdk());
        relay.next(fault(400, "InvalidSignatureException"));
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        assert!(!Seen::newest(&relay).is_of_the_sdk());
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert!(Seen::newest(&relay).is_of_the_sdk());
        read(&store).await;
        assert!(!Seen::newest(&relay).is_of_the_sdk());
        // What is no refusal says nothing about the way.
        relay.next(fault(400, "ThrottlingException"));
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Throttled);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert!(!Seen::newest(&relay).is_of_the_sdk());
    });
}
