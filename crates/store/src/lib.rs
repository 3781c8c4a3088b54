//! DynamoDB client of one shard on the shard's own executor: the direct client for the request path, the AWS SDK for
//! all other calls.
//!
//! One [`Store`] per shard, created on that shard and never shared. A transaction is one attempt with a time
//! limit and without retries: the engine decides what is sent again, under the same token. Reads are retried
//! here, as often as the settings allow. [`tables`] has the table layout, `codec` the stored format.
//!
//! Not here: reservation rules, retry decisions for writes, gRPC.

mod admin;
mod audit;
mod aws;
mod aws_chain;
mod batch;
mod capacity;
mod clock_skew;
mod codec;
mod conditional_update;
mod connect_error;
mod connector;
mod credentials;
mod direct_client;
#[cfg(feature = "embedded")]
pub mod embedded;
mod events;
mod expiry;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod membership;
mod observer;
mod page;
mod probe;
mod read_batcher;
mod request_template;
mod reservations;
mod seat_reads;
mod seats;
mod settings;
pub mod tables;
mod transact;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Builder, Credentials, Region, StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error as ThisError;

pub use admin::SetTotalOutcome;
pub use audit::{AuditStripes, PlacedSeat, RepairOutcome};
pub use aws::AwsAccess;
pub use aws_chain::{DEFAULT_REGION, StoreRegion};
pub use capacity::CapacityKind;
pub use clock_skew::ClockSkew;
pub use codec::StoredRecord;
pub use connect_error::StoreConnectError;
pub use connector::{CaBundleError, Proxies, Proxy, ProxyError, ShardHttp, ShardSleep};
pub use events::{CreateEventOutcome, EventAbout, NewEvent};
pub use observer::{NoObserver, StoreCall, StoreObserver};
pub use page::{Page, PageToken};
pub use seats::{SeatComparison, SeatOutcome};
pub use settings::{CredentialSource, StoreSettings, TableNames};

use capacity::CapacityReport;
use codec::TransactionEncoder;
use credentials::{CurrentIdentity, SharedCredentials};
use direct_client::DirectClient;
use failure::{CallFailure, FailureKind};
use observer::RateLimitedLog;
use read_batcher::ReadBatcher;
use request_template::TemplateRecorder;

use inventory_core::ids::EventId;
use inventory_runtime::{Task, clock};

/// Why a call that is not an effect of the engine failed: admin calls, audits, GetReservation, reads of the expiry
/// index.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum StoreError {
    #[error("{0}")]
    Invalid(String),
    #[error("the store throttles: {0}")]
    Throttled(String),
    #[error("the store cannot be reached or did not answer: {0}")]
    Unavailable(String),
    /// The store accepts no such call until the setup is corrected: permissions, credentials, tables, a full disk.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The store answered that this request is invalid or its conditions are false.
    #[error("the store rejected the request: {0}")]
    Rejected(String),
    #[error("the store contains an item that this server cannot read: {0}")]
    Corrupt(String),
}

/// DynamoDB client of one shard. Cheap to clone; stays on its shard.
#[derive(Clone)]
pub struct Store {
    inner: Rc<StoreInner>,
}

