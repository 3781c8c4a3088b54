//! The verdict: items against each other, and against what the buyers were told.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use serde::Serialize;

use super::Read;
use super::items::{Record, Seat, Stripe};
use crate::ledger::{Books, Broken, Entry, Step};
use crate::outcome::Order;
use crate::wire::request::reservation_number;

/// How many records there are, by status; of this run's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub confirmed: u64,
    pub held: u64,
    pub released: u64,
    pub expired: u64,
    pub refunded: u64,
    /// Of those, records that this run did not make: other clients' and the server's own.
    pub foreign: u64,
    pub seats: u64,
}

/// How an event ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventRead {
    pub total: i64,
    pub remaining: i64,
    /// Units, or seats, of held and confirmed records.
    pub live: i64,
    /// Units that came back.
    pub returned: i64,
}

/// A seat that a live record has.
struct Claim {
    reservation: u64,
    confirmed: bool,
    order: Option<Order>,
    /// The seat's item was read.
    met: bool,
}

/// Takes items in any order, then gives its verdict.
pub struct Judge<'a> {
    events: HashMap<&'a str, usize>,
    books: &'a mut Books,
    run: String,
    hasher: FixedState,
    counts: Counts,
    sums: Vec<EventRead>,
    /// Live units by event and stripe.
    drawn: HashMap<(usize, u32), i64>,
    claims: HashMap<(usize, Box<str>), Claim, FixedState>,
    orders: Vec<(Order, u32)>,
    foreign_orders: Vec<Order>,
    seats_expected: bool,
    broken: Broken,
}

fn is_live(status: &str) -> bool {
    matches!(status, "HELD" | "CONFIRMED")
}

impl<'a> Judge<'a> {
    pub fn new(events: &'a [String], books: &'a mut Books) -> Self {
        let run = books.run().to_owned();
        Self {
            events: events.iter().map(String::as_str).zip(0..).collect(),
            run,
            hasher: FixedState::with_seed(1),
            counts: Counts::default(),
            sums: vec![EventRead::default(); events.len()],
            drawn: HashMap::new(),
            claims: HashMap::with_hasher(FixedState::with_seed(2)),
            orders: Vec::with_capacity(books.len()),
            foreign_orders: Vec::new(),
            seats_expected: false,
            books,
            broken: Broken::default(),
        }
    }

    /// Whether any record is about seats, so that their items are worth reading.
    pub fn has_seats(&self) -> bool {
        self.seats_expected
    }

