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
mod batch;
mod capacity;
mod clock_skew;
mod codec;
mod conditional_update;
mod connector;
mod credentials;
mod direct_client;
#[cfg(feature = "embedded")]
pub mod embedded;
mod events;
mod expiry;
mod failure;
pub mod limits;
mod observer;
mod page;
mod probe;
mod read_batcher;
mod request_template;
mod reservations;
mod seats;
mod settings;
pub mod tables;
mod transact;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Builder, Credentials, Region, SharedCredentialsProvider,
    StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error as ThisError;

pub use admin::SetTotalOutcome;
pub use audit::{AuditStripes, PlacedSeat, RepairOutcome};
pub use capacity::CapacityKind;
pub use clock_skew::ClockSkew;
pub use codec::StoredRecord;
pub use connector::{CaBundleError, ShardHttp, ShardSleep};
pub use events::{CreateEventOutcome, EventAbout, NewEvent};
pub use observer::{NoObserver, StoreCall, StoreObserver};
pub use page::{Page, PageToken};
pub use seats::SeatOutcome;
pub use settings::{CredentialSource, StoreConnectError, StoreSettings, TableNames};

use capacity::CapacityReport;
use codec::TransactionEncoder;
use direct_client::DirectClient;
use failure::{CallFailure, FailureKind};
use observer::RateLimitedLog;
use read_batcher::ReadBatcher;
use request_template::TemplateRecorder;

use inventory_core::ids::EventId;
use inventory_runtime::{Task, clock};

/// Why a call outside the request path failed.
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
    /// Renews credentials ahead of their expiry; ends with the store.
    _renewing: Option<Task<()>>,
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
    /// Creates the client of the current shard: reads the AWS configuration and loads credentials. Does not
    /// contact the store; [`Store::probe`] does.
    ///
    /// # Errors
    /// A CA bundle that cannot be read, an endpoint that is no URL, or no credentials.
    pub async fn connect(
        settings: StoreSettings,
        observer: Rc<dyn StoreObserver>,
    ) -> Result<Self, StoreConnectError> {
        let log = Rc::new(RateLimitedLog::new(observer));
        let bundle = settings
            .ca_bundle
            .clone()
            .or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(PathBuf::from))
            .filter(|path| !path.as_os_str().is_empty());
        let http = ShardHttp::new(bundle.as_deref())?;
        if let Some(url) = &settings.endpoint {
            check_endpoint(url)?;
        }
        let (builder, provider) = configure(&settings, &http).await;
        let no_provider = || StoreConnectError::Credentials {
            why: "no source of credentials is configured".to_owned(),
        };
        let provider = provider.ok_or_else(no_provider)?;
        let loaded = credentials::load(provider.clone(), log.clone()).await;
        let (identity, renewing) = loaded.map_err(|why| StoreConnectError::Credentials { why })?;
        let templates = TemplateRecorder::new();
        let config = builder
            .behavior_version(behavior())
            .interceptor(templates.clone())
            .http_client(http.clone())
            .sleep_impl(ShardSleep)
            .region(Region::new(settings.region.clone()))
            .credentials_provider(provider)
            .identity_cache(identity.clone())
            // The engine retries, with the same token and within the caller's deadline; `Store` limits the
            // time of each attempt.
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
                _renewing: renewing,
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
        if matches!(&result, Err(failure) if failure.kind == FailureKind::Refused) {
            self.inner.direct_client.templates.forget();
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

async fn configure(
    settings: &StoreSettings,
    http: &ShardHttp,
) -> (Builder, Option<SharedCredentialsProvider>) {
    let (mut builder, provider) = match settings.credentials {
        CredentialSource::Local => {
            let local = Credentials::new("local", "local", None, None, "local");
            let provider = SharedCredentialsProvider::new(local);
            (Builder::new(), Some(provider))
        }
        CredentialSource::Environment => {
            let loaded = aws_config::defaults(behavior())
                .http_client(http.clone())
                .sleep_impl(ShardSleep)
                .region(Region::new(settings.region.clone()))
                .load()
                .await;
            (Builder::from(&loaded), loaded.credentials_provider())
        }
    };
    if let Some(url) = &settings.endpoint {
        builder = builder.endpoint_url(url);
    }
    (builder, provider)
}

fn check_endpoint(url: &str) -> Result<(), StoreConnectError> {
    let fail = |why: String| StoreConnectError::Endpoint { url: url.to_owned(), why };
    let uri: http::Uri = url.parse().map_err(|error| fail(format!("{error}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(fail("it has no scheme http or https".to_owned())),
    }
}

/// Where the store is, for messages: without the credentials that a URL may have.
fn place(settings: &StoreSettings) -> String {
    let variable = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
    settings
        .endpoint
        .clone()
        .or_else(|| variable("AWS_ENDPOINT_URL_DYNAMODB"))
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .map(|url| match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(end)) if scheme < end => {
                url[..scheme + 3].to_owned() + &url[end + 1..]
            }
            _ => url,
        })
        .unwrap_or_else(|| format!("DynamoDB in {}", settings.region))
}
