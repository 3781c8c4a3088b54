//! The answers to every reservation of a sale, checked against the contract.
//!
//! Pure: no sockets, no clock. The rules are those that a client of the reservation contract can check;
//! rules that depend on how the server stores its data must not be put here.

use std::collections::BTreeMap;

use crate::limits::VIOLATIONS_QUOTED_MAX;

/// The request of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaleCall {
    /// Commit with the reservation's own payload, first or repeated.
    Commit,
    /// Commit of the same reservation_id with a different quantity.
    CommitOtherPayload,
    Release,
}

/// The final answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    Confirmed {
        order_id: String,
    },
    Released,
    /// ABORTED, INSUFFICIENT_INVENTORY.
    SoldOut,
    /// FAILED_PRECONDITION, RESERVATION_RELEASED.
    ReservationReleased,
    /// FAILED_PRECONDITION, RESERVATION_COMMITTED.
    ReservationCommitted,
    /// ALREADY_EXISTS, IDEMPOTENCY_CONFLICT.
    Conflict,
    /// Any other status that the server decided on.
    Unexpected {
        status: String,
        message: String,
    },
    /// Every attempt was lost, rejected as overload, or never processed.
    NoAnswer {
        last: String,
        message: String,
    },
}

/// State of a reservation as far as its client can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationOutcome {
    NotRequested,
    Confirmed {
        order_id: Box<str>,
    },
    SoldOut,
    Released,
    /// The units may be taken: no answer arrived, or an answer that does not decide.
    Unknown,
}

/// One reservation and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    pub reservation_id: String,
    pub quantity: i32,
    pub outcome: ReservationOutcome,
}

/// How often each rule was tested, and with which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaleCounts {
    pub confirmed: u64,
    pub sold_out: u64,
    pub released: u64,
    pub unknown: u64,
    /// Repeats answered with the same order_id, or refused in the same way.
    pub duplicates_identical: u64,
    /// Repeats answered differently.
    pub duplicates_different: u64,
    /// Commits after a release that were refused, as required.
    pub late_commits_refused: u64,
    /// Releases after a commit that were refused, as required.
    pub late_releases_refused: u64,
    /// Different payloads under a known reservation_id that were refused, as required.
    pub conflicts_refused: u64,
    /// Quantities refused as sold out although as many units were sold to later calls.
    pub refused_too_early: u64,
    /// Broken rules of any kind, including repeats answered differently.
    pub violations: u64,
}

/// The ledger of one sale.
#[derive(Clone, Debug)]
pub struct SaleLedger {
    prefix: String,
    rows: Vec<(i32, ReservationOutcome)>,
    counts: SaleCounts,
    quoted: Vec<String>,
    /// The earliest refusal of each quantity. Bounded by the number of quantities in the plan.
    refused: BTreeMap<i32, FirstRefusal>,
    time: u64,
}

/// Logical clock of the ledger: orders first requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogicalTime(u64);

/// The first refusal of a quantity as sold out.
#[derive(Clone, Debug)]
struct FirstRefusal {
    answered: LogicalTime,
    /// Units confirmed to calls that started after that answer.
    sold_after: u64,
}

