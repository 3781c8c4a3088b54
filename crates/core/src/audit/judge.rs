//! The invariants of an event's data.

use std::collections::{HashMap, HashSet};

use super::event_records::{
    AuditRecord, EventRecords, RecordLookup, SeatClaim, StoredItem, StripeAmounts, StripeReads,
};
use super::report::{
    AuditReport, Breach, BreachKind, BreachSubject, HeldBalance, OverdueHolds, ReservationCounts,
    SeatCounts, StripeBalance,
};
use super::seats::{self, SuspectOutcome, SuspectSeat};
use crate::ids::{OrderId, ReservationId, SeatId};
use crate::limits;
use crate::seats::SeatState;
use crate::time::UnixMillis;
use crate::transaction::ReservationState;

/// A report, and seats whose disagreement must be verified by a second read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    report: AuditReport,
    pub suspects: Vec<SuspectSeat>,
}

impl Judgement {
    /// For data that was not written during the read: every suspect is a breach.
    pub fn at_rest(self) -> AuditReport {
        let settled: Vec<SuspectOutcome> = self
            .suspects
            .iter()
            .map(|suspect| SuspectOutcome::Wrong(suspect.kind.clone()))
            .collect();
        self.settle(settled)
    }

    /// The report with the outcome of each suspect, in their order. Suspects beyond the end of `settled` were not read
    /// again.
    pub fn settle(self, settled: Vec<SuspectOutcome>) -> AuditReport {
        let Self { mut report, suspects } = self;
        let not_looked_at = suspects.len().saturating_sub(settled.len());
        report.moving_seats += not_looked_at as u64;
        for (suspect, settled) in suspects.into_iter().zip(settled) {
            match settled {
                SuspectOutcome::Fine => report.restless = true,
                SuspectOutcome::Moving => report.moving_seats += 1,
                SuspectOutcome::Wrong(kind) => report.breaches.push(Breach {
                    subject: BreachSubject::Seat(suspect.seat.into_string()),
                    kind,
                }),
            }
        }
        report.restless |= report.moving_seats > 0;
        report
    }

    /// What this and earlier rounds have shown, for the parameter `known` of [`judge`].
    pub fn known(&self) -> KnownBalances {
        let AuditReport { stripes, held, moved, .. } = &self.report;
        KnownBalances { stripes: stripes.clone(), held: *held, moved: *moved }
    }

    /// Whether every stripe, the held units and the moved units were unchanged during this or an earlier round.
    pub fn units_unchanged(&self) -> bool {
        let AuditReport { moving_stripes, moving_held, moving_moved, .. } = &self.report;
        moving_stripes.is_empty() && !moving_held && !moving_moved
    }
}

/// Balances of earlier rounds of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownBalances {
    stripes: Vec<StripeBalance>,
    held: Option<HeldBalance>,
    /// Sum of the moved units.
    moved: Option<i64>,
}

/// Judges `books`, whose reads began at `began`. The lateness of an overdue hold is counted up to `began`.
/// `known` has the balances of an earlier round. A stripe that changed in this round is judged by its balance in the
/// earlier one, if it was unchanged then. So are the held units and the moved units.
pub fn judge(books: &EventRecords, known: &KnownBalances, began: UnixMillis) -> Judgement {
    let mut judge = EventJudge { books, breaches: Vec::new() };
    let stripes = judge.stripes(&known.stripes);
    let (held, moving_held) = judge.held(known.held);
    let (moved, moving_moved) = judge.moved(&stripes, known.moved);
    judge.records();
    let orders = judge.orders();
    judge.unreadable();
    let overdue = judge.overdue(began);
    let (seats, suspects) = judge.seats();
    let breaches = judge.breaches;
    let readable = |sight: &StripeReads| sight.item.read().copied();
    let items: Vec<StripeAmounts> = books.stripes.iter().filter_map(readable).collect();
    let report = AuditReport {
        event: books.event.clone(),
        closed: items.first().is_some_and(|stripe| stripe.closed),
        seated: books.is_seated(),
        moving_stripes: stripes.iter().filter(|line| !line.still).map(|line| line.index).collect(),
        restless: books.stripes.iter().any(|sight| !sight.still) || !books.counters.still,
        moving_held,
        moving_moved,
        held,
        moved,
        stripes,
        seats,
        reservations: reservations(books),
        orders,
        overdue,
        breaches,
        moving_seats: 0,
    };
    Judgement { report, suspects }
}

