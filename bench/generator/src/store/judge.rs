//! Checks of the stored items against each other and against the answers in the ledger.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use serde::Serialize;

use super::StoreReadback;
use super::items::{RecordItem, SeatItem, StripeItem};
use crate::ledger::{ReservationEntry, ReservationStep, RunLedger, ViolationLog};
use crate::outcome::OrderId;
use crate::wire::request::reservation_number;

/// Records of the events of the run, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordCounts {
    pub confirmed: u64,
    pub held: u64,
    pub released: u64,
    pub expired: u64,
    pub refunded: u64,
    /// The part of those that this run did not create: by other clients or by the server.
    pub foreign: u64,
    pub seats: u64,
}

/// Final balance of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventBalance {
    pub total: i64,
    pub remaining: i64,
    /// Units, or seats, of held and confirmed records.
    pub live: i64,
    /// Units returned.
    pub returned: i64,
}

/// A seat of a live record.
struct SeatClaim {
    reservation: u64,
    confirmed: bool,
    order: Option<OrderId>,
    /// The item of the seat was read.
    item_seen: bool,
}

/// Accepts items in any order, then returns its verdict.
pub struct StoreJudge<'a> {
    events: HashMap<&'a str, usize>,
    ledger: &'a mut RunLedger,
    run: String,
    hasher: FixedState,
    counts: RecordCounts,
    sums: Vec<EventBalance>,
    /// Live units by event and stripe.
    drawn: HashMap<(usize, u32), i64>,
    /// Units of held records that the stripes count, by event.
    held: Vec<i64>,
    claims: HashMap<(usize, Box<str>), SeatClaim, FixedState>,
    orders: Vec<(OrderId, u32)>,
    foreign_orders: Vec<OrderId>,
    seats_expected: bool,
    violations: ViolationLog,
}

fn is_live(status: &str) -> bool {
    matches!(status, "HELD" | "CONFIRMED")
}

impl<'a> StoreJudge<'a> {
    pub fn new(events: &'a [String], ledger: &'a mut RunLedger) -> Self {
        let run = ledger.run().to_owned();
        Self {
            events: events.iter().map(String::as_str).zip(0..).collect(),
            run,
            hasher: FixedState::with_seed(1),
            counts: RecordCounts::default(),
            sums: vec![EventBalance::default(); events.len()],
            drawn: HashMap::new(),
            held: vec![0; events.len()],
            claims: HashMap::with_hasher(FixedState::with_seed(2)),
            orders: Vec::with_capacity(ledger.len()),
            foreign_orders: Vec::new(),
            seats_expected: false,
            ledger,
            violations: ViolationLog::default(),
        }
    }

    /// Whether any record has seats, so that the items of seats must be read.
    pub fn has_seats(&self) -> bool {
        self.seats_expected
    }

    /// Adds one record.
    pub fn record(&mut self, record: &RecordItem<'_>) {
        let number = reservation_number(&self.run, &record.reservation);
        let Some(event) = self.events.get(&*record.event).copied() else {
            if number.is_some() {
                let (id, event) = (&record.reservation, &record.event);
                self.violations.add("record", || {
                    format!("{id} refers to {event}, which is not an event of this run")
                });
            }
            return;
        };
        match &*record.status {
            "CONFIRMED" => self.counts.confirmed += 1,
            "HELD" => self.counts.held += 1,
            "RELEASED" => self.counts.released += 1,
            "EXPIRED" => self.counts.expired += 1,
            "REFUNDED" => self.counts.refunded += 1,
            other => {
                let id = &record.reservation;
                self.violations.add("record", || format!("{id} has the unknown status {other:?}"));
            }
        }
        self.add_units(record, event);
        let order = OrderId::of(&record.order);
        match number {
            Some(number) => {
                self.check_own_record(record, event, number, order);
                self.orders.extend(order.map(|order| (order, number)));
            }
            None => {
                self.counts.foreign += 1;
                self.foreign_orders.extend(order);
            }
        }
    }

    fn add_units(&mut self, record: &RecordItem<'_>, event: usize) {
        let live = is_live(&record.status);
        let qty = i64::from(record.qty);
        let id = &record.reservation;
        if !record.seats.is_empty() {
            self.seats_expected = true;
            if record.seats.len() as i64 != qty {
                let seats = record.seats.len();
                self.violations
                    .add("record", || format!("{id} has {seats} seats and a quantity of {qty}"));
            }
            if live {
                self.add_seats(record, event);
            }
        } else {
            let mut sum = 0;
            for draw in record.draws.split(',').filter(|draw| !draw.is_empty()) {
                let read = draw.split_once(':').and_then(|(stripe, units)| {
                    Some((stripe.parse::<u32>().ok()?, units.parse::<u32>().ok()?))
                });
                let Some((stripe, units)) = read else {
                    let draws = &record.draws;
                    self.violations.add("record", || format!("{id} has invalid draws {draws:?}"));
                    continue;
                };
                sum += i64::from(units);
                if live {
                    *self.drawn.entry((event, stripe)).or_default() += i64::from(units);
                }
            }
            if record.counted && record.status == "HELD" {
                self.held[event] += qty;
            }
            if live && sum != qty {
                self.violations.add("record", || {
                    format!("{id} has {sum} allocated units for a quantity of {qty}")
                });
            }
            if !live && record.draws.is_empty() {
                // A tombstone without units.
                return;
            }
        }
        let sums = &mut self.sums[event];
        match live {
            true => sums.live += qty,
            false => sums.returned += qty,
        }
    }

