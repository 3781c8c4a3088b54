//! DynamoDB through the AWS SDK as most services use it: the SDK's HTTP client, connection pool, retries
//! and timeouts; one request per read, one transaction per write.
//!
//! The SDK generates each transaction's token, so that its own retries of a lost response are safe.
//!
//! Not here: what an outcome means for a call (`store_backend`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    CancellationReason, KeysAndAttributes, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use thiserror::Error;

use crate::limits::{LOGGED_ERRORS_MAX, UNPROCESSED_ROUNDS_MAX};
use crate::record::{
    AttributeMap, EVENT_ID, Millis, NEW_CONDITION, NEW_NAMES, NewRecord, RESERVATION_ID,
    RecordUpdate, ReservationItem, StripeUnits, text,
};
use crate::stripe::{StockWrite, StoredStripe, stripe_key, stripe_update};

/// Endpoint and tables.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// `http://host:port`.
    pub endpoint: String,
    pub region: String,
    pub inventory: String,
    pub idempotency: String,
}

/// Why no client can be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    #[error(
        "the endpoint {0} needs TLS, which the baseline does not support: it is measured with a DynamoDB \
         model or an embedded engine at http://host:port"
    )]
    Tls(String),
    #[error("the endpoint {0:?} must have the form http://host:port")]
    Malformed(String),
}

/// Outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    Written,
    /// The record was not as expected; the store holds this one.
    RecordChanged(Option<ReservationItem>),
    /// The stripe had too few units, and the record was as expected.
    InsufficientStock {
        remaining: u64,
    },
    /// The stripe was written after its version was read.
    VersionChanged,
    EventClosed,
    StripeMissing,
    /// A conflicting write was in flight, or the store throttled; nothing was written.
    Busy,
}

/// Why a request to the store has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Throttled or contended.
    Busy,
    /// The SDK gave up. A write may have taken effect.
    Unavailable,
    /// The store rejected the request, or returned an item that cannot be read.
    Invalid,
}

/// One transaction: stock of stripes and the record that changes with it.
#[derive(Debug)]
pub struct SaleTransaction<'a> {
    pub event: &'a str,
    pub reservation: &'a str,
    pub stripes: Vec<(StripeUnits, StockWrite)>,
    pub record: RecordAction<'a>,
    pub now: Millis,
}

#[derive(Debug)]
pub enum RecordAction<'a> {
    Put(NewRecord<'a>),
    Update(RecordUpdate),
}

/// A client of the server's tables.
pub struct TableClient {
    client: Client,
    config: TableConfig,
    logged_errors: AtomicU32,
}

impl TableClient {
    /// A client with the SDK's defaults. It connects on first use and then needs a tokio runtime.
    ///
    /// # Errors
    /// If the endpoint is malformed or needs TLS.
    pub fn new(config: TableConfig) -> Result<Self, EndpointError> {
        check_endpoint(&config.endpoint)?;
        // This version makes standard-mode retries and a connect timeout the defaults.
        let sdk_config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(&config.endpoint)
            .region(Region::new(config.region.clone()))
            // Requests are signed; a model or an embedded engine does not verify the signature.
            .credentials_provider(Credentials::new("local", "local", None, None, "baseline"))
            // The SDK's default client without TLS.
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Ok(Self { client: Client::from_conf(sdk_config), config, logged_errors: AtomicU32::new(0) })
    }

