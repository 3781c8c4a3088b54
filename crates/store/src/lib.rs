//! The store: DynamoDB through the AWS SDK, driven by the shard's own executor.
//!
//! One [`Store`] per shard, made on it and never shared. A transaction is one attempt with a bound in
//! time and no retry of its own: the domain decides what is sent again, under the same token. Reads
//! are tried again here, as often as the settings say. The tables' layout is in [`tables`], the stored format in `codec`.
//!
//! Must not live here: what a reservation means, when to try again, gRPC.

mod admin;
mod audit;
mod batch;
mod capacity;
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

pub use admin::{EventPage, SetTotalOutcome};
pub use audit::{AuditPage, AuditStripes, AuditToken, PlacedSeat, RepairOutcome};
pub use capacity::CapacityKind;
pub use codec::StoredRecord;
pub use connector::{CaBundleError, ShardHttp, ShardSleep};
pub use events::{CreateEventOutcome, EventAbout, NewEvent};
pub use expiry::{ExpiryPage, ExpiryToken, expiry_bucket, expiry_minute, expiry_shard};
pub use observer::{NoObserver, StoreCall, StoreObserver};
pub use reservations::{PageToken, ReservationPage};
pub use seats::SeatOutcome;
pub use settings::{CredentialSource, StoreConnectError, StoreSettings, TableNames};

use capacity::CapacityReport;
use codec::TransactionEncoder;
use connector::within;
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
    #[error("the store refused: {0}")]
    Refused(String),
    #[error("the store holds what this server did not write: {0}")]
    Corrupt(String),
}

/// One shard's way to the store. Cheap to clone; stays on its shard.
#[derive(Clone)]
pub struct Store {
    inner: Rc<StoreInner>,
}

struct StoreInner {
    client: Client,
    shortcut: DirectClient,
    tables: TableNames,
    /// For messages: where requests go, as far as the settings say.
    place: String,
    attempt_timeout: Duration,
    read_retries: u32,
    encoder: TransactionEncoder,
    gathering: ReadBatcher,
    journal: Rc<RateLimitedLog>,
    /// Keeps credentials fresh; ends with the store.
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
    /// Makes the client of the shard this runs on: reads the AWS configuration and loads
    /// credentials. Does not talk to the store yet; [`Store::probe`] does.
    ///
    /// # Errors
    /// A CA bundle that cannot be read, an endpoint that is no URL, or no credentials.
    pub async fn connect(
        settings: StoreSettings,
        observer: Rc<dyn StoreObserver>,
    ) -> Result<Self, StoreConnectError> {
        let journal = Rc::new(RateLimitedLog::new(observer));
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
        let loaded = credentials::load(provider.clone(), journal.clone()).await;
        let (identity, renewing) = loaded.map_err(|why| StoreConnectError::Credentials { why })?;
        let trail = TemplateRecorder::new();
        let config = builder
            .behavior_version(behavior())
            .interceptor(trail.clone())
            .http_client(http.clone())
            .sleep_impl(ShardSleep)
            .region(Region::new(settings.region.clone()))
            .credentials_provider(provider)
            .identity_cache(identity.clone())
            // The domain retries, with the same token and inside its deadline; `Store` keeps the
            // time of an attempt.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self {
            inner: Rc::new(StoreInner {
                client: Client::from_conf(config),
                shortcut: DirectClient::new(trail, http, identity),
                place: place(&settings),
                encoder: TransactionEncoder::new(&settings.tables),
                gathering: ReadBatcher::default(),
                tables: settings.tables,
                attempt_timeout: settings.attempt_timeout,
                read_retries: settings.read_retries,
                journal,
                _renewing: renewing,
            }),
        })
    }

    /// The tables this store works on.
    pub fn tables(&self) -> &TableNames {
        &self.inner.tables
    }

    /// Where requests go, as far as the settings say; for messages.
    pub fn endpoint(&self) -> &str {
        &self.inner.place
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn log(&self, line: &str) {
        self.inner.journal.log(line);
    }

    /// Says that an event's items are not as this server writes them.
    fn report_damage(&self, event: &EventId, what: &str) {
        self.inner.journal.observer.damaged();
        self.log(&format!("event {event} is damaged: {what}"));
    }

    /// One attempt, measured and bounded.
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
        let result = match within(limit, attempt).await {
            Some(Ok(output)) => Ok(output),
            Some(Err(error)) => Err(CallFailure::of(error)),
            None => Err(CallFailure::timed_out()),
        };
        if matches!(&result, Err(failure) if failure.kind == FailureKind::Refused) {
            self.inner.shortcut.trail.forget();
        }
        let observer = &self.inner.journal.observer;
        for told in result.as_ref().map_or(&[][..], T::capacity) {
            let named = told.table_name().unwrap_or(table);
            observer.consumed(named, T::KIND, told.capacity_units.unwrap_or(0.0));
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

    /// As [`Store::call`], for calls off the request path that can be made again without harm:
    /// tried a few times when throttled or without an answer.
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
        let tries = limits::STORE_ADMIN_TRIES_MAX;
        self.retry(operation, table, limit, tries, attempt).await
    }

    /// As [`Store::call`], for reads of the request path: made again as often as the settings say.
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

    /// Makes a harmless call until it is answered, at most `tries` times, with growing pauses.
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
            FailureKind::Unknown | FailureKind::Conflict => StoreError::Unavailable(text),
            FailureKind::Cancelled | FailureKind::Rejected | FailureKind::Refused => {
                StoreError::Refused(text)
            }
        }
    }
}

/// What the SDK's defaults mean is pinned here, not by the version that happens to be compiled.
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
    let fail = |why: String| StoreConnectError::Endpoint {
        url: url.to_owned(),
        why,
    };
    let uri: http::Uri = url.parse().map_err(|error| fail(format!("{error}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(fail("it has no scheme http or https".to_owned())),
    }
}

fn place(settings: &StoreSettings) -> String {
    let variable = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
    settings
        .endpoint
        .clone()
        .or_else(|| variable("AWS_ENDPOINT_URL_DYNAMODB"))
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .unwrap_or_else(|| format!("DynamoDB in {}", settings.region))
}