struct EventJudge<'a> {
    books: &'a EventRecords,
    breaches: Vec<Breach>,
}

impl EventJudge<'_> {
    fn found(&mut self, subject: BreachSubject, kind: BreachKind) {
        self.breaches.push(Breach { subject, kind });
    }

    /// Per stripe: capacity = remaining + held + confirmed.
    fn stripes(&mut self, known: &[StripeBalance]) -> Vec<StripeBalance> {
        let mut drawn = vec![(0_u64, 0_u64); self.books.stripes.len()];
        for record in &self.books.live {
            for draw in &record.draws {
                // Unknown stripes are reported with the record.
                let Some((held, confirmed)) = drawn.get_mut(usize::from(draw.stripe)) else {
                    continue;
                };
                let sum = match record.state {
                    ReservationState::Held => held,
                    _ => confirmed,
                };
                *sum += u64::from(draw.units);
            }
        }
        let mut lines = Vec::with_capacity(drawn.len());
        for (index, (sight, (held, confirmed))) in
            (0_u16..).zip(self.books.stripes.iter().zip(drawn))
        {
            let item = match &sight.item {
                StoredItem::Read(item) => item,
                StoredItem::Missing => {
                    self.found(BreachSubject::Stripe(index), BreachKind::StripeMissing);
                    continue;
                }
                StoredItem::Unreadable(why) => {
                    self.found(BreachSubject::Stripe(index), BreachKind::Unreadable(why.clone()));
                    continue;
                }
            };
            let mut line = StripeBalance {
                index,
                capacity: item.capacity,
                remaining: item.remaining,
                moved: item.moved,
                version: item.version,
                held,
                confirmed,
                still: sight.still,
            };
            let earlier = known.iter().find(|line| line.index == index && line.still);
            if let (false, Some(earlier)) = (line.still, earlier) {
                line = *earlier;
            }
            if line.still && line.difference() != 0 {
                self.found(BreachSubject::Stripe(index), BreachKind::Remaining(line));
            }
            lines.push(line);
        }
        lines
    }

    /// Per event: held units of the stripes - confirmation counters = units of counted HELD records. Returns the balance,
    /// and whether it changed in every round.
    ///
    /// A hold and its return change a stripe with its version, and the commit of a hold changes a counter. So nothing
    /// that matters here changed between the reads if no stripe and no counter did. Without any held unit there is
    /// nothing to prove.
    fn held(&mut self, known: Option<HeldBalance>) -> (Option<HeldBalance>, bool) {
        let books = self.books;
        for (index, item) in (0_u16..).zip(&books.counters.items) {
            if let StoredItem::Unreadable(why) = item {
                self.found(BreachSubject::Counter(index), BreachKind::Unreadable(why.clone()));
            }
        }
        let stripes = books
            .stripes
            .iter()
            .try_fold(0_i64, |sum, stripe| Some(sum.saturating_add(stripe.item.read()?.held)));
        let (Some(stripes), Some(confirmed)) = (stripes, books.counters.sum()) else {
            return (None, false);
        };
        if books.is_seated() {
            return (None, false);
        }
        let units = |counted: bool| -> u64 {
            let held = books.live.iter().filter(|record| record.state == ReservationState::Held);
            held.filter(|record| record.counted == counted).map(AuditRecord::units).sum()
        };
        let seen =
            HeldBalance { stripes, confirmed, records: units(true), uncounted: units(false) };
        let is_still = books.counters.still && books.stripes.iter().all(|stripe| stripe.still);
        let is_trivial = (seen.stripes, seen.confirmed, seen.records) == (0, 0, 0);
        let balance = match is_still || is_trivial {
            true => Some(seen),
            false => known,
        };
        if let Some(balance) = balance.filter(|balance| balance.difference() != 0) {
            let counter = books.counters.items.first().and_then(|item| item.read().copied());
            let counter = counter.unwrap_or(0);
            self.found(BreachSubject::Counter(0), BreachKind::Held { balance, counter });
        }
        (balance, balance.is_none())
    }

    /// Per event: the moved units of all stripes add up to 0. Returns the sum, and whether it changed in every round.
    ///
    /// A move changes two stripes, which are read one after the other.
    ///
    /// 1. Another sum than 0 is a breach only if no stripe changed between the reads: a move increments the version of both
    ///    stripes, so there was none, and the sum is that of one instant.
    /// 2. The sum 0 is accepted if no stripe has other moved units than before, although its version may have changed: a
    ///    sale in progress does not prevent the proof. Moves that cancel each other out could hide a breach in one run,
    ///    and never make one.
    fn moved(&mut self, lines: &[StripeBalance], known: Option<i64>) -> (Option<i64>, bool) {
        let books = self.books;
        let mut stripes = books.stripes.iter();
        let sum = stripes
            .try_fold(0_i64, |sum, stripe| Some(sum.saturating_add(stripe.item.read()?.moved)));
        let Some(sum) = sum.filter(|_| !books.is_seated()) else {
            return (None, false);
        };
        let is_proven = match sum {
            0 => books.stripes.iter().all(|stripe| stripe.moved_still),
            _ => books.stripes.iter().all(|stripe| stripe.still),
        };
        let proven = if is_proven { Some(sum) } else { known };
        if let Some(sum) = proven.filter(|sum| *sum != 0) {
            // Most likely one item was edited.
            let edited = lines.iter().find(|line| line.moved == sum).or(lines.first());
            if let Some(StripeBalance { index, moved, .. }) = edited.copied() {
                self.found(BreachSubject::Stripe(index), BreachKind::Moved { sum, moved });
            }
        }
        (proven, proven.is_none())
    }

    /// Checks each live record by itself.
    fn records(&mut self) {
        let books = self.books;
        for record in &books.live {
            for kind in breach_kinds_of(record, books.stripes.len()) {
                let id = record.reservation.as_str().to_owned();
                self.found(BreachSubject::Reservation(id), kind);
            }
        }
    }

    /// Checks that order ids are distinct and derived from their reservations. Returns their number.
    fn orders(&mut self) -> u64 {
        let books = self.books;
        let confirmed = || {
            let all = books.live.iter();
            all.filter(|record| record.state == ReservationState::Confirmed)
                .filter_map(|record| Some((record, record.order?)))
        };
        // Derived order ids are as distinct as their reservations; only others can be duplicates.
        let mut foreign: HashMap<OrderId, &ReservationId> = HashMap::new();
        let mut doubled = 0;
        for (record, order) in confirmed() {
            let derived = OrderId::of(&record.reservation);
            if order == derived {
                continue;
            }
            let subject = || BreachSubject::Reservation(record.reservation.as_str().to_owned());
            self.found(subject(), BreachKind::OrderMismatch { order, derived });
            if let Some(other) = foreign.insert(order, &record.reservation) {
                doubled += 1;
                let other = other.clone();
                self.found(subject(), BreachKind::OrderTwice { order, other });
            }
        }
        if !foreign.is_empty() {
            for (record, order) in confirmed() {
                let Some(other) = foreign.get(&order) else {
                    continue;
                };
                if **other != record.reservation && order == OrderId::of(&record.reservation) {
                    doubled += 1;
                    let id = record.reservation.as_str().to_owned();
                    let other = (*other).clone();
                    self.found(
                        BreachSubject::Reservation(id),
                        BreachKind::OrderTwice { order, other },
                    );
                }
            }
        }
        confirmed().count() as u64 - doubled
    }

    /// Holds that had expired at `at`; a breach if that is long ago.
    fn overdue(&mut self, at: UnixMillis) -> OverdueHolds {
        let late = |record: &AuditRecord| {
            let expired = record.expires_at.filter(|expiry| *expiry <= at)?;
            (record.state == ReservationState::Held).then(|| at.0 - expired.0)
        };
        let all = self.books.live.iter();
        let mut late: Vec<(u64, &ReservationId)> =
            all.filter_map(|record| Some((late(record)?, &record.reservation))).collect();
        late.sort_unstable_by(|one, other| other.cmp(one));
        let max = limits::AUDIT_OVERDUE_MAX.as_millis() as u64;
        for (late_ms, id) in late.iter().take_while(|(late_ms, _)| *late_ms > max) {
            let subject = BreachSubject::Reservation(id.as_str().to_owned());
            self.found(subject, BreachKind::Overdue { late_ms: *late_ms });
        }
        let latest = late.iter().take(limits::AUDIT_ITEMS_SHOWN_MAX);
        OverdueHolds {
            count: late.len() as u64,
            latest: latest.map(|(ms, id)| ((*id).clone(), *ms)).collect(),
        }
    }

    fn unreadable(&mut self) {
        let books = self.books;
        for unread in &books.unreadable_records {
            let subject = BreachSubject::Reservation(unread.id.clone());
            self.found(subject, BreachKind::Unreadable(unread.why.clone()));
        }
        for unread in &books.unreadable_seats {
            let subject = BreachSubject::Seat(unread.id.clone());
            self.found(subject, BreachKind::Unreadable(unread.why.clone()));
        }
        for misplaced in &books.misplaced {
            let subject = BreachSubject::Seat(misplaced.seat.as_str().to_owned());
            self.found(
                subject,
                BreachKind::Misplaced {
                    lies_under: misplaced.lies_under.clone(),
                    belongs_under: misplaced.belongs_under.clone(),
                },
            );
        }
    }

    /// Compares every seat with the live records that name it, and the reverse.
    fn seats(&self) -> (SeatCounts, Vec<SuspectSeat>) {
        let books = self.books;
        let index = LiveRecords::of(books);
        let mut line = SeatCounts {
            total: books.seats_kept() as u64,
            unreadable: books.unreadable_seats.len() as u64,
            ..SeatCounts::default()
        };
        for record in &books.live {
            let seats = record.seats.as_deref().unwrap_or_default().len() as u64;
            match record.state {
                ReservationState::Held => line.held += seats,
                _ => line.confirmed += seats,
            }
        }
        let mut suspects = Vec::new();
        let mut met: HashSet<&SeatId> = HashSet::new();
        for seat in &books.seats {
            match &seat.state {
                SeatState::Available => line.available += 1,
                SeatState::Hold { .. } => line.hold += 1,
                SeatState::Sold { .. } => line.sold += 1,
                SeatState::Blocked => line.blocked += 1,
            }
            let claimed = index.claimants(&seat.id);
            if !claimed.is_empty() {
                met.insert(&seat.id);
            }
            suspects.extend(index.suspect(&seat.id, Some(&seat.state), claimed));
        }
        let unreadable: HashSet<&str> =
            books.unreadable_seats.iter().map(|unread| unread.id.as_str()).collect();
        let mut absent: Vec<_> = index
            .claims
            .iter()
            .filter(|(seat, _)| !met.contains(*seat) && !unreadable.contains(seat.as_str()))
            .collect();
        absent.sort_unstable_by_key(|(seat, _)| *seat);
        for (seat, claimed) in absent {
            suspects.extend(index.suspect(seat, None, claimed));
        }
        (line, suspects)
    }
}

