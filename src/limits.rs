//! Every bound of the server, each with its reason. What can be configured has its default here.
//!
//! Relations between bounds are asserted at compile time in `limits/coherence.rs`.

mod audit;
mod coherence;
mod seats;
mod telemetry;
mod top;

use std::time::Duration;

pub use self::audit::*;
pub use self::seats::*;
pub use self::telemetry::*;
pub use self::top::*;

// ---- Input --------------------------------------------------------------------------------------

/// Longest event, reservation or seat id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Longest payment_intent_id, in bytes: keeps a record well under 1 KB, one write unit.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Longest user_id, idempotency_key or reason, in bytes: taken from clients and not interpreted.
pub const OPAQUE_BYTES_MAX: usize = 256;

/// Longest name of a section, in bytes.
pub const SECTION_BYTES_MAX: usize = 128;

/// Default for how long a hold lasts that names no end (HOLD_TTL).
pub const HOLD_TTL_DEFAULT: Duration = Duration::from_secs(60);

/// Default for the longest hold a client may ask for (HOLD_TTL_MAX).
pub const HOLD_TTL_MAX_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Default for the most units one reservation may take (MAX_QTY).
pub const QTY_MAX_DEFAULT: u32 = 10;

/// The most that MAX_QTY can be set to.
pub const QTY_MAX_CEILING: u32 = 1_000;

/// The most seats one reservation may name: one reservation must fit a transaction.
pub const SEATS_PER_RESERVATION_MAX: usize = 10;

/// The most that HOLD_TTL_MAX can be set to.
pub const HOLD_TTL_CEILING: Duration = Duration::from_secs(24 * 3_600);

/// Largest total of one event, in units.
pub const EVENT_TOTAL_MAX: i64 = 1_000_000_000;

/// Most stripes of one event: a strong read of all of them stays one BatchGetItem.
pub const STRIPES_MAX: u16 = 64;

/// Stripes that an event gets at most when nobody says how many. At 40 reservations a transaction and
/// some 23 ms each, between what is assumed for 25 and for 100 actions, a lane sells 1,700 a second:
/// twenty of them sell 30,000 with a tenth to spare.
pub const STRIPES_AUTO_MAX: u16 = 20;

/// Tickets that a stripe has at least in an event that got its stripes in this way: fewer are sold out
/// in a few transactions, and then callers look for the rest of them on the other stripes.
pub const STRIPE_UNITS_MIN: u64 = 250;

/// Stripes of an event of so many tickets when nobody says how many.
pub const fn stripes_for(total: u64) -> u16 {
    let many = total / STRIPE_UNITS_MIN;
    if many > STRIPES_AUTO_MAX as u64 {
        STRIPES_AUTO_MAX
    } else if many > 1 {
        many as u16
    } else {
        1
    }
}

/// Most partition keys over which an event's seats are spread. A seat is sold in a transaction, which
/// takes two units of the 1,000 that a partition has a second: evenly spread 32,000 seats a second,
/// and as keys fall on partitions by lot, up to five on one, some 6,000: a stadium in ten seconds.
pub const SEAT_KEYS_MAX: u16 = 64;

// ---- The store ----------------------------------------------------------------------------------

/// Actions of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;

/// Bytes of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Upper bound of one record as sent, in bytes: three ids, the payment intent, ten seats, names and
/// hashes.
pub const RECORD_BYTES_MAX: usize = 4 * 1024;

/// Reservations in one batch: what a transaction leaves beside one stripe.
pub const BATCH_MEMBERS_MAX: usize = TRANSACTION_ACTIONS_MAX - 1;

/// Keys of one BatchGetItem, by DynamoDB's own limit.
pub const BATCH_GET_KEYS_MAX: usize = 100;

/// Reads of stripes that a shard has under way before those of further events gather for one request:
/// with one, an event would wait for another's read; with two, half of one.
pub const STRIPE_READS_BEFORE_GATHERING: usize = 2;

/// Longest time that they gather: three reads' time. What takes longer is being tried again.
pub const STRIPE_READS_GATHER_MAX: Duration = Duration::from_millis(20);

/// Idle connections to the store that a shard keeps. One lane needs one; reads share the rest.
pub const STORE_IDLE_CONNECTIONS_MAX: usize = 32;

