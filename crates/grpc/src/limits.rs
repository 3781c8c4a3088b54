//! Every bound of the gRPC layer, each with its reason.

use std::time::Duration;

pub(crate) use inventory_core::limits::RETRY_AFTER;

/// Default deadline of a call that brings none (GRPC_TIMEOUT).
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Longest deadline a client may ask for; a longer one is cut to this.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Streams of one connection at a time (GRPC_MAX_CONCURRENCY).
pub const STREAMS_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Header list of a request, in bytes as HTTP/2 counts them.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// One request message. The largest legal one is under 3 KiB.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Receive window of a connection: a thousand small requests in flight without an update.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window of a stream: one largest message and its prefix.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024 + 5;

/// Bytes buffered for one connection before its requests are read no further.
pub const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Capacity of a write buffer that is kept for the next turn of any connection of the shard.
pub const WRITE_BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// Empty write buffers a shard keeps. A turn needs one; the rest serve connections whose socket is
/// full for a moment.
pub const WRITE_BUFFERS_SPARE_MAX: usize = 8;

/// Bytes a connection reads before the other connections of its shard have their turn: about 600
/// requests, or two milliseconds.
pub const READ_BYTES_PER_POLL_MAX: usize = 64 * 1024;

/// Rounds of one turn, HTTP/2 and then the calls. Two serve nearly every turn; a handler that wakes
/// itself each time it is polled cannot hold the shard.
pub const ROUNDS_PER_POLL_MAX: usize = 8;

/// Memory of finished calls that a connection keeps for its next ones.
pub const CALL_SLOTS_SPARE_MAX: usize = 16;

/// Header compression table, HTTP/2's own default: enough for the few names gRPC repeats.
pub const HEADER_TABLE_BYTES: u32 = 4 * 1024;

/// Payload of one HTTP/2 frame, the least the protocol allows: requests are far smaller.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// Memory that many small DATA frames may take beyond what the windows count. It comes back when a
/// frame is read, so that only frames nobody takes up add up.
pub const SMALL_FRAME_BUDGET_BYTES: usize = 512 * 1024;

/// Response bytes that one stream may hold in the HTTP/2 layer.
pub const STREAM_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// From accept to the end of the HTTP/2 preface.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams reset by the peer and not yet taken up: beyond it the connection is closed (rapid reset).
pub const PENDING_RESETS_MAX: usize = 100;

/// Streams that this side reset and still remembers, for frames already on their way.
pub const RESET_STREAMS_MAX: usize = 256;

/// How long it remembers them: longer than a round trip.
pub const RESET_STREAM_MEMORY: Duration = Duration::from_secs(1);

/// Resets that a peer's protocol errors may force; beyond it the connection is closed.
pub const ERROR_RESETS_MAX: usize = 1_024;

/// Default pause after which the server pings an idle peer (GRPC_KEEP_ALIVE_PERIOD).
pub const KEEP_ALIVE_PERIOD_DEFAULT: Duration = Duration::from_secs(30);

/// How long a peer may take to answer that ping: longer than a stop-the-world GC pause.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Default age at which a connection is asked to leave (MAX_CONNECTION_AGE), jittered by a tenth.
pub const CONNECTION_AGE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// What a connection that was asked to leave has left for its calls.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);

/// What streams of the cold services have left on a connection that is leaving: a health watch
/// learns of the stop and ends, for it would never end by itself.
pub const AUXILIARY_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long a connection that this side ended is read on, so that the peer's last words do not
/// turn the close into a reset that takes answers with it.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// Bytes read and forgotten meanwhile: what a peer may have on its way.
pub const LINGER_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;

/// Calls on the cold services (health, reflection) under way at once in the whole process.
pub const AUXILIARY_CALLS_MAX: usize = 256;

/// Body frames buffered in each direction of a cold call.
pub const AUXILIARY_FRAMES_BUFFERED: usize = 8;