impl SaleLedger {
    /// An empty ledger; reservation number `i` is named by [`reservation_id`].
    pub(crate) fn new(prefix: &str, quantities: impl Iterator<Item = i32>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            rows: quantities.map(|q| (q, ReservationOutcome::NotRequested)).collect(),
            counts: SaleCounts::default(),
            quoted: Vec::new(),
            refused: BTreeMap::new(),
            time: 0,
        }
    }

    /// The time at which a call is sent for the first time, for [`SaleLedger::record`].
    pub(crate) fn now(&mut self) -> LogicalTime {
        self.time += 1;
        LogicalTime(self.time)
    }

    /// Records the answer to a call for reservation number `index` that was first sent at `started`.
    ///
    /// # Panics
    /// If `index` is not in the ledger.
    pub(crate) fn record(
        &mut self,
        index: usize,
        call: SaleCall,
        started: LogicalTime,
        result: CallResult,
    ) {
        let verdict = judge(call, &self.rows[index].1, &result);
        let counts = &mut self.counts;
        match verdict {
            AnswerVerdict::First | AnswerVerdict::Undecided | AnswerVerdict::Wrong => {}
            AnswerVerdict::Identical => counts.duplicates_identical += 1,
            AnswerVerdict::Different => counts.duplicates_different += 1,
            AnswerVerdict::LateCommitRefused => counts.late_commits_refused += 1,
            AnswerVerdict::LateReleaseRefused => counts.late_releases_refused += 1,
            AnswerVerdict::ConflictRefused => counts.conflicts_refused += 1,
        }
        if matches!(verdict, AnswerVerdict::Different | AnswerVerdict::Wrong) {
            let (quantity, known) = &self.rows[index];
            let id = reservation_id(&self.prefix, index);
            self.violation(format!(
                "{id}: {call:?} of {quantity} unit(s), previously {known:?}, was answered {result:?}"
            ));
        }
        self.check_refusals(index, call, started, &result);
        if let Some(next) = next_outcome(call, &self.rows[index].1, &result) {
            self.count(index, -1);
            self.rows[index].1 = next;
            self.count(index, 1);
        }
    }

    fn violation(&mut self, text: String) {
        self.counts.violations += 1;
        if self.quoted.len() < VIOLATIONS_QUOTED_MAX {
            self.quoted.push(text);
        }
    }

    /// Stock only decreases during a sale. So if a quantity was refused as sold out, and calls that started
    /// after that answer were sold as many units, then the units had been available.
    fn check_refusals(
        &mut self,
        index: usize,
        call: SaleCall,
        started: LogicalTime,
        result: &CallResult,
    ) {
        let (quantity, known) = &self.rows[index];
        let (quantity, fresh) = (*quantity, *known == ReservationOutcome::NotRequested);
        let units = u64::from(quantity.unsigned_abs());
        match result {
            CallResult::SoldOut if call == SaleCall::Commit => {
                let answered = self.now();
                self.refused.entry(quantity).or_insert(FirstRefusal { answered, sold_after: 0 });
            }
            CallResult::Confirmed { .. } if call == SaleCall::Commit && fresh => {
                let mut early = Vec::new();
                for (quantity, refused) in &mut self.refused {
                    let refused_units = u64::from(quantity.unsigned_abs());
                    if started <= refused.answered {
                        continue;
                    }
                    let before = refused.sold_after;
                    refused.sold_after += units;
                    if before < refused_units && refused.sold_after >= refused_units {
                        early.push(*quantity);
                    }
                }
                for quantity in early {
                    self.counts.refused_too_early += 1;
                    self.violation(format!(
                        "a reservation of {quantity} unit(s) was refused as sold out, and calls \
                         started afterwards were sold as many units"
                    ));
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, index: usize, by: i64) {
        let counter = match self.rows[index].1 {
            ReservationOutcome::NotRequested => return,
            ReservationOutcome::Confirmed { .. } => &mut self.counts.confirmed,
            ReservationOutcome::SoldOut => &mut self.counts.sold_out,
            ReservationOutcome::Released => &mut self.counts.released,
            ReservationOutcome::Unknown => &mut self.counts.unknown,
        };
        *counter = counter.saturating_add_signed(by);
    }

    pub fn counts(&self) -> SaleCounts {
        self.counts
    }

    /// Descriptions of the first broken rules, at most 32.
    pub fn violations(&self) -> &[String] {
        &self.quoted
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn outcome(&self, index: usize) -> Option<&ReservationOutcome> {
        self.rows.get(index).map(|(_, outcome)| outcome)
    }

    /// All reservations, ordered by number.
    pub fn entries(&self) -> impl Iterator<Item = LedgerEntry> + '_ {
        self.rows.iter().enumerate().map(|(index, (quantity, outcome))| LedgerEntry {
            reservation_id: reservation_id(&self.prefix, index),
            quantity: *quantity,
            outcome: outcome.clone(),
        })
    }

    /// Units of confirmed reservations.
    pub(crate) fn sold_units(&self) -> u64 {
        self.units(|outcome| matches!(outcome, ReservationOutcome::Confirmed { .. }))
    }

    /// Units of reservations with an unknown outcome: they may be sold in addition.
    pub(crate) fn unknown_units(&self) -> u64 {
        self.units(|outcome| *outcome == ReservationOutcome::Unknown)
    }

    fn units(&self, which: impl Fn(&ReservationOutcome) -> bool) -> u64 {
        self.rows
            .iter()
            .filter(|(_, outcome)| which(outcome))
            .map(|(quantity, _)| u64::from(quantity.unsigned_abs()))
            .sum()
    }

    /// Units sold beyond `tickets`.
    pub(crate) fn oversold_units(&self, tickets: u64) -> u64 {
        self.sold_units().saturating_sub(tickets)
    }

    /// Units still available although a reservation that would have fitted was refused as sold out.
    ///
    /// Stock only decreases during a sale (nothing confirmed is returned), so the units available at the
    /// end were available at every refusal: one refused quantity that fits into them proves the refusal
    /// wrong. Units of unknown outcome count as sold.
    pub(crate) fn undersold_units(&self, tickets: u64) -> u64 {
        let available = tickets.saturating_sub(self.sold_units() + self.unknown_units());
        match self.refused.keys().next() {
            Some(smallest) if u64::from(smallest.unsigned_abs()) <= available => available,
            _ => 0,
        }
    }
}

/// The reservation_id of number `index`.
pub(crate) fn reservation_id(prefix: &str, index: usize) -> String {
    format!("{prefix}-{index:07}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerVerdict {
    /// The first decisive answer for this reservation.
    First,
    Identical,
    Different,
    LateCommitRefused,
    LateReleaseRefused,
    ConflictRefused,
    /// Not a repeat, and against the contract.
    Wrong,
    /// Not decisive: no answer, or an error that is counted by its status.
    Undecided,
}

fn judge(call: SaleCall, known: &ReservationOutcome, result: &CallResult) -> AnswerVerdict {
    use ReservationOutcome as O;
    let fresh = matches!(known, O::NotRequested | O::Unknown);
    match (call, result) {
        (_, CallResult::NoAnswer { .. } | CallResult::Unexpected { .. }) => {
            AnswerVerdict::Undecided
        }
        (SaleCall::Commit, CallResult::Confirmed { order_id }) => match known {
            O::Confirmed { order_id: before } if **before == **order_id => AnswerVerdict::Identical,
            O::Confirmed { .. } | O::SoldOut => AnswerVerdict::Different,
            O::Released => AnswerVerdict::Wrong,
            O::NotRequested | O::Unknown => AnswerVerdict::First,
        },
        (SaleCall::Commit, CallResult::SoldOut) => match known {
            O::SoldOut => AnswerVerdict::Identical,
            O::Confirmed { .. } => AnswerVerdict::Different,
            O::Released => AnswerVerdict::Wrong,
            O::NotRequested | O::Unknown => AnswerVerdict::First,
        },
        (SaleCall::Commit, CallResult::ReservationReleased) => match known {
            O::Released => AnswerVerdict::LateCommitRefused,
            // A release whose answer was lost.
            O::Unknown => AnswerVerdict::First,
            O::NotRequested | O::Confirmed { .. } | O::SoldOut => AnswerVerdict::Wrong,
        },
        (SaleCall::Release, CallResult::Released) => match known {
            O::Released => AnswerVerdict::Identical,
            O::Confirmed { .. } => AnswerVerdict::Wrong,
            _ => AnswerVerdict::First,
        },
        (SaleCall::Release, CallResult::ReservationCommitted) => match known {
            O::Confirmed { .. } => AnswerVerdict::LateReleaseRefused,
            O::Unknown => AnswerVerdict::Undecided,
            _ => AnswerVerdict::Wrong,
        },
        (SaleCall::CommitOtherPayload, CallResult::Conflict) if !fresh => {
            AnswerVerdict::ConflictRefused
        }
        _ => AnswerVerdict::Wrong,
    }
}

/// The new state, if the answer changes it. A confirmation always wins: its units are sold.
fn next_outcome(
    call: SaleCall,
    known: &ReservationOutcome,
    result: &CallResult,
) -> Option<ReservationOutcome> {
    let fresh = matches!(known, ReservationOutcome::NotRequested | ReservationOutcome::Unknown);
    match result {
        CallResult::Confirmed { order_id } if call == SaleCall::Commit => {
            let confirmed = matches!(known, ReservationOutcome::Confirmed { .. });
            (!confirmed)
                .then(|| ReservationOutcome::Confirmed { order_id: order_id.as_str().into() })
        }
        CallResult::SoldOut if call == SaleCall::Commit && fresh => {
            Some(ReservationOutcome::SoldOut)
        }
        CallResult::ReservationReleased if fresh => Some(ReservationOutcome::Released),
        CallResult::Released if fresh || *known == ReservationOutcome::SoldOut => {
            Some(ReservationOutcome::Released)
        }
        CallResult::NoAnswer { .. } | CallResult::Unexpected { .. }
            if *known == ReservationOutcome::NotRequested =>
        {
            Some(ReservationOutcome::Unknown)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(quantities: &[i32]) -> SaleLedger {
        SaleLedger::new("r", quantities.iter().copied())
    }

    fn record(ledger: &mut SaleLedger, index: usize, call: SaleCall, result: CallResult) {
        let started = ledger.now();
        ledger.record(index, call, started, result);
    }

    fn confirmed(order: &str) -> CallResult {
        CallResult::Confirmed { order_id: order.to_owned() }
    }

    #[test]
    fn repeated_order_is_identical_and_another_is_different() {
        let mut ledger = ledger(&[2, 1]);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        assert_eq!(ledger.counts().duplicates_identical, 1);
        assert_eq!(ledger.counts().violations, 0);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_b"));
        assert_eq!(ledger.counts().duplicates_different, 1);
        assert_eq!(ledger.counts().violations, 1);
        assert!(ledger.violations()[0].contains("r-0000000"));
        assert_eq!(ledger.counts().confirmed, 1);
        assert_eq!(ledger.sold_units(), 2);
    }

    #[test]
    fn one_id_cannot_be_sold_out_and_confirmed_in_either_order() {
        for result in
            [[CallResult::SoldOut, confirmed("ord_a")], [confirmed("ord_a"), CallResult::SoldOut]]
        {
            let mut ledger = ledger(&[3]);
            for result in result {
                record(&mut ledger, 0, SaleCall::Commit, result);
            }
            assert_eq!(ledger.counts().duplicates_different, 1);
            assert_eq!(ledger.sold_units(), 3, "a confirmation always counts");
            assert_eq!(ledger.counts().sold_out, 0);
        }
    }

    #[test]
    fn a_release_first_must_stop_the_commit() {
        let mut ledger = ledger(&[1, 1]);
        record(&mut ledger, 0, SaleCall::Release, CallResult::Released);
        record(&mut ledger, 0, SaleCall::Commit, CallResult::ReservationReleased);
        assert_eq!(ledger.counts().late_commits_refused, 1);
        assert_eq!(ledger.counts().violations, 0);
        record(&mut ledger, 1, SaleCall::Release, CallResult::Released);
        record(&mut ledger, 1, SaleCall::Commit, confirmed("ord_a"));
        assert_eq!(ledger.counts().violations, 1);
        assert_eq!(ledger.sold_units(), 1);
    }

    #[test]
    fn a_confirmed_reservation_is_never_released() {
        let mut ledger = ledger(&[1, 1]);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        record(&mut ledger, 0, SaleCall::Release, CallResult::ReservationCommitted);
        assert_eq!(ledger.counts().late_releases_refused, 1);
        assert_eq!(ledger.counts().violations, 0);
        record(&mut ledger, 1, SaleCall::Commit, confirmed("ord_b"));
        record(&mut ledger, 1, SaleCall::Release, CallResult::Released);
        assert_eq!(ledger.counts().violations, 1);
        assert_eq!(ledger.sold_units(), 2);
    }

    #[test]
    fn another_payload_must_conflict() {
        for (result, violations) in
            [(CallResult::Conflict, 0), (confirmed("ord_a"), 1), (CallResult::SoldOut, 1)]
        {
            let mut ledger = ledger(&[1]);
            record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
            record(&mut ledger, 0, SaleCall::CommitOtherPayload, result);
            assert_eq!(ledger.counts().violations, violations);
            assert_eq!(ledger.counts().conflicts_refused, 1 - violations);
        }
    }

    #[test]
    fn correct_commit_must_not_conflict() {
        let mut ledger = ledger(&[1]);
        record(&mut ledger, 0, SaleCall::Commit, CallResult::Conflict);
        assert_eq!(ledger.counts().violations, 1);
    }

    #[test]
    fn an_unknown_outcome_is_settled_by_a_later_answer() {
        let mut ledger = ledger(&[4]);
        let lost = CallResult::NoAnswer { last: "UNAVAILABLE".to_owned(), message: String::new() };
        record(&mut ledger, 0, SaleCall::Commit, lost);
        assert_eq!((ledger.counts().unknown, ledger.unknown_units()), (1, 4));
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        assert_eq!((ledger.counts().unknown, ledger.unknown_units()), (0, 0));
        assert_eq!(ledger.counts().confirmed, 1);
        assert_eq!(ledger.counts().violations, 0);
    }

    #[test]
    fn oversold_is_what_is_above_the_tickets() {
        let mut ledger = ledger(&[2, 2]);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        record(&mut ledger, 1, SaleCall::Commit, confirmed("ord_b"));
        assert_eq!(ledger.oversold_units(4), 0);
        assert_eq!(ledger.oversold_units(3), 1);
    }

    #[test]
    fn undersold_needs_a_refusal_that_would_have_fitted() {
        let mut ledger = ledger(&[2, 3, 1]);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        record(&mut ledger, 1, SaleCall::Commit, CallResult::SoldOut);
        assert_eq!(ledger.undersold_units(4), 0, "3 did not fit into 2");
        assert_eq!(ledger.undersold_units(5), 3, "3 would have fitted into 3");
        record(&mut ledger, 2, SaleCall::Commit, CallResult::SoldOut);
        assert_eq!(ledger.undersold_units(4), 2, "1 would have fitted into 2");
        assert_eq!(ledger.undersold_units(2), 0, "nothing was left");
    }

    #[test]
    fn a_refusal_is_too_early_when_later_calls_are_sold_as_much() {
        let mut ledger = ledger(&[3, 1, 2, 2]);
        let before = ledger.now();
        record(&mut ledger, 0, SaleCall::Commit, CallResult::SoldOut);
        // In flight at the refusal: may have been served before it.
        ledger.record(3, SaleCall::Commit, before, confirmed("ord_d"));
        record(&mut ledger, 1, SaleCall::Commit, confirmed("ord_b"));
        assert_eq!(ledger.counts().refused_too_early, 0, "1 is less than 3");
        record(&mut ledger, 1, SaleCall::Commit, confirmed("ord_b"));
        assert_eq!(ledger.counts().refused_too_early, 0, "a repeat sells nothing");
        record(&mut ledger, 2, SaleCall::Commit, confirmed("ord_c"));
        assert_eq!(ledger.counts().refused_too_early, 1);
        assert_eq!(ledger.counts().violations, 1);
    }

    #[test]
    fn quotes_are_bounded_counts_are_not() {
        let mut ledger = ledger(&[1]);
        record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_a"));
        for _ in 0..3 * VIOLATIONS_QUOTED_MAX {
            record(&mut ledger, 0, SaleCall::Commit, confirmed("ord_b"));
        }
        assert_eq!(ledger.violations().len(), VIOLATIONS_QUOTED_MAX);
        assert_eq!(ledger.counts().violations, 3 * VIOLATIONS_QUOTED_MAX as u64);
    }
}
