//! Reads the reasons of a cancelled transaction.

use std::borrow::Cow;

use aws_sdk_dynamodb::types::CancellationReason;

use super::records::record_view;
use super::seats::seat_state;
use super::stripes::stripe_view;
use inventory_core::ids::SeatId;
use inventory_core::seats::SeatState;
use inventory_core::transaction::{
    ActionOutcome, RecordWrite, StripeUpdate, Transaction, TransactionOutcome,
};

/// Content of a cancelled transaction.
pub(crate) struct Cancellation {
    pub(crate) outcome: TransactionOutcome,
    /// Remarks for the operator: items and codes that should not occur.
    pub(crate) remarks: Vec<String>,
}

/// Reads `reasons`, one per action of `transaction` in its order.
pub(crate) fn cancelled(transaction: &Transaction, reasons: &[CancellationReason]) -> Cancellation {
    let mut remarks = Vec::new();
    if reasons.len() != transaction.action_count() {
        remarks.push(format!(
            "{} reasons for {} actions",
            reasons.len(),
            transaction.action_count()
        ));
        // Not applied, and the cause is unknown.
        return Cancellation { outcome: TransactionOutcome::Rejected, remarks };
    }
    if let Some(denied) = reasons.iter().find(|r| r.code() == Some("AccessDenied")) {
        let message = denied.message().unwrap_or("no message");
        remarks.push(format!("access denied: {message}"));
        return Cancellation { outcome: TransactionOutcome::Refused, remarks };
    }
    let mut read = Vec::with_capacity(reasons.len());
    for (at, reason) in reasons.iter().enumerate() {
        read.push(one(transaction, at, reason, &mut remarks));
    }
    let outcome = match read.iter().all(|reason| *reason == ActionOutcome::Fine) {
        // No action has a reason: the transaction can be retried.
        true => TransactionOutcome::Conflict,
        false => TransactionOutcome::Cancelled(read),
    };
    Cancellation { outcome, remarks }
}

pub(crate) fn is_conflict(code: &str) -> bool {
    matches!(code, "TransactionConflict" | "ReplicatedWriteConflict")
}

pub(crate) fn is_throttle(code: &str) -> bool {
    matches!(code, "ThrottlingError" | "ProvisionedThroughputExceeded" | "RequestLimitExceeded")
}

fn one(
    transaction: &Transaction,
    at: usize,
    reason: &CancellationReason,
    remarks: &mut Vec<String>,
) -> ActionOutcome {
    match reason.code().unwrap_or("None") {
        "None" => ActionOutcome::Fine,
        "ConditionalCheckFailed" => condition(transaction, at, reason, remarks),
        code if is_conflict(code) => ActionOutcome::Conflict,
        code if is_throttle(code) => ActionOutcome::Throttled,
        // ValidationError, ItemCollectionSizeLimitExceeded, DuplicateItem, and future codes.
        code => {
            let message = reason.message().unwrap_or("no message");
            let action = name(transaction, at);
            remarks.push(format!("{action}: {code}: {message}"));
            ActionOutcome::Invalid
        }
    }
}

fn condition(
    transaction: &Transaction,
    at: usize,
    reason: &CancellationReason,
    remarks: &mut Vec<String>,
) -> ActionOutcome {
    let action = Action::at(transaction, at);
    let (read, unreadable) = match (action, reason.item()) {
        (Action::Stripe(_), None) => return ActionOutcome::Stripe(None),
        (Action::Seat(..), None) => return ActionOutcome::Seat(None),
        (Action::Record(RecordWrite { from: Some(_), .. }), None) => {
            return ActionOutcome::RecordMissing;
        }
        (Action::Stripe(_), Some(item)) => (
            stripe_view(item).map(|view| ActionOutcome::Stripe(Some(view))),
            // The stock cannot be trusted: reservations get an error and nothing is sold.
            ActionOutcome::Invalid,
        ),
        (Action::Record(_), Some(item)) => {
            (record_view(item).map(ActionOutcome::Record), ActionOutcome::RecordUnreadable)
        }
        (Action::Seat(..), Some(item)) => (
            seat_state(item).map(|state| ActionOutcome::Seat(Some(state))),
            // The seat is not available, whatever its holder.
            ActionOutcome::Seat(Some(SeatState::Blocked)),
        ),
        // The counter has no condition.
        (Action::Record(_) | Action::Counter(_) | Action::None, None | Some(_)) => {
            (Err("the store did not return the item".to_owned()), ActionOutcome::RecordUnreadable)
        }
    };
    read.unwrap_or_else(|why| {
        let action = name(transaction, at);
        remarks.push(format!("{action} is not as this server writes it: {why}"));
        unreadable
    })
}