/// Idle connections over that number are closed once they are idle for this long: calls that end
/// together and start again together must not open their connections anew each time.
pub const STORE_SPARE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(1);

/// Connections to the store that a shard may have open. Past it a call waits for one to come free.
pub const STORE_CONNECTIONS_MAX: usize = 128;

/// An idle store connection older than this is closed: DynamoDB closes idle ones itself soon after.
pub const STORE_IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// How long a TCP and TLS connect to the store may take.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Addresses of one name that a connect tries in turn, all within the connect timeout.
pub const STORE_ADDRESSES_TRIED_MAX: usize = 4;

/// How long a resolved name is used for new connections: the time to live of DynamoDB's own names.
pub const STORE_RESOLVED_AGE_MAX: Duration = Duration::from_secs(5);

/// Names whose addresses a shard remembers: the store and the sources of its credentials.
pub const STORE_NAMES_RESOLVED_MAX: usize = 16;

/// How long requests go the way that one of the SDK's took, before the SDK makes one again: as long as
/// an endpoint or a clock's correction may lag, and a call in some hundred thousand.
pub const STORE_WAY_AGE_MAX: Duration = Duration::from_secs(60);

/// Read buffer of one store connection. An answer with 99 stored records fits in a few of them.
pub const STORE_READ_BUFFER_BYTES: usize = 16 * 1024;

/// Largest answer of the store: BatchGetItem's 16 MB as JSON, with room for its overhead.
pub const STORE_RESPONSE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// How long a call outside the request path (tables, creating an event, a scan page) may take.
pub const STORE_ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries of a call outside the request path when it was throttled or its outcome is unknown.
pub const STORE_ADMIN_TRIES_MAX: u32 = 5;

/// How long a write of many items off the request path is tried again while the store throttles it:
/// an import brings seats faster than their partitions take them, and waits for them instead of
/// failing. Shorter than [`ADMIN_CALL_TIMEOUT`].
pub const STORE_TOGETHER_PATIENCE: Duration = Duration::from_secs(5);

/// Rounds of one BatchGetItem: what is still unprocessed after them counts as throttled.
pub const STORE_UNPROCESSED_ROUNDS_MAX: u32 = 4;

/// Records examined by one page of a scan: about a tenth of the 1 MB that the store allows.
pub const STORE_SCAN_PAGE_MAX: i32 = 500;

/// Seats in one page of a read of all: making sense of a page holds the shard for a millisecond or
/// two, and others have their turn between two pages.
pub const STORE_SEATS_PAGE_MAX: i32 = 250;

/// Partition keys of which a look at the free seats asks at once, each for one page at a time: a
/// house of 20,000 seats on 34 keys in some 100 ms, with no key asked for more than two thirds of
/// what its partition takes in read units.
pub const SEAT_KEYS_SIGHTED_AT_ONCE: usize = 8;

/// Single writes of one call outside the request path that are under way at once.
pub const STORE_ADMIN_CALLS_AT_ONCE: usize = 8;

/// Looks at an event's stripes while its total is being changed: each but the first means that
/// somebody else changed it, or bought what was to be taken out, in between.
pub const SET_TOTAL_ROUNDS_MAX: u32 = 8;

/// Lines a shard logs about the store in one second; what is over is counted, not written.
pub const STORE_LOG_LINES_PER_SECOND: u32 = 10;

/// Longest text of the store that goes into a log line, in bytes.
pub const STORE_LOG_BYTES_MAX: usize = 2 * 1024;

/// How long the first or a renewed set of credentials may take to come.
pub const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// Credentials are renewed this long before they expire, off the request path.
pub const CREDENTIALS_RENEW_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Pause between looks at the credentials' expiry, and after a renewal that failed.
pub const CREDENTIALS_LOOK_EVERY: Duration = Duration::from_secs(20);

/// Parts of the expiry index for each minute. Every hold and its end write it once: a partition takes
/// 1,000 writes a second, so that holds and ends together may come to 32,000 a second in a minute.
/// Stored data: it must not change from one version to the next.
pub const EXPIRY_SHARDS: u16 = 32;

/// Holds in one page of those that are due: a transaction's worth and some, for many have ended
/// already when they are found; making sense of them holds the shard for about a millisecond.
pub const STORE_DUE_PAGE_MAX: usize = 200;

