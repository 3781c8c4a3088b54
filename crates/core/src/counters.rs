//! Counters of the engine: monotonic totals with a single writer, read by the telemetry of the server.

use super::spread::Spread;

/// Upper bounds of the time buckets, in µs: fine around the 40 ms objective; includes the default limits of a store request
/// (200 ms) and of a call (250 ms).
pub const TIME_BOUNDS_US: [u64; 24] = [
    100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000,
    75_000, 100_000, 200_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// Upper bounds of the batch size buckets, in reservations; the last one is a full transaction.
pub const BATCH_BOUNDS: [u64; 10] = [1, 2, 5, 10, 20, 33, 50, 66, 80, 99];

/// Declares the counters once: the fields, and how totals of two shards are added (`sum`, `max`, `spread`).
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $kind:ident$(($bounds:ident))?;)+) => {
        /// Totals since the start of the shard.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $field: counters!(@type $kind$(($bounds))?),)+
        }

        impl Counters {
            /// Adds the totals of another shard; keeps the larger one of maxima.
            pub fn add(&mut self, other: &Self) {
                $(counters!(@add $kind self.$field, other.$field);)+
            }
        }
    };
    (@type sum) => { u64 };
    (@type max) => { u64 };
    (@type spread($bounds:ident)) => { Spread<{ $bounds.len() }> };
    (@add sum $mine:expr, $theirs:expr) => { $mine += $theirs };
    (@add max $mine:expr, $theirs:expr) => { $mine = $mine.max($theirs) };
    (@add spread $mine:expr, $theirs:expr) => { $mine.add(&$theirs) };
}

counters! {
    /// Operations answered from the cache of settled reservations.
    cache_hits: sum;
    /// Operations not answered from that cache.
    cache_misses: sum;
        /// Operations that waited for another one with the same reservation_id.
    joined: sum;
    /// Operations forwarded to the shard that owns the stripe.
    forwarded: sum;
    /// Dispatched transactions, without retries.
    transactions: sum;
    /// Reservations in dispatched transactions.
    entries: sum;
    /// Largest dispatched batch.
    entries_max: max;
    /// Reservations per transaction, in buckets of [`BATCH_BOUNDS`].
    batch_sizes: spread(BATCH_BOUNDS);
    /// Time from enqueueing a reservation to its dispatch, in buckets of [`TIME_BOUNDS_US`].
    queue_times: spread(TIME_BOUNDS_US);
    /// Age of each snapshot that answered a query, in buckets of [`TIME_BOUNDS_US`].
    snapshot_ages: spread(TIME_BOUNDS_US);
    /// Transactions sent again because of an unknown outcome.
    resends: sum;
    /// Unknown outcomes.
    unknown_outcomes: sum;
    /// Transactions with an unknown outcome that turned out to be applied.
    unknown_applied: sum;
    /// Transactions with an unknown outcome that turned out not to be applied.
    unknown_not_applied: sum;
    /// Transactions requeued because of a conflict.
    conflicts: sum;
    /// Transactions requeued because of throttling.
    throttles: sum;
    /// Transactions split because the store refused the body.
    splits: sum;
        /// Entries whose record already existed.
    duplicates: sum;
    /// Entries for which a stripe had too few units.
    stripe_shortages: sum;
    /// Transactions that moved units between two stripes, or tried to.
    stock_moves: sum;
    /// Those of them that were applied.
    stock_moves_applied: sum;
    /// Those that conflicted with another transaction; most are tried again.
    stock_moves_conflicted: sum;
    /// Those for which the stripe that the units come from had too few, or is closed.
    stock_moves_short: sum;
    /// Those that were not applied for any other reason: throttling, a refused body, a failed condition of an entry.
    stock_moves_failed: sum;
    /// Units that were moved.
    stock_moved_units: sum;
        /// Operations on units rejected without a write, after a read of their record: sold out, or the hold has
        /// expired and its units are sold.
    sold_out: sum;
    /// Entries whose deadline passed before dispatch.
    deadline_missed: sum;
    /// Operations and reads rejected because of overload.
    rejected_overloaded: sum;
    /// Those of `rejected_overloaded` that admission control rejected: they would have missed their deadline, or came
    /// to a queue in short-queue mode.
    rejected_by_admission: sum;
    /// Strong reads of the stripes of an event.
    stripe_reads: sum;
    /// Stock queries answered from a snapshot.
    snapshot_answers: sum;
    /// Stock queries answered from a read that they waited for.
    read_answers: sum;
    /// Reads that refresh a snapshot.
    snapshot_refreshes: sum;
    /// Operations whose record was read first.
    record_reads: sum;
    /// Reads of all seats of an event.
    seat_reads: sum;
    /// Reads of the available seats of an event.
    seat_verifications: sum;
    /// Those that differed from the seat map, so that all seats were read.
    seat_verification_mismatches: sum;
        /// Operations rejected without a write, because the seat map has the seats as taken.
    seats_rejected_by_map: sum;
        /// Operations rejected by a failed write, because the seats are taken.
    seats_rejected_by_write: sum;
}
