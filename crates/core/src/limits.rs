//! Every bound of the engine, the rules and the audit, each with its reason.

use std::time::Duration;

// ---- Input --------------------------------------------------------------------------------------

/// Longest event, reservation or seat id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Longest payment_intent_id, in bytes: keeps a record well under 1 KB, one write unit.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Default for the most units one reservation may take (MAX_QTY).
pub const QTY_MAX_DEFAULT: u32 = 10;

/// Upper bound of MAX_QTY.
pub const QTY_MAX_CEILING: u32 = 1_000;

/// Most seats that a reservation may name, unless MAX_QTY is larger.
pub const SEATS_PER_RESERVATION_MAX: usize = 10;

/// Most seats of one reservation if MAX_QTY allows that many: the actions of a transaction less one for the record.
pub const SEATS_PER_TRANSACTION_MAX: usize = TRANSACTION_ACTIONS_MAX - 1;

/// Bytes of the section names that a rejection of an unknown section lists: clients accept 8 KB of trailers.
pub(crate) const SECTIONS_LISTED_BYTES_MAX: usize = 1_024;

/// Most stripes of one event: a strong read of all of them stays one BatchGetItem.
pub const STRIPES_MAX: u16 = 64;

/// Most stripes of an event whose creator gives no number. At 40 reservations per transaction and about 23 ms each,
/// between the modelled times of 25 and of 100 actions, a lane sells 1,700 per second: twenty lanes sell 30,000
/// with a tenth to spare.
pub(crate) const STRIPES_AUTO_MAX: u16 = 20;

/// Fewest tickets per stripe of such an event: a smaller stripe is sold out within a few transactions, and then
/// reservations search the other stripes.
pub(crate) const STRIPE_UNITS_MIN: u64 = 250;

/// Number of stripes of an event with `total` tickets whose creator gives no number.
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

// ---- The store ----------------------------------------------------------------------------------

/// Actions of one TransactWriteItems: DynamoDB's limit.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;

/// Bytes of one TransactWriteItems: DynamoDB's limit.
const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Upper bound of one record in a request, in bytes: three ids, the payment intent, ten seats, names and hashes. A
/// record of more seats is larger, and the actions of its seats leave room for no other.
pub(crate) const RECORD_BYTES_MAX: usize = 4 * 1024;

/// Most reservations of one batch: the actions of a transaction less one for the stripe.
pub const BATCH_ENTRIES_MAX: usize = TRANSACTION_ACTIONS_MAX - 1;

/// Fewest confirmation counters of an event: one for each unstriped lane of a shard.
const CONFIRMATION_COUNTERS_MIN: u16 = UNSTRIPED_LANES;

/// Most confirmation counters of an event: with [`STRIPES_MAX`] stripes, a read of both stays one BatchGetItem.
const CONFIRMATION_COUNTERS_MAX: u16 = 36;

/// Number of confirmation counters of an event with this many stripes. Follows the stripes, because events that sell
/// faster have more of both. Stored data: must not decrease between versions, or commits are missing in the sum.
pub const fn confirmation_counters(stripes: u16) -> u16 {
    if stripes < CONFIRMATION_COUNTERS_MIN {
        CONFIRMATION_COUNTERS_MIN
    } else if stripes > CONFIRMATION_COUNTERS_MAX {
        CONFIRMATION_COUNTERS_MAX
    } else {
        stripes
    }
}

/// Keys of one BatchGetItem: DynamoDB's limit.
pub const BATCH_GET_KEYS_MAX: usize = 100;

// ---- The group commit ---------------------------------------------------------------------------

/// Most entries waiting in one queue: at 99 per 20 ms one lane needs about 1.6 s for them, longer than any useful
/// deadline.
pub const LANE_QUEUE_MAX: usize = 8_192;

/// Below this many remaining units a stripe is tracked exactly: the units of one full transaction at the largest
/// default quantity.
pub(crate) const STRIPE_SCARCE_UNITS: u64 = BATCH_ENTRIES_MAX as u64 * QTY_MAX_DEFAULT as u64;