/// How long `tables create` waits for a table or an index to become ACTIVE.
pub const TABLE_ACTIVE_WAIT_MAX: Duration = Duration::from_secs(180);

/// Pause between two looks at a table that is being made.
pub const TABLE_POLL: Duration = Duration::from_millis(250);

/// How long the embedded engine may take to finish its requests when it is stopped.
pub const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Default bound of one attempt at the store (DDB_TIMEOUT).
pub const STORE_ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);

/// Released records are purged by the store's TTL after this: far longer than any client retries.
/// Confirmed ones are orders and are never purged.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

// ---- The group commit ---------------------------------------------------------------------------

/// Members waiting in one line, or for one lane alone: at 99 per 20 ms one lane has about 1.6 s of
/// work with them, beyond any useful deadline.
pub const LANE_QUEUE_MAX: usize = 8_192;

/// A stripe that is known to have less than this is watched unit by unit: what one transaction takes
/// at the largest default quantity.
pub const STRIPE_SCARCE_UNITS: u64 = BATCH_MEMBERS_MAX as u64 * QTY_MAX_DEFAULT as u64;

/// Default for how long after a strong read of all stripes began callers may be told that there is too
/// little (SOLD_OUT_LATCH_MS): the end of a sale costs a read each time, not a write per caller.
pub const SOLD_OUT_LATCH_DEFAULT: Duration = Duration::from_millis(50);

/// The longest that can be set: what comes back on another node is not on sale for so long.
pub const SOLD_OUT_LATCH_MAX: Duration = Duration::from_secs(1);

/// How long it is believed that a stripe has little: others may have given back to it.
pub const STRIPE_SCARCE_AGE: Duration = Duration::from_secs(1);

/// Holds past their time waiting in one lane to be given back: a few batches. The reclaimer comes
/// back for the rest.
pub const LANE_QUIET_MAX: usize = 1_024;

/// A full lane looks this often for callers that have gone: looking costs a pass over the queue,
/// which must not become the price of every call that is shed.
pub const LANE_SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Lanes of one shard. Those of an idle event are dropped, so this bounds what is being sold at one
/// instant.
pub const LANES_MAX: usize = 16_384;

/// Events whose stripe count a shard remembers.
pub const EVENTS_KNOWN_MAX: usize = 16_384;

/// How an event's commits of which nothing is remembered are told apart (`coordinator/habits.rs`): what
/// one that was found to be of a hold counts for, against 1 of one that had no record. 4: looking
/// first pays while more than one in five is of a hold, for a transaction cancelled in vain costs
/// everybody in it a second one, and a look one of the twenty milliseconds of each.
pub const HABIT_OF_A_HOLD: u8 = 4;

/// From here on they are looked at first: one hold met is enough.
pub const HABIT_FROM: u8 = 4;

/// And no more than this is kept of them, so that a change is learned within a few commits.
pub const HABIT_MAX: u8 = 8;

/// Operations a shard has taken and not answered.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 65_536;

/// Calls of a shard that wait for an answer, of its own clients and of other shards.
pub const CALLS_WAITING_MAX: usize = 2 * OPERATIONS_IN_FLIGHT_MAX;

/// Calls joined to, or queued behind, one reservation_id in flight.
pub const CALLS_PER_RESERVATION_MAX: usize = 64;

/// How often one operation may find its record or its seats other than its write was for. Each time
/// it knows more; this many times over it is told to come back.
pub const TURNS_PER_OPERATION_MAX: u32 = 16;

/// Times a choice of seats may meet others' seats before it waits for them to be read anew: each time
/// it learns of the seats it met, and of a house that others have half sold that is too little.
pub const SEAT_COLLISIONS_MAX: u32 = 1;

/// Loose lanes of one event on a shard, for writes that touch nothing shared: a few transactions
/// side by side hide the store's latency, and batches still form.
pub const LOOSE_LANES: u16 = 4;

/// Loose lanes of a seated event on the shard that owns it: all of its reservations go through them.
pub const SEAT_LANES: u16 = 8;

/// Beyond so many ends of expired holds under way on a shard they are bundled: fewer fit beside the
/// sales in one transaction of the stripe.
pub const BUNDLE_FROM: usize = 24;