    /// Reads a reservation's record, strongly consistent.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn record(&self, reservation: &str) -> Result<Option<ReservationItem>, TableError> {
        let key = record_key(reservation);
        let item = self.get(&self.config.idempotency, key).await?;
        item.map(|item| self.read_record(&item)).transpose()
    }

    /// Reads one stripe, strongly consistent.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn stripe(
        &self,
        event: &str,
        stripe: u16,
    ) -> Result<Option<StoredStripe>, TableError> {
        let key = stripe_key(event, stripe);
        let item = self.get(&self.config.inventory, key).await?;
        item.map(|item| self.read_stripe(&item)).transpose()
    }

    /// Reads all stripes of an event in order, strongly consistent.
    ///
    /// # Errors
    /// See [`TableError`]; [`TableError::Invalid`] if a stripe is missing.
    pub async fn stripes(&self, event: &str, count: u16) -> Result<Vec<StoredStripe>, TableError> {
        let table = &self.config.inventory;
        let mut found: HashMap<String, StoredStripe> = HashMap::new();
        let mut unread: Vec<AttributeMap> = (0..count).map(|n| stripe_key(event, n)).collect();
        for _ in 0..UNPROCESSED_ROUNDS_MAX {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(unread))
                .consistent_read(true)
                .build()
                .map_err(|error| self.unbuilt(&error))?;
            let call = self.client.batch_get_item().request_items(table, keys);
            let output = call.send().await.map_err(|error| self.classify(&error))?;
            for item in output.responses.unwrap_or_default().remove(table).unwrap_or_default() {
                let stripe = self.read_stripe(&item)?;
                if let Some(Ok(key)) = item.get(EVENT_ID).map(|key| key.as_s()) {
                    found.insert(key.clone(), stripe);
                }
            }
            let unprocessed = output.unprocessed_keys.unwrap_or_default().remove(table);
            unread = unprocessed.map(|table| table.keys).unwrap_or_default();
            if unread.is_empty() {
                break;
            }
        }
        if !unread.is_empty() {
            return Err(TableError::Busy);
        }
        let one = |n: u16| {
            let key = stripe_key(event, n);
            let key = key.get(EVENT_ID).and_then(|key| key.as_s().ok());
            key.and_then(|key| found.get(key).copied())
        };
        let all: Option<Vec<StoredStripe>> = (0..count).map(one).collect();
        all.ok_or_else(|| {
            self.log(&format!("event {event}: one of {count} stripes is missing"));
            TableError::Invalid
        })
    }

    /// Writes `transaction` atomically. An update that touches no stripe is a plain UpdateItem.
    ///
    /// # Errors
    /// See [`TableError`].
    pub async fn write(
        &self,
        transaction: &SaleTransaction<'_>,
    ) -> Result<WriteOutcome, TableError> {
        if let (RecordAction::Update(update), true) =
            (&transaction.record, transaction.stripes.is_empty())
        {
            return self.update_record(transaction.reservation, update).await;
        }
        let actions = self.actions(transaction).map_err(|e| self.unbuilt(&e))?;
        let call = self.client.transact_write_items();
        let sent = call.set_transact_items(Some(actions)).send().await;
        let Err(error) = sent else {
            return Ok(WriteOutcome::Written);
        };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                self.cancellation_outcome(transaction, cancelled.cancellation_reasons())
            }
            _ => match self.classify(&error) {
                TableError::Busy => Ok(WriteOutcome::Busy),
                failure => Err(failure),
            },
        }
    }

    async fn get(
        &self,
        table: &str,
        key: AttributeMap,
    ) -> Result<Option<AttributeMap>, TableError> {
        let call = self.client.get_item().table_name(table).set_key(Some(key));
        let output = call.consistent_read(true).send().await;
        Ok(output.map_err(|error| self.classify(&error))?.item)
    }

    async fn update_record(
        &self,
        reservation: &str,
        update: &RecordUpdate,
    ) -> Result<WriteOutcome, TableError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.config.idempotency)
            .set_key(Some(record_key(reservation)))
            .update_expression(&update.update)
            .condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names.clone()))
            .set_expression_attribute_values(Some(update.values.clone()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(WriteOutcome::Written);
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let record = failed.item().map(|item| self.read_record(item));
                Ok(WriteOutcome::RecordChanged(record.transpose()?))
            }
            _ => match self.classify(&error) {
                TableError::Busy => Ok(WriteOutcome::Busy),
                failure => Err(failure),
            },
        }
    }

    /// Actions of the stripes, then of the record.
    fn actions(
        &self,
        transaction: &SaleTransaction<'_>,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let mut actions = Vec::with_capacity(transaction.stripes.len() + 1);
        let SaleTransaction { event, now, .. } = *transaction;
        for (taken, write) in &transaction.stripes {
            let action = stripe_update(&self.config.inventory, event, *taken, *write, now)?;
            actions.push(TransactWriteItem::builder().update(action).build());
        }
        let table = &self.config.idempotency;
        let all_old = ReturnValuesOnConditionCheckFailure::AllOld;
        let record = TransactWriteItem::builder();
        let (alias, name) = NEW_NAMES;
        actions.push(match &transaction.record {
            RecordAction::Put(new) => {
                let put = Put::builder()
                    .table_name(table)
                    .set_item(Some(new.item()))
                    .condition_expression(NEW_CONDITION)
                    .expression_attribute_names(alias, name)
                    .return_values_on_condition_check_failure(all_old);
                record.put(put.build()?).build()
            }
            RecordAction::Update(update) => {
                let action = Update::builder()
                    .table_name(table)
                    .set_key(Some(record_key(transaction.reservation)))
                    .update_expression(&update.update)
                    .condition_expression(update.condition)
                    .set_expression_attribute_names(Some(update.names.clone()))
                    .set_expression_attribute_values(Some(update.values.clone()))
                    .return_values_on_condition_check_failure(all_old);
                record.update(action.build()?).build()
            }
        });
        Ok(actions)
    }

    /// Derives the outcome from the cancellation reasons. The record's reason decides before all others; a
    /// conflict decides before the stock, because the conflicting write may be the record's.
    fn cancellation_outcome(
        &self,
        transaction: &SaleTransaction<'_>,
        reasons: &[CancellationReason],
    ) -> Result<WriteOutcome, TableError> {
        let Some((record, stripes)) = reasons.split_last() else {
            self.log("a cancelled transaction without cancellation reasons");
            return Err(TableError::Invalid);
        };
        if failed(record) {
            // The condition of a put fails only on an existing record, which the reason returns.
            return match (record.item(), &transaction.record) {
                (Some(item), _) => Ok(WriteOutcome::RecordChanged(Some(self.read_record(item)?))),
                (None, RecordAction::Update(_)) => Ok(WriteOutcome::RecordChanged(None)),
                (None, RecordAction::Put(_)) => {
                    self.log("a failed condition without its item");
                    Err(TableError::Invalid)
                }
            };
        }
        let codes = || reasons.iter().map(|reason| reason.code().unwrap_or("None"));
        if let Some(code) = codes()
            .find(|code| !matches!(*code, "None" | "ConditionalCheckFailed") && !is_transient(code))
        {
            self.log(&format!("transaction cancelled: {code}"));
            return Err(TableError::Invalid);
        }
        let Some((at, reason)) = stripes.iter().enumerate().find(|(_, reason)| failed(reason))
        else {
            return Ok(WriteOutcome::Busy);
        };
        if codes().any(is_transient) {
            return Ok(WriteOutcome::Busy);
        }
        let Some(item) = reason.item() else {
            return Ok(WriteOutcome::StripeMissing);
        };
        let stripe = self.read_stripe(item)?;
        Ok(match transaction.stripes.get(at) {
            _ if stripe.closed => WriteOutcome::EventClosed,
            Some((_, StockWrite::TakeAtVersion(version))) if *version != stripe.version => {
                WriteOutcome::VersionChanged
            }
            _ => WriteOutcome::InsufficientStock { remaining: stripe.remaining },
        })
    }

    fn read_record(&self, item: &AttributeMap) -> Result<ReservationItem, TableError> {
        ReservationItem::read(item)
            .map_err(|why| self.unreadable("record", item, RESERVATION_ID, &why))
    }

    fn read_stripe(&self, item: &AttributeMap) -> Result<StoredStripe, TableError> {
        StoredStripe::read(item).map_err(|why| self.unreadable("stripe", item, EVENT_ID, &why))
    }

    fn unreadable(&self, what: &str, item: &AttributeMap, key: &str, why: &str) -> TableError {
        let id = item.get(key).and_then(|id| id.as_s().ok());
        let id = id.map_or("without key", String::as_str);
        self.log(&format!("{what} {id} cannot be read: {why}"));
        TableError::Invalid
    }

    fn unbuilt(&self, error: &BuildError) -> TableError {
        self.log(&format!("request cannot be built: {error}"));
        TableError::Invalid
    }

    fn classify<E>(&self, error: &SdkError<E>) -> TableError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        if error.code().is_some_and(is_transient) {
            return TableError::Busy;
        }
        let failure = match error {
            SdkError::ConstructionFailure(_) => TableError::Invalid,
            SdkError::ServiceError(service) if service.raw().status().is_client_error() => {
                TableError::Invalid
            }
            _ => TableError::Unavailable,
        };
        // The chain of causes without the response body.
        self.log(&format!("store: {}", DisplayErrorContext(error)));
        failure
    }

    /// Logs a store error to standard error. Clients receive a reason, never the store's message.
    fn log(&self, message: &str) {
        if self.logged_errors.fetch_add(1, Ordering::Relaxed) < LOGGED_ERRORS_MAX {
            inventory_process::report(format_args!("baseline: {message}"));
        }
    }
}

