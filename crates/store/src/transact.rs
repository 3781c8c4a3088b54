//! TransactWriteItems: the one write of the request path, and administrative transactions.

use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::{
    TransactWriteItemsError, TransactWriteItemsOutput,
};
use aws_sdk_dynamodb::types::{CancellationReason, ReturnConsumedCapacity, TransactWriteItem};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::capacity::CapacityReport as _;
use super::failure::{CallFailure, FailureKind};
use super::{Store, codec};
use crate::limits;
use inventory_core::time::Micros;
use inventory_core::transaction::{Transaction, TransactionOutcome};
use inventory_runtime::clock;

const OPERATION: &str = "TransactWriteItems";
const CONTENT_LENGTH: &str = "content-length";

impl Store {
    /// Sends `transaction` once, under its token, and returns its outcome. Never retries: the caller resolves
    /// [`TransactionOutcome::Unknown`] by sending the same transaction again.
    ///
    /// Takes at most the settings' attempt timeout. Dropping the future is safe and leaves the
    /// outcome unknown.
    pub async fn transact(&self, transaction: &Transaction) -> TransactionOutcome {
        self.transact_counted(transaction, self.inner.attempt_timeout).await.0
    }

    /// As [`Store::transact`], with a time limit of its own, and with the consumed capacity units that the store
    /// reports; 0 if it reports none, as for failed writes.
    pub async fn transact_counted(
        &self,
        transaction: &Transaction,
        limit: Duration,
    ) -> (TransactionOutcome, f64) {
        let tables = self.tables();
        let table = match transaction.stripes.is_empty() {
            true => &tables.idempotency,
            false => &tables.inventory,
        };
        let body = Bytes::from(self.inner.encoder.body(transaction));
        let direct_client = &self.inner.direct_client;
        let attempt = async {
            match direct_client.templates.template() {
                Some(template) => direct_client.transact(&template, SdkBody::from(body)).await,
                // Rare and large: boxed, to keep the futures of calls small.
                None => Box::pin(self.transact_by_sdk(transaction, body)).await,
            }
        };
        match self.call(OPERATION, table, limit, attempt).await {
            Ok(output) => (TransactionOutcome::Committed, output.units()),
            Err(failure) => (self.outcome_of_failure(transaction, &failure), 0.0),
        }
    }

    /// The SDK signs, sends and reads the answer; the body is built here.
    async fn transact_by_sdk(
        &self,
        transaction: &Transaction,
        body: Bytes,
    ) -> Result<TransactWriteItemsOutput, SdkError<TransactWriteItemsError, HttpResponse>> {
        self.client()
            .transact_write_items()
            .set_transact_items(Some(Vec::new()))
            // Without this the SDK generates a token.
            .client_request_token(codec::token_text(transaction.token))
            .customize()
            .mutate_request(move |request| {
                let length = body.len().to_string();
                request.headers_mut().insert(CONTENT_LENGTH, length);
                *request.body_mut() = SdkBody::from(body.clone());
            })
            .send()
            .await
    }

    fn outcome_of_failure(
        &self,
        transaction: &Transaction,
        failure: &CallFailure<TransactWriteItemsError>,
    ) -> TransactionOutcome {
        let outcome = match failure.kind {
            FailureKind::Cancelled => return self.cancelled(transaction, failure),
            FailureKind::Conflict => return TransactionOutcome::Conflict,
            FailureKind::Throttled => return TransactionOutcome::Throttled,
            FailureKind::Rejected => TransactionOutcome::Rejected,
            FailureKind::Refused | FailureKind::NotSent => TransactionOutcome::Refused,
            FailureKind::Unknown => TransactionOutcome::Unknown,
        };
        let (status, code) = (failure.kind.status(), failure.code());
        self.inner.log.log_failure(OPERATION, status, code, || {
            let mismatch = code == Some("IdempotentParameterMismatchException");
            let bug = match mismatch {
                true => "BUG: one token was used for two different transactions: ",
                false => "",
            };
            line_about(transaction, &format!("{bug}{}", failure.text()))
        });
        outcome
    }

    fn cancelled(
        &self,
        transaction: &Transaction,
        failure: &CallFailure<TransactWriteItemsError>,
    ) -> TransactionOutcome {
        let said = codec::cancelled(transaction, reasons(failure));
        for remark in &said.remarks {
            self.log(&line_about(transaction, remark));
        }
        said.outcome
    }

    /// Writes all `actions`, off the request path. Retried for a limited time while other transactions conflict
    /// or the store throttles, without a token: the actions must be idempotent.
    pub(super) async fn transact_with_retries(
        &self,
        table: &str,
        actions: Vec<TransactWriteItem>,
    ) -> Result<(), CallFailure<TransactWriteItemsError>> {
        let began = clock::monotonic();
        let retry_max = Micros(limits::STORE_ADMIN_THROTTLE_RETRY_MAX.as_micros() as u64);
        let mut pause = limits::RETRY_BACKOFF_MIN;
        loop {
            let written = self.call_with_retries(OPERATION, table, || {
                self.client()
                    .transact_write_items()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .set_transact_items(Some(actions.clone()))
                    .send()
            });
            let mut failure = match written.await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            if !is_passing(&failure) {
                return Err(failure);
            }
            if clock::monotonic().since(began) > retry_max {
                // The write itself is valid; the caller may retry later.
                failure.kind = FailureKind::Throttled;
                return Err(failure);
            }
            inventory_runtime::sleep(pause).await;
            pause = (pause * 2).min(limits::RETRY_BACKOFF_MAX);
        }
    }
}

/// A line of the log.
fn line_about(transaction: &Transaction, what: &str) -> String {
    let event = &transaction.event;
    let token = transaction.token.0;
    let count = transaction.action_count();
    format!("{OPERATION} for {event} ({count} actions, token {token:032x}): {what}")
}

/// The reasons that the store gives for each action of a cancelled transaction.
pub(super) fn reasons(failure: &CallFailure<TransactWriteItemsError>) -> &[CancellationReason] {
    let error = failure.error.as_ref().and_then(|e| e.as_service_error());
    match error {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons()
        }
        _ => &[],
    }
}

/// Whether a transaction was cancelled only because of conflicts or throttling.
fn is_passing(failure: &CallFailure<TransactWriteItemsError>) -> bool {
    let passing = |reason: &CancellationReason| {
        let code = reason.code().unwrap_or("None");
        code == "None" || codec::is_conflict(code) || codec::is_throttle(code)
    };
    failure.kind == FailureKind::Cancelled && reasons(failure).iter().all(passing)
}
