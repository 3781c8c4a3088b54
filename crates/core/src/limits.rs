//! Every bound of the engine, the rules and the audit, each with its reason.

use std::time::Duration;

// ---- Input --------------------------------------------------------------------------------------

/// Longest event, reservation or seat id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Longest payment_intent_id, in bytes: keeps a record well under 1 KB, one write unit.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Default for the most units one reservation may take (MAX_QTY).
pub const QTY_MAX_DEFAULT: u32 = 10;

/// The most that MAX_QTY can be set to.
pub const QTY_MAX_CEILING: u32 = 1_000;

/// The most seats one reservation may name: one reservation must fit a transaction.
pub const SEATS_PER_RESERVATION_MAX: usize = 10;

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

// ---- The store ----------------------------------------------------------------------------------

/// Actions of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;

/// Bytes of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Upper bound of one record as sent, in bytes: three ids, the payment intent, ten seats, names and
/// hashes.
pub const RECORD_BYTES_MAX: usize = 4 * 1024;

/// Reservations in one batch: what a transaction leaves beside one stripe.
pub const BATCH_ENTRIES_MAX: usize = TRANSACTION_ACTIONS_MAX - 1;

/// Keys of one BatchGetItem, by DynamoDB's own limit.
pub const BATCH_GET_KEYS_MAX: usize = 100;

// ---- The group commit ---------------------------------------------------------------------------

/// Members waiting in one line, or for one lane alone: at 99 per 20 ms one lane has about 1.6 s of
/// work with them, beyond any useful deadline.
pub const LANE_QUEUE_MAX: usize = 8_192;

/// A stripe that is known to have less than this is watched unit by unit: what one transaction takes
/// at the largest default quantity.
pub const STRIPE_SCARCE_UNITS: u64 = BATCH_ENTRIES_MAX as u64 * QTY_MAX_DEFAULT as u64;

/// Default for how long after a strong read of all stripes began callers may be told that there is too
/// little (SOLD_OUT_LATCH_MS): the end of a sale costs a read each time, not a write per caller.
pub const SOLD_OUT_LATCH_DEFAULT: Duration = Duration::from_millis(50);

/// How long it is believed that a stripe has little: others may have given back to it.
pub const STRIPE_SCARCE_AGE: Duration = Duration::from_secs(1);

/// Holds past their time waiting in one lane to be given back: a few batches. The reclaimer comes
/// back for the rest.
pub const LANE_BACKGROUND_MAX: usize = 1_024;

/// A full lane looks this often for callers that have gone: looking costs a pass over the queue,
/// which must not become the price of every call that is shed.
pub const LANE_SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Lanes of one shard. Those of an idle event are dropped, so this bounds what is being sold at one
/// instant.
pub const LANES_MAX: usize = 16_384;

/// Events whose stripe count a shard remembers.
pub const EVENTS_CACHED_MAX: usize = 16_384;

/// How an event's commits of which nothing is remembered are told apart (`engine/hold_predictor.rs`): what
/// one that was found to be of a hold counts for, against 1 of one that had no record. 4: looking
/// first pays while more than one in five is of a hold, for a transaction cancelled in vain costs
/// everybody in it a second one, and a look one of the twenty milliseconds of each.
pub const HOLD_SCORE_STEP: u8 = 4;

/// From here on they are looked at first: one hold met is enough.
pub const HOLD_SCORE_THRESHOLD: u8 = 4;

/// And no more than this is kept of them, so that a change is learned within a few commits.
pub const HOLD_SCORE_MAX: u8 = 8;

/// Operations a shard has taken and not answered.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 65_536;

/// Calls joined to, or queued behind, one reservation_id in flight.
pub const CALLS_PER_RESERVATION_MAX: usize = 64;

/// How often one operation may find its record or its seats other than its write was for. Each time
/// it knows more; this many times over it is told to come back.
pub const ATTEMPTS_PER_OPERATION_MAX: u32 = 16;

/// Times a choice of seats may meet others' seats before it waits for them to be read anew: each time
/// it learns of the seats it met, and of a house that others have half sold that is too little.
pub const SEAT_COLLISIONS_MAX: u32 = 1;