/// Default of SOLD_OUT_LATCH_MS: how long one strong read of all stripes may be reused to answer "sold out". The end of
/// a sale then costs one read per interval, not one write per call.
pub const SOLD_OUT_LATCH_DEFAULT: Duration = Duration::from_millis(50);

/// Fewest units of a stripe from which half is moved to a stripe that is short: a move then brings what half a
/// transaction of single tickets sells. Below it, transactions take what they need from where it is.
pub(crate) const STOCK_MOVE_SOURCE_MIN: u64 = 100;

/// Most units of one move: what one lane sells in about a second.
pub(crate) const STOCK_MOVE_UNITS_MAX: u64 = 5_000;

/// Most moves that follow from one read of all stripes: so many lanes of a shard sell again at once.
pub(crate) const STOCK_MOVES_PER_READ_MAX: u64 = 8;

/// Longest pause after a transaction on a stripe that several processes share: the usual time of a transaction.
pub(crate) const SHARED_STRIPE_GAP_MAX: Duration = Duration::from_millis(30);

/// Conflicts after which a lane gives up a move, and the stripes are read again. The owner of the other stripe may use
/// it nine tenths of the time; then two of three moves succeed within ten attempts.
pub(crate) const STOCK_MOVE_CONFLICTS_MAX: u32 = 10;

/// Longest pause before a move is tried again: shorter than a transaction, so that the gaps between those of the owner
/// are found.
pub(crate) const STOCK_MOVE_PAUSE: Duration = Duration::from_millis(4);

/// Reads of all stripes for one entry that the total has units for, while no stripe seems to have them: they are being
/// moved, or other entries take them first.
pub(crate) const STRIPE_READS_PER_ENTRY_MAX: u8 = 16;

/// How long a low stripe is assumed to be low, since other processes may return units to it.
pub(crate) const STRIPE_SCARCE_AGE: Duration = Duration::from_secs(1);

/// Most overdue holds waiting in one lane: about ten batches. The reclaimer finds the rest again.
pub(crate) const LANE_BACKGROUND_MAX: usize = 1_024;

/// Shortest interval between searches of a full queue for entries that have missed their deadline, because a search is
/// linear in the length of the queue.
pub(crate) const LANE_SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Most lanes of one shard. Lanes of idle events are dropped, so this limits the events that are sold at the same
/// time.
pub(crate) const LANES_MAX: usize = 16_384;

/// Events whose layout a shard caches.
pub(crate) const EVENTS_CACHED_MAX: usize = 16_384;

/// Weight of a commit that confirmed a hold in the hold predictor (`engine/hold_predictor.rs`), against 1 for a commit
/// without a record. 4: reading the record first pays off when more than one commit in five confirms a hold, because a
/// transaction cancelled for a wrong guess delays every entry by a second transaction of 20 ms, and a read delays each
/// commit by a few ms.
pub(crate) const HOLD_SCORE_STEP: u8 = 4;

/// Score from which records are read first: one confirmed hold is enough.
pub(crate) const HOLD_SCORE_THRESHOLD: u8 = 4;

/// Upper bound of the score, so that the predictor adapts within a few commits.
pub(crate) const HOLD_SCORE_MAX: u8 = 8;

/// Most operations in flight on a shard.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 65_536;

/// Most calls that wait for the same reservation_id.
pub const CALLS_PER_RESERVATION_MAX: usize = 64;

/// How often one operation may find its record or seats changed. Each attempt uses the newer state; beyond this the
/// operation is rejected as busy.
pub(crate) const ATTEMPTS_PER_OPERATION_MAX: u32 = 16;

/// How often a choice of seats may collide before the seats are read again. A collision shows only the seats of that
/// attempt, which is too little for an event that other processes have half sold.
pub(crate) const SEAT_COLLISIONS_MAX: u32 = 1;

/// Unstriped lanes per event and shard, for writes that share no item: a few parallel transactions hide the store's
/// latency, and batches still form.
pub(crate) const UNSTRIPED_LANES: u16 = 4;