/// Live records by id and by seat; empty if no record and no item names one.
struct LiveRecords<'a> {
    by_id: HashMap<&'a str, &'a AuditRecord>,
    claims: HashMap<&'a SeatId, Vec<&'a AuditRecord>>,
    unreadable: HashSet<&'a str>,
}

impl<'a> LiveRecords<'a> {
    fn of(books: &'a EventRecords) -> Self {
        let mut claims: HashMap<&SeatId, Vec<&AuditRecord>> = HashMap::new();
        for record in &books.live {
            for seat in record.seats.as_deref().unwrap_or_default() {
                let claimed = claims.entry(seat).or_default();
                // A seat named twice by one record is a breach of that record.
                if !claimed.iter().any(|other| std::ptr::eq(*other, record)) {
                    claimed.push(record);
                }
            }
        }
        let has_seats = !books.seats.is_empty();
        let by_id = books.live.iter().filter(|_| has_seats);
        let unreadable = books.unreadable_records.iter().filter(|_| has_seats);
        Self {
            by_id: by_id.map(|r| (r.reservation.as_str(), r)).collect(),
            claims,
            unreadable: unreadable.map(|unread| unread.id.as_str()).collect(),
        }
    }

    fn claimants(&self, seat: &SeatId) -> &[&'a AuditRecord] {
        self.claims.get(seat).map_or(&[], Vec::as_slice)
    }

