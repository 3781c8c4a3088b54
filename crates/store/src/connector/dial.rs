//! Opens an HTTP/1 connection for a URL: name resolution, TCP, TLS, handshake.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use aws_smithy_types::body::SdkBody;
use futures::FutureExt;
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::rustls::{self, ClientConfig, RootCertStore};
use hyper::client::conn::http1::{self, SendRequest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;

use super::io::{HyperIo, SharedSocket};
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::{Task, clock};

/// Scheme, host and port of a request: connections are shared by requests to the same origin only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreOrigin {
    pub(super) https: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl StoreOrigin {
    /// # Errors
    /// A text with the problem of the URL.
    pub(super) fn of(uri: &http::Uri) -> Result<Self, String> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{uri} is no http:// or https:// URL")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("{uri} names no host"))?;
        Ok(Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        })
    }
}

/// One HTTP/1 connection. Dropping it closes it, with any request in flight.
pub(super) struct StoreConnection {
    pub(super) origin: Rc<StoreOrigin>,
    pub(super) sender: SendRequest<SdkBody>,
    pub(super) socket: SharedSocket,
    pub(super) _driver: Task<()>,
}

/// The file of extra certificate authorities cannot be used.
#[derive(Debug, Error)]
#[error("AWS_CA_BUNDLE: {path}: {why}; want a readable PEM file with at least one certificate", path = path.display())]
pub struct CaBundleError {
    pub path: PathBuf,
    pub why: String,
}

/// Opens connections and caches resolved addresses briefly.
pub(super) struct Dialer {
    tls: TlsConnector,
    resolved: RefCell<HashMap<String, ResolvedAddresses>>,
    /// One resolution at a time: a hanging resolver must not fill the queue of the blocking pool.
    resolving: futures::lock::Mutex<()>,
}

struct ResolvedAddresses {
    addresses: Vec<IpAddr>,
    at: Micros,
}

impl Dialer {
    /// # Errors
    /// When `ca_bundle` is given and cannot be used.
    pub(super) fn new(ca_bundle: Option<&Path>) -> Result<Self, CaBundleError> {
        Ok(Self {
            tls: TlsConnector::from(Arc::new(client_config(ca_bundle)?)),
            resolved: RefCell::default(),
            resolving: futures::lock::Mutex::new(()),
        })
    }

    /// Resolves, connects and completes the handshakes within [`limits::STORE_CONNECT_TIMEOUT`].
    pub(super) async fn dial(&self, origin: Rc<StoreOrigin>) -> io::Result<StoreConnection> {
        let limit = limits::STORE_CONNECT_TIMEOUT;
        let opened = super::within(limit, self.open(origin.clone())).await;
        let result = opened.unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
        });
        result.map_err(|error| {
            let StoreOrigin { host, port, .. } = &*origin;
            io::Error::new(error.kind(), format!("cannot connect to {host}:{port}: {error}"))
        })
    }

    async fn open(&self, origin: Rc<StoreOrigin>) -> io::Result<StoreConnection> {
        let socket = SharedSocket::new(self.connect(&origin).await?);
        if !origin.https {
            return handshake(origin, socket.clone(), socket).await;
        }
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = self.tls.connect(name, socket.clone()).await.map_err(|error| {
            let cure = "for a private certificate authority set AWS_CA_BUNDLE to its PEM file";
            io::Error::new(error.kind(), format!("TLS: {error} ({cure})"))
        })?;
        handshake(origin, socket, stream).await
    }

    async fn connect(&self, origin: &StoreOrigin) -> io::Result<inventory_runtime::TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.resolve(&origin.host).await? {
            let address = SocketAddr::new(address, origin.port);
            match inventory_runtime::connect(address, limits::STORE_CONNECT_TIMEOUT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        if let Some(addresses) = self.remembered(host) {
            return Ok(addresses);
        }
        let _one_at_a_time = self.resolving.lock().await;
        if let Some(addresses) = self.remembered(host) {
            return Ok(addresses);
        }
        let name = host.to_owned();
        let addresses: Vec<IpAddr> = inventory_runtime::spawn_blocking(move || {
            let found = (name.as_str(), 0).to_socket_addrs()?;
            let found = found.map(|address| address.ip());
            io::Result::Ok(found.take(limits::STORE_ADDRESSES_TRIED_MAX).collect())
        })
        .await?;
        let mut resolved = self.resolved.borrow_mut();
        if resolved.len() >= limits::STORE_NAMES_RESOLVED_MAX {
            resolved.clear();
        }
        let entry = ResolvedAddresses { addresses: addresses.clone(), at: clock::monotonic() };
        resolved.insert(host.to_owned(), entry);
        Ok(addresses)
    }

    fn remembered(&self, host: &str) -> Option<Vec<IpAddr>> {
        let resolved = self.resolved.borrow();
        let entry = resolved.get(host)?;
        let age = clock::monotonic().since(entry.at);
        let fresh = u128::from(age.0) < limits::STORE_RESOLVED_AGE_MAX.as_micros();
        fresh.then(|| entry.addresses.clone())
    }
}

async fn handshake<S>(
    origin: Rc<StoreOrigin>,
    socket: SharedSocket,
    stream: S,
) -> io::Result<StoreConnection>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, driver) =
        http1::handshake(HyperIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = inventory_runtime::spawn(async move {
        // A request learns about the end of its connection through `sender`; a panic must not reach the shard.
        let _ended = AssertUnwindSafe(driver).catch_unwind().await;
    });
    Ok(StoreConnection { origin, sender, socket, _driver: driver })
}

/// The public authorities and those of the bundle.
fn client_config(ca_bundle: Option<&Path>) -> Result<ClientConfig, CaBundleError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_bundle {
        let fail = |why: String| CaBundleError { path: path.to_owned(), why };
        let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| fail(error.to_string()))?;
            roots.add(certificate).map_err(|error| fail(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(fail("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CaBundleError { path: PathBuf::new(), why: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn origin(uri: &str) -> Result<StoreOrigin, String> {
        StoreOrigin::of(&uri.parse().unwrap())
    }

    #[test]
    fn origin_has_the_default_port_of_its_scheme() {
        let aws = origin("https://dynamodb.ap-northeast-2.amazonaws.com/").unwrap();
        assert_eq!((aws.https, aws.port), (true, 443));
        let local = origin("http://127.0.0.1:8000/").unwrap();
        assert_eq!((local.https, local.port), (false, 8000));
        assert_eq!(origin("http://[::1]/").unwrap().host, "::1");
    }

    #[test]
    fn a_url_without_a_usable_scheme_is_named() {
        assert!(origin("ftp://somewhere/").unwrap_err().contains("ftp://"));
        assert!(origin("/path").unwrap_err().contains("http://"));
    }

    #[test]
    fn a_bundle_that_is_missing_or_empty_is_named() {
        let missing = client_config(Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = client_config(Some(empty.path())).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
