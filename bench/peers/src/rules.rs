//! What a reservation's record says about a call. Pure; the same table as the server's.

use crate::record::{Millis, Record, State, hash_of_whatever};
use crate::refusal::Refusal;

/// The calls that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Hold,
    Commit,
    Release,
}

/// One call, checked.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: Verb,
    pub reservation: String,
    pub event: String,
    pub qty: u32,
    /// Of event and quantity.
    pub hash: String,
    /// May be empty.
    pub payment: String,
    /// Of a hold: when it ends.
    pub hold_until: Millis,
}

/// What a caller is told when it worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Held(Millis),
    Confirmed(String),
    Released,
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The state it is conditional on; `None`: no record.
    pub from: Option<State>,
    pub to: State,
}

impl Write {
    /// Whether units go from the stock to the reservation.
    pub fn takes(self) -> bool {
        matches!(self.to, State::Held | State::Confirmed) && self.from != Some(State::Held)
    }

    /// Whether they go back.
    pub fn gives(self) -> bool {
        self.from == Some(State::Held) && self.to == State::Released
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Answer(Result<Answer, Refusal>),
    Write(Write),
}

/// Applies the state table. `record` is what the store holds; `None`: nothing.
pub fn decide(call: &Call, record: Option<&Record>, now: Millis) -> Decision {
    use State::{Confirmed, Expired, Held, Refunded, Released};
    let Some(record) = record else {
        let to = match call.verb {
            Verb::Hold => Held,
            Verb::Commit => Confirmed,
            Verb::Release => Released,
        };
        return Decision::Write(Write { from: None, to });
    };
    if !is_same(call, record) {
        return refuse(Refusal::IdempotencyConflict);
    }
    let write = |to| {
        let from = Some(record.state);
        Decision::Write(Write { from, to })
    };
    match (call.verb, record.state) {
        (Verb::Hold, Held) => match record.expires_at {
            Some(at) if at > now => Decision::Answer(Ok(Answer::Held(at))),
            _ => refuse(Refusal::HoldExpired),
        },
        (Verb::Hold, Expired) => refuse(Refusal::HoldExpired),
        (Verb::Commit, Held | Expired) => write(Confirmed),
        (Verb::Commit, Confirmed) => match &record.order {
            Some(order) => Decision::Answer(Ok(Answer::Confirmed(order.clone()))),
            None => refuse(Refusal::Internal),
        },
        (Verb::Hold | Verb::Commit, Released | Refunded) => refuse(Refusal::ReservationReleased),
        (Verb::Hold | Verb::Release, Confirmed) => refuse(Refusal::ReservationCommitted),
        (Verb::Release, Held) => write(Released),
        (Verb::Release, Released | Expired | Refunded) => Decision::Answer(Ok(Answer::Released)),
    }
}

/// The same event and quantity. A tombstone without a quantity, left by a call that meant whatever
/// there is, fits everything of its event.
fn is_same(call: &Call, record: &Record) -> bool {
    call.hash == record.hash || (record.qty == 0 && record.hash == hash_of_whatever(&call.event))
}

fn refuse(why: Refusal) -> Decision {
    Decision::Answer(Err(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hash_of_quantity;

    const NOW: Millis = Millis(1_000);

    fn call(verb: Verb) -> Call {
        Call {
            verb,
            reservation: "r".to_owned(),
            event: "evt".to_owned(),
            qty: 2,
            hash: hash_of_quantity("evt", 2),
            payment: String::new(),
            hold_until: Millis(0),
        }
    }

    fn record(state: State) -> Record {
        Record {
            event: "evt".to_owned(),
            state,
            qty: 2,
            hash: hash_of_quantity("evt", 2),
            draws: Vec::new(),
            seats: Vec::new(),
            order: Some("ord".to_owned()),
            expires_at: Some(Millis(2_000)),
            at: Millis(500),
        }
    }

    #[test]
    fn the_whole_table() {
        use State::{Confirmed, Expired, Held, Refunded, Released};
        use Verb::{Commit, Hold, Release};
        let write = |from, to| {
            let from = Some(from);
            Decision::Write(Write { from, to })
        };
        let answer = |answer| Decision::Answer(Ok(answer));
        let order = || answer(Answer::Confirmed("ord".to_owned()));
        for (verb, state, wanted) in [
            (Hold, Held, answer(Answer::Held(Millis(2_000)))),
            (Hold, Confirmed, refuse(Refusal::ReservationCommitted)),
            (Hold, Released, refuse(Refusal::ReservationReleased)),
            (Hold, Expired, refuse(Refusal::HoldExpired)),
            (Hold, Refunded, refuse(Refusal::ReservationReleased)),
            (Commit, Held, write(Held, Confirmed)),
            (Commit, Confirmed, order()),
            (Commit, Released, refuse(Refusal::ReservationReleased)),
            (Commit, Expired, write(Expired, Confirmed)),
            (Commit, Refunded, refuse(Refusal::ReservationReleased)),
            (Release, Held, write(Held, Released)),
            (Release, Confirmed, refuse(Refusal::ReservationCommitted)),
            (Release, Released, answer(Answer::Released)),
            (Release, Expired, answer(Answer::Released)),
            (Release, Refunded, answer(Answer::Released)),
        ] {
            let said = decide(&call(verb), Some(&record(state)), NOW);
            assert_eq!(said, wanted, "{verb:?} of {state:?}");
        }
    }

    #[test]
    fn a_hold_past_its_time_is_no_hold_but_can_be_paid() {
        let over = Millis(2_000);
        let held = record(State::Held);
        let said = decide(&call(Verb::Hold), Some(&held), over);
        assert_eq!(said, refuse(Refusal::HoldExpired));
        let said = decide(&call(Verb::Commit), Some(&held), over);
        assert!(matches!(said, Decision::Write(write) if !write.takes()));
    }

    #[test]
    fn units_move_once() {
        let write = |from, to| Write { from, to };
        assert!(write(None, State::Confirmed).takes());
        assert!(write(Some(State::Expired), State::Confirmed).takes());
        assert!(!write(Some(State::Held), State::Confirmed).takes());
        assert!(!write(None, State::Released).takes());
        assert!(write(Some(State::Held), State::Released).gives());
        assert!(!write(None, State::Released).gives());
    }

    #[test]
    fn another_payload_is_a_conflict_in_every_state() {
        let mut other = call(Verb::Commit);
        other.hash = hash_of_quantity("evt", 3);
        let said = decide(&other, Some(&record(State::Released)), NOW);
        assert_eq!(said, refuse(Refusal::IdempotencyConflict));
        let tombstone = Record {
            qty: 0,
            hash: hash_of_whatever("evt"),
            ..record(State::Released)
        };
        let said = decide(&other, Some(&tombstone), NOW);
        assert_eq!(said, refuse(Refusal::ReservationReleased));
    }
}