    fn named(&self, id: &ReservationId) -> RecordLookup {
        match self.by_id.get(id.as_str()) {
            Some(record) => RecordLookup::Elsewhere(record.state),
            None if self.unreadable.contains(id.as_str()) => RecordLookup::Unreadable,
            None => RecordLookup::NotLive,
        }
    }

    fn suspect(
        &self,
        seat: &SeatId,
        state: Option<&SeatState>,
        claimed: &[&AuditRecord],
    ) -> Option<SuspectSeat> {
        let item = state.map_or(StoredItem::Missing, |state| StoredItem::Read(state.clone()));
        let claims: Vec<SeatClaim> = claimed.iter().map(|record| SeatClaim::of(record)).collect();
        let kind = seats::breach_kind(&item, &claims, |id| self.named(id))?;
        let mut involved: Vec<ReservationId> =
            claims.into_iter().map(|claim| claim.reservation).collect();
        if let Some(holder) = state.and_then(seats::holder)
            && !involved.contains(holder)
        {
            involved.push(holder.clone());
        }
        Some(SuspectSeat { seat: seat.clone(), involved, kind })
    }
}

/// Breaches of a live record by itself, without wrong order ids.
fn breach_kinds_of(record: &AuditRecord, stripes: usize) -> Vec<BreachKind> {
    let mut kinds = Vec::new();
    let qty = record.qty;
    let drawn = record.units();
    match &record.seats {
        None if drawn != u64::from(qty) => kinds.push(BreachKind::DrawsDiffer { qty, drawn }),
        None => {}
        Some(_) if !record.draws.is_empty() => kinds.push(BreachKind::UnitsAndSeats),
        Some(seats) if seats.len() != qty as usize => {
            kinds.push(BreachKind::SeatsDiffer { qty, seats: seats.len() })
        }
        Some(_) => {}
    }
    let nowhere = record.draws.iter().find(|draw| usize::from(draw.stripe) >= stripes);
    if let Some(draw) = nowhere {
        let stripe = draw.stripe;
        kinds.push(BreachKind::StripeUnknown { stripe });
    }
    let seats = record.seats.as_deref().unwrap_or_default();
    let repeated = (1..seats.len()).find(|at| seats[..*at].contains(&seats[*at]));
    if let Some(at) = repeated {
        let seat = seats[at].clone();
        kinds.push(BreachKind::SeatRepeated { seat });
    }
    match record.state {
        ReservationState::Held if record.expires_at.is_none() => {
            kinds.push(BreachKind::ExpiryMissing)
        }
        ReservationState::Confirmed if record.order.is_none() => {
            kinds.push(BreachKind::OrderMissing)
        }
        _ => {}
    }
    kinds
}

fn reservations(books: &EventRecords) -> ReservationCounts {
    let held = |record: &&AuditRecord| record.state == ReservationState::Held;
    let held = books.live.iter().filter(held).count() as u64;
    ReservationCounts {
        held,
        confirmed: books.live.len() as u64 - held,
        released: books.released,
        expired: books.expired,
        refunded: books.refunded,
        unreadable: books.unreadable_records.len() as u64,
    }
}