/// Loose lanes of one event on a shard, for writes that touch nothing shared: a few transactions
/// side by side hide the store's latency, and batches still form.
pub const UNSTRIPED_LANES: u16 = 4;

/// Loose lanes of a seated event on the shard that owns it: all of its reservations go through them.
pub const SEAT_LANES: u16 = 8;

/// Beyond so many ends of expired holds under way on a shard they are bundled: fewer fit beside the
/// sales in one transaction of the stripe.
pub const EXPIRY_BATCH_THRESHOLD: usize = 24;

/// Lanes of bundles per stripe on a shard. One, with a transaction in flight, gives back thousands a
/// second; more would only stand in the way of the sales.
pub const EXPIRY_BATCH_LANES: u16 = 1;

/// Reads of records that a shard has under way at a time, of up to [`BATCH_GET_KEYS_MAX`] each.
pub const RECORD_READS_IN_FLIGHT_MAX: usize = 4;

/// Operations of one event waiting for a seat that another one is about to take.
pub const SEAT_WAITERS_MAX: usize = 8_192;

/// Events whose seats a shard remembers, but for those with something under way.
pub const SEATED_EVENTS_MAX: usize = 64;

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
pub const VERIFIABLE_SEATS_MAX: u64 = 2_000;

/// The part of its time that a shard may spend on reading one event's seats: one in this many.
pub const SEAT_MAP_READ_SHARE: u64 = 16;

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
pub const BATCHING_DELAY_ENTRIES_MAX: usize = 16;

/// How long the rate at which a line moves is counted for one look: a few transactions.
pub const RATE_WINDOW: Duration = Duration::from_millis(50);

/// How old a look at the rate may be for callers to be turned away for it.
pub const RATE_AGE_MAX: Duration = Duration::from_secs(1);

/// How long a line is kept short after somebody was last turned away from it: several transactions,
/// in which a caller more or less says nothing.
pub const SHORT_QUEUE_DURATION: Duration = Duration::from_millis(200);

/// Who gives a call less time than this and is turned away says nothing of the others' line: it is in
/// more haste than they are, most of whom give it [`CALL_TIMEOUT_DEFAULT`].
pub const USUAL_DEADLINE_MIN: Duration = Duration::from_millis(100);

/// What a caller is told to wait when a queue is full or the store is busy, at least.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The most that it is told to wait, however long the line: by then most of it has gone.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

// ---- The shard ----------------------------------------------------------------------------------

/// How long one reclaim may wait for its write before it is left to the next round.
pub const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

// ---- The audit ----------------------------------------------------------------------------------

/// Breaches, overdue holds and repairs that are told one by one; the rest is a number.
pub const AUDIT_TOLD_MAX: usize = 50;

// ---- Seats --------------------------------------------------------------------------------------

/// Seats of one event that are known in memory, about 30 MB: twice the largest stadium.
pub const SEATS_PER_EVENT_MAX: usize = 200_000;

/// How long a seat that is known to be taken is refused without a write. The word may have been
/// overtaken by a release on another node; a buyer who comes back finds it gone by then.
pub const SEAT_MEMORY_AGE: Duration = Duration::from_secs(1);

/// How long seats that were offered are offered to nobody else: a client's way from the answer to
/// its hold, and the write of that.
pub const SEAT_OFFER_AGE: Duration = Duration::from_millis(300);

/// Runs of free seats compared for one that fits best. More would send a crowd to the same few.
pub const SEAT_RUNS_COMPARED: usize = 16;

/// Runs looked at for one that leaves no single seat. Rarely more than a few are needed; where every
/// run is one seat too long, looking at all of a large house would take a fifth of a millisecond.
pub const SEAT_ORPHANS_COMPARED_MAX: usize = 4_096;

/// Free seats side by side beyond which a run is taken to be seats without rows, and cut anywhere
/// rather than at its ends: longer than the rows of nearly every house.
pub const SEAT_RUN_LONG: usize = 64;
