//! Binds the ports before anything else starts, so that a port in use ends the start with a clear error.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// One listening socket per shard, all on the same port of `address`; `::` is every address of IPv6, if the kernel has
/// it, and of IPv4. Port 0 selects a free port.
///
/// # Errors
/// `AddrInUse` also if another process listens with SO_REUSEPORT: half of its connections would silently come
/// here.
pub(crate) fn bind_shared(mut address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Without SO_REUSEPORT, bind fails if any process listens on the port. Closed again at once.
        drop(listen(address, false)?);
    }
    let first = listen(address, true)?;
    address.set_port(first.local_addr()?.port());
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(listen(address, true)?);
    }
    Ok(listeners)
}

/// A listening socket on every address.
///
/// # Errors
/// The operating system's.
pub(crate) fn bind_any(port: u16) -> io::Result<TcpListener> {
    listen(any_address(port), false)
}

/// A listening socket on one address.
///
/// # Errors
/// The operating system's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, false)
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    match try_listen(address, shared) {
        // A kernel without IPv6: use IPv4.
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ) =>
        {
            try_listen((Ipv4Addr::UNSPECIFIED, address.port()).into(), shared)
        }
        other => other,
    }
}

fn try_listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Allows a port with connections in TIME_WAIT, but not a port with a listener.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_one_free_port() {
        let listeners = bind_shared(any_address(0), 3).expect("a free port");
        let ports: Vec<u16> =
            listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|p| *p == ports[0] && *p != 0), "{ports:?}");
    }

    #[test]
    fn a_port_shared_by_another_server_is_in_use() {
        let held = bind_shared(any_address(0), 1).expect("a free port");
        let port = held[0].local_addr().expect("bound").port();
        let error = bind_shared(any_address(port), 2).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        bind_shared(any_address(port), 2).expect("free again");
    }

    #[test]
    fn shards_share_one_address() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = bind_shared(loopback, 2).expect("a free port");
        for listener in &listeners {
            let address = listener.local_addr().expect("bound");
            assert!(address.ip().is_loopback(), "{address}");
        }
    }
}
