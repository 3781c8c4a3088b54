//! Faults planted on purpose, to prove that the tests find them.
//!
//! Each variant is one fault; the code branches on [`planted`]. Without the feature `planted-faults`, which only the
//! mutation run of the tests turns on, `planted` is the constant `false` and the branch does not exist.
//! `docs/testing.md` lists the test that catches each fault.

macro_rules! faults {
    ($($name:ident: $text:literal,)+) => {
        /// One planted mistake. See the module head.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $(#[doc = $text] $name,)+
        }

        impl Fault {
            /// Every fault, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name, as the variable `PLANTED_FAULT` takes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The mistake in words.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

faults! {
    UnitsReturnedTwice: "units of an expired or released hold are returned twice",
    SeatLockKept: "a seat lock is kept after its write has settled",
    ExpiryUnconditional: "the write that expires a hold has no condition on its expiry time",
    RedecisionLost: "an operation that leaves its lane without an outcome is dropped",
    BlockedOperationLost: "an operation that waits for a seat lock is dropped when the lock ends",
    SeatsSoldOutUnread: "\"sold out\" of seats is answered without a last read of the record",
    SnapshotOfOtherEvent: "a check is answered from the snapshot of another event",
    UncertaintyIgnored: "a write in doubt counts as seen by the read",
    OwnWritesMissing: "a snapshot does not include the shard's own writes",
    DeltasForgotten: "writes that settle during a read are forgotten when its snapshot is kept",
    SecondRead: "a second read of an event starts while one is in flight",
    RecordsMixedUp: "records of a batched read go to the wrong operations",
    ConfirmedReleased: "a release takes back a confirmed order",
    SnapshotNeverStale: "the age of a snapshot is not checked",
    JoinedQueryStale: "a query that joins a read is answered without later sales",
    HoldFromCache: "a hold is answered from the cache without a read",
    SeatLocksShared: "two buyers get the lock of one seat",
    ForwardedSaleMissing: "a sale on another shard is missing in the snapshot",
    SeatsRejectedUnread: "seats are rejected from the cached map before the record is read",
    ExpiredKeepsStock: "an expired hold is confirmed without taking its stock again",
    SnapshotSurvivesAdmin: "a snapshot survives an operator's change of the event",
    ReadSurvivesAdmin: "a read that began before an operator's change is kept",
    ReleaseRecordMissing: "a batch of expired holds is written without its release record",
    LateCommitDespiteReject: "a late commit is confirmed although late commits are rejected",
    StatusInDoubt: "a status is answered while writes are in doubt",
    LateWaiterShares: "a call that joins late gets the answer that the first call got",
    OtherEventCounted: "a record of another event counts as a sale of this one",
    ShortageInDoubt: "\"too few\" is answered while writes are in doubt",
    OverdueNotExpired: "an overdue hold is not expired for the buyer of its seats",
    ClosedBeforeRecord: "a closed event rejects a call before its record is read",
    RequestDecidesReturn: "a release returns what the request names, not what the record holds",
    UnknownAttemptForgotten: "an entry with an attempt of unknown outcome is rejected as not executed",
    LostOutcomeForgotten: "a write whose outcome stays unknown is not in doubt",
    LateOutcomeFresh: "a write that is resolved late counts as fresh",
    RequeuedEntryLost: "an entry is lost when its batch is requeued",
    RequeuedEntryTwice: "an entry is requeued and stays in its lane too",
    OtherStripe: "units are drawn from another stripe than the lane's",
    SoldOutUnread: "\"sold out\" is answered from the sold-out hint without a read of the record",
    HintNeverStale: "the age of the sold-out hint is not checked",
    RecordReadTooEarly: "a record that was read before the shortage was seen decides \"sold out\"",
    QueueOutOfOrder: "requeued entries go to the end of the queue",
    SplitMeasured: "the halves of a rejected body count for the rate of the queue",
    OldWriteProvesSoldOut: "the outcome of an older write proves that the last seat is taken",
    TombstoneMissing: "a release of an unknown reservation leaves no tombstone",
    ResendsUnpaced: "transactions are sent again without longer pauses and time-outs",
    ResendsUnbounded: "all transactions with an unknown outcome are sent again at the same time",
    PaymentIgnored: "a commit with another payment gets the order of the recorded payment",
    LaterPaymentDropped: "a commit with a payment, after one without, does not record the payment",
    PaymentJoined: "a commit gets the answer of a commit in flight with another payment",
    UnexplainedRetried: "a cancellation without a reason is retried without a pause",
    OwnPartIsAll: "seats that other processes prefer count as sold",
    OnlyFirstReads: "only the process that is first in line reads a part of the expiry index",
    OverdueScanGivesUp: "a scan of the expiry index that failed is not repeated",
    FoundHoldsShowNothing: "overdue holds that a read finds do not show that the store answers again",
    UnreadBucketEmpty: "a bucket of the expiry index that could not be read counts as empty",
    MemberNeverForgotten: "a process that stopped beating stays a member",
    MemberJudgedByClock: "a member is judged by the wall-clock time that it announces",
    LeaveKeepsEntry: "a process that leaves does not remove its entry",
    MovedUnitsCounted: "totals are the sums of what a read that is not a snapshot found per stripe",
    SoldOutByTornSum: "\"sold out\" counts units that are moved during the read by where each stripe was read",
    MoveHalved: "a move adds units to one stripe and takes them from none",
    OwnStripeUnconditional: "a write to a stripe that the members leave to this process has no condition",
    OtherStripesUnread: "a read of all stripes skips those that the members leave to other processes",
    OwnStripesSoldOut: "\"sold out\" is decided by the stripes that the members leave to this process",
    ClockJumpIgnored: "nothing is read again after a clock that jumped",
    HeldNotReturned: "a stripe goes on counting the units of an ended hold as held",
    ConfirmUncounted: "a confirmed hold is not added to a confirmation counter",
    ConfirmCountedTwice: "a confirmed hold is added to a confirmation counter twice",
    UncountedHoldCounted: "a hold of an earlier version is treated as counted",
    ExpiryBatchMixed: "counted and uncounted holds share a release record",
    HeldInDoubt: "a status is answered while it is in doubt which units are held",
    CountersUnread: "a status is answered from a read without the confirmation counters",
}

/// Whether this build can plant faults.
pub const CAN_PLANT: bool = cfg!(feature = "planted-faults");

/// Whether `fault` is planted.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(feature = "planted-faults")]
pub use self::state::plant;
#[cfg(feature = "planted-faults")]
pub(crate) use self::state::planted;

#[cfg(feature = "planted-faults")]
mod state {
    use std::sync::Once;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Fault;

    const NONE: usize = usize::MAX;

    /// The planted fault, one for the whole process.
    static PLANTED: AtomicUsize = AtomicUsize::new(NONE);
    static FROM_ENVIRONMENT: Once = Once::new();

    /// Plants a fault, or removes the planted one.
    pub fn plant(fault: Option<Fault>) {
        FROM_ENVIRONMENT.call_once(|| {});
        PLANTED.store(fault.map_or(NONE, |fault| fault as usize), Ordering::Relaxed);
    }

    pub(crate) fn planted(fault: Fault) -> bool {
        FROM_ENVIRONMENT.call_once(|| {
            if let Ok(name) = std::env::var("PLANTED_FAULT") {
                let named = Fault::ALL.iter().find(|fault| fault.name() == name);
                let fault = named.unwrap_or_else(|| panic!("PLANTED_FAULT={name}: no such fault"));
                PLANTED.store(*fault as usize, Ordering::Relaxed);
            }
        });
        PLANTED.load(Ordering::Relaxed) == fault as usize
    }
}