/// Unstriped lanes of a seated event on its shard: all of its reservations use them.
pub(crate) const SEAT_LANES: u16 = 8;

/// Above this many expiries in flight on a shard, expiries are batched into release records. Up to this many fit into a
/// transaction of the stripe together with sales.
pub(crate) const EXPIRY_BATCH_THRESHOLD: usize = 24;

/// Lanes of expiry batches per stripe and shard. One transaction in flight returns thousands of holds per second; more
/// would compete with sales.
pub(crate) const EXPIRY_BATCH_LANES: u16 = 1;

/// Reads of records in flight on a shard, of up to [`BATCH_GET_KEYS_MAX`] records each.
pub(crate) const RECORD_READS_IN_FLIGHT_MAX: usize = 4;

/// Operations of one event that wait for a seat lock.
pub(crate) const SEAT_WAITERS_MAX: usize = 8_192;

/// Seated events that a shard keeps in memory. Above it an idle event is evicted for each new one; events in use are
/// kept.
pub(crate) const SEATED_EVENTS_MAX: usize = 64;

/// Lower bound of the age at which a seat map is refreshed for a query: a refresh reads every seat, so the bound grows
/// with the duration of the read.
pub(crate) const SEAT_MAP_AGE_MIN: Duration = Duration::from_secs(1);

/// Upper bound of this age.
pub const SEAT_MAP_AGE_MAX: Duration = Duration::from_secs(30);

/// Age from which a status is refreshed in the background; the answer states its time.
pub(crate) const STATUS_AGE_MAX: Duration = Duration::from_secs(600);

/// Most free seats for which only the free seats are read to verify "sold out": decoding a seat costs about a
/// microsecond, and a request for more seats than are free is rejected once per read.
pub(crate) const VERIFIABLE_SEATS_MAX: u64 = 2_000;

/// Maximum age of a seat map as a multiple of the cost of its read, which is its duration times the keys that are read in
/// parallel. While the event is in use, the map is read again at half of this age: one key is in flight at most one
/// sixteenth of the time.
pub(crate) const SEAT_MAP_READ_SHARE: u64 = 32;

/// Partition keys that a read of the seats reads in parallel, one page of each at a time: 20,000 seats on 50 keys take about
/// 30 ms. The first calls of a process wait for the read.
pub const SEAT_KEYS_IN_PARALLEL: usize = 8;

/// Events with a stock snapshot: more than are queried within a snapshot's age. 24 bytes per stripe, 1.6 MB in total
/// if all events have [`STRIPES_MAX`] stripes.
pub(crate) const SNAPSHOTS_MAX: usize = 1_024;

/// Bound of waiters: all waiters for stripe reads of a shard; the stripe reads in flight of a shard; the operations
/// that wait for a verification of one seated event; the waiters for its seat map.
pub(crate) const READ_WAITERS_MAX: usize = 16_384;

/// First pause after a conflict or throttling; doubled each time, and uniform between half of it and all of it.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(4);

/// Longest pause between attempts.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Transactions with an unknown outcome that a shard sends again at the same time: each of them costs the store as much
/// as a new one. Four resolve some hundred a second if the store is well.
pub(crate) const RESEND_SLOTS_MAX: usize = 4;

/// Longest time-out of an attempt to resolve an unknown outcome: thrice the slowest store that is worth waiting for,
/// and short enough that an answer which never comes does not delay the next attempt for long.
pub(crate) const RESEND_TIMEOUT_MAX: Duration = Duration::from_secs(15);

/// Longest pause between two resends of a shard that time out. With it, 12 shards use up a store that takes 5 s for
/// each transaction, one after the other, and 400 shards one that takes 150 ms.
pub(crate) const RESEND_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest pause between two resends that the store refuses, or that cannot be sent: they cost the store little, and
/// everything must be resolved within seconds of its return.
pub(crate) const RESEND_PAUSE_REFUSED_MAX: Duration = Duration::from_secs(2);

