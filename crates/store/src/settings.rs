//! Settings of the store client, and the errors of connecting.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::aws::AwsAccess;
use super::connector::{CaBundleError, NetworkError, ProxyError};
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// The AWS chain: environment, profile, web identity, container, instance.
    #[default]
    Environment,
    /// The chain, already evaluated for all shards of this process.
    Shared(AwsAccess),
    /// A fixed placeholder, for a local engine that does not check signatures.
    Local,
}

/// The region that is used if nothing names one.
pub const DEFAULT_REGION: &str = "ap-northeast-2";

/// An AWS region, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRegion {
    pub name: String,
    /// For messages: a variable, a profile.
    pub source: String,
}

impl Default for StoreRegion {
    fn default() -> Self {
        Self { name: DEFAULT_REGION.to_owned(), source: "default".to_owned() }
    }
}

/// Settings of the store clients of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The AWS region; `None`: that of the profile, of the instance, or [`DEFAULT_REGION`].
    pub region: Option<StoreRegion>,
    /// Profile of the AWS configuration files; `None`: the default one.
    pub profile: Option<String>,
    /// `http://host:port` or `https://host`; `None`: AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL, the profile,
    /// or the endpoint of the region, in this order.
    pub endpoint: Option<String>,
    pub credentials: CredentialSource,
    /// A PEM file of certificate authorities that are trusted in addition to the public ones; `None`: AWS_CA_BUNDLE
    /// or the profile's, if set.
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
            region: None,
            profile: None,
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

    /// Evaluates the AWS chain for the process: the result has a region and shared credentials. Blocks; must run before
    /// the shards start, not on one of them. Settings that are already evaluated do not change.
    ///
    /// # Errors
    /// What is missing or invalid in the AWS configuration.
    pub fn resolve(mut self) -> Result<Self, StoreConnectError> {
        if self.credentials == CredentialSource::Environment {
            let access = AwsAccess::load(&self)?;
            self.region = Some(access.region().clone());
            self.credentials = CredentialSource::Shared(access);
        }
        Ok(self)
    }

    /// The AWS configuration, once resolved.
    pub fn aws(&self) -> Option<&AwsAccess> {
        match &self.credentials {
            CredentialSource::Shared(access) => Some(access),
            CredentialSource::Environment | CredentialSource::Local => None,
        }
    }

    /// Name of the region.
    pub fn region_name(&self) -> &str {
        self.region.as_ref().map_or(DEFAULT_REGION, |region| &region.name)
    }
}

impl From<NetworkError> for StoreConnectError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::CaBundle(error) => Self::CaBundle(error),
            NetworkError::Proxy(error) => Self::Proxy(error),
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
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(
        "profile {profile:?} gets its credentials by {key}, which this server does not support; add a profile with \
         `credential_process = aws configure export-credentials --profile {profile} --format process` and set \
         AWS_PROFILE to it"
    )]
    UnsupportedSource {
        profile: String,
        /// The key in the profile.
        key: &'static str,
    },
    #[error("no executor to read the AWS configuration: {0}")]
    Executor(std::io::Error),
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