    /// Takes one record of the table.
    pub fn record(&mut self, record: &Record<'_>) {
        let number = reservation_number(&self.run, &record.reservation);
        let Some(event) = self.events.get(&*record.event).copied() else {
            if number.is_some() {
                let (id, event) = (&record.reservation, &record.event);
                self.broken.add("record", || {
                    format!("{id} is about {event}, which is not of this run")
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
                self.broken
                    .add("record", || format!("{id} has the status {other:?}"));
            }
        }
        self.units(record, event);
        let order = Order::of(&record.order);
        match number {
            Some(number) => {
                self.of_ours(record, event, number, order);
                self.orders.extend(order.map(|order| (order, number)));
            }
            None => {
                self.counts.foreign += 1;
                self.foreign_orders.extend(order);
            }
        }
    }

    fn units(&mut self, record: &Record<'_>, event: usize) {
        let live = is_live(&record.status);
        let qty = i64::from(record.qty);
        let id = &record.reservation;
        if !record.seats.is_empty() {
            self.seats_expected = true;
            if record.seats.len() as i64 != qty {
                let seats = record.seats.len();
                self.broken.add("record", || {
                    format!("{id} has {seats} seats and a quantity of {qty}")
                });
            }
            if live {
                self.claim(record, event);
            }
        } else {
            let mut sum = 0;
            for draw in record.draws.split(',').filter(|draw| !draw.is_empty()) {
                let read = draw.split_once(':').and_then(|(stripe, units)| {
                    Some((stripe.parse::<u32>().ok()?, units.parse::<u32>().ok()?))
                });
                let Some((stripe, units)) = read else {
                    let draws = &record.draws;
                    self.broken
                        .add("record", || format!("{id} has the draws {draws:?}"));
                    continue;
                };
                sum += i64::from(units);
                if live {
                    *self.drawn.entry((event, stripe)).or_default() += i64::from(units);
                }
            }
            if live && sum != qty {
                self.broken.add("record", || {
                    format!("{id} draws {sum} units for a quantity of {qty}")
                });
            }
            if !live && record.draws.is_empty() {
                // A tombstone: it never had anything.
                return;
            }
        }
        let sums = &mut self.sums[event];
        match live {
            true => sums.live += qty,
            false => sums.returned += qty,
        }
    }

    fn claim(&mut self, record: &Record<'_>, event: usize) {
        let reservation = self.hasher.hash_one(&*record.reservation);
        for seat in &record.seats {
            let claim = Claim {
                reservation,
                confirmed: record.status == "CONFIRMED",
                order: Order::of(&record.order),
                met: false,
            };
            let id = &record.reservation;
            if self
                .claims
                .insert((event, Box::from(&**seat)), claim)
                .is_some()
            {
                self.broken.add("seat", || {
                    format!("{seat} is in {id} and in another live reservation")
                });
            }
        }
    }

    /// Holds a record of this run against what its buyer was told.
    fn of_ours(&mut self, record: &Record<'_>, event: usize, number: u32, order: Option<Order>) {
        let id = &record.reservation;
        let Some(entry) = self.books.entry(number) else {
            self.broken
                .add("record", || format!("{id} was never asked for"));
            return;
        };
        if !entry.see() {
            self.broken.add("record", || format!("{id} is there twice"));
        }
        if usize::from(entry.event) != event || u32::from(entry.qty) != record.qty {
            let (qty, event) = (record.qty, &record.event);
            self.broken.add("record", || {
                format!("{id} is {qty} of {event}, which is not what was asked for")
            });
        }
        if let Some((kind, text)) = told_otherwise(entry, &record.status, order) {
            self.broken.add(kind, || format!("{id} {text}"));
        }
    }

    /// Takes one seat's item.
    pub fn seat(&mut self, seat: &Seat<'_>) {
        let Some(event) = self.events.get(&*seat.event).copied() else {
            return;
        };
        self.counts.seats += 1;
        let sums = &mut self.sums[event];
        sums.total += 1;
        sums.remaining += i64::from(seat.status == "AVAILABLE");
        let holder = self.hasher.hash_one(&*seat.reservation);
        let (id, name) = (&seat.seat, &seat.reservation);
        let claim = self.claims.get_mut(&(event, Box::from(&**id)));
        let text = match (&*seat.status, claim) {
            ("AVAILABLE" | "BLOCKED", None) => return,
            ("AVAILABLE" | "BLOCKED", Some(claim)) => {
                claim.met = true;
                "is free, and a live reservation has it".to_owned()
            }
            (_, None) => format!("says it is {name}'s, which has no live reservation of it"),
            (status, Some(claim)) => {
                claim.met = true;
                let sold = status == "SOLD";
                if claim.reservation != holder {
                    format!("says it is {name}'s, and another reservation has it")
                } else if sold != claim.confirmed {
                    format!("is {status}, and the reservation {name} is not")
                } else if sold && Order::of(&seat.order) != claim.order {
                    format!(
                        "is sold under {}, and {name} under another order",
                        seat.order
                    )
                } else {
                    return;
                }
            }
        };
        self.broken.add("seat", || format!("{id} {text}"));
    }

    /// Ends the reading: `stripes` are all of the run's events.
    pub fn verdict(mut self, stripes: &[Stripe]) -> Read {
        self.missing();
        self.orders_once();
        let seated = self.balance(stripes);
        for (event, name) in self.names().into_iter().enumerate() {
            self.whole_event(event, &name, seated[event]);
        }
        Read {
            broken: self.broken,
            counts: self.counts,
            events: self.sums,
            ..Read::default()
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.events.iter().collect();
        names.sort_by_key(|(_, index)| **index);
        names
            .into_iter()
            .map(|(name, _)| (*name).to_owned())
            .collect()
    }

    /// What was acknowledged and has no record; seats of records that have no item.
    fn missing(&mut self) {
        for (entry, id) in self.books.entries() {
            if entry.is_seen() {
                continue;
            }
            let told = if entry.is_ok(Step::Commit) {
                "was confirmed"
            } else if entry.is_ok(Step::Hold) {
                "was held"
            } else if entry.is_ok(Step::Release) {
                "was released"
            } else {
                continue;
            };
            self.broken.add("durable", || {
                format!("{} {told}, and the store has no record of it", id())
            });
        }
        for ((_, seat), claim) in &self.claims {
            if !claim.met {
                self.broken.add("seat", || {
                    format!("{seat} is in a live reservation and has no item")
                });
            }
        }
    }

    fn orders_once(&mut self) {
        self.orders.sort_unstable();
        for pair in self.orders.windows(2) {
            if let [(first, a), (second, b)] = pair
                && first == second
            {
                let run = &self.run;
                self.broken.add("order", || {
                    format!("{first} is {run}-{a:x}'s and {run}-{b:x}'s")
                });
            }
        }
        for order in &self.foreign_orders {
            if let Ok(at) = self.orders.binary_search_by_key(order, |(ours, _)| *ours) {
                let (run, number) = (&self.run, self.orders[at].1);
                self.broken.add("order", || {
                    format!("{order} is {run}-{number:x}'s and a stranger's")
                });
            }
        }
    }

    /// Per stripe: capacity = remaining + live units. Returns which events are of seats.
    fn balance(&mut self, stripes: &[Stripe]) -> Vec<bool> {
        let names = self.names();
        let mut seated = vec![false; names.len()];
        let mut found = vec![(0_u32, 0_u32); names.len()];
        for stripe in stripes {
            let (count, wanted) = &mut found[stripe.event];
            *count += 1;
            if stripe.index == 0 {
                *wanted = stripe.stripes;
                seated[stripe.event] = stripe.seat_keys > 0;
            }
            if stripe.seat_keys > 0 {
                continue;
            }
            let drawn = self
                .drawn
                .remove(&(stripe.event, stripe.index))
                .unwrap_or(0);
            let sums = &mut self.sums[stripe.event];
            sums.total += stripe.total;
            sums.remaining += stripe.remaining;
            if stripe.remaining < 0 || stripe.total != stripe.remaining + drawn {
                let (
                    name,
                    Stripe {
                        index,
                        total,
                        remaining,
                        ..
                    },
                ) = (&names[stripe.event], stripe);
                self.broken.add("balance", || {
                    format!("stripe {index} of {name}: capacity {total}, remaining {remaining}, live reservations {drawn}")
                });
            }
        }
        for (name, (count, wanted)) in names.iter().zip(found) {
            if count == 0 || count != wanted {
                self.broken.add("balance", || {
                    format!("{name} has {count} stripes of {wanted}")
                });
            }
        }
        for ((event, stripe), units) in std::mem::take(&mut self.drawn) {
            let name = &names[event];
            self.broken.add("balance", || {
                format!("{units} units of stripe {stripe} of {name}, which is not there")
            });
        }
        seated
    }

    fn whole_event(&mut self, event: usize, name: &str, seated: bool) {
        let EventRead {
            total,
            remaining,
            live,
            returned,
        } = self.sums[event];
        let told = self.books.event(event);
        if live > total {
            self.broken
                .add("oversold", || format!("{name}: {live} of {total}"));
        }
        if seated && self.counts.seats == 0 {
            return;
        }
        // What came back may have come back after the last refusal; the rest was there all the time.
        let unexplained = remaining - returned;
        let least = i64::from(told.refused_least);
        if told.refused > 0 && unexplained >= least {
            self.broken.add("undersold", || {
                format!("{name}: sold out was said to {} calls for {least} or more, and {unexplained} were never sold", told.refused)
            });
        }
    }
}

/// Why a record with this status and order contradicts what its buyer was told.
fn told_otherwise(
    entry: &Entry,
    status: &str,
    order: Option<Order>,
) -> Option<(&'static str, String)> {
    let confirmed = entry.is_ok(Step::Commit);
    let released = entry.is_ok(Step::Release);
    match status {
        "CONFIRMED" => match (entry.order(), order) {
            (_, None) => Some(("record", "is confirmed without an order".to_owned())),
            (Some(told), Some(stored)) if told != stored => Some((
                "order",
                format!("was answered {told}, and the store has {stored}"),
            )),
            (None, Some(_)) if !entry.may_be(Step::Commit) => Some((
                "refused",
                "is confirmed, and every call to confirm it was refused".to_owned(),
            )),
            _ if released => Some(("record", "is confirmed, and was released".to_owned())),
            _ => None,
        },
        _ if confirmed => Some((
            "durable",
            format!("was confirmed, and the store says {status}"),
        )),
        "HELD" if released => Some(("durable", "was released, and is held".to_owned())),
        "HELD" if !entry.may_be(Step::Hold) => Some((
            "refused",
            "is held, and every call to hold it was refused".to_owned(),
        )),
        "RELEASED" if !entry.may_be(Step::Release) => {
            Some(("record", "is released, and nobody released it".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