/// A lane whose transaction has had an unknown outcome for this long rejects what waits behind it: longer than a lost
/// answer takes to resolve, and shorter than most callers wait.
pub(crate) const LANE_STUCK_AFTER: Duration = Duration::from_secs(1);

/// Longest time that a repeatedly conflicting lane leaves the queue to other lanes: long enough for processes that
/// share stripes to settle on different stripes, short enough to recover.
pub(crate) const LANE_YIELD_MAX: Duration = Duration::from_secs(1);

/// Fewer lanes than this are not paced: there is nothing to spread.
pub(crate) const PACED_LANES_MIN: u64 = 2;

/// The same while processes conflict: with few lanes, each of them is a large part of the queue's capacity, and a lane
/// that waits leaves its stripe to the other process.
pub(crate) const PACED_LANES_CONTENDED_MIN: u64 = 4;

/// Pacing starts when one in this many lanes is busy.
pub(crate) const PACED_FROM_SHARE: u64 = 4;

/// Longest pacing interval: what a call may wait although a lane is free. A quarter of a transaction, so that four lanes
/// are spread evenly.
pub(crate) const PACE_MAX: Duration = Duration::from_millis(4);

/// Longest time that a short queue waits for more entries, with one process that sells the event.
pub(crate) const BATCHING_DELAY: Duration = Duration::from_millis(2);

/// With several processes, [`BATCHING_DELAY`] is multiplied by their number, up to this one: a transaction takes about 15
/// ms, so a delay of up to 8 ms adds less to the P95 than the transactions that are saved.
pub(crate) const BATCHING_DELAY_PROCESSES_MAX: usize = 4;

/// A transaction with this many entries shows that calls arrive fast enough for a batching delay, although few lanes are
/// busy.
pub(crate) const BATCHING_WORTH_ENTRIES: usize = 4;

/// Entries from which a free lane does not wait for more. A transaction costs as much CPU time as ten entries: (10 +
/// 16) / 16 = 1.6 per entry in a transaction of 16, compared with (10 + 2) / 2 = 6 in one of two.
pub(crate) const BATCHING_DELAY_ENTRIES_MAX: usize = 16;

/// Length of one sample of the queue's throughput: a few transactions.
pub(crate) const RATE_WINDOW: Duration = Duration::from_millis(50);

/// Age up to which a throughput sample may be used to reject calls.
pub(crate) const RATE_AGE_MAX: Duration = Duration::from_secs(1);

/// How long short-queue mode lasts after the last rejection: several transactions, so that a single call makes no
/// difference.
pub(crate) const SHORT_QUEUE_DURATION: Duration = Duration::from_millis(200);

/// A rejected call with a deadline shorter than this does not start short-queue mode: most calls have the default
/// deadline, for which the queue is not too long.
pub const SHORT_QUEUE_DEADLINE_MIN: Duration = Duration::from_millis(100);

/// Lower bound of the retry delay sent to clients when a queue is full or the store is busy.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Upper bound of this delay: a queue of [`LANE_QUEUE_MAX`] entries takes about 1.6 s.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

// ---- The search for overdue holds ---------------------------------------------------------------

/// Parts of the expiry index for each minute. A partition takes 1,000 writes per second, and a hold and its end write
/// the index once each: 32,000 index writes per second for the holds of one minute, which is 16,000 holds with their
/// ends. Stored data: must not change between versions.
pub const EXPIRY_PARTS: u16 = 32;

/// Segments of a scan of the expiry index, divided among the shards of a process. Processes read them in different
/// orders and rarely find the same hold at the same time; each costs half a read unit when the index is empty.
pub const EXPIRY_SEGMENTS: u16 = 8;

/// Interval of the reads of a recent bucket, and the shortest of the scan. A hold is reclaimed within five seconds of
/// its expiry: this interval, the delay of the index, and a few transactions.
pub const RECLAIM_EVERY: Duration = Duration::from_millis(2_500);

/// Intervals of the first reader of a part between two reads of the second one, and for how many of them a hold must be
/// overdue before the second one expires it. With 2, a dead first reader delays the return of stock by less than ten
/// seconds.
pub(crate) const RECLAIM_SECOND_INTERVALS: u64 = 2;

