//! Requests of the direct client have the same line, signed headers, scope and body as those of the SDK.

use std::collections::BTreeMap;

use aws_sigv4::sign::v4;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use inventory_core::transaction::{SeatsRead, StripesRead, TransactionOutcome};
use inventory_store::{Store, StoreSettings};
use inventory_testkit::store_proxy::StoreProxy;
use sha2::{Digest, Sha256};

use crate::fixture::store_fault;
use crate::fixture::*;

/// A request as the store receives it.
struct SentRequest {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl SentRequest {
    fn newest(proxy: &StoreProxy) -> Self {
        let text = proxy.last_request();
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

    /// Only the SDK sends an invocation id.
    fn is_from_sdk(&self) -> bool {
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

    /// Computes the signature by the rules of AWS Signature Version 4, as a store does, and compares. Only the keyed hashes
    /// are the signer's code.
    fn check_signature(&self) {
        let signed = self.authorized("SignedHeaders=");
        let headers: String =
            signed.split(';').map(|name| format!("{name}:{}\n", self.header(name))).collect();
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

/// Compares a request of the SDK with one of the direct client.
fn compare(first: &SentRequest, second: &SentRequest) {
    assert!(first.is_from_sdk() && !second.is_from_sdk());
    assert_eq!(first.line, second.line);
    for name in ["host", "content-type", "x-amz-target", "user-agent"] {
        assert_eq!(first.header(name), second.header(name));
        let signs = |request: &SentRequest| {
            let mut names = request.authorized("SignedHeaders=").split(';');
            names.any(|signed| signed == name)
        };
        assert_eq!(signs(first), signs(second), "{name}");
    }
    // Without access key and day: midnight may be between the requests.
    let scope = |request: &SentRequest| {
        let parts = request.authorized("Credential=").split('/');
        parts.skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(scope(first), scope(second));
    first.check_signature();
    second.check_signature();
}

#[test]
fn transaction_equals_the_request_of_the_sdk() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        let by_sdk = SentRequest::newest(&proxy);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        let direct = SentRequest::newest(&proxy);
        compare(&by_sdk, &direct);
        assert_eq!(by_sdk.body, direct.body);
    });
}

#[test]
fn reads_equal_the_requests_of_the_sdk() {
    for kind in [ReadOperation::OneStripe, ReadOperation::Stripes, ReadOperation::Seats] {
        read_twice(kind);
    }
}

/// A `GetItem`, a `BatchGetItem`, a `Query`.
#[derive(Clone, Copy, Debug)]
enum ReadOperation {
    OneStripe,
    Stripes,
    Seats,
}

impl ReadOperation {
    async fn read(self, store: &Store) {
        match self {
            ReadOperation::OneStripe => read(store).await,
            ReadOperation::Stripes => {
                let read = store.read_event(&event(), Some(2)).await;
                assert!(matches!(read, StripesRead::Found(_)), "{read:?}");
            }
            ReadOperation::Seats => {
                let read = store.read_seats(&event(), 1).await;
                assert_eq!(read, SeatsRead::Found(Vec::new()));
            }
        }
    }
}

fn read_twice(kind: ReadOperation) {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        // Created by another client: this one must not have sent a request.
        let direct = StoreSettings { tables: store.tables().clone(), ..settings(engine()) };
        let stripes = match kind {
            ReadOperation::Stripes => 2,
            ReadOperation::OneStripe | ReadOperation::Seats => 1,
        };
        create(&connect(&direct).await, 10, stripes).await;
        kind.read(&store).await;
        let by_sdk = SentRequest::newest(&proxy);
        kind.read(&store).await;
        let direct = SentRequest::newest(&proxy);
        compare(&by_sdk, &direct);
        let json = |request: &SentRequest| {
            serde_json::from_str::<serde_json::Value>(&request.body).unwrap()
        };
        assert_eq!(json(&by_sdk), json(&direct));
    });
}

#[test]
fn sdk_sends_the_next_request_after_a_refusal() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        create(&store, 10, 1).await;
        read(&store).await;
        assert!(!SentRequest::newest(&proxy).is_from_sdk());
        proxy.next(store_fault(400, "InvalidSignatureException"));
        let batch = transaction(&[], vec![tombstone("r1")]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        assert!(!SentRequest::newest(&proxy).is_from_sdk());
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert!(SentRequest::newest(&proxy).is_from_sdk());
        read(&store).await;
        assert!(!SentRequest::newest(&proxy).is_from_sdk());
        // Other errors keep the direct client.
        proxy.next(store_fault(400, "ThrottlingException"));
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Throttled);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert!(!SentRequest::newest(&proxy).is_from_sdk());
    });
}