    fn add_seats(&mut self, record: &RecordItem<'_>, event: usize) {
        let reservation = self.hasher.hash_one(&*record.reservation);
        for seat in &record.seats {
            let claim = SeatClaim {
                reservation,
                confirmed: record.status == "CONFIRMED",
                order: OrderId::of(&record.order),
                item_seen: false,
            };
            let id = &record.reservation;
            if self.claims.insert((event, Box::from(&**seat)), claim).is_some() {
                self.violations.add("seat", || {
                    format!("{seat} belongs to {id} and to another live reservation")
                });
            }
        }
    }

    /// Checks a record of this run against the answers in the ledger.
    fn check_own_record(
        &mut self,
        record: &RecordItem<'_>,
        event: usize,
        number: u32,
        order: Option<OrderId>,
    ) {
        let id = &record.reservation;
        let Some(entry) = self.ledger.entry(number) else {
            self.violations.add("record", || format!("{id} was never requested"));
            return;
        };
        if !entry.mark_seen() {
            self.violations.add("record", || format!("{id} exists twice"));
        }
        if usize::from(entry.event) != event || u32::from(entry.qty) != record.qty {
            let (qty, event) = (record.qty, &record.event);
            self.violations.add("record", || {
                format!("{id} is {qty} of {event}, which is not what was requested")
            });
        }
        if let Some((kind, text)) = record_contradiction(entry, &record.status, order) {
            self.violations.add(kind, || format!("{id} {text}"));
        }
    }

    /// Adds the item of one seat.
    pub fn seat(&mut self, seat: &SeatItem<'_>) {
        let Some(event) = self.events.get(&*seat.event).copied() else {
            return;
        };
        self.counts.seats += 1;
        let sums = &mut self.sums[event];
        sums.total += 1;
        sums.remaining += i64::from(seat.status == "AVAILABLE");
        let reservation = self.hasher.hash_one(&*seat.reservation);
        let (id, name) = (&seat.seat, &seat.reservation);
        let claim = self.claims.get_mut(&(event, Box::from(&**id)));
        let text = match (&*seat.status, claim) {
            ("AVAILABLE" | "BLOCKED", None) => return,
            ("AVAILABLE" | "BLOCKED", Some(claim)) => {
                claim.item_seen = true;
                "is available, but belongs to a live reservation".to_owned()
            }
            (_, None) => format!("names {name}, which is not a live reservation of this seat"),
            (status, Some(claim)) => {
                claim.item_seen = true;
                let sold = status == "SOLD";
                if claim.reservation != reservation {
                    format!("names {name}, but belongs to another live reservation")
                } else if sold != claim.confirmed {
                    format!("is {status}, but reservation {name} has another status")
                } else if sold && OrderId::of(&seat.order) != claim.order {
                    format!("is sold under {}, but {name} has another order", seat.order)
                } else {
                    return;
                }
            }
        };
        self.violations.add("seat", || format!("{id} {text}"));
    }