/// The same interval for all other processes: up to 17 of them together read less than the first two.
pub(crate) const RECLAIM_LATER_INTERVALS: u64 = 12;

/// For how many intervals of the first reader a hold must be overdue before a process other than the first two expires
/// it.
pub(crate) const RECLAIM_LATER_OVERDUE_INTERVALS: u64 = 4;

/// Holds in the index that one process scans per second on average: 10 to 20 read units, as much as its reads of
/// buckets cost. An index of 500 holds is scanned at every interval, one of 100,000 holds every eight minutes.
pub(crate) const RECLAIM_SCAN_RATE: u64 = 200;

/// Longest interval of the scan, and so the longest time that a hold is overdue which no other rule finds: a hold that
/// a process placed in a bucket of the past before it died.
pub const RECLAIM_SCAN_EVERY_MAX: Duration = Duration::from_secs(600);

/// How long after its minute a bucket is read at every interval: the delay of the index and the duration of writes.
pub(crate) const RECLAIM_LOOK_BACK: Duration = Duration::from_secs(15);

/// A bucket that is empty this long after its minute is not read again: longer than the attempts of a write last whose
/// caller still waits.
pub(crate) const RECLAIM_SETTLE: Duration = Duration::from_secs(60);

/// Interval of the reads of a bucket between these two ages.
pub(crate) const RECLAIM_SETTLE_EVERY: Duration = Duration::from_secs(20);

/// Minutes before the current one whose buckets are read. What was not read by then is left to the scan, which costs
/// less than the buckets of many minutes.
pub(crate) const RECLAIM_WINDOW_MINUTES: u64 = 3;

/// Buckets that a shard reads in parallel: enough to fill its expiry batches, and no more, because sales share the
/// store.
pub(crate) const RECLAIM_BUCKETS_AT_ONCE: usize = 2;

/// Segments that a shard reads in parallel: they leave most of the shard to the buckets and to sales.
pub(crate) const RECLAIM_SEGMENTS_AT_ONCE: usize = 1;

/// Failures in a row after which a shard sends one read per interval until one succeeds. Fewer may concern one key.
pub(crate) const RECLAIM_FAILURES_MIN: u32 = 3;

/// Reads that failed for this long, or a search that did not run for this long, are an outage: the whole index is
/// scanned. Twice the time limit of a reclaim, so that a slow store is no outage.
pub(crate) const RECLAIM_OUTAGE_MIN: Duration = Duration::from_secs(10);

/// Difference between wall clock and monotonic clock that counts as a jump: more than a clock that is being corrected
/// differs between two reads.
pub(crate) const RECLAIM_CLOCK_STEP: Duration = Duration::from_secs(1);

/// Longest interval of reads that find only holds that cannot be expired: such a hold needs an operator.
pub(crate) const RECLAIM_STUCK_EVERY_MAX: Duration = Duration::from_secs(60);

/// Time limit of one reclaim in a queue, and how long a read of the expiry index waits for the reclaims of a page; the
/// next search finds the hold again.
pub const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

// ---- Membership ---------------------------------------------------------------------------------

/// Most processes listed in the membership item. Its size, about 180 bytes each, decides what each beat costs: 12 write
/// units with this many.
pub const MEMBERS_MAX: usize = 64;

/// Interval of the beats of a process, with up to [`MEMBERS_PER_BEAT_INTERVAL`] members. A member that dies is
/// forgotten after three of them; a process alone writes a third of a write unit per second.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Members up to which the interval stays [`BEAT_INTERVAL`]; with more it grows in proportion. Both the number of beats
/// and the size of each grow with the members: so the write units per second grow in proportion, not with the square.
pub(crate) const MEMBERS_PER_BEAT_INTERVAL: usize = 16;

/// Random part of an interval, in percent up or down, so that processes that started together do not beat together.
pub(crate) const BEAT_JITTER_PERCENT: u64 = 10;

