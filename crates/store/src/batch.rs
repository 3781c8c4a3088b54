//! Strong reads of many items by key, and the meaning of failed reads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt::Display;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemInput;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};

use super::Store;
use super::codec::Item;
use super::failure::{CallFailure, FailureKind};
use crate::limits;

const OPERATION: &str = "BatchGetItem";

/// Why a read failed.
#[derive(Clone, Copy)]
pub(super) enum ReadFailure {
    Throttled,
    Unavailable,
}

/// Progress of a read over several requests.
pub(super) enum BatchProgress<'a> {
    Found(Item),
    /// After each request: the unprocessed keys, which the next request asks for.
    Unprocessed(&'a [Item]),
}

impl Store {
    /// Returns the items with these keys (at most [`limits::BATCH_GET_KEYS_MAX`], repeats allowed) in their
    /// order, `None` where there is no item. Unprocessed keys are requested again.
    ///
    /// `of` names the subject of the read, for the log.
    pub(super) async fn get_batch(
        &self,
        table: &str,
        name: &str,
        keys: &[String],
        of: &dyn Display,
    ) -> Result<Vec<Option<Item>>, ReadFailure> {
        // The store rejects a request that names a key twice.
        let mut places = HashMap::with_capacity(keys.len());
        let mut distinct = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            if let Entry::Vacant(place) = places.entry(key.as_str()) {
                place.insert(at);
                let value = AttributeValue::S(key.clone());
                distinct.push(HashMap::from([(name.to_owned(), value)]));
            }
        }
        let mut items = vec![None; keys.len()];
        self.get_distinct(table, distinct, of, |round| {
            let BatchProgress::Found(item) = round else {
                return;
            };
            let key = item.get(name).and_then(|key| key.as_s().ok());
            if let Some(at) = key.and_then(|key| places.get(key.as_str())) {
                items[*at] = Some(item);
            }
        })
        .await?;
        for (at, key) in keys.iter().enumerate() {
            match places.get(key.as_str()) {
                Some(first) if *first != at => items[at] = items[*first].clone(),
                _ => {}
            }
        }
        Ok(items)
    }

    /// Reads the items with these keys, distinct and at most [`limits::BATCH_GET_KEYS_MAX`].
    pub(super) async fn get_distinct(
        &self,
        table: &str,
        keys: Vec<Item>,
        of: &dyn Display,
        mut tell: impl FnMut(BatchProgress<'_>),
    ) -> Result<(), ReadFailure> {
        let request =
            KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys)).build();
        let request = request.map_err(|error| {
            self.log(&format!("{OPERATION} could not be built: {error}"));
            ReadFailure::Unavailable
        })?;
        let mut request = HashMap::from([(table.to_owned(), request)]);
        let mut pause = limits::RETRY_BACKOFF_MIN;
        for _ in 0..limits::STORE_UNPROCESSED_ROUNDS_MAX {
            let attempt = || {
                let read = BatchGetItemInput::builder()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                self.send_read(read.set_request_items(Some(request.clone())))
            };
            let output = self.read(OPERATION, table, attempt).await;
            let output = output.map_err(|failure| self.read_failure(OPERATION, of, &failure))?;
            let responses = output.responses.unwrap_or_default();
            for item in responses.into_values().flatten() {
                tell(BatchProgress::Found(item));
            }
            request = output.unprocessed_keys.unwrap_or_default();
            let left = request.get(table).map_or(&[][..], KeysAndAttributes::keys);
            tell(BatchProgress::Unprocessed(left));
            if left.is_empty() {
                return Ok(());
            }
            inventory_runtime::sleep(pause).await;
            pause = (pause * 2).min(limits::RETRY_BACKOFF_MAX);
        }
        Err(ReadFailure::Throttled)
    }

    /// Maps the failure of a read; every failure other than throttling is logged.
    pub(super) fn read_failure<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        operation: &'static str,
        of: &dyn Display,
        failure: &CallFailure<E>,
    ) -> ReadFailure {
        if failure.kind == FailureKind::Throttled {
            return ReadFailure::Throttled;
        }
        self.inner.log.log_failure(operation, failure.kind.status(), failure.code(), || {
            format!("{operation} for {of}: {}", failure.text())
        });
        ReadFailure::Unavailable
    }
}
