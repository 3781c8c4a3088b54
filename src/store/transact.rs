//! The one write of the request path.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;

use super::failure::{Failure, Kind};
use super::{Store, codec};
use crate::domain::transaction::{Outcome, Transaction};

const OPERATION: &str = "TransactWriteItems";

impl Store {
    /// Sends `transaction` once, under its token, and says what became of it. Never retries: an
    /// [`Outcome::Unknown`] is resolved by sending the very same transaction again.
    ///
    /// Takes at most the settings' attempt timeout. Dropping the future is safe and leaves the
    /// outcome unknown.
    pub async fn transact(&self, transaction: &Transaction) -> Outcome {
        let actions = match self.inner.encoder.actions(transaction) {
            Ok(actions) => actions,
            Err(error) => {
                self.log(&format!("a transaction could not be built: {error}"));
                return Outcome::Rejected;
            }
        };
        let tables = self.tables();
        let table = match transaction.stripes.is_empty() {
            true => &tables.idempotency,
            false => &tables.inventory,
        };
        let attempt = self
            .client()
            .transact_write_items()
            .set_transact_items(Some(actions))
            .client_request_token(format!("{:032x}", transaction.token.0))
            .send();
        let limit = self.inner.attempt_timeout;
        match self.call(OPERATION, table, limit, attempt).await {
            Ok(_) => Outcome::Committed,
            Err(failure) => self.not_committed(transaction, &failure),
        }
    }

    fn not_committed(
        &self,
        transaction: &Transaction,
        failure: &Failure<TransactWriteItemsError>,
    ) -> Outcome {
        match failure.kind {
            Kind::Cancelled => self.cancelled(transaction, failure),
            Kind::Conflict => Outcome::Conflict,
            Kind::Throttled => Outcome::Throttled,
            Kind::Rejected => {
                let mismatch = failure.code() == Some("IdempotentParameterMismatchException");
                let bug = match mismatch {
                    true => "BUG: one token was used for two different transactions: ",
                    false => "",
                };
                self.complain(transaction, &format!("{bug}{}", failure.text()));
                Outcome::Rejected
            }
            Kind::Refused => {
                self.complain(transaction, &failure.text());
                Outcome::Refused
            }
            Kind::Unknown => {
                self.complain(transaction, &failure.text());
                Outcome::Unknown
            }
        }
    }

    fn cancelled(
        &self,
        transaction: &Transaction,
        failure: &Failure<TransactWriteItemsError>,
    ) -> Outcome {
        let error = failure.error.as_ref().and_then(|e| e.as_service_error());
        let reasons = match error {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                cancelled.cancellation_reasons()
            }
            _ => &[],
        };
        let said = codec::cancelled(transaction, reasons);
        for remark in &said.remarks {
            self.complain(transaction, remark);
        }
        said.outcome
    }

    fn complain(&self, transaction: &Transaction, what: &str) {
        let event = &transaction.event;
        let token = transaction.token.0;
        let count = transaction.action_count();
        self.log(&format!(
            "{OPERATION} for {event} ({count} actions, token {token:032x}): {what}"
        ));
    }
}
