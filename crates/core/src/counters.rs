//! What the domain counts, for the telemetry to pick up. Monotonic; single writer.

use super::spread::Spread;

/// Upper bounds of the time buckets, in µs: fine around the promise of 40 ms, with the default limits
/// of a store request (200 ms) and of a call (250 ms) among them.
pub const TIME_BOUNDS_US: [u64; 24] = [
    100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000,
    75_000, 100_000, 200_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000, 60_000_000,
];

/// Upper bounds of the buckets of batch sizes, in reservations; the last is a full transaction.
pub const BATCH_BOUNDS: [u64; 10] = [1, 2, 5, 10, 20, 33, 50, 66, 80, 99];

/// Totals since the shard started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations answered from the cache of settled reservations.
    pub cache_hits: u64,
    /// Operations that were not.
    pub cache_misses: u64,
    /// Operations that joined, or queued behind, one with the same reservation_id.
    pub coalesced: u64,
    /// Operations sent on to the shard that owns the stripe.
    pub forwarded: u64,
    /// Transactions dispatched, first tries only.
    pub transactions: u64,
    /// Reservations in them.
    pub entries: u64,
    /// The largest batch dispatched.
    pub entries_max: u64,
    /// Reservations of each transaction, in buckets of [`BATCH_BOUNDS`].
    pub batch_sizes: Spread<{ BATCH_BOUNDS.len() }>,
    /// From coming to a lane to being sent, of each reservation, in buckets of [`TIME_BOUNDS_US`].
    pub queue_times: Spread<{ TIME_BOUNDS_US.len() }>,
    /// Of each snapshot that answered a question, in buckets of [`TIME_BOUNDS_US`].
    pub snapshot_ages: Spread<{ TIME_BOUNDS_US.len() }>,
    /// Transactions sent again because their outcome was unknown.
    pub resends: u64,
    /// Outcomes that were unknown.
    pub unknown_outcomes: u64,
    /// Transactions whose outcome had been unknown and that turned out to be applied.
    pub unknown_applied: u64,
    /// The same, not applied.
    pub unknown_not_applied: u64,
    /// Transactions put off because of a conflict.
    pub conflicts: u64,
    /// Transactions put off because the store throttled.
    pub throttles: u64,
    /// Transactions split because the store refused the body.
    pub splits: u64,
    /// Members found to exist already by the store's condition.
    pub duplicates: u64,
    /// Members that a stripe was too short for.
    pub stripe_shortages: u64,
    /// Operations told that there is too little, after a look at their record instead of a write.
    pub sold_out: u64,
    /// Members whose deadline passed before dispatch.
    pub expired: u64,
    /// Operations and reads refused because a queue was full.
    pub rejected_overloaded: u64,
    /// Of these, those that would have been too late at the end of the line, or came to one that is
    /// kept short because others would have been.
    pub rejected_by_admission: u64,
    /// Strong reads of an event's stripes.
    pub stripe_reads: u64,
    /// Questions about units answered from a snapshot.
    pub snapshot_answers: u64,
    /// Questions about units answered from a read that they waited for.
    pub read_answers: u64,
    /// Reads begun so that a snapshot does not grow too old.
    pub snapshot_refreshes: u64,
    /// Operations whose record was read first.
    pub record_reads: u64,
    /// Reads of all of an event's seats.
    pub seat_reads: u64,
    /// Reads of those of an event's seats that are free.
    pub seat_verifications: u64,
    /// Of those, what did not agree with memory: a read of all seats had to follow.
    pub seat_verification_mismatches: u64,
    /// Operations refused because others have the seats, from memory.
    pub seats_refused: u64,
    /// Operations refused because others have the seats, by a failed write.
    pub seats_taken: u64,
}

impl Counters {
    /// Adds another shard's totals; of maxima the larger stays.
    pub fn add(&mut self, other: &Self) {
        self.cache_hits += other.cache_hits;
        self.cache_misses += other.cache_misses;
        self.coalesced += other.coalesced;
        self.forwarded += other.forwarded;
        self.transactions += other.transactions;
        self.entries += other.entries;
        self.entries_max = self.entries_max.max(other.entries_max);
        self.batch_sizes.add(&other.batch_sizes);
        self.queue_times.add(&other.queue_times);
        self.snapshot_ages.add(&other.snapshot_ages);
        self.resends += other.resends;
        self.unknown_outcomes += other.unknown_outcomes;
        self.unknown_applied += other.unknown_applied;
        self.unknown_not_applied += other.unknown_not_applied;
        self.conflicts += other.conflicts;
        self.throttles += other.throttles;
        self.splits += other.splits;
        self.duplicates += other.duplicates;
        self.stripe_shortages += other.stripe_shortages;
        self.sold_out += other.sold_out;
        self.expired += other.expired;
        self.rejected_overloaded += other.rejected_overloaded;
        self.rejected_by_admission += other.rejected_by_admission;
        self.stripe_reads += other.stripe_reads;
        self.snapshot_answers += other.snapshot_answers;
        self.read_answers += other.read_answers;
        self.snapshot_refreshes += other.snapshot_refreshes;
        self.record_reads += other.record_reads;
        self.seat_reads += other.seat_reads;
        self.seat_verifications += other.seat_verifications;
        self.seat_verification_mismatches += other.seat_verification_mismatches;
        self.seats_refused += other.seats_refused;
        self.seats_taken += other.seats_taken;
    }
}
