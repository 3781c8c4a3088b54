//! OTLP: one export of spans over gRPC or over HTTP with protobuf bodies, with or without TLS.
//!
//! A collector is reached through the proxy that the environment names for its URL, by a tunnel. Not here: batches and queues (`span_export`).

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::{self, ClientConfig, RootCertStore};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Extensions};
use tonic_types::StatusExt as _;

use crate::build_info;
use crate::config::{OtlpCompression, OtlpConfig, OtlpProtocol};
use crate::limits;
use inventory_store::{Proxies, Proxy, without_credentials};

/// What is needed to reach a collector; everything that can be wrong with it is checked when it is created.
#[derive(Clone, Debug)]
pub(crate) struct OtlpTarget {
    config: OtlpConfig,
    proxy: Option<Proxy>,
    tls: Option<TlsSettings>,
}

#[derive(Clone)]
struct TlsSettings {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsSettings").field(&self.name).finish()
    }
}

impl OtlpTarget {
    /// # Errors
    /// A PEM file that cannot be used, or a host that no certificate can name.
    pub(crate) fn new(config: OtlpConfig, proxies: &Proxies) -> Result<Self, String> {
        let proxy = proxies.for_url(&config.endpoint);
        let is_https = config.endpoint.scheme_str() == Some("https");
        let tls = if is_https { Some(TlsSettings::read(&config)?) } else { None };
        Ok(Self { config, proxy, tls })
    }

    /// Time limit of one export, with its repetitions.
    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Creates the client inside a runtime, without a connection.
    pub(super) fn client(self) -> OtlpClient {
        match self.config.protocol {
            OtlpProtocol::Grpc => OtlpClient::Grpc {
                client: match self.config.compression {
                    OtlpCompression::None => TraceServiceClient::new(self.channel()),
                    OtlpCompression::Gzip => TraceServiceClient::new(self.channel())
                        .send_compressed(CompressionEncoding::Gzip),
                },
                metadata: MetadataMap::from_headers(self.config.headers),
            },
            OtlpProtocol::HttpProtobuf => OtlpClient::Http(self),
        }
    }

    fn channel(&self) -> Channel {
        let target = self.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(target.connect().await?)) }
        });
        let endpoint = Endpoint::from(self.config.endpoint.clone());
        let endpoint = endpoint.user_agent(user_agent()).unwrap_or_else(|_| {
            // A version that is no header value: without one.
            Endpoint::from(self.config.endpoint.clone())
        });
        endpoint.connect_with_connector_lazy(connect)
    }

    async fn connect(&self) -> io::Result<Box<dyn CollectorStream>> {
        let endpoint = &self.config.endpoint;
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = endpoint.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let socket = match &self.proxy {
            None => connect_to(host, port).await?,
            Some(proxy) => tunnel(proxy, host, port).await.map_err(|error| {
                let Proxy { host, port, .. } = proxy;
                io::Error::new(error.kind(), format!("through the proxy {host}:{port}: {error}"))
            })?,
        };
        let Some(TlsSettings { connector, name }) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let stream = connector.connect(name.clone(), socket.compat()).await.map_err(|error| {
            io::Error::new(error.kind(), format!("TLS with {host}:{port}: {error}"))
        })?;
        Ok(Box::new(stream.compat()))
    }

    async fn post(&self, body: Vec<u8>) -> Result<usize, ExportError> {
        let endpoint = &self.config.endpoint;
        let failed = |error: &dyn std::fmt::Display| ExportError::transient(error.to_string());
        let stream = self.connect().await.map_err(|error| failed(&error))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
        let _connection = AbortOnDrop(tokio::spawn(async move {
            // A request learns about the end of its connection through `sender`.
            let _ = connection.await;
        }));
        let body = match self.config.compression {
            OtlpCompression::None => body,
            OtlpCompression::Gzip => gzip(&body).map_err(|error| failed(&error))?,
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let path = endpoint.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(path).map_err(|error| failed(&error))?;
        let headers = request.headers_mut();
        let host = endpoint.authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit('@').next().unwrap_or_default();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| failed(&error))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if self.config.compression == OtlpCompression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Ok(agent) = HeaderValue::from_str(&user_agent()) {
            headers.insert(USER_AGENT, agent);
        }
        headers.extend(self.config.headers.clone());
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limits::SPAN_EXPORT_ANSWER_BYTES_MAX).collect().await;
        if head.status.is_success() {
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Ok(rejected_spans(ExportTraceServiceResponse::decode(body).ok()));
        }
        let is_transient = matches!(
            head.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let after = head.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        Err(ExportError {
            text: format!(
                "HTTP status {} from {}",
                head.status,
                without_credentials(&endpoint.to_string())
            ),
            is_transient,
            retry_after: after.and_then(|after| after.parse().ok()).map(Duration::from_secs),
        })
    }
}