struct StoreInner {
    client: Client,
    direct_client: DirectClient,
    tables: TableNames,
    /// The endpoint, for messages.
    place: String,
    attempt_timeout: Duration,
    read_retries: u32,
    encoder: TransactionEncoder,
    read_batcher: ReadBatcher,
    log: Rc<RateLimitedLog>,
    /// `None`: they never change.
    credentials: Option<SharedCredentials>,
    /// Copies renewed credentials to this shard; ends with the store.
    _following: Option<Task<()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("place", &self.inner.place)
            .field("tables", &self.inner.tables)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Creates the client of the current shard. Does not contact the store; [`Store::probe`] does. Blocks if the
    /// settings are not resolved ([`StoreSettings::resolve`]): a server resolves them before its shards start.
    ///
    /// # Errors
    /// Whatever [`StoreConnectError`] names except `Unreachable`, `TableMissing`, `NoTransactions` and `Refused`.
    pub async fn connect(
        settings: StoreSettings,
        observer: Rc<dyn StoreObserver>,
    ) -> Result<Self, StoreConnectError> {
        let log = Rc::new(RateLimitedLog::new(observer));
        if let Some(url) = &settings.endpoint {
            check_endpoint(url)?;
        }
        let settings = settings.resolve()?;
        let ShardAccess { builder, http, identity, following } = ShardAccess::of(&settings)?;
        let credentials = settings.aws().map(|access| access.credentials().clone());
        let templates = TemplateRecorder::new();
        let config = builder
            .behavior_version(behavior())
            .interceptor(templates.clone())
            .http_client(http.clone())
            .sleep_impl(ShardSleep)
            .region(Region::new(settings.region_name().to_owned()))
            // Never called, because the identity cache answers, but the SDK requires one.
            .credentials_provider(placeholder())
            .identity_cache(identity.clone())
            // The engine decides what is sent again: a transaction with an unknown outcome under its token
            // until the outcome is known, other entries in a new transaction. `Store` limits the time of each
            // attempt.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self {
            inner: Rc::new(StoreInner {
                client: Client::from_conf(config),
                direct_client: DirectClient::new(templates, http, identity),
                place: place(&settings),
                encoder: TransactionEncoder::new(&settings.tables),
                read_batcher: ReadBatcher::default(),
                tables: settings.tables,
                attempt_timeout: settings.attempt_timeout,
                read_retries: settings.read_retries,
                log,
                credentials,
                _following: following,
            }),
        })
    }

    /// Names of the tables.
    pub fn tables(&self) -> &TableNames {
        &self.inner.tables
    }

    /// The endpoint or region that requests go to, for messages.
    pub fn endpoint(&self) -> &str {
        &self.inner.place
    }

    /// How far the local clock is from the store's; `None` before the first answer with a date.
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.inner.direct_client.clock_skew()
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn log(&self, line: &str) {
        self.inner.log.log(line);
    }

    /// Counts and logs items that this server cannot have written.
    fn report_damage(&self, event: &EventId, what: &str) {
        self.inner.log.observer.damaged();
        self.log(&format!("event {event} is damaged: {what}"));
    }

    /// Makes one attempt, measured and limited in time.
    async fn call<T, E>(
        &self,
        operation: &'static str,
        table: &str,
        limit: Duration,
        attempt: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, CallFailure<E>>
    where
        T: CapacityReport,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let started = clock::monotonic();
        let result = failure::attempt(limit, attempt).await;
        if let Err(failure) = &result
            && failure.kind == FailureKind::Refused
        {
            self.inner.direct_client.templates.forget();
            if let (true, Some(credentials)) =
                (failure.is_about_credentials(), &self.inner.credentials)
            {
                credentials.report_refusal();
            }
        }
        let observer = &self.inner.log.observer;
        for capacity in result.as_ref().map_or(&[][..], T::capacity) {
            let table_name = capacity.table_name().unwrap_or(table);
            observer.consumed(table_name, T::KIND, capacity.capacity_units.unwrap_or(0.0));
        }
        let status = result.as_ref().map_or_else(|f| f.kind.status(), |_| "ok");
        observer.called(StoreCall {
            operation,
            table,
            status,
            latency: clock::monotonic().since(started),
        });
        result
    }

    /// As [`Store::call`], for idempotent calls off the request path: retried a few times after throttling
    /// or a lost answer.
    async fn call_with_retries<T, E, F>(
        &self,
        operation: &'static str,
        table: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, CallFailure<E>>
    where
        T: CapacityReport,
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let limit = limits::STORE_ADMIN_CALL_TIMEOUT;
        let tries = limits::STORE_ADMIN_ATTEMPTS_MAX;
        self.retry(operation, table, limit, tries, attempt).await
    }

    /// As [`Store::call`], for reads of the request path: retried as often as the settings allow.
    async fn read<T, E, F>(
        &self,
        operation: &'static str,
        table: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, CallFailure<E>>
    where
        T: CapacityReport,
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let limit = self.inner.attempt_timeout;
        let tries = 1 + self.inner.read_retries;
        self.retry(operation, table, limit, tries, attempt).await
    }

    /// Retries an idempotent call with growing pauses, at most `tries` attempts.
    async fn retry<T, E, F>(
        &self,
        operation: &'static str,
        table: &str,
        limit: Duration,
        tries: u32,
        attempt: impl Fn() -> F,
    ) -> Result<T, CallFailure<E>>
    where
        T: CapacityReport,
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut pause = limits::RETRY_BACKOFF_MIN;
        let mut made = 1;
        loop {
            let result = self.call(operation, table, limit, attempt()).await;
            match result {
                Err(CallFailure {
                    kind: FailureKind::Throttled | FailureKind::Unknown | FailureKind::Conflict,
                    ..
                }) if made < tries => {}
                settled => return settled,
            }
            inventory_runtime::sleep(pause).await;
            pause = (pause * 4).min(limits::RETRY_BACKOFF_MAX);
            made += 1;
        }
    }
}