    /// Returns the verdict. `stripes` are all stripes of the events of the run.
    pub fn verdict(mut self, stripes: &[StripeItem]) -> StoreReadback {
        self.check_missing();
        self.check_unique_orders();
        let seated = self.check_balance(stripes);
        for (event, name) in self.names().into_iter().enumerate() {
            self.check_event(event, &name, seated[event]);
        }
        StoreReadback {
            violations: self.violations,
            counts: self.counts,
            events: self.sums,
            ..StoreReadback::default()
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.events.iter().collect();
        names.sort_by_key(|(_, index)| **index);
        names.into_iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Acknowledged reservations without a record, and seats of live records without an item.
    fn check_missing(&mut self) {
        for (entry, id) in self.ledger.entries() {
            if entry.is_seen() {
                continue;
            }
            let answer = if entry.is_ok(ReservationStep::Commit) {
                "was confirmed"
            } else if entry.is_ok(ReservationStep::Hold) {
                "was held"
            } else if entry.is_ok(ReservationStep::Release) {
                "was released"
            } else {
                continue;
            };
            self.violations
                .add("durable", || format!("{} {answer}, but the store has no record", id()));
        }
        for ((_, seat), claim) in &self.claims {
            if !claim.item_seen {
                self.violations.add("seat", || {
                    format!("{seat} belongs to a live reservation, but has no item")
                });
            }
        }
    }

    fn check_unique_orders(&mut self) {
        self.orders.sort_unstable();
        for pair in self.orders.windows(2) {
            if let [(first, a), (second, b)] = pair
                && first == second
            {
                let run = &self.run;
                self.violations
                    .add("order", || format!("{first} belongs to {run}-{a:x} and to {run}-{b:x}"));
            }
        }
        for order in &self.foreign_orders {
            if let Ok(at) = self.orders.binary_search_by_key(order, |(own, _)| *own) {
                let (run, number) = (&self.run, self.orders[at].1);
                self.violations.add("order", || {
                    format!("{order} belongs to {run}-{number:x} and to a record of another client")
                });
            }
        }
    }

    /// Per stripe: capacity = remaining + live units. Per event: the held units of stripes and counters are those of held
    /// records. Returns which events are seated.
    fn check_balance(&mut self, stripes: &[StripeItem]) -> Vec<bool> {
        let names = self.names();
        let mut seated = vec![false; names.len()];
        let mut found = vec![(0_u32, 0_u32); names.len()];
        let mut held = vec![0_i64; names.len()];
        for stripe in stripes {
            held[stripe.event] += stripe.held;
            if stripe.is_counter {
                continue;
            }
            let (count, expected) = &mut found[stripe.event];
            *count += 1;
            if stripe.index == 0 {
                *expected = stripe.stripes;
                seated[stripe.event] = stripe.seat_keys > 0;
            }
            if stripe.seat_keys > 0 {
                continue;
            }
            let drawn = self.drawn.remove(&(stripe.event, stripe.index)).unwrap_or(0);
            let sums = &mut self.sums[stripe.event];
            sums.total += stripe.total;
            sums.remaining += stripe.remaining;
            if stripe.remaining < 0 || stripe.total != stripe.remaining + drawn {
                let (name, StripeItem { index, total, remaining, .. }) =
                    (&names[stripe.event], stripe);
                self.violations.add("balance", || {
                    format!("stripe {index} of {name}: capacity {total}, remaining {remaining}, live reservations {drawn}")
                });
            }
        }
        for (name, (count, expected)) in names.iter().zip(found) {
            if count == 0 || count != expected {
                self.violations
                    .add("balance", || format!("{name} has {count} stripes instead of {expected}"));
            }
        }
        for (name, (shown, records)) in names.iter().zip(held.iter().zip(&self.held)) {
            if shown != records {
                self.violations.add("held", || {
                    format!("{name}: {shown} units are held by stripes and counters, {records} by records")
                });
            }
        }
        for ((event, stripe), units) in std::mem::take(&mut self.drawn) {
            let name = &names[event];
            self.violations.add("balance", || {
                format!("{units} units are allocated from stripe {stripe} of {name}, which does not exist")
            });
        }
        seated
    }

    fn check_event(&mut self, event: usize, name: &str, seated: bool) {
        let EventBalance { total, remaining, live, returned } = self.sums[event];
        let sales = self.ledger.event(event);
        if live > total {
            self.violations.add("oversold", || format!("{name}: {live} of {total}"));
        }
        if seated && self.counts.seats == 0 {
            return;
        }
        // Returned units may have been returned after the last refusal; the others were available all the time.
        let unexplained = remaining - returned;
        let least = i64::from(sales.refused_least);
        if sales.refused > 0 && unexplained >= least {
            self.violations.add("undersold", || {
                format!("{name}: {} calls for {least} or more units were refused as sold out, but {unexplained} units were never sold", sales.refused)
            });
        }
    }
}

/// The contradiction between a record and the answers to its calls: its kind and a description.
fn record_contradiction(
    entry: &ReservationEntry,
    status: &str,
    order: Option<OrderId>,
) -> Option<(&'static str, String)> {
    let confirmed = entry.is_ok(ReservationStep::Commit);
    let released = entry.is_ok(ReservationStep::Release);
    match status {
        "CONFIRMED" => match (entry.order(), order) {
            (_, None) => Some(("record", "is confirmed without an order".to_owned())),
            (Some(answered), Some(stored)) if answered != stored => {
                Some(("order", format!("was answered {answered}, but the store has {stored}")))
            }
            (None, Some(_)) if !entry.may_have_happened(ReservationStep::Commit) => {
                Some(("refused", "is confirmed, although every commit was refused".to_owned()))
            }
            _ if released => Some(("record", "is confirmed, although it was released".to_owned())),
            _ => None,
        },
        _ if confirmed => Some(("durable", format!("was confirmed, but the store has {status}"))),
        "HELD" if released => Some(("durable", "was released, but is held".to_owned())),
        "HELD" if !entry.may_have_happened(ReservationStep::Hold) => {
            Some(("refused", "is held, although every hold was refused".to_owned()))
        }
        "RELEASED" if !entry.may_have_happened(ReservationStep::Release) => {
            Some(("record", "is released, although it was never released".to_owned()))
        }
        _ => None,
    }
}
