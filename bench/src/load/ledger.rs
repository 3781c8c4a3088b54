//! What every reservation was told, and whether it was told the truth.
//!
//! Pure: no sockets, no clock. The rules are those of the reservation contract as one client can
//! see them; nothing here knows how the server keeps them.

use std::collections::BTreeMap;

use crate::limits::VIOLATIONS_QUOTED_MAX;

/// What a call asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Commit of the reservation's own payload, first or repeated.
    Commit,
    /// Commit of the same reservation_id with another quantity.
    CommitOther,
    Release,
}

/// What a call was finally told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
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
    /// Any other status the server decided on.
    Unexpected {
        status: String,
        message: String,
    },
    /// Every attempt was lost, turned away or never processed.
    NoAnswer {
        last: String,
        message: String,
    },
}

/// What is known of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    NotPlayed,
    Confirmed {
        order_id: Box<str>,
    },
    SoldOut,
    Released,
    /// Its units may be held: no answer came, or one that says nothing about them.
    Unknown,
}

/// One reservation and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub reservation_id: String,
    pub quantity: i32,
    pub outcome: Outcome,
}

/// How often each rule was put to the test, and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub confirmed: u64,
    pub sold_out: u64,
    pub released: u64,
    pub unknown: u64,
    /// Repeats answered with the very same order_id, or refused again as before.
    pub duplicates_identical: u64,
    /// Repeats that were told something else than before.
    pub duplicates_different: u64,
    /// Commits after a release that were refused, as they must.
    pub late_commits_refused: u64,
    /// Releases after a commit that were refused, as they must.
    pub late_releases_refused: u64,
    /// Other payloads under a known reservation_id that were refused, as they must.
    pub conflicts_refused: u64,
    /// Quantities that were told "sold out" although as much was sold to later calls.
    pub refused_too_early: u64,
    /// Broken rules of any kind, different duplicates included.
    pub violations: u64,
}

/// The whole book of one run.
#[derive(Clone, Debug)]
pub struct Ledger {
    prefix: String,
    rows: Vec<(i32, Outcome)>,
    counts: Counts,
    quoted: Vec<String>,
    /// The earliest refusal of each quantity. As many as the plan has quantities.
    refused: BTreeMap<i32, Refused>,
    moment: u64,
}

/// A moment of the book, by which it tells what came before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The first time a quantity was told "sold out".
#[derive(Clone, Debug)]
struct Refused {
    answered: Moment,
    /// Units confirmed to calls that began after that answer.
    sold_after: u64,
}

