//! Spans that reach a collector over each protocol, with and without TLS.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use http::{HeaderMap, Response};
use prost::Message as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

use super::*;
use crate::config::OtlpProtocol;
use crate::telemetry::trace::tests::call_span;

/// What a collector received: path, headers, body without framing.
type Received = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

struct Collector {
    address: SocketAddr,
    received: Received,
}

impl Collector {
    /// Answers all exports; the first `unavailable` of them with a transient refusal.
    async fn start(
        protocol: OtlpProtocol,
        tls: Option<Arc<ServerConfig>>,
        unavailable: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Received::default();
        let shared = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (received, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, protocol, received, unavailable).await,
                        Some(config) => {
                            let acceptor = TlsAcceptor::from(config);
                            if let Ok(stream) = acceptor.accept(socket.compat()).await {
                                serve(stream.compat(), protocol, received, unavailable).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, received }
    }

    fn config(&self, protocol: OtlpProtocol, scheme: &str) -> OtlpConfig {
        let path = match protocol {
            OtlpProtocol::Grpc => "/",
            OtlpProtocol::HttpProtobuf => "/v1/traces",
        };
        let mut headers = HeaderMap::new();
        headers.insert("tenant", "a".parse().unwrap());
        OtlpConfig {
            endpoint: format!("{scheme}://{}{path}", self.address).parse().unwrap(),
            endpoint_is_set: true,
            protocol,
            headers,
            timeout: Duration::from_secs(20),
            authorities: None,
            identity: None,
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: OtlpProtocol,
    received: Received,
    unavailable: usize,
) {
    let count = |path: String, headers: HeaderMap, body: Bytes| {
        let mut all = received.lock().unwrap();
        all.push((path, headers, body));
        all.len() <= unavailable
    };
    match protocol {
        OtlpProtocol::HttpProtobuf => {
            let (path, headers, body, mut stream) = read_http(stream).await;
            let line = match count(path, headers, body) {
                true => "503 Unavailable",
                false => "200 OK",
            };
            let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        OtlpProtocol::Grpc => {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (head, mut body) = request.into_parts();
                let message = body.data().await.unwrap().unwrap();
                let _ = body.flow_control().release_capacity(message.len());
                let is_refused =
                    count(head.uri.path().to_owned(), head.headers, message.slice(5..));
                let response = Response::builder().header("content-type", "application/grpc");
                let response = match is_refused {
                    true => response.header("grpc-status", "14").body(()).unwrap(),
                    false => response.body(()).unwrap(),
                };
                let mut stream = respond.send_response(response, is_refused).unwrap();
                if !is_refused {
                    stream.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    stream.send_trailers(trailers).unwrap();
                }
            }
        }
    }
}

/// Reads one HTTP/1 request with a content-length.
async fn read_http<S: AsyncRead + Unpin>(mut stream: S) -> (String, HeaderMap, Bytes, S) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (path, headers, body.into(), stream)
}

async fn export(config: OtlpConfig) -> Result<usize, ExportError> {
    let resource = vec![("service.name".to_owned(), "tickets".to_owned())];
    let client = OtlpTarget::new(config).unwrap().client();
    let mut exporter = SpanExporter { client, resource: as_resource(resource) };
    exporter.export(vec![call_span()]).await
}

/// A certificate of this machine, as PEM, and a server's configuration with it.
fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (made.cert.pem(), Arc::new(config))
}

const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf];

#[tokio::test]
async fn spans_arrive_over_both_protocols_with_headers_and_resource() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, None, 0).await;
        assert_eq!(export(collector.config(protocol, "http")).await.unwrap(), 0);
        let received = collector.received.lock().unwrap();
        let (path, headers, body) = &received[0];
        let expected = match protocol {
            OtlpProtocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            OtlpProtocol::HttpProtobuf => "/v1/traces",
        };
        assert_eq!(path, expected);
        assert_eq!(headers["tenant"], "a");
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        let spans = &request.resource_spans[0];
        assert_eq!(spans.scope_spans[0].spans[0].name, "call");
        let resource = format!("{:?}", spans.resource);
        assert!(resource.contains("tickets") && resource.contains("telemetry.sdk"), "{resource}");
    }
}

#[tokio::test]
async fn collector_with_tls_is_reached_if_its_authority_is_trusted() {
    let (pem, config) = certificate();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    for protocol in BOTH {
        let collector = Collector::start(protocol, Some(Arc::clone(&config)), 0).await;
        let mut settings = collector.config(protocol, "https");
        settings.authorities = Some(file.path().to_owned());
        assert_eq!(export(settings.clone()).await.unwrap(), 0, "{protocol:?}");
        assert_eq!(collector.received.lock().unwrap().len(), 1);
        // The public authorities do not vouch for it.
        let stranger = OtlpConfig { authorities: None, ..settings };
        let mut client = OtlpTarget::new(stranger).unwrap().client();
        let error = client.export(ExportTraceServiceRequest::default()).await.unwrap_err();
        assert!(error.text.contains("TLS with"), "{}", error.text);
    }
}

#[tokio::test]
async fn transient_refusal_is_repeated() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, None, 1).await;
        assert_eq!(export(collector.config(protocol, "http")).await.unwrap(), 0);
        assert_eq!(collector.received.lock().unwrap().len(), 2, "{protocol:?}");
    }
}

#[test]
fn unusable_files_are_named() {
    let missing = OtlpConfig {
        endpoint: "https://otel:4317/".parse().unwrap(),
        endpoint_is_set: true,
        protocol: OtlpProtocol::Grpc,
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(1),
        authorities: Some("/nowhere/ca.pem".into()),
        identity: None,
    };
    let error = OtlpTarget::new(missing).unwrap_err();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
