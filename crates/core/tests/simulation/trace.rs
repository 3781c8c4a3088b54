//! The words of a run's log.
//!
//! They are written out here, apart from the names of the core's types: a log of one version can be compared with a log
//! of another version in which the types have other names. Every number, id and decision of an input and an effect is
//! in its line.

use std::fmt::{self, Display, Formatter};

use inventory_core::answer::{Answer, Rejection, ReleaseOutcome};
use inventory_core::effect::{Effect, LaneId, RecordHint};
use inventory_core::ids::Fingerprint;
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::{EventStatus, Query, QueryResult, StockCounts};
use inventory_core::seats::{SeatItem, SeatState};
use inventory_core::transaction::{
    ActionOutcome, CounterUpdate, EventLayout, ExpiryCondition, FreeSeatsRead, RecordView,
    RecordWrite, RecordsRead, ReservationState, SeatsRead, StripeAllocation, StripeUpdate,
    StripeView, StripesRead, Transaction, TransactionOutcome,
};

/// Shows a value in the words of the log.
pub(crate) struct Words<'a, T: ?Sized>(pub(crate) &'a T);

/// Several in brackets.
struct List<'a, T>(&'a [T]);

impl<'a, T> Display for List<'a, T>
where
    Words<'a, T>: Display,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (n, item) in self.0.iter().enumerate() {
            let gap = if n == 0 { "" } else { ", " };
            write!(f, "{gap}{}", Words(item))?;
        }
        f.write_str("]")
    }
}

/// Ids in brackets.
pub(crate) fn ids<T: Display>(ids: &[T]) -> String {
    let ids: Vec<String> = ids.iter().map(T::to_string).collect();
    format!("[{}]", ids.join(" "))
}

fn maybe<T>(value: Option<&T>) -> String
where
    for<'a> Words<'a, T>: Display,
{
    value.map_or_else(|| "-".to_owned(), |value| Words(value).to_string())
}

fn plain<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Display for Words<'_, Effect> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::Answer { call, answer, record: learned } => {
                let learned = maybe(learned.as_ref());
                write!(f, "answer {}: {}, record {learned}", call.0, Words(answer))
            }
            Effect::AnswerForwarded { shard, event, reservation, answer, record } => {
                let (answer, record) = (Words(answer), maybe(record.as_ref()));
                write!(f, "answer shard {shard}: {event} {reservation} {answer}, record {record}")
            }
            Effect::AnswerQuery { call, result } => {
                write!(f, "result {}: {}", call.0, Words(result))
            }
            Effect::ForwardQuery { shard, call, event, layout: shape, query } => {
                let (shape, query) = (Words(shape), Words(query));
                write!(f, "ask shard {shard} for {}: {event} {shape} {query}", call.0)
            }
            Effect::Transact { lane, transaction, .. } => {
                write!(f, "transact {}: {}", Words(lane), Words(&**transaction))
            }
            Effect::ReadStripes { event, stripes_hint, with_counters } => {
                let counters = if *with_counters { " with counters" } else { "" };
                write!(f, "read stripes of {event}{counters}, about {}", plain(*stripes_hint))
            }
            Effect::ReadRecords { read: lookup, reservations } => {
                write!(f, "read records {}: {}", lookup.0, ids(reservations))
            }
            Effect::ReadSeats { event, seat_keys } => {
                write!(f, "read seats of {event}, {seat_keys} keys")
            }
            Effect::ReadFreeSeats { event, seat_keys, at } => {
                write!(f, "read free seats of {event}, {seat_keys} keys, at {}", at.0)
            }
            Effect::Forward { shard, layout, operation, hint: known } => {
                let (shape, known) = (Words(layout), Words(known));
                write!(f, "forward to {shard}: {} {shape} {known}", Words(operation))
            }
        }
    }
}

impl Display for Words<'_, LaneId> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.pool.0, self.0.lane)
    }
}

impl Display for Words<'_, EventLayout> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let EventLayout { stripes, seat_keys, closed } = self.0;
        let closed = if *closed { " closed" } else { "" };
        write!(f, "{stripes}/{seat_keys}{closed}")
    }
}

impl Display for Words<'_, RecordHint> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            RecordHint::None => f.write_str("record unread"),
            RecordHint::Cached(record) => write!(f, "record was {}", Words(record)),
            RecordHint::Confirmed(record) => write!(f, "record is {}", maybe(record.as_ref())),
        }
    }
}