/// The subject of one action.
enum Action<'a> {
    Stripe(&'a StripeUpdate),
    Record(&'a RecordWrite),
    Seat(&'a SeatId, &'a RecordWrite),
    Counter(u16),
    /// There is no such action.
    None,
}

impl<'a> Action<'a> {
    fn at(transaction: &'a Transaction, at: usize) -> Self {
        if let Some(stripe) = transaction.stripes.get(at) {
            return Self::Stripe(stripe);
        }
        let at = at - transaction.stripes.len();
        if let Some(record) = transaction.records.get(at) {
            return Self::Record(record);
        }
        let mut at = at - transaction.records.len();
        for record in &transaction.records {
            let seats = record.seats_moved();
            if let Some(seat) = seats.get(at) {
                return Self::Seat(seat, record);
            }
            at -= seats.len();
        }
        match &transaction.counter {
            Some(counter) if at == 0 => Self::Counter(counter.counter),
            _ => Self::None,
        }
    }
}

/// The item that an action is about.
fn name(transaction: &Transaction, at: usize) -> Cow<'static, str> {
    let event = &transaction.event;
    match Action::at(transaction, at) {
        Action::Stripe(stripe) => format!("stripe {} of {event}", stripe.stripe).into(),
        Action::Record(record) => format!("reservation {}", record.reservation()).into(),
        Action::Seat(seat, record) => {
            format!("seat {seat} of {event}, for {}", record.reservation()).into()
        }
        Action::Counter(counter) => format!("confirmation counter {counter} of {event}").into(),
        Action::None => "an action that was not sent".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use inventory_core::ids::Fingerprint;
    use inventory_core::operation::{Operation, Selection, Verb};
    use inventory_core::time::{Micros, UnixMillis};
    use inventory_core::transaction::{
        CounterUpdate, ExpiryCondition, RequestToken, ReservationState, StripeAllocations,
    };

    fn record(id: &str, from: Option<ReservationState>) -> RecordWrite {
        RecordWrite {
            operation: Operation::new(
                Verb::Release,
                id.parse().unwrap(),
                "evt".parse().unwrap(),
                Selection::AsRecorded,
                Micros(0),
            ),
            fingerprint: Fingerprint([0; 16]),
            from,
            due: ExpiryCondition::Any,
            to: ReservationState::Released,
            qty: 1,
            draws: StripeAllocations::new(),
            seats: None,
            order: None,
            expires_at: None,
            payment_added_to: None,
            counted: false,
        }
    }

    /// One stripe, two tombstones.
    fn transaction() -> Transaction {
        Transaction {
            token: RequestToken(1),
            event: "evt".parse().unwrap(),
            seat_keys: 0,
            stripes: vec![StripeUpdate { take: 1, ..StripeUpdate::default() }],
            records: vec![record("r1", None), record("r2", None)],
            counter: None,
            at: UnixMillis(0),
        }
    }

    fn reasons(codes: [&str; 3]) -> Vec<CancellationReason> {
        let reason = |code: &str| CancellationReason::builder().code(code).build();
        codes.map(reason).to_vec()
    }

    #[test]
    fn every_code_has_its_reason() {
        for (code, expected) in [
            ("TransactionConflict", ActionOutcome::Conflict),
            ("ThrottlingError", ActionOutcome::Throttled),
            ("ProvisionedThroughputExceeded", ActionOutcome::Throttled),
            ("ValidationError", ActionOutcome::Invalid),
            ("ItemCollectionSizeLimitExceeded", ActionOutcome::Invalid),
            ("DuplicateItem", ActionOutcome::Invalid),
            ("SomethingNew", ActionOutcome::Invalid),
        ] {
            let decoded = cancelled(&transaction(), &reasons(["None", code, "None"]));
            let all = vec![ActionOutcome::Fine, expected.clone(), ActionOutcome::Fine];
            assert_eq!(decoded.outcome, TransactionOutcome::Cancelled(all), "{code}");
            let remarked = expected == ActionOutcome::Invalid;
            assert_eq!(decoded.remarks.len(), usize::from(remarked), "{code}");
        }
    }

    #[test]
    fn unexpected_item_is_remarked() {
        let decoded = cancelled(
            &transaction(),
            &reasons(["ConditionalCheckFailed", "ConditionalCheckFailed", "None"]),
        );
        let all =
            vec![ActionOutcome::Stripe(None), ActionOutcome::RecordUnreadable, ActionOutcome::Fine];
        assert_eq!(decoded.outcome, TransactionOutcome::Cancelled(all));
        assert!(decoded.remarks[0].contains("reservation r1"), "{:?}", decoded.remarks);
    }

    #[test]
    fn every_action_is_found_by_its_index() {
        let held = Some(ReservationState::Held);
        let seated = |id: &str, seats: &[&str]| {
            let seats = seats.iter().map(|seat| seat.parse().unwrap()).collect();
            RecordWrite { seats: Some(seats), ..record(id, held) }
        };
        let mut transaction = transaction();
        // The seats of the tombstone in the middle are not moved.
        transaction.records = vec![
            seated("r1", &["A-1", "A-2"]),
            RecordWrite { from: None, ..seated("r2", &["B-1"]) },
            seated("r3", &["C-1"]),
        ];
        transaction.counter = Some(CounterUpdate { counter: 3, units: 1 });
        let count = transaction.action_count();
        let names: Vec<_> = (0..count + 1).map(|at| name(&transaction, at)).collect();
        let expected = [
            "stripe 0 of evt",
            "reservation r1",
            "reservation r2",
            "reservation r3",
            "seat A-1 of evt, for r1",
            "seat A-2 of evt, for r1",
            "seat C-1 of evt, for r3",
            "confirmation counter 3 of evt",
            "an action that was not sent",
        ];
        assert_eq!(names, expected);
        let failed = CancellationReason::builder().code("ConditionalCheckFailed");
        let decoded = cancelled(&transaction, &vec![failed.build(); count]);
        let all = vec![
            ActionOutcome::Stripe(None),
            ActionOutcome::RecordMissing,
            ActionOutcome::RecordUnreadable,
            ActionOutcome::RecordMissing,
            ActionOutcome::Seat(None),
            ActionOutcome::Seat(None),
            ActionOutcome::Seat(None),
            ActionOutcome::RecordUnreadable,
        ];
        assert_eq!(decoded.outcome, TransactionOutcome::Cancelled(all));
        assert_eq!(decoded.remarks.len(), 2, "{:?}", decoded.remarks);
    }

    #[test]
    fn unreadable_seat_is_not_available() {
        let mut transaction = transaction();
        transaction.records = vec![RecordWrite {
            seats: Some(["A-1".parse().unwrap()].into()),
            ..record("r1", Some(ReservationState::Held))
        }];
        let mut reasons = reasons(["None", "None", "None"]);
        reasons[2] = CancellationReason::builder()
            .code("ConditionalCheckFailed")
            .item("status", AttributeValue::S("LOST".to_owned()))
            .build();
        let decoded = cancelled(&transaction, &reasons);
        let seat = ActionOutcome::Seat(Some(SeatState::Blocked));
        let all = vec![ActionOutcome::Fine, ActionOutcome::Fine, seat];
        assert_eq!(decoded.outcome, TransactionOutcome::Cancelled(all));
        assert!(decoded.remarks[0].contains("LOST"), "{:?}", decoded.remarks);
    }

    #[test]
    fn cancellation_without_reasons_is_a_conflict() {
        let decoded = cancelled(&transaction(), &reasons(["None", "None", "None"]));
        assert_eq!(decoded.outcome, TransactionOutcome::Conflict);
    }

    #[test]
    fn missing_permission_is_refused_and_not_rejected() {
        let decoded = cancelled(&transaction(), &reasons(["None", "AccessDenied", "None"]));
        assert_eq!(decoded.outcome, TransactionOutcome::Refused);
    }

    #[test]
    fn wrong_number_of_reasons_rejects_the_request() {
        let decoded = cancelled(&transaction(), &reasons(["None", "None", "None"])[..2]);
        assert_eq!(decoded.outcome, TransactionOutcome::Rejected);
    }
}
