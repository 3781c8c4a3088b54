//! Connections over TLS: a tonic channel, or any other client, on a socket that this module opens.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use http::Uri;
use hyper_util::rt::TokioIo;
use inventory_tls::client::ClientFiles;
use inventory_tls::{FileSetting, TlsFileError, rustls};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tonic::transport::{Channel, Endpoint};

/// TLS of a client, from files.
#[derive(Clone)]
pub struct ClientTls {
    /// Offers HTTP/2.
    http2: TlsConnector,
    /// Offers HTTP/1.1.
    http1: TlsConnector,
    /// Name in the certificate of the server; `None`: the host of the address.
    server_name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Without authorities in `files` the public ones are trusted.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn load(files: &ClientFiles) -> Result<Self, TlsFileError> {
        let public = || rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let connector = |protocol: &[u8]| Ok(TlsConnector::from(files.load(public, &[protocol])?));
        Ok(Self { http2: connector(b"h2")?, http1: connector(b"http/1.1")?, server_name: None })
    }

    /// Expects `name` in the certificate of the server, whatever the address is.
    ///
    /// # Errors
    /// A text that is neither a DNS name nor an IP address.
    pub fn with_server_name(self, name: &str) -> Result<Self, String> {
        let parsed = ServerName::try_from(name.to_owned());
        let name = parsed.map_err(|_| format!("{name:?} is no DNS name and no IP address"))?;
        Ok(Self { server_name: Some(name), ..self })
    }

    /// Trusts the authorities of one file; for tests and tools.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn trusting(authorities: FileSetting) -> Result<Self, TlsFileError> {
        Self::load(&ClientFiles { authorities: Some(authorities), pair: None })
    }
}

/// A connection with or without TLS.
pub enum ClientStream {
    Plain(TcpStream),
    Tls(Box<Compat<TlsStream<Compat<TcpStream>>>>),
}

/// The protocol that runs over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http1,
    Http2,
}

/// Connects to the host and port of `url`, with TLS if its scheme is https.
///
/// # Errors
/// The operating system's, or TLS's, which name what the server must change.
pub async fn connect_stream(
    url: &Uri,
    tls: Option<&ClientTls>,
    version: HttpVersion,
) -> io::Result<ClientStream> {
    let is_https = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await?;
    let _ = socket.set_nodelay(true);
    if !is_https {
        return Ok(ClientStream::Plain(socket));
    }
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let Some(tls) = tls else {
        return Err(invalid("an https address needs TLS settings".to_owned()));
    };
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(host.to_owned()).map_err(|why| invalid(why.to_string()))?,
    };
    let connector = match version {
        HttpVersion::Http1 => &tls.http1,
        HttpVersion::Http2 => &tls.http2,
    };
    let stream = connector.connect(name, socket.compat()).await;
    let stream = stream.map_err(|why| io::Error::new(why.kind(), handshake_error(&why)))?;
    Ok(ClientStream::Tls(Box::new(stream.compat())))
}

fn handshake_error(why: &io::Error) -> String {
    use rustls::{Error, InvalidMessage};
    let cause = why.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            format!("TLS: {why}: the server answers without TLS; name it as http://")
        }
        _ => format!("TLS: {why}"),
    }
}

/// The connector of an endpoint for [`connect_stream`].
fn connector(tls: Option<&ClientTls>) -> StreamConnector {
    StreamConnector(tls.cloned().map(Arc::new))
}

/// Connects an endpoint over TLS if its scheme is https.
///
/// # Errors
/// As [`Endpoint::connect`].
pub async fn connect_endpoint(
    endpoint: Endpoint,
    tls: Option<&ClientTls>,
) -> Result<Channel, tonic::transport::Error> {
    endpoint.connect_with_connector(connector(tls)).await
}

/// Opens connections to the endpoints of a [`Channel`].
#[derive(Clone)]
struct StreamConnector(Option<Arc<ClientTls>>);

impl tower_service::Service<Uri> for StreamConnector {
    type Response = TokioIo<ClientStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let stream = connect_stream(&url, tls.as_deref(), HttpVersion::Http2).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
