//! Network and clock of the AWS SDK on a shard: HTTP/1 by hyper over the shard's own sockets, without another
//! runtime.
//!
//! The SDK requires `Send + Sync` futures, which a shard's are not. They never leave their shard: the client lives
//! on one shard, and its orchestrator polls where it is polled. [`SendWrapper`] asserts this and panics otherwise.
//!
//! Not here: DynamoDB, retries, interpretation of answers.

mod dial;
mod io;
mod network;
mod origin;
mod pool;
mod proxy;

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{AsyncSleep, HttpClient, RuntimeComponents, Sleep};
use aws_sdk_dynamodb::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use inventory_runtime::timeout;
use send_wrapper::SendWrapper;

pub use network::CaBundleError;
pub(super) use network::{NetworkError, NetworkSettings};
pub use proxy::{Proxies, Proxy, ProxyError};

use crate::clock_skew::ClockSkew;
use dial::Dialer;
use pool::ConnectionPool;

/// HTTP client of the SDK over the shard's connections. Belongs to the shard that created it.
#[derive(Clone)]
pub struct ShardHttp {
    pool: SendWrapper<Rc<ConnectionPool>>,
    /// Limit from sending the request to the end of the answer; none when the caller limits the time.
    read_timeout: Option<Duration>,
}

impl ShardHttp {
    /// Direct connections. `ca_bundle`: a PEM file of certificate authorities that are trusted in addition to the public ones.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn new(ca_bundle: Option<&Path>) -> Result<Self, CaBundleError> {
        Ok(Self::over(NetworkSettings::direct(ca_bundle)?))
    }

    pub(super) fn over(network: NetworkSettings) -> Self {
        let pool = ConnectionPool::new(Dialer::new(network));
        Self { pool: SendWrapper::new(Rc::new(pool)), read_timeout: None }
    }
}

impl ShardHttp {
    /// From the answers of the store so far.
    pub(super) fn clock_skew(&self) -> Option<ClockSkew> {
        self.pool.clock_skew()
    }
}

impl fmt::Debug for ShardHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardHttp")
    }
}

impl HttpClient for ShardHttp {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Self {
            pool: self.pool.clone(),
            read_timeout: settings.read_timeout(),
        })
    }
}

impl ShardHttp {
    /// Sends `request`, as [`ConnectionPool::send`] does, and reads the whole answer within the read timeout.
    ///
    /// # Errors
    /// No connection, no answer, or an answer that is not HTTP.
    pub(super) fn send(
        &self,
        request: http::Request<SdkBody>,
    ) -> impl Future<Output = Result<HttpResponse, ConnectorError>> + 'static {
        let pool = Rc::clone(&self.pool);
        let read_timeout = self.read_timeout;
        async move {
            let response = match read_timeout {
                None => pool.send(request).await?,
                Some(limit) => timeout(limit, pool.send(request)).await.ok_or_else(|| {
                    ConnectorError::timeout(format!("no answer within {limit:?}").into())
                })??,
            };
            HttpResponse::try_from(response.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        }
    }
}

impl HttpConnector for ShardHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()));
        match request {
            Ok(request) => HttpConnectorFuture::new(SendWrapper::new(self.send(request))),
            Err(error) => HttpConnectorFuture::ready(Err(error)),
        }
    }
}

/// The shard's timers, as the SDK's sleep.
#[derive(Clone, Copy, Debug)]
pub struct ShardSleep;

impl AsyncSleep for ShardSleep {
    fn sleep(&self, span: Duration) -> Sleep {
        Sleep::new(SendWrapper::new(inventory_runtime::sleep(span)))
    }
}
