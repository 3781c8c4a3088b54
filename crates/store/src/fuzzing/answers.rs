//! The body of an answer: one byte for the status, one for the operation, and the rest is the body.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_get_item::{
    BatchGetItem, BatchGetItemError, BatchGetItemOutput,
};
use aws_sdk_dynamodb::operation::get_item::{GetItem, GetItemError, GetItemOutput};
use aws_sdk_dynamodb::operation::query::{Query, QueryError, QueryOutput};
use aws_sdk_dynamodb::operation::transact_write_items::{
    TransactWriteItems, TransactWriteItemsError, TransactWriteItemsOutput,
};
use aws_smithy_types::body::SdkBody;

use super::{items, transactions};
use crate::codec;
use crate::direct_client::DirectOperation;
use crate::failure::{self, CallFailure, FailureKind};
use crate::transact::reasons;
use inventory_core::transaction::TransactionOutcome;

/// Statuses of DynamoDB and of proxies before it.
const STATUSES: [u16; 8] = [200, 400, 403, 413, 429, 500, 503, 302];

/// What an answer says is read, or the call fails in a known way. Only an answer with status 2xx says that a transaction was
/// applied; only one with status 4xx and a known error says that it was not.
pub fn store_answers(input: &[u8]) {
    let Some(([status, operation], body)) = input.split_first_chunk() else {
        return;
    };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    match operation % 4 {
        0 => get(status, body),
        1 => query(status, body),
        2 => batch_get(status, body),
        _ => transact(status, body),
    }
}

fn answer(status: u16, body: &[u8]) -> HttpResponse {
    let status = status.try_into().unwrap_or_else(|error| panic!("{status}: {error}"));
    HttpResponse::new(status, SdkBody::from(body))
}

/// The failure of a call with this error.
fn failed<E>(error: SdkError<E, HttpResponse>, status: u16) -> CallFailure<E>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = CallFailure { kind: failure::kind_of(&error), error: Some(error) };
    let is_definite = matches!(
        failure.kind,
        FailureKind::Cancelled
            | FailureKind::Conflict
            | FailureKind::Throttled
            | FailureKind::Rejected
    );
    assert!(!is_definite || (400..500).contains(&status), "{} of {status}", failure.kind.status());
    assert!(!failure.text().is_empty(), "a failure without a text");
    failure
}

fn get(status: u16, body: &[u8]) {
    let operation = DirectOperation::of("GetItem", &GetItem::new());
    match operation.parse::<GetItemOutput, GetItemError>(answer(status, body)) {
        Ok(output) => output.item.iter().for_each(items::assert_read_within_limits),
        Err(error) => drop(failed(error, status)),
    }
}

fn batch_get(status: u16, body: &[u8]) {
    let operation = DirectOperation::of("BatchGetItem", &BatchGetItem::new());
    match operation.parse::<BatchGetItemOutput, BatchGetItemError>(answer(status, body)) {
        Ok(output) => {
            let items = output.responses.iter().flat_map(|tables| tables.values().flatten());
            items.for_each(items::assert_read_within_limits);
        }
        Err(error) => drop(failed(error, status)),
    }
}

/// A page that the fast decoder reads has the seats that the SDK and the codec of items read.
fn query(status: u16, body: &[u8]) {
    let fast = codec::decode_seat_page(body);
    let operation = DirectOperation::of("Query", &Query::new());
    let output = match operation.parse::<QueryOutput, QueryError>(answer(status, body)) {
        Ok(output) => output,
        Err(error) => {
            assert!(
                status != 200 || fast.is_none(),
                "the fast decoder reads what the SDK refuses: {error:?}"
            );
            return drop(failed(error, status));
        }
    };
    output.items().iter().for_each(items::assert_read_within_limits);
    let Some(fast) = fast else {
        return;
    };
    let read = output.items().iter().map(|item| match codec::seat(item) {
        (Some(seat), None) => seat,
        (seat, fault) => panic!("the fast decoder reads {item:?}: {seat:?} {fault:?}"),
    });
    assert_eq!(fast.seats, read.collect::<Vec<_>>());
    let last_key = output.last_evaluated_key.filter(|key| !key.is_empty());
    assert_eq!(fast.last_key, last_key, "the position of the next page");
}

fn transact(status: u16, body: &[u8]) {
    let operation = DirectOperation::of("TransactWriteItems", &TransactWriteItems::new());
    let parsed =
        operation.parse::<TransactWriteItemsOutput, TransactWriteItemsError>(answer(status, body));
    let Err(error) = parsed else {
        assert_eq!(status, 200, "committed");
        return;
    };
    let failure = failed(error, status);
    if failure.kind != FailureKind::Cancelled {
        return;
    }
    let transaction = transactions::sample();
    let read = codec::cancelled(&transaction, reasons(&failure));
    match read.outcome {
        TransactionOutcome::Cancelled(actions) => {
            assert_eq!(actions.len(), transaction.action_count(), "{actions:?}");
        }
        TransactionOutcome::Conflict
        | TransactionOutcome::Rejected
        | TransactionOutcome::Refused => {}
        other => panic!("a cancelled transaction is {other:?}"),
    }
    // At most one remark per action, and one about all.
    assert!(read.remarks.len() <= transaction.action_count() + 1, "{:?}", read.remarks);
}
