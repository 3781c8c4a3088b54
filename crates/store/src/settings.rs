//! Settings of the store client, and the errors of connecting.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::connector::CaBundleError;
use crate::limits;

/// Names of the three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    pub inventory: String,
    pub seats: String,
    pub idempotency: String,
}

impl Default for TableNames {
    fn default() -> Self {
        Self {
            inventory: "inventory".to_owned(),
            seats: "inventory_seats".to_owned(),
            idempotency: "idempotency".to_owned(),
        }
    }
}

/// Source of the credentials that sign requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// The AWS chain: environment, profile (AWS_PROFILE), web identity, container, instance.
    #[default]
    Environment,
    /// A fixed placeholder, for a local engine that does not check signatures.
    Local,
}

/// Settings of one shard's store client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The AWS region.
    pub region: String,
    /// `http://host:port` or `https://host`; `None`: AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL, the profile,
    /// or the endpoint of the region, in this order.
    pub endpoint: Option<String>,
    pub credentials: CredentialSource,
    /// A PEM file of certificate authorities that are trusted in addition to the public ones; `None`:
    /// AWS_CA_BUNDLE, if set.
    pub ca_bundle: Option<PathBuf>,
    pub tables: TableNames,
    /// Time limit of one attempt on the request path, including the connection set-up.
    pub attempt_timeout: Duration,
    /// Retries of a read on the request path after throttling or a lost answer.
    pub read_retries: u32,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            region: "ap-northeast-2".to_owned(),
            endpoint: None,
            credentials: CredentialSource::default(),
            ca_bundle: None,
            tables: TableNames::default(),
            attempt_timeout: limits::STORE_ATTEMPT_TIMEOUT_DEFAULT,
            read_retries: limits::STORE_READ_RETRIES_DEFAULT,
        }
    }
}

impl StoreSettings {
    /// Settings for the embedded engine at `address`.
    pub fn local(address: SocketAddr) -> Self {
        Self {
            endpoint: Some(format!("http://{address}")),
            credentials: CredentialSource::Local,
            ..Self::default()
        }
    }
}

/// Why a store cannot be used. The text names the cause and, if it is known, the remedy.
#[derive(Debug, Error)]
pub enum StoreConnectError {
    #[error(
        "the store's endpoint {url:?} is unusable: {why}; want http://host:port or https://host"
    )]
    Endpoint { url: String, why: String },
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
    #[error(
        "no AWS credentials for the store: {why}; set AWS_PROFILE or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, or give the pod or instance a role"
    )]
    Credentials { why: String },
    #[error("the store at {store} cannot be reached: {why}")]
    Unreachable { store: String, why: String },
    #[error(
        "the table {table:?} is missing in the store at {store}; `inventory-api tables create` \
         creates it, `inventory-api tables check` shows details"
    )]
    TableMissing { store: String, table: String },
    #[error(
        "the store at {store} has no TransactWriteItems ({why}), which is required; use DynamoDB \
         (ScyllaDB Alternator and dynalite do not have it)"
    )]
    NoTransactions { store: String, why: String },
    #[error("the store at {store} refused a test transaction: {why}")]
    Refused { store: String, why: String },
}
