//! Spans that reach a collector over each protocol, with and without TLS.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use http::{HeaderMap, Response};
use prost::Message as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

use super::*;
use crate::config::{OtlpCompression, OtlpProtocol};
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
            compression: OtlpCompression::None,
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

/// No proxy, whatever the environment of the tests has.
fn direct() -> Proxies {
    Proxies::read(|_| None).unwrap()
}

async fn export(config: OtlpConfig) -> Result<usize, ExportError> {
    export_through(config, &direct()).await
}

async fn export_through(config: OtlpConfig, proxies: &Proxies) -> Result<usize, ExportError> {
    let resource = vec![("service.name".to_owned(), "tickets".to_owned())];
    let client = OtlpTarget::new(config, proxies).unwrap().client();
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
        let mut client = OtlpTarget::new(stranger, &direct()).unwrap().client();
        let error = client.export(ExportTraceServiceRequest::default()).await.unwrap_err();
        assert!(error.text.contains("TLS with"), "{}", error.text);
    }
}

#[tokio::test]
async fn spans_are_compressed_if_the_operator_wants_it() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, None, 0).await;
        let settings = collector.config(protocol, "http");
        let settings = OtlpConfig { compression: OtlpCompression::Gzip, ..settings };
        assert_eq!(export(settings).await.unwrap(), 0);
        let received = collector.received.lock().unwrap();
        let (_, headers, body) = &received[0];
        let header = match protocol {
            OtlpProtocol::Grpc => "grpc-encoding",
            OtlpProtocol::HttpProtobuf => "content-encoding",
        };
        assert_eq!(headers[header], "gzip");
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        let request = ExportTraceServiceRequest::decode(&plain[..]).unwrap();
        assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "call");
    }
}

/// A proxy that connects to `collector` for any CONNECT, and the heads of the requests that it got.
async fn start_proxy(
    collector: SocketAddr,
    answer: &'static str,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            shared.lock().unwrap().push(String::from_utf8(head).unwrap());
            let line = format!("HTTP/1.1 {answer}\r\n\r\n");
            socket.write_all(line.as_bytes()).await.unwrap();
            if answer.starts_with("200") {
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(collector).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut socket, &mut stream).await;
                });
            }
        }
    });
    (address, heads)
}

#[tokio::test]
async fn spans_go_through_the_proxy_of_the_environment() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, None, 0).await;
        let (proxy, heads) = start_proxy(collector.address, "200 OK").await;
        let proxies = Proxies::read(|name| {
            (name == "HTTP_PROXY").then(|| format!("http://user:secret@{proxy}"))
        });
        let proxies = proxies.unwrap();
        // No resolver knows the name; the proxy does.
        let mut settings = collector.config(protocol, "http");
        settings.endpoint = "http://collector.invalid:4317/v1/traces".parse().unwrap();
        let exported = export_through(settings, &proxies).await;
        assert_eq!(exported.unwrap(), 0, "{protocol:?}");
        assert_eq!(collector.received.lock().unwrap().len(), 1);
        let head = heads.lock().unwrap()[0].clone();
        assert!(head.starts_with("CONNECT collector.invalid:4317 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic dXNlcjpzZWNyZXQ="), "{head}");
        // Not for this machine.
        let local = collector.config(protocol, "http");
        assert_eq!(export_through(local, &proxies).await.unwrap(), 0);
        assert_eq!(heads.lock().unwrap().len(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn proxy_that_refuses_is_named_without_its_password() {
    for protocol in BOTH {
        let collector = Collector::start(protocol, None, 0).await;
        let (proxy, _) = start_proxy(collector.address, "407 Proxy Authentication Required").await;
        let proxies = Proxies::read(|name| {
            (name == "HTTP_PROXY").then(|| format!("http://user:secret@{proxy}"))
        });
        let mut settings = collector.config(protocol, "http");
        settings.endpoint = "http://collector.invalid:4317/".parse().unwrap();
        let target = OtlpTarget::new(settings, &proxies.unwrap()).unwrap();
        let shown = format!("{target:?}");
        let export = target.client().export(ExportTraceServiceRequest::default()).await;
        let text = export.unwrap_err().text;
        assert!(text.contains(&format!("through the proxy {proxy}: ")), "{text}");
        assert!(text.contains("407"), "{text}");
        assert!(!text.contains("secret") && !shown.contains("secret"), "{text}, {shown}");
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

#[tokio::test]
async fn refusal_names_the_collector_without_its_password() {
    let protocol = OtlpProtocol::HttpProtobuf;
    let collector = Collector::start(protocol, None, 1).await;
    let mut settings = collector.config(protocol, "http");
    let url = format!("http://user:secret@{}/v1/traces", collector.address);
    settings.endpoint = url.parse().unwrap();
    let resource_spans = vec![Default::default()];
    let request = ExportTraceServiceRequest { resource_spans };
    let mut client = OtlpTarget::new(settings, &direct()).unwrap().client();
    let error = client.export(request).await.unwrap_err();
    let expected = format!("HTTP status 503 Service Unavailable from http://{}", collector.address);
    assert!(error.text.starts_with(&expected), "{}", error.text);
}

#[test]
fn unusable_files_are_named() {
    let missing = OtlpConfig {
        endpoint: "https://otel:4317/".parse().unwrap(),
        endpoint_is_set: true,
        protocol: OtlpProtocol::Grpc,
        compression: OtlpCompression::None,
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(1),
        authorities: Some("/nowhere/ca.pem".into()),
        identity: None,
    };
    let error = OtlpTarget::new(missing, &direct()).unwrap_err();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