/// Lanes of bundles per stripe on a shard. One, with a transaction in flight, gives back thousands a
/// second; more would only stand in the way of the sales.
pub const BUNDLE_LANES: u16 = 1;

/// Reads of records that a shard has under way at a time, of up to [`BATCH_GET_KEYS_MAX`] each.
pub const LOOKUPS_IN_FLIGHT_MAX: usize = 4;

/// Operations of one event waiting for a seat that another one is about to take.
pub const SEAT_WAITERS_MAX: usize = 8_192;

/// Events whose seats a shard remembers, but for those with something under way.
pub const SEAT_DESKS_MAX: usize = 64;

/// How old the map of an event's seats may be when a question is answered from it, at least: reading
/// it anew costs a read of every seat, so the bound grows with the time a read takes.
pub const SEAT_MAP_AGE_MIN: Duration = Duration::from_secs(1);

/// How old it may be at most.
pub const SEAT_MAP_AGE_MAX: Duration = Duration::from_secs(30);

/// How old a status may be, which says of when it is: it is read anew meanwhile, for the next one.
pub const STATUS_AGE_MAX: Duration = Duration::from_secs(600);

/// Free seats up to which a look at those alone is taken rather than a read of all: making sense of
/// each costs the shard some microseconds, and who asks for more of them than there are is refused
/// once per look.
pub const SEATS_SIGHTED_MAX: u64 = 2_000;

/// The part of its time that a shard may spend on reading one event's seats: one in this many.
pub const SEAT_MAP_READ_SHARE: u64 = 16;

/// Default for how old what a check is answered from may be (READ_STALENESS_MS): ten strong reads'
/// time, and less than a person notices.
pub const READ_STALENESS_DEFAULT: Duration = Duration::from_millis(50);

/// Shortest that can be set beside 0: below it every check would wait for a read all the same.
pub const READ_STALENESS_MIN: Duration = Duration::from_millis(1);

/// Longest that can be set: a check that is older advises nobody.
pub const READ_STALENESS_MAX: Duration = Duration::from_secs(1);

/// Events whose units a shard has a snapshot of: more than are asked about within a snapshot's time.
/// At 24 bytes a stripe 1.6 MB when all of them have [`STRIPES_MAX`].
pub const SNAPSHOTS_MAX: usize = 1_024;

/// Calls waiting for one read of one event.
pub const READ_WAITERS_MAX: usize = 16_384;

/// First pause after a conflict or a throttle; doubled each time, jittered from half to full.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(4);

/// Longest pause between tries.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Longest time for which a lane that conflicts again and again leaves the line to other lanes: long
/// enough for processes that share stripes to come apart, short enough to come back from it.
pub const LANE_YIELD_MAX: Duration = Duration::from_secs(1);

/// Lanes of one line below which their transactions leave as they can: with few, each is most of what
/// the line has.
pub const PACED_LANES_MIN: u64 = 4;

/// Once one in so many lanes is busy, transactions leave at even distances.
pub const PACED_FROM_SHARE: u64 = 4;

/// Longest distance that is kept: what a call may wait for it beside a free lane.
pub const PACE_MAX: Duration = Duration::from_millis(2);

/// Callers that have come together for whom a free lane does not wait any longer: their transaction
/// costs each of them a third of what one for two would.
pub const GATHERED_MEMBERS: usize = 16;

/// How long the rate at which a line moves is counted for one look: a few transactions.
pub const FLOW_WINDOW: Duration = Duration::from_millis(50);

/// How old a look at the rate may be for callers to be turned away for it.
pub const FLOW_AGE_MAX: Duration = Duration::from_secs(1);

/// How long a line is kept short after somebody was last turned away from it: several transactions,
/// in which a caller more or less says nothing.
pub const SHORT_LINE_FOR: Duration = Duration::from_millis(200);

/// Who gives a call less time than this and is turned away says nothing of the others' line: it is in
/// more haste than they are, most of whom give it [`CALL_TIMEOUT_DEFAULT`].
pub const PATIENCE_USUAL_MIN: Duration = Duration::from_millis(100);

/// What a caller is told to wait when a queue is full or the store is busy, at least.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The most that it is told to wait, however long the line: by then most of it has gone.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

// ---- The wire -----------------------------------------------------------------------------------

