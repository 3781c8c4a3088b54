//! Bounds of the gRPC layer, each with its reason.

use std::time::Duration;

pub(crate) use inventory_core::limits::RETRY_AFTER;

/// Default deadline for calls without a grpc-timeout (GRPC_TIMEOUT).
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Longest deadline that a client can request; a longer one is capped.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Concurrent streams of one connection (GRPC_MAX_CONCURRENCY).
pub const STREAMS_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Size of a request's header list, in bytes as HTTP/2 counts them.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Size of one request message. The largest valid one is smaller than 3 KiB.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Receive window of a connection: a thousand small requests in flight without a window update.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window of a stream: one largest message and its prefix.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024 + 5;

/// Bytes buffered for one connection. Beyond that, no more requests of it are read.
pub const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Capacity of a write buffer that is kept for the next poll of any connection of the shard.
pub const WRITE_BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// Empty write buffers that a shard keeps. One poll needs one; the others serve connections whose sockets are
/// full for a moment.
pub(crate) const WRITE_BUFFERS_SPARE_MAX: usize = 8;

/// Bytes that a connection reads in one poll, so that the other connections of its shard run: about 600
/// requests, or two milliseconds.
pub const READ_BYTES_PER_POLL_MAX: usize = 64 * 1024;

/// Rounds of one poll, each HTTP/2 and then the calls. Two suffice for nearly every poll; the bound keeps a
/// handler that always wakes itself from blocking the shard.
pub(crate) const ROUNDS_PER_POLL_MAX: usize = 8;

/// Future slots of finished calls that a connection keeps for later calls.
pub(crate) const CALL_SLOTS_SPARE_MAX: usize = 16;

/// Header compression table; HTTP/2's default, sufficient for the few header names of gRPC.
pub const HEADER_TABLE_BYTES: u32 = 4 * 1024;

/// Payload of one HTTP/2 frame; the protocol's minimum, because requests are far smaller.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// Memory of small DATA frames beyond what the windows count. Reading a frame releases its memory, so that
/// only unread frames count.
pub(crate) const SMALL_FRAME_BUDGET_BYTES: usize = 512 * 1024;

/// Response bytes that one stream may buffer in the HTTP/2 layer.
pub(crate) const STREAM_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Time from accept to the end of the HTTP/2 preface.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams that the peer reset before they were accepted; beyond that the connection is closed (rapid reset).
pub const PENDING_RESETS_MAX: usize = 100;

/// Streams that this side reset and still tracks, for frames that were already sent.
pub(crate) const RESET_STREAMS_MAX: usize = 256;

/// How long such streams are tracked: longer than a round trip.
pub(crate) const RESET_STREAM_MEMORY: Duration = Duration::from_secs(1);

/// Resets caused by protocol errors of the peer; beyond that the connection is closed.
pub(crate) const ERROR_RESETS_MAX: usize = 1_024;

/// Default silence after which the server pings the peer (GRPC_KEEP_ALIVE_PERIOD).
pub const KEEP_ALIVE_PERIOD_DEFAULT: Duration = Duration::from_secs(30);

/// Time to answer that ping: longer than a stop-the-world GC pause.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Default maximum age of a connection (MAX_CONNECTION_AGE), jittered by a tenth.
pub const CONNECTION_AGE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Time from the GOAWAY of a connection at its maximum age to its close.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);

/// Time from the GOAWAY to the end of auxiliary calls: a health watch can still report the change, but would
/// never end by itself.
pub const AUXILIARY_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long a connection that this side ended is still read: unread bytes would turn its close into a reset,
/// which discards responses.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);

/// Bytes read and discarded in that time: what a peer may have sent.
pub(crate) const LINGER_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;

/// Concurrent calls of the auxiliary services (health, reflection) in the whole process.
pub const AUXILIARY_CALLS_MAX: usize = 256;

/// Body frames buffered in each direction of an auxiliary call.
pub(crate) const AUXILIARY_FRAMES_BUFFERED: usize = 8;