pub(crate) fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Hold => "hold",
        Verb::Commit => "commit",
        Verb::Release => "release",
        Verb::Expire => "expire",
        Verb::Refund => "refund",
    }
}

pub(crate) fn expect(expectation: RecordExpectation) -> &'static str {
    match expectation {
        RecordExpectation::Absent => "new",
        RecordExpectation::Present => "known",
    }
}

impl Display for Words<'_, Selection> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Selection::Quantity(qty) => write!(f, "{qty} units"),
            Selection::Seats(seats) => f.write_str(&ids(seats)),
            Selection::AsRecorded => f.write_str("as recorded"),
        }
    }
}

impl Display for Words<'_, Operation> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Operation {
            verb: what,
            reservation,
            event,
            selection,
            fingerprint,
            section,
            payment_intent,
            hold_until,
            expectation: expected,
            deadline,
        } = self.0;
        let (selection, fingerprint) = (Words(selection), Words(fingerprint));
        write!(f, "{} {reservation} {event} {selection} {fingerprint}", verb(*what))?;
        let (section, until) = (plain(section.as_deref()), plain(hold_until.map(|at| at.0)));
        write!(f, " in {section}, paid {payment_intent:?}, until {until},")?;
        write!(f, " expects {}, by {}", expect(*expected), deadline.0)
    }
}

impl Display for Words<'_, Fingerprint> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.0.0;
        write!(f, "#{a:02x}{b:02x}{c:02x}")
    }
}

impl Display for Words<'_, Query> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Query::Availability { qty, section } => {
                write!(f, "{qty} available in {}?", plain(section.as_deref()))
            }
            Query::Seats { seats } => write!(f, "{} available?", ids(seats)),
            Query::Status => f.write_str("status?"),
            Query::Describe { seats } => write!(f, "{} described?", ids(seats)),
        }
    }
}

impl Display for Words<'_, Result<QueryResult, Rejection>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(found) => Words(found).fmt(f),
            Err(refusal) => Words(refusal).fmt(f),
        }
    }
}

impl Display for Words<'_, QueryResult> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            QueryResult::Units { remaining, available } => {
                let available = if *available { "available" } else { "not available" };
                write!(f, "{remaining} units, {available}")
            }
            QueryResult::Offer { seats, remaining } => {
                write!(f, "{} offered, {remaining} remain", List(seats))
            }
            QueryResult::Seats { known, unknown } => {
                write!(f, "{} are there, {} are not", List(known), ids(unknown))
            }
            QueryResult::NotOnSale(why) => Words(why).fmt(f),
            QueryResult::Status(status) => Words(&**status).fmt(f),
        }
    }
}

impl Display for Words<'_, EventStatus> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let EventStatus { counts, sections, as_of, seated, closed } = self.0;
        let stock = if *seated { "seats" } else { "units" };
        let closed = if *closed { " closed" } else { "" };
        write!(f, "{stock}{closed} {} as of {}", Words(counts), as_of.0)?;
        for section in sections {
            write!(f, ", {}: {}", section.section, Words(&section.counts))?;
        }
        Ok(())
    }
}

impl Display for Words<'_, StockCounts> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let StockCounts { total, available, held, sold, blocked } = self.0;
        write!(f, "{total}={available}+{held}+{sold}+{blocked}")
    }
}

impl Display for Words<'_, Answer> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let listed = |seats: Option<&[_]>| plain(seats.map(ids));
        match self.0 {
            Answer::Held { expires_at, qty, seats } => {
                let seats = listed(seats.as_deref());
                write!(f, "held {qty} {seats} until {}", expires_at.0)
            }
            Answer::Confirmed { order, at, seats } => {
                let seats = listed(seats.as_deref());
                write!(f, "confirmed {order} {seats} at {}", at.0)
            }
            Answer::Released { how, at, seats } => {
                let how = match how {
                    ReleaseOutcome::Released => "now",
                    ReleaseOutcome::AlreadyReleased => "before",
                    ReleaseOutcome::NoReservation => "unheld",
                };
                let seats = listed(seats.as_deref());
                write!(f, "released {how} {seats} at {}", at.0)
            }
            Answer::Expired => f.write_str("expired"),
            Answer::Refunded => f.write_str("refunded"),
            Answer::Rejected(refusal) => Words(refusal).fmt(f),
        }
    }
}

