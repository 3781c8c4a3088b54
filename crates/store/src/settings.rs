//! Settings of the store client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::aws::AwsAccess;
use super::aws_chain::{AwsSource, DEFAULT_REGION, StoreRegion};
use super::connect_error::StoreConnectError;
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
            let access = AwsAccess::load(AwsSource {
                region: self.region.clone(),
                profile: self.profile.clone(),
                endpoint: self.endpoint.clone(),
                ca_bundle: self.ca_bundle.clone(),
            })?;
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