/// Beats that a member may miss before it is forgotten: one is lost now and then, and an observer that beats itself at
/// the same interval sees a beat up to one interval late.
pub(crate) const MISSED_BEATS_MAX: u64 = 3;

/// After this many of its own intervals without a read of the item, an observer cannot tell who missed beats meanwhile.
/// More than two, because one failed beat must not keep a dead member alive.
pub(crate) const UNOBSERVED_INTERVALS_MAX: u64 = 3;

/// Shortest and longest interval that another process may announce: a wrong one keeps no member for ever.
pub(crate) const ANNOUNCED_INTERVAL_MIN: Duration = Duration::from_millis(100);
pub(crate) const ANNOUNCED_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How long an entry that cannot be read is left alone: a later version of the server may have written it, and would
/// write it again.
pub(crate) const UNREADABLE_MEMBER_AGE: Duration = Duration::from_secs(60);

/// Entries that one beat removes, so that its expression stays below the 4 KB that DynamoDB accepts.
pub(crate) const MEMBERS_REMOVED_AT_ONCE: usize = 32;

/// Pause before a process that leaves tries again to remove its entry.
pub(crate) const LEAVE_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of the version and of the address that a process announces.
pub(crate) const MEMBER_TEXT_BYTES_MAX: usize = 64;

// ---- The audit ----------------------------------------------------------------------------------

/// Breaches, overdue holds and repairs listed one by one; beyond this only their number is reported.
pub const AUDIT_ITEMS_SHOWN_MAX: usize = 50;

/// A hold that is overdue for longer is a breach. Expired stock returns within five seconds, 100,000 holds that expire
/// together within fifteen (docs/testing.md), and everything within ten seconds of the return of the store.
pub const AUDIT_OVERDUE_MAX: Duration = Duration::from_secs(60);

// ---- Seats --------------------------------------------------------------------------------------

/// Seats of one event in memory, about 30 MB: twice the largest stadium.
pub const SEATS_PER_EVENT_MAX: usize = 200_000;

/// How long a seat that is known to be taken is rejected without a write. Another process may have released the seat
/// meanwhile; after this time a repeated call is sent to the store again.
pub(crate) const SEAT_MEMORY_AGE: Duration = Duration::from_secs(1);

/// How long offered seats are not offered again: the time from the answer to the client's hold and its write.
pub(crate) const SEAT_OFFER_AGE: Duration = Duration::from_millis(300);

/// Runs of free seats compared for the best fit. More would send concurrent buyers to the same runs.
pub(crate) const SEAT_RUNS_COMPARED: usize = 16;

/// Runs examined for one that leaves no single seat. Rarely more than a few are needed; if every run is one seat too
/// long, examining all of a large venue would take a fifth of a millisecond.
pub(crate) const SEAT_ORPHANS_COMPARED_MAX: usize = 4_096;

/// For how long after a collision of chosen seats the choice among seats that other processes prefer needs a recent
/// map: a few transactions.
pub(crate) const SEAT_COLLISION_MEMORY: Duration = Duration::from_secs(1);

/// Maximum age of the map for such a choice: about one transaction.
pub(crate) const SEAT_OTHERS_PART_AGE: Duration = Duration::from_millis(25);

/// The same while more seats are free than [`VERIFIABLE_SEATS_MAX`]: a choice rarely meets another, and a read returns
/// many seats.
pub(crate) const SEAT_OTHERS_PART_AGE_MANY: Duration = Duration::from_millis(250);

/// For how long after a collision a process chooses the seats that it prefers from the front. Processes that get more
/// calls than others choose them from the back.
pub(crate) const SEAT_CONTESTED_MEMORY: Duration = Duration::from_secs(10);

/// Time between two reads of the free seats that verify "sold out" for one process; with more processes it is longer, so
/// that all of them read less than 25 times a second.
pub(crate) const SEAT_VERIFICATION_INTERVAL: Duration = Duration::from_millis(80);

/// A process chooses its preferred seats from the front when at most this share of them is free: more than processes
/// with the same load are apart at the end of a sale.
pub(crate) const SEAT_PART_LOW_SHARE: usize = 16;

