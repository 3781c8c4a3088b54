//! The stream of a peer in memory: sends its bytes in parts, reads answers at its own speed, and disconnects when the target
//! lets it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use arbitrary::Unstructured;
use futures::io::{AsyncRead, AsyncWrite};

/// How the peer reads.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// At once.
    Everything,
    /// This many bytes per write; every second write has to wait.
    Slowly(usize),
    /// This many bytes in all.
    Until(usize),
}

pub(super) struct Peer {
    bytes: Vec<u8>,
    sent: Cell<usize>,
    /// Bytes of one read; a read between two parts has to wait.
    part: usize,
    reading: Reading,
    received: RefCell<Vec<u8>>,
    /// Whether the last read, and the last write, had to wait.
    read_waited: Cell<bool>,
    write_waited: Cell<bool>,
    is_gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Peer {
    pub(super) fn new(
        input: &mut Unstructured<'_>,
        bytes: impl FnOnce(&mut Unstructured<'_>) -> Vec<u8>,
    ) -> Rc<Self> {
        let part = 1 + usize::from(input.arbitrary::<u16>().unwrap_or(0));
        let amount = usize::from(input.arbitrary::<u8>().unwrap_or(0));
        let reading = match amount % 4 {
            0 | 1 => Reading::Everything,
            2 => Reading::Slowly(1 + amount / 4),
            _ => Reading::Until(amount * 8),
        };
        Rc::new(Self {
            bytes: bytes(input),
            sent: Cell::new(0),
            part,
            reading,
            received: RefCell::default(),
            read_waited: Cell::new(true),
            write_waited: Cell::new(false),
            is_gone: Cell::new(false),
            waker: RefCell::default(),
        })
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes.len()
    }

    /// What the peer has received so far.
    pub(super) fn received(&self) -> std::cell::Ref<'_, Vec<u8>> {
        self.received.borrow()
    }

    /// Closes the connection: reads end, writes fail.
    pub(super) fn disconnect(&self) {
        self.is_gone.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Whether this call, one of every two, may proceed; the other one is woken at once.
fn takes_turn(waited: &Cell<bool>, cx: &Context<'_>) -> bool {
    let is_turn = waited.replace(!waited.get());
    if !is_turn {
        cx.waker().wake_by_ref();
    }
    is_turn
}

/// The server's end of the connection.
pub(super) struct PeerStream(pub(super) Rc<Peer>);

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let peer = &self.0;
        let rest = peer.bytes.get(peer.sent.get()..).unwrap_or_default();
        if rest.is_empty() {
            return if peer.is_gone.get() { Poll::Ready(Ok(0)) } else { peer.wait(cx) };
        }
        if !takes_turn(&peer.read_waited, cx) {
            return Poll::Pending;
        }
        let count = rest.len().min(into.len()).min(peer.part);
        into[..count].copy_from_slice(&rest[..count]);
        peer.sent.set(peer.sent.get() + count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let peer = &self.0;
        if peer.is_gone.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut received = peer.received.borrow_mut();
        let room = match peer.reading {
            Reading::Everything => bytes.len(),
            Reading::Slowly(_) if !takes_turn(&peer.write_waited, cx) => return Poll::Pending,
            Reading::Slowly(most) => most,
            Reading::Until(most) => most.saturating_sub(received.len()),
        };
        if room == 0 && !bytes.is_empty() {
            return peer.wait(cx);
        }
        let count = bytes.len().min(room);
        received.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
