//! The executor of a shard. The only module that names glommio, so that it can be exchanged.
//!
//! Must not live here: what a shard does (that is `shard`), any knowledge of HTTP, gRPC or the store.

pub mod clock;
pub mod limits;
pub mod timer_queue;

use std::future::Future;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

pub use glommio::net::TcpStream;

/// A task of this shard; dropping it cancels it, [`Task::detach`] lets it run.
pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    /// Lets the task run to its end without anybody waiting for it.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the task and waits until it is gone; `Some` if it had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }

    /// Waits for the task's result.
    pub async fn join(self) -> T {
        self.0.await
    }
}

/// Starts `future` on the current shard. A panic in it would take the shard down: whatever the
/// outside can influence is wrapped in `catch_unwind` by the caller.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(glommio::spawn_local(future))
}

/// Waits `span`; the timer's resolution is about a millisecond.
pub async fn sleep(span: Duration) {
    glommio::timer::Timer::new(span).await;
}

/// Runs `work` on a thread of its own pool, for calls that block (name resolution).
pub async fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

/// Gives other ready tasks of the shard a turn.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
}

/// Registers the process with the kernel's barrier before any thread exists, and keeps it off huge
/// pages. Call first in `main`.
///
/// A buffer that a ring registers pins the whole page it lies in: on transparent huge pages that is
/// 2 MiB instead of 64 KiB, three times per shard (VmPin of two shards: 12 MiB instead of 384 KiB),
/// past a locked-memory limit of 8 MiB. An idle server's memory goes from 57 to 20 MiB with it.
pub fn early_init() {
    let (on, unused) = (1_u64, 0_u64);
    // SAFETY: PR_SET_THP_DISABLE takes four integers and no pointer. An old kernel refuses it, and
    // then all stays as it was.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) };
    glommio::early_init();
}

/// Connects to an address that needs no resolving.
///
/// # Errors
/// The operating system's, as text that names the failure.
pub async fn connect(address: std::net::SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, limit).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether something lies in the socket to be read: data, the end, or an error. One system call
/// that never waits; sees what the kernel has before the ring has told.
pub fn has_input(stream: &TcpStream) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: `stream` is borrowed, so its descriptor is open; the pointer is to one writable byte
    // that outlives the call, and the length says one.
    let count = unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    count >= 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock
}

/// Runs `future` to its end on an executor of its own on the calling thread, unpinned: for commands
/// that need the store once, and for tests.
///
/// # Errors
/// When the ring cannot be made; `cli::preflight` says why and what cures it.
pub fn run_unpinned<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    run_on(executor(glommio::Placement::Unbound), future)
}

/// As [`run_here`], with rings as large as a shard's: for a look whether there can be such.
///
/// # Errors
/// As [`run_here`].
pub fn run_with_shard_rings<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let builder = executor(glommio::Placement::Unbound);
    run_on(builder.ring_depth(crate::limits::RING_DEPTH), future)
}

fn executor(placement: glommio::Placement) -> glommio::LocalExecutorBuilder {
    glommio::LocalExecutorBuilder::new(placement).io_memory(crate::limits::RING_BUFFER_BYTES)
}

fn run_on<T>(
    builder: glommio::LocalExecutorBuilder,
    future: impl Future<Output = T>,
) -> std::io::Result<T> {
    let executor = builder.make().map_err(std::io::Error::from)?;
    let _cleared = timer_queue::TimerQueueReset;
    Ok(executor.run(future))
}

/// A connection that belongs to no shard yet, so that it can be handed to one.
pub struct AcceptedSocket(OwnedFd);

impl AcceptedSocket {
    /// Makes the current shard the connection's home.
    ///
    /// # Errors
    /// When the peer has gone already and the socket refuses its options.
    pub fn bind_to_shard(self) -> std::io::Result<TcpStream> {
        // SAFETY: the descriptor is owned, open, a TCP socket (it came out of `accept`), and its
        // ownership moves into the stream.
        let stream = unsafe { TcpStream::from_raw_fd(self.0.into_raw_fd()) };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A listening socket of this shard.
pub struct Listener(glommio::net::TcpListener);

impl Listener {
    /// Takes over a socket that listens already.
    pub fn adopt(listener: std::net::TcpListener) -> Self {
        // SAFETY: the descriptor is an open listening TCP socket and its ownership moves.
        Self(unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system's: out of descriptors, connection aborted.
    pub async fn accept(&self) -> std::io::Result<AcceptedSocket> {
        let stream = self.0.shared_accept().await?.bind_to_executor();
        // SAFETY: the stream gives its descriptor up, nothing else owns it. glommio's own handle
        // for crossing shards is not used because dropping it would leak the descriptor.
        Ok(AcceptedSocket(unsafe {
            OwnedFd::from_raw_fd(stream.into_raw_fd())
        }))
    }
}

/// Runs `future` to its end on an executor pinned to `cpu`, on the calling thread.
///
/// `spin` is how long an idle executor polls before it sleeps; zero: not at all.
///
/// # Errors
/// When the ring cannot be made or the CPU is not ours.
pub fn run_pinned<T>(
    cpu: usize,
    spin: Duration,
    future: impl Future<Output = T>,
) -> std::io::Result<T> {
    let builder = executor(glommio::Placement::Fixed(cpu));
    let mut builder = builder.ring_depth(crate::limits::RING_DEPTH);
    if !spin.is_zero() {
        builder = builder.spin_before_park(spin);
    }
    run_on(builder, future)
}

/// Looks whether the executor can learn which CPUs there are: one that is to be pinned and cannot
/// would panic.
///
/// # Errors
/// Of reading `/sys/devices/system`.
pub fn check_topology() -> std::io::Result<()> {
    glommio::CpuSet::online()
        .map(drop)
        .map_err(std::io::Error::from)
}