impl<E: ProvideErrorMetadata + Error + 'static> From<CallFailure<E>> for StoreError {
    fn from(failure: CallFailure<E>) -> Self {
        let text = failure.text();
        match failure.kind {
            FailureKind::Throttled => StoreError::Throttled(text),
            FailureKind::Unknown | FailureKind::Conflict | FailureKind::NotSent => {
                StoreError::Unavailable(text)
            }
            FailureKind::Refused => StoreError::Refused(text),
            FailureKind::Cancelled | FailureKind::Rejected => StoreError::Rejected(text),
        }
    }
}

/// Pins the SDK's defaults, so that an update of the SDK does not change them.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// What one shard makes of the settings.
struct ShardAccess {
    builder: Builder,
    http: ShardHttp,
    identity: CurrentIdentity,
    following: Option<Task<()>>,
}

impl ShardAccess {
    fn of(settings: &StoreSettings) -> Result<Self, StoreConnectError> {
        let Some(access) = settings.aws() else {
            let http = ShardHttp::new(settings.ca_bundle.as_deref())?;
            let identity = CurrentIdentity::fixed(placeholder().into());
            let builder = Builder::new();
            let builder = match &settings.endpoint {
                Some(url) => builder.endpoint_url(url),
                None => builder,
            };
            return Ok(Self { builder, http, identity, following: None });
        };
        let (identity, following) = access.credentials().on_shard();
        Ok(Self {
            builder: access.builder(),
            http: ShardHttp::over(access.network()),
            identity,
            following: Some(following),
        })
    }
}

/// Credentials for a local engine that does not check signatures.
fn placeholder() -> Credentials {
    Credentials::new("local", "local", None, None, "local")
}

fn check_endpoint(url: &str) -> Result<(), StoreConnectError> {
    let fail = |why: String| StoreConnectError::Endpoint { url: without_credentials(url), why };
    let uri: http::Uri = url.parse().map_err(|error| fail(format!("{error}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(fail("it has no scheme http or https".to_owned())),
    }
}

/// Where the store is, for messages: without the credentials that a URL may have.
fn place(settings: &StoreSettings) -> String {
    let named = settings.aws().and_then(AwsAccess::named_endpoint);
    match named.or(settings.endpoint.as_deref()) {
        Some(url) => without_credentials(url),
        None => format!("DynamoDB in {}", settings.region_name()),
    }
}

/// The URL without the user and password that it may have, for messages. Also for a text that is no URL, because a
/// password may be the reason.
pub fn without_credentials(url: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    match url[start..].rfind('@') {
        Some(end) => url[..start].to_owned() + &url[start + end + 1..],
        None => url.to_owned(),
    }
}
