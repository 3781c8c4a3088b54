//! TCP sockets of a shard, and accepted sockets that move from one shard to another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

pub use glommio::net::TcpStream;

/// Connects to a socket address.
///
/// # Errors
/// The operating system's.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, limit).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether the socket has data, an end of stream or an error to read. One system call that never
/// blocks; reads the kernel's state, which may be ahead of the ring's.
pub fn has_input(stream: &TcpStream) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: `stream` is borrowed, so its descriptor is open; the pointer is to one writable byte
    // that outlives the call, and the length is one.
    let count = unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    count >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

/// An accepted socket that belongs to no shard yet, so that it can be sent to one.
pub struct AcceptedSocket(OwnedFd);

impl AcceptedSocket {
    /// Binds the socket to the current shard.
    ///
    /// # Errors
    /// If the peer has disconnected and the socket refuses its options.
    pub fn bind_to_shard(self) -> io::Result<TcpStream> {
        // SAFETY: the descriptor is owned, open, a TCP socket (`accept` returned it), and its
        // ownership moves into the stream.
        let stream = unsafe { TcpStream::from_raw_fd(self.0.into_raw_fd()) };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A listening socket of this shard.
pub struct Listener(glommio::net::TcpListener);

impl Listener {
    /// Takes over a socket that already listens.
    pub fn adopt(listener: std::net::TcpListener) -> Self {
        // SAFETY: the descriptor is an open listening TCP socket and its ownership moves.
        Self(unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system's: no free descriptor, connection aborted.
    pub async fn accept(&self) -> io::Result<AcceptedSocket> {
        let stream = self.0.shared_accept().await?.bind_to_executor();
        // SAFETY: the stream releases its descriptor, nothing else owns it. glommio's own type for
        // sockets that cross shards is not used because dropping it leaks the descriptor.
        Ok(AcceptedSocket(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) }))
    }
}