/// Longest wait of a call while other processes sell the last seats: a few transactions.
pub(crate) const SEAT_OTHERS_SELL_WAIT_MAX: Duration = Duration::from_millis(150);

/// A process leaves the last seats that others prefer to them if they sell them within this time: until a choice of now is
/// written they would be sold.
pub(crate) const SEAT_CHOICE_HORIZON: Duration = Duration::from_millis(60);

/// Actions of a transaction for seats that other processes choose too: a collision cancels all of them. Four reservations
/// of one seat: eight lanes write more than a thousand of them a second.
pub(crate) const CONTENDED_SEATS_ACTIONS_MAX: usize = 8;

/// For how long after a collision the transactions for the last seats are that small: longer would be slow where one
/// process gets most of the calls.
pub(crate) const SEAT_CONTENTION_MEMORY: Duration = Duration::from_millis(100);

/// A longer run of seats is assumed to be unnumbered seating, because nearly all venues have shorter rows. It is split
/// anywhere instead of at its ends.
pub(crate) const SEAT_RUN_LONG: usize = 64;

// Relations between these bounds.
const _: () = {
    assert!(BATCH_ENTRIES_MAX < TRANSACTION_ACTIONS_MAX);
    assert!(RECORD_BYTES_MAX * TRANSACTION_ACTIONS_MAX < TRANSACTION_BYTES_MAX);
    // With the overhead of each seat in the request: its type, quotes, a comma.
    assert!(
        4 * ID_BYTES_MAX
            + PAYMENT_INTENT_BYTES_MAX
            + SEATS_PER_RESERVATION_MAX * (ID_BYTES_MAX + 16)
            < RECORD_BYTES_MAX
    );
    assert!((STRIPES_MAX + confirmation_counters(STRIPES_MAX)) as usize <= BATCH_GET_KEYS_MAX);
    assert!(STRIPES_AUTO_MAX <= STRIPES_MAX);
    // One bit per lane that takes from a shared queue.
    assert!(STRIPES_MAX as u32 <= u64::BITS && SEAT_LANES as u32 <= u64::BITS);
    // A reservation with units of every stripe must fit into one transaction.
    assert!((STRIPES_MAX as usize) < TRANSACTION_ACTIONS_MAX);
    assert!(LANE_QUEUE_MAX <= OPERATIONS_IN_FLIGHT_MAX);
    // A queue in short-queue mode still fills a transaction.
    assert!(BATCH_ENTRIES_MAX < LANE_QUEUE_MAX);
    assert!(RETRY_AFTER.as_micros() <= RETRY_AFTER_MAX.as_micros());
    assert!(RETRY_BACKOFF_MAX.as_micros() <= LANE_YIELD_MAX.as_micros());
    assert!(QTY_MAX_DEFAULT <= QTY_MAX_CEILING);
    assert!(SEAT_RUNS_COMPARED <= SEAT_ORPHANS_COMPARED_MAX);
    // The interval with the most members can be announced.
    assert!(
        BEAT_INTERVAL.as_millis() * MEMBERS_MAX as u128
            <= ANNOUNCED_INTERVAL_MAX.as_millis() * MEMBERS_PER_BEAT_INTERVAL as u128
    );
    // A read that leaves holds to other processes must not find a settled bucket empty because of that.
    let overdue_min = RECLAIM_LATER_OVERDUE_INTERVALS as u128 * RECLAIM_EVERY.as_millis();
    assert!(overdue_min < RECLAIM_SETTLE.as_millis());
    // A bucket is read often enough to be found empty before it leaves the window.
    let later = RECLAIM_LATER_INTERVALS as u128 * RECLAIM_EVERY.as_millis();
    let window = RECLAIM_WINDOW_MINUTES as u128 * 60_000;
    assert!(RECLAIM_SETTLE.as_millis() + 2 * later < window);
    // Seats are numbered by 32 bits.
    assert!(SEATS_PER_EVENT_MAX < u32::MAX as usize);
};