async fn connect_to(host: &str, port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((host, port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot connect to {host}:{port}: {error}"))
    })?;
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// Connects to `proxy` and asks it for a tunnel to the collector. The proxy resolves the name.
async fn tunnel(proxy: &Proxy, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut socket = connect_to(&proxy.host, proxy.port).await?.compat();
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    proxy.tunnel(&mut socket, &authority).await?;
    Ok(socket.into_inner())
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    compressed.write_all(body)?;
    compressed.finish()
}

/// A connection to a collector.
trait CollectorStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> CollectorStream for S {}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A failed export.
#[derive(Debug)]
pub(super) struct ExportError {
    pub(super) text: String,
    /// Whether the collector may accept the same spans later.
    pub(super) is_transient: bool,
    /// Pause that the collector asks for.
    pub(super) retry_after: Option<Duration>,
}

impl ExportError {
    fn transient(text: String) -> Self {
        Self { text, is_transient: true, retry_after: None }
    }
}

/// Sends spans to one collector.
pub(super) enum OtlpClient {
    Grpc { client: TraceServiceClient<Channel>, metadata: MetadataMap },
    Http(OtlpTarget),
}

impl OtlpClient {
    /// Makes one attempt; returns how many spans the collector rejected.
    ///
    /// # Errors
    /// No answer, or a refusal of all spans.
    pub(super) async fn export(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<usize, ExportError> {
        match self {
            OtlpClient::Http(target) => target.post(request.encode_to_vec()).await,
            OtlpClient::Grpc { client, metadata } => {
                let extensions = Extensions::default();
                let request = tonic::Request::from_parts(metadata.clone(), extensions, request);
                match client.export(request).await {
                    Ok(response) => Ok(rejected_spans(Some(response.into_inner()))),
                    Err(status) => Err(of_status(&status)),
                }
            }
        }
    }
}

fn rejected_spans(response: Option<ExportTraceServiceResponse>) -> usize {
    let partial = response.and_then(|response| response.partial_success);
    partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0))
}

/// Which statuses are transient is OTLP's list.
fn of_status(status: &tonic::Status) -> ExportError {
    let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let is_transient = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => retry_after.is_some(),
        _ => false,
    };
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    ExportError { text, is_transient, retry_after }
}

fn user_agent() -> String {
    format!("inventory-api/{}", build_info::VERSION)
}

impl TlsSettings {
    fn read(config: &OtlpConfig) -> Result<Self, String> {
        let host = config.endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| format!("{host:?} cannot be the name of a certificate: {error}"))?;
        let mut roots = RootCertStore::empty();
        match &config.authorities {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let (added, _) = roots.add_parsable_certificates(certificates(path)?);
                if added == 0 {
                    return Err(format!("{} holds no certificate authority", path.display()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut settings = match &config.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", key.display());
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fail(&error))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, private)
                    .map_err(|error| fail(&error))?
            }
        };
        settings.alpn_protocols = vec![match config.protocol {
            OtlpProtocol::Grpc => b"h2".to_vec(),
            OtlpProtocol::HttpProtobuf => b"http/1.1".to_vec(),
        }];
        Ok(Self { connector: TlsConnector::from(Arc::new(settings)), name })
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fail(&error))?;
    certificates.collect::<Result<_, _>>().map_err(|error| fail(&error))
}