/// Default deadline of a call that brings none (GRPC_TIMEOUT).
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Longest deadline a client may ask for; a longer one is cut to this.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Streams of one connection at a time (GRPC_MAX_CONCURRENCY).
pub const STREAMS_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Connections of one shard; one more is closed with a log line.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

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
pub const READ_BYTES_PER_TURN_MAX: usize = 64 * 1024;

/// Rounds of one turn, HTTP/2 and then the calls. Two serve nearly every turn; a handler that wakes
/// itself each time it is polled cannot hold the shard.
pub const ROUNDS_PER_TURN_MAX: usize = 8;

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
pub const COLD_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long a connection that this side ended is read on, so that the peer's last words do not
/// turn the close into a reset that takes answers with it.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// Bytes read and forgotten meanwhile: what a peer may have on its way.
pub const LINGER_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;

/// Calls on the cold services (health, reflection) under way at once in the whole process.
pub const COLD_CALLS_MAX: usize = 256;

/// Body frames buffered in each direction of a cold call.
pub const COLD_FRAMES_BUFFERED: usize = 8;

// ---- The shard ----------------------------------------------------------------------------------

/// Registered buffer memory of one executor. Its default pins 30 MiB; nothing here does file I/O.
pub const RING_BUFFER_BYTES: usize = 64 * 1024;

/// Depth of a shard's rings. Not for what is in flight: the kernel finds what a ring waits for in a table
/// of a sixteenth as many places, and looks there whenever a timer is taken back, thousands of times a second.
/// At the executor's own 128, 5,000 connections lie in 8 places, 600 in each (measured: 18 % of the CPU).
pub const RING_DEPTH: usize = 1024;

/// Messages waiting in one shard's inbox from other shards and the side thread.
pub const INBOX_MAX: usize = 65_536;

/// Pause between two looks of a shard for holds that are past their time. What is found is given
/// back within five seconds of its time: this, the lag of the index, and a few transactions.
pub const RECLAIM_EVERY: Duration = Duration::from_millis(2_500);

/// Keys of the expiry index that a shard works through at a time: enough to fill its bundles, and no
/// more, for sales share the store with them.
pub const RECLAIM_KEYS_AT_ONCE: usize = 2;

/// Holds of one page of the index, whose ends are under way together.
pub const RECLAIM_PAGE: usize = 200;

/// How far into a minute the one before it is looked at each time.
pub const RECLAIM_LOOK_BACK: Duration = Duration::from_secs(15);

/// After that it is looked at once in so many rounds.
pub const RECLAIM_LAST_MINUTE_EVERY: u32 = 8;

/// Once in so many rounds, about every five minutes, all minutes are looked at that a hold which
/// was missed may lie in.
pub const RECLAIM_WIDE_EVERY: u32 = 120;

/// How many minutes that is at most; what is older is found by the next start.
pub const RECLAIM_WIDE_MINUTES: u64 = 30;

/// How long one reclaim may wait for its write before it is left to the next round.
pub const RECLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// A store that cannot be asked for expired holds is complained about this often.
pub const RECLAIM_COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Default for the settled answers a shard remembers (IDEMPOTENCY_CACHE_SIZE).
pub const ANSWERS_CACHED_DEFAULT: usize = 10_000;

/// Default for how long it remembers them (IDEMPOTENCY_TTL_SECONDS).
pub const ANSWERS_CACHED_FOR_DEFAULT: Duration = Duration::from_secs(300);

/// Default for how long a stop may take (SHUTDOWN_GRACE).
pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// What the other shards have left to settle when one has failed: far more than a write takes, and
/// what waits for the failed one never ends.
pub const FAILED_GRACE: Duration = Duration::from_secs(2);

/// What a shard has left to end once it is told that the grace is over: a few looks into its inbox.
/// One that has not ended then hangs, and the process ends without it.
pub const ABORT_GRACE: Duration = Duration::from_secs(2);

// ---- The side thread ----------------------------------------------------------------------------

/// How long a scrape waits for all shards together. A busy shard answers in well under a
/// millisecond; Prometheus gives up after 10 s.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Scrapes under way or waiting for the one under way; one more is answered 503.
pub const SCRAPES_MAX: usize = 4;