impl Display for Words<'_, Rejection> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rejection::InsufficientInventory { remaining } => {
                write!(f, "INSUFFICIENT_INVENTORY {remaining}")
            }
            Rejection::EventNotFound => f.write_str("EVENT_NOT_FOUND"),
            Rejection::EventClosed => f.write_str("EVENT_CLOSED"),
            Rejection::SeatsUnavailable { seats } => write!(f, "SEAT_UNAVAILABLE {}", ids(seats)),
            Rejection::SeatsNotFound { seats, .. } => write!(f, "SEAT_NOT_FOUND {}", ids(seats)),
            Rejection::IdempotencyConflict => f.write_str("IDEMPOTENCY_CONFLICT"),
            Rejection::PaymentConflict { order } => write!(f, "PAYMENT_CONFLICT {order}"),
            Rejection::SectionNotFound(unknown) => {
                write!(f, "SECTION_NOT_FOUND {:?}", unknown.section)
            }
            Rejection::TooManySeats { most } => write!(f, "TOO_MANY_SEATS {most}"),
            Rejection::ReservationReleased => f.write_str("RESERVATION_RELEASED"),
            Rejection::ReservationCommitted => f.write_str("RESERVATION_COMMITTED"),
            Rejection::HoldExpired => f.write_str("HOLD_EXPIRED"),
            Rejection::ReservationNotFound => f.write_str("RESERVATION_NOT_FOUND"),
            Rejection::ReservationNotConfirmed => f.write_str("RESERVATION_NOT_CONFIRMED"),
            Rejection::DeadlineExceeded => f.write_str("DEADLINE_EXCEEDED"),
            Rejection::Overloaded { retry_after } => write!(f, "OVERLOADED {}", retry_after.0),
            Rejection::StoreBusy { retry_after } => write!(f, "STORE_BUSY {}", retry_after.0),
            Rejection::StoreUnavailable { retry_after } => {
                write!(f, "STORE_UNAVAILABLE {}", retry_after.0)
            }
            Rejection::OutcomeUnknown { retry_after } => {
                write!(f, "OUTCOME_UNKNOWN {}", retry_after.0)
            }
            Rejection::Internal => f.write_str("INTERNAL"),
        }
    }
}

pub(crate) fn state_name(state: ReservationState) -> &'static str {
    match state {
        ReservationState::Held => "held",
        ReservationState::Confirmed => "confirmed",
        ReservationState::Released => "released",
        ReservationState::Expired => "expired",
        ReservationState::Refunded => "refunded",
    }
}

impl Display for Words<'_, StripeAllocation> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.stripe, self.0.units)
    }
}

impl Display for Words<'_, StripeUpdate> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let StripeUpdate { stripe, take, give, held, moved, .. } = self.0;
        write!(f, "{stripe}:-{take}+{give}, held {held:+}")?;
        if *moved != 0 { write!(f, " moved {moved}") } else { Ok(()) }
    }
}

impl Display for Words<'_, RecordView> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let RecordView {
            fingerprint,
            state: now,
            order,
            payment,
            qty,
            draws,
            seats,
            expires_at,
            counted,
            at,
        } = self.0;
        write!(f, "({} {qty} {}", state_name(*now), Words(fingerprint))?;
        write!(f, " {} {}", List(draws), plain(seats.as_deref().map(ids)))?;
        let (order, until) = (plain(*order), plain(expires_at.map(|at| at.0)));
        let paid = if payment.is_some() { "paid " } else { "" };
        let counted = if *counted { "counted " } else { "" };
        write!(f, " {order} {paid}{counted}until {until} at {})", at.0)
    }
}

impl Display for Words<'_, RecordWrite> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let RecordWrite {
            operation,
            fingerprint,
            from,
            due,
            to,
            qty,
            draws,
            seats,
            order,
            expires_at,
            payment_added_to,
            counted,
        } = self.0;
        let Operation { reservation, payment_intent, .. } = operation;
        let due = match due {
            ExpiryCondition::Any => "any",
            ExpiryCondition::Expired => "over",
            ExpiryCondition::NotExpired => "ahead",
        };
        let from = from.map_or("-", state_name);
        write!(f, "{reservation} {from}>{} if {due}", state_name(*to))?;
        write!(f, " {qty} {} {}", Words(fingerprint), List(draws))?;
        let (order, seats) = (plain(*order), plain(seats.as_deref().map(ids)));
        let until = plain(expires_at.map(|at| at.0));
        let added = if payment_added_to.is_some() { " only" } else { "" };
        let counted = if *counted { " counted" } else { "" };
        write!(f, " {seats} {order} paid{added} {payment_intent:?}{counted} until {until}")
    }
}

