//! A cancelled transaction's reasons.

use std::borrow::Cow;

use aws_sdk_dynamodb::types::CancellationReason;

use super::{record_view, stripe_view};
use crate::domain::transaction::{Outcome, Reason, Transaction};

/// What a cancelled transaction says.
pub(in crate::store) struct Cancellation {
    pub(in crate::store) outcome: Outcome,
    /// What an operator should know: items and codes that should not be.
    pub(in crate::store) remarks: Vec<String>,
}

/// Reads `reasons`, one per action of `transaction` in its order.
pub(in crate::store) fn cancelled(
    transaction: &Transaction,
    reasons: &[CancellationReason],
) -> Cancellation {
    let mut remarks = Vec::new();
    if reasons.len() != transaction.action_count() {
        remarks.push(format!(
            "{} reasons for {} actions",
            reasons.len(),
            transaction.action_count()
        ));
        // Not applied, and nobody knows whose fault it is.
        return Cancellation {
            outcome: Outcome::Rejected,
            remarks,
        };
    }
    if let Some(denied) = reasons.iter().find(|r| r.code() == Some("AccessDenied")) {
        let message = denied.message().unwrap_or("no message");
        remarks.push(format!("access denied: {message}"));
        return Cancellation {
            outcome: Outcome::Refused,
            remarks,
        };
    }
    let mut read = Vec::with_capacity(reasons.len());
    for (at, reason) in reasons.iter().enumerate() {
        read.push(one(transaction, at, reason, &mut remarks));
    }
    let outcome = match read.iter().all(|reason| *reason == Reason::Fine) {
        // Cancelled by nobody: as much as to say, try again.
        true => Outcome::Conflict,
        false => Outcome::Cancelled(read),
    };
    Cancellation { outcome, remarks }
}

fn one(
    transaction: &Transaction,
    at: usize,
    reason: &CancellationReason,
    remarks: &mut Vec<String>,
) -> Reason {
    match reason.code().unwrap_or("None") {
        "None" => Reason::Fine,
        "ConditionalCheckFailed" => condition(transaction, at, reason, remarks),
        "TransactionConflict" | "ReplicatedWriteConflict" => Reason::Conflict,
        "ThrottlingError" | "ProvisionedThroughputExceeded" | "RequestLimitExceeded" => {
            Reason::Throttled
        }
        // ValidationError, ItemCollectionSizeLimitExceeded, DuplicateItem, and what is yet to come.
        code => {
            let message = reason.message().unwrap_or("no message");
            let action = name(transaction, at);
            remarks.push(format!("{action}: {code}: {message}"));
            Reason::Invalid
        }
    }
}

fn condition(
    transaction: &Transaction,
    at: usize,
    reason: &CancellationReason,
    remarks: &mut Vec<String>,
) -> Reason {
    let is_stripe = at < transaction.stripes.len();
    let (read, unreadable) = match (is_stripe, reason.item()) {
        (true, None) => return Reason::Stripe(None),
        (true, Some(item)) => (
            stripe_view(item).map(|view| Reason::Stripe(Some(view))),
            // The stock cannot be trusted: whoever wants it gets an error, nothing is sold.
            Reason::Invalid,
        ),
        (false, Some(item)) => (
            record_view(item).map(Reason::Record),
            Reason::RecordUnreadable,
        ),
        (false, None) => (
            Err("the store did not return the item".to_owned()),
            Reason::RecordUnreadable,
        ),
    };
    read.unwrap_or_else(|why| {
        let action = name(transaction, at);
        remarks.push(format!("{action} is not as this server writes it: {why}"));
        unreadable
    })
}

/// The item that an action is about.
fn name(transaction: &Transaction, at: usize) -> Cow<'_, str> {
    let stripes = transaction.stripes.len();
    if let Some(stripe) = transaction.stripes.get(at) {
        return format!("stripe {} of {}", stripe.stripe, transaction.event).into();
    }
    match transaction.records.get(at - stripes) {
        Some(record) => format!("reservation {}", record.reservation).into(),
        None => "an action that was not sent".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::ids::Fingerprint;
    use crate::domain::time::UnixMillis;
    use crate::domain::transaction::{NewRecord, ReservationState, StripeUpdate, Token};

    /// One stripe, two tombstones.
    fn transaction() -> Transaction {
        let record = |id: &str| NewRecord {
            reservation: id.parse().unwrap(),
            fingerprint: Fingerprint([0; 16]),
            state: ReservationState::Released,
            qty: 1,
            draws: Vec::new(),
            order: None,
            payment_intent: String::new(),
        };
        Transaction {
            token: Token(1),
            event: "evt".parse().unwrap(),
            stripes: vec![StripeUpdate { stripe: 0, take: 1 }],
            records: vec![record("r1"), record("r2")],
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
            ("TransactionConflict", Reason::Conflict),
            ("ThrottlingError", Reason::Throttled),
            ("ProvisionedThroughputExceeded", Reason::Throttled),
            ("ValidationError", Reason::Invalid),
            ("ItemCollectionSizeLimitExceeded", Reason::Invalid),
            ("DuplicateItem", Reason::Invalid),
            ("SomethingNew", Reason::Invalid),
        ] {
            let said = cancelled(&transaction(), &reasons(["None", code, "None"]));
            let all = vec![Reason::Fine, expected.clone(), Reason::Fine];
            assert_eq!(said.outcome, Outcome::Cancelled(all), "{code}");
            let remarked = expected == Reason::Invalid;
            assert_eq!(said.remarks.len(), usize::from(remarked), "{code}");
        }
    }

    #[test]
    fn an_item_that_should_not_be_so_is_remarked_on() {
        let said = cancelled(
            &transaction(),
            &reasons(["ConditionalCheckFailed", "ConditionalCheckFailed", "None"]),
        );
        let all = vec![Reason::Stripe(None), Reason::RecordUnreadable, Reason::Fine];
        assert_eq!(said.outcome, Outcome::Cancelled(all));
        assert!(
            said.remarks[0].contains("reservation r1"),
            "{:?}",
            said.remarks
        );
    }

    #[test]
    fn a_cancellation_that_blames_nobody_is_a_conflict() {
        let said = cancelled(&transaction(), &reasons(["None", "None", "None"]));
        assert_eq!(said.outcome, Outcome::Conflict);
    }

    #[test]
    fn a_missing_permission_is_no_fault_of_the_body() {
        let said = cancelled(&transaction(), &reasons(["None", "AccessDenied", "None"]));
        assert_eq!(said.outcome, Outcome::Refused);
    }

    #[test]
    fn a_list_of_the_wrong_length_blames_the_whole() {
        let said = cancelled(&transaction(), &reasons(["None", "None", "None"])[..2]);
        assert_eq!(said.outcome, Outcome::Rejected);
    }
}
