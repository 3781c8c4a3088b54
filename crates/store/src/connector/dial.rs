//! Opens an HTTP/1 connection for a URL: name resolution, TCP, proxy, TLS, handshake.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use aws_smithy_types::body::SdkBody;
use futures::FutureExt;
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use hyper::client::conn::http1::{self, SendRequest};
use rustls_pki_types::ServerName;

use super::io::{HyperIo, SharedSocket};
use super::network::NetworkSettings;
use super::origin::StoreOrigin;
use super::proxy::Proxy;
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::{Task, clock};

/// One HTTP/1 connection. Dropping it closes it, with any request in flight.
pub(super) struct StoreConnection {
    pub(super) origin: Rc<StoreOrigin>,
    pub(super) sender: SendRequest<SdkBody>,
    pub(super) socket: SharedSocket,
    pub(super) _driver: Task<()>,
}

/// Opens connections and caches resolved addresses briefly.
pub(super) struct Dialer {
    network: NetworkSettings,
    resolved: RefCell<HashMap<String, ResolvedAddresses>>,
    /// One resolution at a time: a hanging resolver must not fill the queue of the blocking pool.
    resolving: futures::lock::Mutex<()>,
}

struct ResolvedAddresses {
    addresses: Vec<IpAddr>,
    at: Micros,
}

impl Dialer {
    pub(super) fn new(network: NetworkSettings) -> Self {
        Self { network, resolved: RefCell::default(), resolving: futures::lock::Mutex::new(()) }
    }

    /// Resolves, connects and completes the handshakes within [`limits::STORE_CONNECT_TIMEOUT`].
    pub(super) async fn dial(&self, origin: Rc<StoreOrigin>) -> io::Result<StoreConnection> {
        let limit = limits::STORE_CONNECT_TIMEOUT;
        let opened = inventory_runtime::timeout(limit, self.open(origin.clone())).await;
        let result = opened.unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
        });
        result.map_err(|error| {
            let StoreOrigin { host, port, .. } = &*origin;
            io::Error::new(error.kind(), format!("cannot connect to {host}:{port}: {error}"))
        })
    }

    async fn open(&self, origin: Rc<StoreOrigin>) -> io::Result<StoreConnection> {
        let socket = self.connect(&origin).await?;
        if !origin.https {
            return handshake(origin, socket.clone(), socket).await;
        }
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let tls = TlsConnector::from(Arc::clone(&self.network.tls));
        let stream = tls.connect(name, socket.clone()).await.map_err(|error| {
            let cure = "for a private certificate authority set AWS_CA_BUNDLE to its PEM file";
            io::Error::new(error.kind(), format!("TLS: {error} ({cure})"))
        })?;
        handshake(origin, socket, stream).await
    }

    /// Connects to `origin`, through a tunnel if there is a proxy for it.
    async fn connect(&self, origin: &StoreOrigin) -> io::Result<SharedSocket> {
        let Some(proxy) = self.network.proxy(origin) else {
            return Ok(SharedSocket::new(self.connect_to(&origin.host, origin.port).await?));
        };
        let through = async {
            let mut socket = SharedSocket::new(self.connect_to(&proxy.host, proxy.port).await?);
            proxy.tunnel(&mut socket, &origin.authority()).await?;
            Ok(socket)
        };
        through.await.map_err(|error: io::Error| {
            let Proxy { host, port, .. } = &proxy;
            io::Error::new(error.kind(), format!("through the proxy {host}:{port}: {error}"))
        })
    }

    async fn connect_to(&self, host: &str, port: u16) -> io::Result<inventory_runtime::TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.resolve(host).await? {
            let address = SocketAddr::new(address, port);
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