/// Connections to METRICS_PORT. More wait in the kernel's backlog until one closes.
pub const HTTP_CONNECTIONS_MAX: usize = 64;

/// Bytes of a request line and its headers on METRICS_PORT.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 * 1024;

/// How long a request on METRICS_PORT may take to send its headers, a connection's idle time
/// before them included.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Age at which a connection to METRICS_PORT is asked to leave: a peer that reads nothing cannot
/// hold a slot for longer than this and its grace.
pub const HTTP_CONNECTION_AGE_MAX: Duration = Duration::from_secs(120);

/// What a connection to METRICS_PORT that was asked to leave has left.
pub const HTTP_CONNECTION_AGE_GRACE: Duration = Duration::from_secs(5);

/// Connections to ADMIN_PORT. More wait in the kernel's backlog until one closes.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Calls of one connection to ADMIN_PORT at a time; one more is answered RESOURCE_EXHAUSTED.
pub const ADMIN_CALLS_PER_CONNECTION_MAX: usize = 32;

/// How long an admin call may take: a transaction with its retries, many times over.
pub const ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One message on ADMIN_PORT: [`SEATS_PER_CHUNK_MAX`] seats with every text at its longest.
pub const ADMIN_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Violations that one refusal names: enough to see what is wrong with a file, and less than the
/// 16 KiB of header that clients take.
pub const VIOLATIONS_TOLD_MAX: usize = 20;

/// Seats in one message of an import, or in one call that blocks them: five transactions.
pub const SEATS_PER_CHUNK_MAX: usize = 500;

/// Seats written by one transaction of an import.
pub const SEATS_WRITTEN_AT_ONCE_MAX: usize = TRANSACTION_ACTIONS_MAX;

/// Writes of one import in flight: at 20 ms each 40,000 seats a second, beyond what a table takes.
pub const SEAT_WRITES_IN_FLIGHT_MAX: usize = 8;

/// Imports under way at once: they share the table's write units with the sale.
pub const IMPORTS_MAX: usize = 4;

/// What an import that found no place is told to wait: others take seconds.
pub const IMPORTS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long an import waits for the client's next message.
pub const ADMIN_CHUNK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Section, row or number of a seat, in bytes: a seat's item stays under 1 KB, one write unit.
pub const SEAT_TEXT_BYTES_MAX: usize = 64;

/// Name or venue of an event, in bytes.
pub const EVENT_TEXT_BYTES_MAX: usize = 256;

/// Largest price, in the currency's smallest unit: exact in every number format on the way.
pub const PRICE_AMOUNT_MAX: i64 = 1_000_000_000_000;

/// Age at which a connection to ADMIN_PORT is cut, whatever it does: the longest call is far shorter.
pub const ADMIN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);

/// What the side thread's own connections have left once it is told to stop: a scrape under way can
/// finish.
pub const SIDE_STOP_GRACE: Duration = Duration::from_secs(2);

/// Pause after an accept that failed (no descriptors left), so that the loop does not spin.
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

// ---- What can be configured, and how far --------------------------------------------------------

/// Shards of one process: beyond any machine sold, and a typing error in SHARDS stays an error.
pub const SHARDS_MAX: usize = 1_024;

/// Shortest span that can be set for a deadline or a timeout: what the shard's timer resolves.
pub const CONFIGURED_SPAN_MIN: Duration = Duration::from_millis(1);

/// Longest attempt at the store that can be set (DDB_TIMEOUT): no call lives longer.
pub const STORE_ATTEMPT_TIMEOUT_MAX: Duration = CALL_TIMEOUT_MAX;

/// Default for how often a read is tried again (DDB_MAX_RETRIES).
pub const STORE_READ_RETRIES_DEFAULT: u32 = 3;

/// The most read retries that can be set: more would outlive every deadline.
pub const STORE_READ_RETRIES_MAX: u32 = 10;

/// The most streams per connection that can be set: what a shard takes in flight altogether.
pub const STREAMS_PER_CONNECTION_MAX: u32 = OPERATIONS_IN_FLIGHT_MAX as u32;

/// Shortest hold that can be set: shorter ends before its buyer has seen it.
pub const HOLD_TTL_MIN: Duration = Duration::from_secs(1);