fn record_key(reservation: &str) -> AttributeMap {
    AttributeMap::from([(RESERVATION_ID.to_owned(), text(reservation))])
}

fn failed(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

/// Error codes of requests, and reason codes of actions, that a retry may resolve.
fn is_transient(code: &str) -> bool {
    matches!(
        code,
        "TransactionConflict"
            | "TransactionConflictException"
            | "TransactionInProgressException"
            | "ReplicatedWriteConflict"
            | "ThrottlingError"
            | "ThrottlingException"
            | "ProvisionedThroughputExceeded"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
    )
}

fn check_endpoint(endpoint: &str) -> Result<(), EndpointError> {
    if endpoint.starts_with("https:") {
        return Err(EndpointError::Tls(endpoint.to_owned()));
    }
    let authority = endpoint.strip_prefix("http://").unwrap_or_default();
    match tonic::codegen::http::uri::Authority::try_from(authority.trim_end_matches('/')) {
        Ok(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err(EndpointError::Malformed(endpoint.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::number;

    #[test]
    fn endpoints_are_validated() {
        for valid in ["http://127.0.0.1:8000", "http://model:8000/"] {
            assert_eq!(check_endpoint(valid), Ok(()), "{valid}");
        }
        let error = check_endpoint("https://dynamodb.eu-west-1.amazonaws.com");
        assert!(matches!(error, Err(EndpointError::Tls(_))), "{error:?}");
        for invalid in ["", "127.0.0.1:8000", "http://", "http://a b", "ftp://x"] {
            let error = check_endpoint(invalid);
            assert!(matches!(error, Err(EndpointError::Malformed(_))), "{invalid}");
        }
    }

    fn reason(code: &str, item: Option<AttributeMap>) -> CancellationReason {
        CancellationReason::builder().code(code).set_item(item).build()
    }

    #[test]
    fn a_conflict_decides_before_the_stock_and_the_version_before_the_units() {
        let tables = TableClient::new(TableConfig {
            endpoint: "http://127.0.0.1:9".to_owned(),
            region: "r".to_owned(),
            inventory: "i".to_owned(),
            idempotency: "r".to_owned(),
        });
        let tables = tables.unwrap();
        let taken = StripeUnits { stripe: 0, units: 1 };
        let transaction = SaleTransaction {
            event: "evt",
            reservation: "r",
            stripes: vec![(taken, StockWrite::TakeAtVersion(Some(1)))],
            record: RecordAction::Put(NewRecord {
                reservation: "r",
                event: "evt",
                qty: 1,
                payment: "",
                state: crate::record::StoredState::Confirmed,
                allocation: &[taken],
                hold_until: Millis(0),
                now: Millis(0),
            }),
            now: Millis(0),
        };
        let stripe = |version: u8| {
            let attributes = [("remaining", 0), ("total_seats", 5), ("version", version)];
            let item = attributes.map(|(name, value)| (name.to_owned(), number(value)));
            Some(AttributeMap::from(item))
        };
        let short = WriteOutcome::InsufficientStock { remaining: 0 };
        for (stock, record, expected) in [
            (reason("None", None), "TransactionConflict", WriteOutcome::Busy),
            (
                reason("ConditionalCheckFailed", stripe(1)),
                "TransactionConflict",
                WriteOutcome::Busy,
            ),
            (reason("ConditionalCheckFailed", stripe(2)), "None", WriteOutcome::VersionChanged),
            (reason("ConditionalCheckFailed", stripe(1)), "None", short),
            (reason("ConditionalCheckFailed", None), "None", WriteOutcome::StripeMissing),
        ] {
            let reasons = [stock, reason(record, None)];
            let outcome = tables.cancellation_outcome(&transaction, &reasons);
            assert_eq!(outcome, Ok(expected), "{reasons:?}");
        }
        let other = [reason("ValidationError", None), reason("None", None)];
        let outcome = tables.cancellation_outcome(&transaction, &other);
        assert_eq!(outcome, Err(TableError::Invalid));
    }
}
