//! Why a store cannot be used, with the remedy.

use thiserror::Error;

use super::connector::{CaBundleError, NetworkError, ProxyError};

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

impl From<NetworkError> for StoreConnectError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::CaBundle(error) => Self::CaBundle(error),
            NetworkError::Proxy(error) => Self::Proxy(error),
        }
    }
}