impl Ledger {
    /// An empty book; reservation number `i` is named by [`reservation_id`].
    pub fn new(prefix: &str, quantities: impl Iterator<Item = i32>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            rows: quantities.map(|q| (q, Outcome::NotPlayed)).collect(),
            counts: Counts::default(),
            quoted: Vec::new(),
            refused: BTreeMap::new(),
            moment: 0,
        }
    }

    /// The moment a call is sent for the first time, to be given to [`Ledger::enter`].
    pub fn now(&mut self) -> Moment {
        self.moment += 1;
        Moment(self.moment)
    }

    /// Enters what a call on reservation number `index`, begun at `begun`, was told.
    ///
    /// # Panics
    /// If `index` is not in the book.
    pub fn enter(&mut self, index: usize, call: Call, begun: Moment, told: Told) {
        let verdict = judge(call, &self.rows[index].1, &told);
        let counts = &mut self.counts;
        match verdict {
            Verdict::First | Verdict::Silent | Verdict::Wrong => {}
            Verdict::Identical => counts.duplicates_identical += 1,
            Verdict::Different => counts.duplicates_different += 1,
            Verdict::LateCommitRefused => counts.late_commits_refused += 1,
            Verdict::LateReleaseRefused => counts.late_releases_refused += 1,
            Verdict::ConflictRefused => counts.conflicts_refused += 1,
        }
        if matches!(verdict, Verdict::Different | Verdict::Wrong) {
            let (quantity, known) = &self.rows[index];
            let id = reservation_id(&self.prefix, index);
            self.violation(format!(
                "{id}: {call:?} of {quantity} unit(s), known as {known:?}, was told {told:?}"
            ));
        }
        self.watch_refusals(index, call, begun, &told);
        if let Some(next) = next_outcome(call, &self.rows[index].1, &told) {
            self.count(index, -1);
            self.rows[index].1 = next;
            self.count(index, 1);
        }
    }

    fn violation(&mut self, words: String) {
        self.counts.violations += 1;
        if self.quoted.len() < VIOLATIONS_QUOTED_MAX {
            self.quoted.push(words);
        }
    }

    /// The stock only falls during a run. So if a quantity was told "sold out", and calls that
    /// began after that answer were sold as much, it had been there to be sold.
    fn watch_refusals(&mut self, index: usize, call: Call, begun: Moment, told: &Told) {
        let (quantity, known) = &self.rows[index];
        let (quantity, fresh) = (*quantity, *known == Outcome::NotPlayed);
        let units = u64::from(quantity.unsigned_abs());
        match told {
            Told::SoldOut if call == Call::Commit => {
                let answered = self.now();
                self.refused.entry(quantity).or_insert(Refused {
                    answered,
                    sold_after: 0,
                });
            }
            Told::Confirmed { .. } if call == Call::Commit && fresh => {
                let mut early = Vec::new();
                for (quantity, refused) in &mut self.refused {
                    let wanted = u64::from(quantity.unsigned_abs());
                    if begun <= refused.answered {
                        continue;
                    }
                    let before = refused.sold_after;
                    refused.sold_after += units;
                    if before < wanted && refused.sold_after >= wanted {
                        early.push(*quantity);
                    }
                }
                for quantity in early {
                    self.counts.refused_too_early += 1;
                    self.violation(format!(
                        "a reservation of {quantity} unit(s) was told sold out, and calls begun \
                         afterwards were sold as many"
                    ));
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, index: usize, by: i64) {
        let counter = match self.rows[index].1 {
            Outcome::NotPlayed => return,
            Outcome::Confirmed { .. } => &mut self.counts.confirmed,
            Outcome::SoldOut => &mut self.counts.sold_out,
            Outcome::Released => &mut self.counts.released,
            Outcome::Unknown => &mut self.counts.unknown,
        };
        *counter = counter.saturating_add_signed(by);
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The first broken rules in words, at most [`VIOLATIONS_QUOTED_MAX`].
    pub fn violations(&self) -> &[String] {
        &self.quoted
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn outcome(&self, index: usize) -> Option<&Outcome> {
        self.rows.get(index).map(|(_, outcome)| outcome)
    }

    /// Every reservation in the order of its number.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.rows
            .iter()
            .enumerate()
            .map(|(index, (quantity, outcome))| Entry {
                reservation_id: reservation_id(&self.prefix, index),
                quantity: *quantity,
                outcome: outcome.clone(),
            })
    }

    /// Units of confirmed reservations.
    pub fn sold_units(&self) -> u64 {
        self.units(|outcome| matches!(outcome, Outcome::Confirmed { .. }))
    }

    /// Units of reservations whose outcome is unknown: they may be sold on top.
    pub fn unknown_units(&self) -> u64 {
        self.units(|outcome| *outcome == Outcome::Unknown)
    }

    fn units(&self, which: impl Fn(&Outcome) -> bool) -> u64 {
        self.rows
            .iter()
            .filter(|(_, outcome)| which(outcome))
            .map(|(quantity, _)| u64::from(quantity.unsigned_abs()))
            .sum()
    }

    /// Units sold beyond `tickets`.
    pub fn oversold_units(&self, tickets: u64) -> u64 {
        self.sold_units().saturating_sub(tickets)
    }

    /// Units left although somebody who would have fitted was told "sold out".
    ///
    /// The stock only falls during a run (nothing confirmed is given back), so what is left at the
    /// end was there at every refusal: one refused quantity within it proves the refusal wrong.
    /// Units of unknown outcome count as sold here.
    pub fn undersold_units(&self, tickets: u64) -> u64 {
        let left = tickets.saturating_sub(self.sold_units() + self.unknown_units());
        match self.refused.keys().next() {
            Some(smallest) if u64::from(smallest.unsigned_abs()) <= left => left,
            _ => 0,
        }
    }
}

/// The reservation_id of number `index`.
pub fn reservation_id(prefix: &str, index: usize) -> String {
    format!("{prefix}-{index:07}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The first thing known of this reservation.
    First,
    Identical,
    Different,
    LateCommitRefused,
    LateReleaseRefused,
    ConflictRefused,
    /// No repeat, and against the contract all the same.
    Wrong,
    /// Says nothing: no answer, or an error that is counted by its status.
    Silent,
}

fn judge(call: Call, known: &Outcome, told: &Told) -> Verdict {
    use Outcome as O;
    let fresh = matches!(known, O::NotPlayed | O::Unknown);
    match (call, told) {
        (_, Told::NoAnswer { .. } | Told::Unexpected { .. }) => Verdict::Silent,
        (Call::Commit, Told::Confirmed { order_id }) => match known {
            O::Confirmed { order_id: before } if **before == **order_id => Verdict::Identical,
            O::Confirmed { .. } | O::SoldOut => Verdict::Different,
            O::Released => Verdict::Wrong,
            O::NotPlayed | O::Unknown => Verdict::First,
        },
        (Call::Commit, Told::SoldOut) => match known {
            O::SoldOut => Verdict::Identical,
            O::Confirmed { .. } => Verdict::Different,
            O::Released => Verdict::Wrong,
            O::NotPlayed | O::Unknown => Verdict::First,
        },
        (Call::Commit, Told::ReservationReleased) => match known {
            O::Released => Verdict::LateCommitRefused,
            // A release whose answer was lost.
            O::Unknown => Verdict::First,
            O::NotPlayed | O::Confirmed { .. } | O::SoldOut => Verdict::Wrong,
        },
        (Call::Release, Told::Released) => match known {
            O::Released => Verdict::Identical,
            O::Confirmed { .. } => Verdict::Wrong,
            _ => Verdict::First,
        },
        (Call::Release, Told::ReservationCommitted) => match known {
            O::Confirmed { .. } => Verdict::LateReleaseRefused,
            O::Unknown => Verdict::Silent,
            _ => Verdict::Wrong,
        },
        (Call::CommitOther, Told::Conflict) if !fresh => Verdict::ConflictRefused,
        _ => Verdict::Wrong,
    }
}

/// What is known afterwards, if that changed. A confirmation always wins: its units are gone.
fn next_outcome(call: Call, known: &Outcome, told: &Told) -> Option<Outcome> {
    let fresh = matches!(known, Outcome::NotPlayed | Outcome::Unknown);
    match told {
        Told::Confirmed { order_id } if call == Call::Commit => {
            let confirmed = matches!(known, Outcome::Confirmed { .. });
            (!confirmed).then(|| Outcome::Confirmed {
                order_id: order_id.as_str().into(),
            })
        }
        Told::SoldOut if call == Call::Commit && fresh => Some(Outcome::SoldOut),
        Told::ReservationReleased if fresh => Some(Outcome::Released),
        Told::Released if fresh || *known == Outcome::SoldOut => Some(Outcome::Released),
        Told::NoAnswer { .. } | Told::Unexpected { .. } if *known == Outcome::NotPlayed => {
            Some(Outcome::Unknown)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(quantities: &[i32]) -> Ledger {
        Ledger::new("r", quantities.iter().copied())
    }

    fn enter(book: &mut Ledger, index: usize, call: Call, told: Told) {
        let begun = book.now();
        book.enter(index, call, begun, told);
    }

    fn confirmed(order: &str) -> Told {
        Told::Confirmed {
            order_id: order.to_owned(),
        }
    }

    #[test]
    fn the_same_order_twice_is_identical_another_is_different() {
        let mut book = ledger(&[2, 1]);
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        assert_eq!(book.counts().duplicates_identical, 1);
        assert_eq!(book.counts().violations, 0);
        enter(&mut book, 0, Call::Commit, confirmed("ord_b"));
        assert_eq!(book.counts().duplicates_different, 1);
        assert_eq!(book.counts().violations, 1);
        assert!(book.violations()[0].contains("r-0000000"));
        assert_eq!(book.counts().confirmed, 1);
        assert_eq!(book.sold_units(), 2);
    }

    #[test]
    fn one_id_cannot_be_sold_out_and_confirmed_in_either_order() {
        for told in [
            [Told::SoldOut, confirmed("ord_a")],
            [confirmed("ord_a"), Told::SoldOut],
        ] {
            let mut book = ledger(&[3]);
            for told in told {
                enter(&mut book, 0, Call::Commit, told);
            }
            assert_eq!(book.counts().duplicates_different, 1);
            assert_eq!(book.sold_units(), 3, "a confirmation always counts");
            assert_eq!(book.counts().sold_out, 0);
        }
    }

    #[test]
    fn a_release_first_must_stop_the_commit() {
        let mut book = ledger(&[1, 1]);
        enter(&mut book, 0, Call::Release, Told::Released);
        enter(&mut book, 0, Call::Commit, Told::ReservationReleased);
        assert_eq!(book.counts().late_commits_refused, 1);
        assert_eq!(book.counts().violations, 0);
        enter(&mut book, 1, Call::Release, Told::Released);
        enter(&mut book, 1, Call::Commit, confirmed("ord_a"));
        assert_eq!(book.counts().violations, 1);
        assert_eq!(book.sold_units(), 1);
    }

    #[test]
    fn a_confirmed_reservation_is_never_released() {
        let mut book = ledger(&[1, 1]);
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        enter(&mut book, 0, Call::Release, Told::ReservationCommitted);
        assert_eq!(book.counts().late_releases_refused, 1);
        assert_eq!(book.counts().violations, 0);
        enter(&mut book, 1, Call::Commit, confirmed("ord_b"));
        enter(&mut book, 1, Call::Release, Told::Released);
        assert_eq!(book.counts().violations, 1);
        assert_eq!(book.sold_units(), 2);
    }

    #[test]
    fn another_payload_must_conflict() {
        for (told, violations) in [
            (Told::Conflict, 0),
            (confirmed("ord_a"), 1),
            (Told::SoldOut, 1),
        ] {
            let mut book = ledger(&[1]);
            enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
            enter(&mut book, 0, Call::CommitOther, told);
            assert_eq!(book.counts().violations, violations);
            assert_eq!(book.counts().conflicts_refused, 1 - violations);
        }
    }

    #[test]
    fn an_honest_commit_must_not_conflict() {
        let mut book = ledger(&[1]);
        enter(&mut book, 0, Call::Commit, Told::Conflict);
        assert_eq!(book.counts().violations, 1);
    }

    #[test]
    fn an_unknown_outcome_is_settled_by_a_later_answer() {
        let mut book = ledger(&[4]);
        let lost = Told::NoAnswer {
            last: "UNAVAILABLE".to_owned(),
            message: String::new(),
        };
        enter(&mut book, 0, Call::Commit, lost);
        assert_eq!((book.counts().unknown, book.unknown_units()), (1, 4));
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        assert_eq!((book.counts().unknown, book.unknown_units()), (0, 0));
        assert_eq!(book.counts().confirmed, 1);
        assert_eq!(book.counts().violations, 0);
    }

    #[test]
    fn oversold_is_what_is_above_the_tickets() {
        let mut book = ledger(&[2, 2]);
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        enter(&mut book, 1, Call::Commit, confirmed("ord_b"));
        assert_eq!(book.oversold_units(4), 0);
        assert_eq!(book.oversold_units(3), 1);
    }

    #[test]
    fn undersold_needs_a_refusal_that_would_have_fitted() {
        let mut book = ledger(&[2, 3, 1]);
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        enter(&mut book, 1, Call::Commit, Told::SoldOut);
        assert_eq!(book.undersold_units(4), 0, "3 did not fit into 2");
        assert_eq!(book.undersold_units(5), 3, "3 would have fitted into 3");
        enter(&mut book, 2, Call::Commit, Told::SoldOut);
        assert_eq!(book.undersold_units(4), 2, "1 would have fitted into 2");
        assert_eq!(book.undersold_units(2), 0, "nothing was left");
    }

    #[test]
    fn a_refusal_is_too_early_when_later_calls_are_sold_as_much() {
        let mut book = ledger(&[3, 1, 2, 2]);
        let before = book.now();
        enter(&mut book, 0, Call::Commit, Told::SoldOut);
        // Under way at the refusal: may have been served before it.
        book.enter(3, Call::Commit, before, confirmed("ord_d"));
        enter(&mut book, 1, Call::Commit, confirmed("ord_b"));
        assert_eq!(book.counts().refused_too_early, 0, "1 is less than 3");
        enter(&mut book, 1, Call::Commit, confirmed("ord_b"));
        assert_eq!(book.counts().refused_too_early, 0, "a repeat sells nothing");
        enter(&mut book, 2, Call::Commit, confirmed("ord_c"));
        assert_eq!(book.counts().refused_too_early, 1);
        assert_eq!(book.counts().violations, 1);
    }

    #[test]
    fn quotes_are_bounded_counts_are_not() {
        let mut book = ledger(&[1]);
        enter(&mut book, 0, Call::Commit, confirmed("ord_a"));
        for _ in 0..3 * VIOLATIONS_QUOTED_MAX {
            enter(&mut book, 0, Call::Commit, confirmed("ord_b"));
        }
        assert_eq!(book.violations().len(), VIOLATIONS_QUOTED_MAX);
        assert_eq!(book.counts().violations, 3 * VIOLATIONS_QUOTED_MAX as u64);
    }
}
