//! The body of an answer: one byte for the status, one for the operation, and the rest is the body, or draws the items in it.

use std::borrow::Cow;

use arbitrary::{Result, Unstructured};
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
use serde_json::{Value, json};

use super::{items, transactions};
use crate::codec;
use crate::direct_client::DirectOperation;
use crate::failure::{self, CallFailure, FailureKind};
use crate::transact::reasons;
use inventory_core::transaction::TransactionOutcome;

/// Statuses of DynamoDB and of proxies before it.
const STATUSES: [u16; 8] = [200, 400, 403, 413, 429, 500, 503, 302];

/// From this operation on the body is drawn.
const DRAWN: u8 = 128;

/// What an answer says is read, or the call fails in a known way. Only an answer with status 2xx says that a transaction was
/// applied; only one with status 4xx and a known error says that it was not.
pub fn store_answers(input: &[u8]) {
    let Some(([status, operation], body)) = input.split_first_chunk() else {
        return;
    };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let body = &*match *operation >= DRAWN {
        true => Cow::from(drawn_body(&mut Unstructured::new(body)).unwrap_or_default()),
        false => Cow::from(body),
    };
    match operation % 4 {
        0 => get(status, body),
        1 => query(status, body),
        2 => batch_get(status, body),
        _ => transact(status, body),
    }
}

/// The same items as of each operation, and as the reasons of a cancellation.
fn drawn_body(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count = input.int_in_range(0..=4)?;
    let items = (0..count).map(|_| items::item(input)).collect::<Result<Vec<_>>>()?;
    let items: Vec<Value> = items.iter().map(items::json_of).collect();
    let code = *input.choose(&["ConditionalCheckFailed", "None", "TransactionConflict"])?;
    let reason = |item: &Value| json!({"Code": code, "Item": item});
    let body = json!({
        "Item": items.first(), "Items": items, "Responses": {"t": items},
        "__type": "TransactionCanceledException",
        "CancellationReasons": items.iter().map(reason).collect::<Vec<_>>(),
    });
    Ok(body.to_string().into_bytes())
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

/// The page with the fields only that the server reads: items, and the position of the next page.
fn read_fields_of(page: &Value) -> Value {
    let mut read = json!({"Items": page.get("Items")});
    if let Some(key) = page.get("LastEvaluatedKey") {
        read["LastEvaluatedKey"] = key.clone();
    }
    read
}

/// A page that the fast decoder reads has the seats that the SDK and the codec of items read.
fn query(status: u16, body: &[u8]) {
    let fast = codec::decode_seat_page(body);
    let operation = DirectOperation::of("Query", &Query::new());
    let output = match operation.parse::<QueryOutput, QueryError>(answer(status, body)) {
        Ok(output) => output,
        Err(error) => {
            if status == 200 && fast.is_some() {
                // The SDK refuses fields beside the items that the server does not read. Without them both read the same.
                let page: Value = serde_json::from_slice(body).unwrap_or_default();
                let read = read_fields_of(&page);
                assert_ne!(page, read, "the fast decoder reads what the SDK refuses: {error:?}");
                return query(status, read.to_string().as_bytes());
            }
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