/// Shortest pause between the server's own pings that can be set: shorter is a load of its own.
pub const KEEP_ALIVE_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Longest pause between pings that can be set: beyond it load balancers drop idle connections.
pub const KEEP_ALIVE_PERIOD_MAX: Duration = Duration::from_secs(3_600);

/// Shortest connection age that can be set; zero turns ageing off.
pub const CONNECTION_AGE_MIN: Duration = Duration::from_secs(1);

/// Longest connection age that can be set.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The most answers per shard that can be cached: about a quarter of a GiB of records.
pub const ANSWERS_CACHED_MAX: usize = 1_000_000;

/// Shortest memory for a settled answer that can be set.
pub const ANSWERS_CACHED_FOR_MIN: Duration = Duration::from_secs(1);

/// Longest memory for a settled answer that can be set.
pub const ANSWERS_CACHED_FOR_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Longest grace of a stop that can be set; zero stops at once.
pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(600);

/// Longest spin before a shard sleeps that can be set: longer burns the core for no better latency.
pub const SPIN_BEFORE_PARK_MAX: Duration = Duration::from_millis(1);

/// Bytes of a service name, version, profile, region: they become labels and log fields.
pub const LABEL_BYTES_MAX: usize = 128;

/// Bytes of a table name, by DynamoDB's own limits.
pub const TABLE_NAME_BYTES_MIN: usize = 3;
/// See [`TABLE_NAME_BYTES_MIN`].
pub const TABLE_NAME_BYTES_MAX: usize = 255;

// ---- What the process asks of the machine -------------------------------------------------------

/// How long a command waits for a running server to take its connection.
pub const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a command waits for the answer: creating an event writes up to [`STRIPES_MAX`] items.
pub const COMMAND_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that `event list` sorts and prints: as many as memory takes without a thought.
pub const EVENTS_LISTED_MAX: usize = 100_000;

/// One message of a listing: a page of [`STORE_SCAN_PAGE_MAX`] reservations with all they can have.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a file of seats: [`SEATS_PER_EVENT_MAX`] lines with every text at its longest.
pub const IMPORT_FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Wrong lines that an import tells; the others are counted.
pub const IMPORT_PROBLEMS_SHOWN: usize = 20;

/// How long an import waits for a server that takes nothing: longer than any write it makes of it.
pub const IMPORT_STALL_MAX: Duration = Duration::from_secs(30);

/// Pause between two pings of a command that waits: a server that has gone is found out.
pub const COMMAND_PING_EVERY: Duration = Duration::from_secs(10);

/// How long `health` waits in all: probes are usually given little more.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `check` waits for the store: a look at it, not a siege.
pub const PREFLIGHT_STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tickets and buyers of one `demo`: more would only take longer to tell the same.
pub const DEMO_TICKETS_MAX: u64 = 1_000_000;
/// See [`DEMO_TICKETS_MAX`].
pub const DEMO_BUYERS_MAX: u64 = 5_000_000;
/// Connections of one `demo`: they share the machine's descriptors with the server.
pub const DEMO_CONNECTIONS_MAX: u32 = 256;

/// Oldest kernel whose io_uring serves the executor.
pub const KERNEL_MIN: (u32, u32) = (5, 8);

/// Below this RLIMIT_MEMLOCK an executor refuses to start, whatever it needs.
pub const MEMLOCK_FLOOR_BYTES: u64 = 512 * 1024;

/// Locked memory of one shard: [`RING_BUFFER_BYTES`] registered with each of three rings (measured
/// as VmPin: 192 KiB) and the rings themselves at [`RING_DEPTH`] (104 KiB each), rounded up. Kernels
/// from 5.12 to about 6.13 count only the registered part.
pub const MEMLOCK_SHARD_BYTES: u64 = 512 * 1024;

/// Descriptors of the process beside connections: standard streams, logs, the side thread's sockets.
pub const DESCRIPTORS_OF_PROCESS: u64 = 64;

/// Descriptors of one shard beside connections: three rings, an eventfd, timers, the listener.
pub const DESCRIPTORS_OF_SHARD: u64 = 16;

/// Client connections of one shard under which serving is pointless.
pub const CONNECTIONS_PER_SHARD_USEFUL: u64 = 64;

/// Client connections of one shard under which an operator should know of the limit.
pub const CONNECTIONS_PER_SHARD_USUAL: u64 = 1_000;