impl Display for Words<'_, Transaction> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Transaction { token, event, seat_keys, stripes, records, counter, at } = self.0;
        write!(f, "{:032x} {event}/{seat_keys} {}", token.0, List(stripes))?;
        if let Some(CounterUpdate { counter, units }) = counter {
            write!(f, " c{counter}:+{units}")?;
        }
        write!(f, " {} at {}", List(records), at.0)
    }
}

impl Display for Words<'_, StripeView> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let StripeView {
            capacity,
            remaining,
            moved,
            version,
            stripes,
            seat_keys,
            closed,
            held,
            confirmed_holds,
        } = self.0;
        let closed = if *closed { " closed" } else { "" };
        let (stripes, confirmed) = (plain(*stripes), plain(*confirmed_holds));
        write!(f, "{remaining}/{capacity} held {held}-{confirmed} v{version}")?;
        write!(f, " {stripes}/{seat_keys}{closed}")?;
        if *moved != 0 { write!(f, " moved {moved}") } else { Ok(()) }
    }
}

impl Display for Words<'_, SeatState> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            SeatState::Available => f.write_str("available"),
            SeatState::Hold { reservation, until } => {
                write!(f, "hold {reservation} until {}", until.0)
            }
            SeatState::Sold { reservation } => write!(f, "sold {reservation}"),
            SeatState::Blocked => f.write_str("blocked"),
        }
    }
}

impl Display for Words<'_, SeatItem> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.id, Words(&self.0.state))
    }
}

impl Display for Words<'_, ActionOutcome> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ActionOutcome::Fine => f.write_str("fine"),
            ActionOutcome::Stripe(stripe) => write!(f, "stripe {}", maybe(stripe.as_ref())),
            ActionOutcome::Record(record) => write!(f, "record {}", Words(record)),
            ActionOutcome::RecordMissing => f.write_str("no record"),
            ActionOutcome::RecordUnreadable => f.write_str("record unreadable"),
            ActionOutcome::Seat(seat) => write!(f, "seat {}", maybe(seat.as_ref())),
            ActionOutcome::Conflict => f.write_str("conflict"),
            ActionOutcome::Throttled => f.write_str("throttled"),
            ActionOutcome::Invalid => f.write_str("invalid"),
        }
    }
}

impl Display for Words<'_, TransactionOutcome> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            TransactionOutcome::Committed => f.write_str("committed"),
            TransactionOutcome::Cancelled(reasons) => write!(f, "cancelled {}", List(reasons)),
            TransactionOutcome::Conflict => f.write_str("conflict"),
            TransactionOutcome::Throttled => f.write_str("throttled"),
            TransactionOutcome::Rejected => f.write_str("rejected"),
            TransactionOutcome::Refused => f.write_str("refused"),
            TransactionOutcome::Unknown => f.write_str("unknown"),
        }
    }
}

impl Display for Words<'_, StripesRead> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            StripesRead::Found(stripes) => List(stripes).fmt(f),
            StripesRead::NotFound => f.write_str("not found"),
            StripesRead::Unavailable => f.write_str("unavailable"),
            StripesRead::Throttled => f.write_str("throttled"),
        }
    }
}

impl Display for Words<'_, RecordsRead> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            RecordsRead::Found(records) => {
                let record = |found: &Result<Option<RecordView>, _>| match found {
                    Ok(record) => maybe(record.as_ref()),
                    Err(_) => "unreadable".to_owned(),
                };
                f.write_str(&ids(&records.iter().map(record).collect::<Vec<_>>()))
            }
            RecordsRead::Unavailable => f.write_str("unavailable"),
            RecordsRead::Throttled => f.write_str("throttled"),
        }
    }
}

impl Display for Words<'_, SeatsRead> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            SeatsRead::Found(seats) => List(seats).fmt(f),
            SeatsRead::Unavailable => f.write_str("unavailable"),
            SeatsRead::Throttled => f.write_str("throttled"),
        }
    }
}

impl Display for Words<'_, FreeSeatsRead> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            FreeSeatsRead::Found(seats) => {
                let seats = seats.iter();
                let seats = seats.map(|(seat, state)| format!("{seat} {}", Words(state)));
                f.write_str(&ids(&seats.collect::<Vec<_>>()))
            }
            FreeSeatsRead::Unavailable => f.write_str("unavailable"),
            FreeSeatsRead::Throttled => f.write_str("throttled"),
        }
    }
}
