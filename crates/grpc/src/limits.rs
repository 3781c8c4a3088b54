//! Bounds of the gRPC layer, each with its reason.

use std::time::Duration;

pub(crate) use inventory_core::limits::RETRY_AFTER;

/// Default deadline for calls without a grpc-timeout (GRPC_TIMEOUT).
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Longest deadline that a client can request; a longer one is capped.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Concurrent streams of one connection (GRPC_MAX_CONCURRENCY).
pub(crate) const STREAMS_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Size of a request's header list, in bytes as HTTP/2 counts them.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Size of one request message, before and after decompression. The largest valid one is smaller than 3 KiB.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Receive window of a connection: a thousand small requests in flight without a window update.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window of a stream: one largest message and its prefix.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024 + 5;

/// Bytes buffered for one connection. Beyond that, no more requests of it are read.
pub(crate) const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Capacity of a write buffer that is kept for the next poll of any connection of the shard.
pub(crate) const WRITE_BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// Empty write buffers that a shard keeps. One poll needs one; the others serve connections whose send buffer is full.
pub(crate) const WRITE_BUFFERS_SPARE_MAX: usize = 8;

/// Bytes that a connection reads in one poll, so that the other connections of its shard run: about 600 requests.
pub const READ_BYTES_PER_POLL_MAX: usize = 64 * 1024;

/// Time after which a poll reads no more, although it has read fewer bytes: frames differ in what they cost. Of the connections
/// that reach one of these bounds, one at a time is polled, so that each other task of the shard waits for one such poll.
pub const READ_TIME_PER_POLL_MAX: Duration = Duration::from_micros(250);

/// Bytes that a poll reads without looking at the time: more than those of nearly every poll.
pub(crate) const READ_BYTES_UNTIMED: usize = 16 * 1024;

/// Rounds of one poll, each HTTP/2 and then the calls. Two suffice for nearly every poll; the bound keeps a
/// handler that always wakes itself from blocking the shard.
pub(crate) const ROUNDS_PER_POLL_MAX: usize = 8;

/// Future slots of finished calls that a connection keeps for later calls.
pub(crate) const CALL_SLOTS_SPARE_MAX: usize = 16;

/// Header compression table; HTTP/2's default, sufficient for the few header names of gRPC.
pub const HEADER_TABLE_BYTES: u32 = 4 * 1024;

/// Payload of one HTTP/2 frame; the protocol's minimum, because requests are far smaller.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// What a DATA frame of fewer bytes, whose stream has not ended, counts for until it is read: its memory.
const SMALL_FRAME_BYTES: usize = 256;

/// Budget for such frames of a connection: one unread frame of each stream, and one of each stream that a poll
/// can open and reset. Beyond that the connection is closed.
pub(crate) const fn small_frame_budget(streams: u32) -> usize {
    SMALL_FRAME_BYTES * (streams as usize + PENDING_RESETS_MAX)
}

/// Response bytes that one stream may buffer in the HTTP/2 layer.
pub(crate) const STREAM_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Time from accept to the end of the HTTP/2 preface.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams that the peer opened and reset before they were accepted; beyond that the connection is closed. More
/// than one poll can read: HEADERS and RST_STREAM have at least 25 bytes. [`EARLY_RESETS_PER_STREAM_AND_SECOND`]
/// is the bound over time.
pub const PENDING_RESETS_MAX: usize = READ_BYTES_PER_POLL_MAX / 16;

/// Calls per second and stream of a connection's limit that may be reset before they are read (rapid reset); beyond
/// that the connection is closed. A client within its stream limit that waits at least 100 ms for each answer does not
/// reach it, however the server or the network stalls; a second's worth is accepted at once.
pub const EARLY_RESETS_PER_STREAM_AND_SECOND: u64 = 10;

/// How long a stream that this side reset is tracked, because the peer may have sent frames before it read the reset:
/// longer than the pauses of peers and networks. All streams of a connection's limit are tracked.
pub(crate) const RESET_STREAM_MEMORY: Duration = Duration::from_secs(10);

/// Streams of one connection that were refused or reset for protocol errors of the peer; beyond that the connection is
/// closed. A correct peer causes none.
pub(crate) const ERROR_RESETS_MAX: usize = 1_024;

/// Default silence after which the server pings the peer (GRPC_KEEP_ALIVE_PERIOD).
pub const KEEP_ALIVE_PERIOD_DEFAULT: Duration = Duration::from_secs(30);

/// Time to answer that ping: longer than a stop-the-world GC pause.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Default maximum age of a connection (MAX_CONNECTION_AGE), jittered by a tenth.
pub(crate) const CONNECTION_AGE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Time from the GOAWAY of a connection at its maximum age to its close.
pub(crate) const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);

/// Time from the GOAWAY to the end of auxiliary calls: a health watch can still report the change, but would
/// never end by itself.
pub(crate) const AUXILIARY_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Time of a peer to answer a GOAWAY. After it, the connection closes as soon as it has no call: a peer that is gone must
/// not delay a drain for its whole grace period.
pub(crate) const GOAWAY_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection that this side ended is still read: unread bytes would turn its close into a reset,
/// which discards responses.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// Bytes read and discarded in that time: what a peer may have sent.
pub(crate) const LINGER_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;

/// Health watches of one connection. Half of the default stream limit: calls keep the other half. A watch has 2.3 KB
/// (measured, with its HTTP/2 stream).
pub const HEALTH_WATCHES_PER_CONNECTION_MAX: usize = 500;

/// Health watches of one shard, beyond the first of each connection, which is always accepted: 38 MB.
pub(crate) const HEALTH_WATCHES_PER_SHARD_MAX: usize = 16_384;

/// Concurrent reflection calls of the whole process.
pub(crate) const BRIDGED_CALLS_MAX: usize = 256;

/// Concurrent reflection calls of one connection: a tool needs one per version of the protocol.
pub const BRIDGED_CALLS_PER_CONNECTION_MAX: usize = 8;

/// Body frames buffered in each direction of a bridged call.
pub(crate) const BRIDGED_FRAMES_BUFFERED: usize = 8;

// Relations between these bounds.
const _: () = {
    assert!(STREAM_WINDOW_BYTES as usize >= REQUEST_MESSAGE_BYTES_MAX + 5);
    // The grace period of auxiliary streams ends before that of their connection.
    assert!(AUXILIARY_DRAIN_GRACE.as_millis() < CONNECTION_AGE_GRACE.as_millis());
    assert!(WRITE_BUFFER_BYTES_KEPT <= WRITE_BUFFER_BYTES_MAX);
    assert!(CALL_TIMEOUT_DEFAULT.as_nanos() <= CALL_TIMEOUT_MAX.as_nanos());
};
