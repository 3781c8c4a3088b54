//! Access of the process to AWS: configuration and credentials, read once and shared by all shards.
//!
//! Not here: how they are read ([`super::aws_chain`]) and renewed ([`super::credentials`]), requests.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use futures::FutureExt as _;

use super::aws_chain::{AwsSource, LoadedAws, StoreRegion};
use super::connect_error::StoreConnectError;
use super::connector::NetworkSettings;
use super::credentials::SharedCredentials;
use super::without_credentials;

/// What the store clients of one process share. Cheap to clone.
#[derive(Clone)]
pub struct AwsAccess(Arc<AccessInner>);

struct AccessInner {
    loaded: LoadedAws,
    credentials: SharedCredentials,
}

impl fmt::Debug for AwsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsAccess").field("region", &self.0.loaded.region).finish_non_exhaustive()
    }
}

impl PartialEq for AwsAccess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AwsAccess {}

impl AwsAccess {
    /// Reads the configuration and fetches credentials, on a thread that renews them from then on. Blocks.
    ///
    /// # Errors
    /// What is missing or invalid.
    pub(super) fn load(source: AwsSource) -> Result<Self, StoreConnectError> {
        let (loaded, credentials) = SharedCredentials::start(source)?;
        Ok(Self(Arc::new(AccessInner { loaded, credentials })))
    }

    pub(super) fn region(&self) -> &StoreRegion {
        &self.0.loaded.region
    }

    pub(super) fn network(&self) -> NetworkSettings {
        self.0.loaded.network.clone()
    }

    pub(super) fn credentials(&self) -> &SharedCredentials {
        &self.0.credentials
    }

    /// The endpoint that a variable or a profile names.
    pub(super) fn named_endpoint(&self) -> Option<&str> {
        self.0.loaded.endpoint.as_deref()
    }

    /// A configuration of the SDK for one shard, still without HTTP client and credentials.
    pub(super) fn builder(&self) -> Builder {
        let builder = Builder::from(&self.0.loaded.config);
        match self.named_endpoint() {
            Some(url) => builder.endpoint_url(url),
            None => builder,
        }
    }

    /// Account of the credentials, if it is known without a request.
    pub fn account(&self) -> Option<&str> {
        self.0.loaded.account.as_deref()
    }

    /// When the current credentials expire; `None` if they never do. A renewal changes it.
    pub fn credentials_expiry(&self) -> Option<SystemTime> {
        self.0.credentials.expiry()
    }

    /// Endpoint of DynamoDB, for messages: without credentials.
    pub fn endpoint(&self) -> String {
        let config = &self.0.loaded.config;
        if let Some(url) = self.named_endpoint() {
            return without_credentials(url);
        }
        let params = Params::builder()
            .region(self.region().name.clone())
            .use_fips(config.use_fips().unwrap_or(false))
            .use_dual_stack(config.use_dual_stack().unwrap_or(false))
            .build();
        let resolver = DefaultResolver::new();
        // Computed at once: the future is never pending.
        let resolve = |params| resolver.resolve_endpoint(&params).now_or_never()?.ok();
        let resolved = params.ok().and_then(resolve);
        resolved.map_or_else(
            || format!("DynamoDB in {}", self.region().name),
            |endpoint| endpoint.url().to_owned(),
        )
    }

    /// Proxy of the connections to [`AwsAccess::endpoint`], without credentials.
    pub fn proxy(&self) -> Option<String> {
        self.0.loaded.network.proxy_for(&self.endpoint())
    }
}
