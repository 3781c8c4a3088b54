//! The store as a program on tokio uses it: the SDK with its own HTTP client, connection pool, retries
//! and time limits, a call per read, a transaction per write.
//!
//! A transaction's token is the SDK's, so that its own repeats of a lost answer are safe.
//!
//! Must not live here: what an outcome means for a call (`sale`).

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

use crate::limits::{COMPLAINTS_MAX, UNPROCESSED_ROUNDS_MAX};
use crate::record::{
    Draw, EVENT_ID, Item, Millis, NEW_CONDITION, NEW_NAMES, NewRecord, RESERVATION_ID, Record,
    Step, text,
};
use crate::stripe::{self, Move, Stripe};

/// Which store, and which tables of it.
#[derive(Clone, Debug)]
pub struct Place {
    /// `http://host:port`.
    pub endpoint: String,
    pub region: String,
    pub inventory: String,
    pub idempotency: String,
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    #[error(
        "the endpoint {0} wants TLS, which this peer does not speak: it is measured against a model \
         or an engine at http://host:port"
    )]
    Tls(String),
    #[error("the endpoint {0:?} is not of the form http://host:port")]
    Malformed(String),
}

/// What became of a write that was not refused for a reason of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The record was not as expected: this is what the store holds.
    Record(Option<Record>),
    /// The stripe had too little, and the record was as expected.
    Short {
        remaining: u64,
    },
    /// Somebody wrote the stripe since its version was read.
    Stale,
    Closed,
    /// There is no such stripe.
    NoStripe,
    /// Another write was under way, or the store throttles; nothing was done.
    Busy,
}

/// Why the store gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It throttles or is contended.
    Busy,
    /// The SDK gave up. A write may have taken effect.
    Unavailable,
    /// It refused the request, or holds what cannot be understood.
    Broken,
}

/// One transaction: units moved between stripes and a record that changes with them.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub event: &'a str,
    pub reservation: &'a str,
    pub stripes: Vec<(Draw, Move)>,
    pub record: RecordChange<'a>,
    pub at: Millis,
}

#[derive(Debug)]
pub enum RecordChange<'a> {
    New(NewRecord<'a>),
    Step(Step),
}

/// The client and the tables.
pub struct Store {
    client: Client,
    place: Place,
    complaints: AtomicU32,
}

impl Store {
    /// A client with the SDK's defaults; connects when it is first used. Needs a tokio runtime then.
    ///
    /// # Errors
    /// When the endpoint is not one that this peer can speak to.
    pub fn new(place: Place) -> Result<Self, EndpointError> {
        check_endpoint(&place.endpoint)?;
        // From this version on retries in standard mode and a limit on connecting are the defaults.
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url(&place.endpoint)
            .region(Region::new(place.region.clone()))
            // Signed like any request; a model or an engine does not look.
            .credentials_provider(Credentials::new("local", "local", None, None, "peer"))
            // What the SDK makes by itself, without the TLS that it is not used with here.
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Ok(Self {
            client: Client::from_conf(config),
            place,
            complaints: AtomicU32::new(0),
        })
    }

    /// Reads a reservation's record strongly.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn record(&self, reservation: &str) -> Result<Option<Record>, Failure> {
        let key = record_key(reservation);
        let item = self.get(&self.place.idempotency, key).await?;
        item.map(|item| self.read_record(&item)).transpose()
    }

    /// Reads one stripe strongly.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn stripe(&self, event: &str, stripe: u16) -> Result<Option<Stripe>, Failure> {
        let key = stripe::key_of(event, stripe);
        let item = self.get(&self.place.inventory, key).await?;
        item.map(|item| self.read_stripe(&item)).transpose()
    }

    /// Reads all stripes of an event strongly, in their order.
    ///
    /// # Errors
    /// As [`Failure`] says; [`Failure::Broken`] when one is missing.
    pub async fn stripes(&self, event: &str, count: u16) -> Result<Vec<Stripe>, Failure> {
        let table = &self.place.inventory;
        let mut found: HashMap<String, Stripe> = HashMap::new();
        let mut wanted: Vec<Item> = (0..count).map(|n| stripe::key_of(event, n)).collect();
        for _ in 0..UNPROCESSED_ROUNDS_MAX {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| self.unbuilt(&error))?;
            let call = self.client.batch_get_item().request_items(table, keys);
            let output = call.send().await.map_err(|error| self.failure(&error))?;
            for item in output
                .responses
                .unwrap_or_default()
                .remove(table)
                .unwrap_or_default()
            {
                let stripe = self.read_stripe(&item)?;
                if let Some(Ok(key)) = item.get(EVENT_ID).map(|key| key.as_s()) {
                    found.insert(key.clone(), stripe);
                }
            }
            let left = output.unprocessed_keys.unwrap_or_default().remove(table);
            wanted = left.map(|left| left.keys).unwrap_or_default();
            if wanted.is_empty() {
                break;
            }
        }
        if !wanted.is_empty() {
            return Err(Failure::Busy);
        }
        let one = |n: u16| {
            let key = stripe::key_of(event, n);
            let key = key.get(EVENT_ID).and_then(|key| key.as_s().ok());
            key.and_then(|key| found.get(key).copied())
        };
        let all: Option<Vec<Stripe>> = (0..count).map(one).collect();
        all.ok_or_else(|| {
            self.complain(&format!("event {event}: a stripe of {count} is missing"));
            Failure::Broken
        })
    }

    /// Writes `transaction` whole or not at all. A step that touches no stripe is a plain update.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn write(&self, transaction: &Transaction<'_>) -> Result<Written, Failure> {
        if let (RecordChange::Step(step), true) =
            (&transaction.record, transaction.stripes.is_empty())
        {
            return self.update_record(transaction.reservation, step).await;
        }
        let actions = self.actions(transaction).map_err(|e| self.unbuilt(&e))?;
        let call = self.client.transact_write_items();
        let sent = call.set_transact_items(Some(actions)).send().await;
        let Err(error) = sent else {
            return Ok(Written::Done);
        };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                self.cancelled(transaction, cancelled.cancellation_reasons())
            }
            _ => match self.failure(&error) {
                Failure::Busy => Ok(Written::Busy),
                failure => Err(failure),
            },
        }
    }

    async fn get(&self, table: &str, key: Item) -> Result<Option<Item>, Failure> {
        let call = self.client.get_item().table_name(table).set_key(Some(key));
        let output = call.consistent_read(true).send().await;
        Ok(output.map_err(|error| self.failure(&error))?.item)
    }

    async fn update_record(&self, reservation: &str, step: &Step) -> Result<Written, Failure> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.place.idempotency)
            .set_key(Some(record_key(reservation)))
            .update_expression(&step.update)
            .condition_expression(step.condition)
            .set_expression_attribute_names(Some(step.names.clone()))
            .set_expression_attribute_values(Some(step.values.clone()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(Written::Done);
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let record = failed.item().map(|item| self.read_record(item));
                Ok(Written::Record(record.transpose()?))
            }
            _ => match self.failure(&error) {
                Failure::Busy => Ok(Written::Busy),
                failure => Err(failure),
            },
        }
    }

    /// The stripes' actions, then the record's.
    fn actions(&self, transaction: &Transaction<'_>) -> Result<Vec<TransactWriteItem>, BuildError> {
        let mut actions = Vec::with_capacity(transaction.stripes.len() + 1);
        let Transaction { event, at, .. } = *transaction;
        for (draw, what) in &transaction.stripes {
            let update = stripe::update(&self.place.inventory, event, *draw, *what, at)?;
            actions.push(TransactWriteItem::builder().update(update).build());
        }
        let table = &self.place.idempotency;
        let all_old = ReturnValuesOnConditionCheckFailure::AllOld;
        let record = TransactWriteItem::builder();
        let (alias, name) = NEW_NAMES;
        actions.push(match &transaction.record {
            RecordChange::New(new) => {
                let put = Put::builder()
                    .table_name(table)
                    .set_item(Some(new.item()))
                    .condition_expression(NEW_CONDITION)
                    .expression_attribute_names(alias, name)
                    .return_values_on_condition_check_failure(all_old);
                record.put(put.build()?).build()
            }
            RecordChange::Step(step) => {
                let update = Update::builder()
                    .table_name(table)
                    .set_key(Some(record_key(transaction.reservation)))
                    .update_expression(&step.update)
                    .condition_expression(step.condition)
                    .set_expression_attribute_names(Some(step.names.clone()))
                    .set_expression_attribute_values(Some(step.values.clone()))
                    .return_values_on_condition_check_failure(all_old);
                record.update(update.build()?).build()
            }
        });
        Ok(actions)
    }

    /// What the reasons say, the record's first: it decides whatever else went wrong. A conflict comes
    /// before the stock, for the record may just be being written.
    fn cancelled(
        &self,
        transaction: &Transaction<'_>,
        reasons: &[CancellationReason],
    ) -> Result<Written, Failure> {
        let Some((record, stripes)) = reasons.split_last() else {
            self.complain("a cancelled transaction without reasons");
            return Err(Failure::Broken);
        };
        if failed(record) {
            // A new record's condition fails on one that is there, so the item comes with it.
            return match (record.item(), &transaction.record) {
                (Some(item), _) => Ok(Written::Record(Some(self.read_record(item)?))),
                (None, RecordChange::Step(_)) => Ok(Written::Record(None)),
                (None, RecordChange::New(_)) => {
                    self.complain("a failed condition without the item it failed on");
                    Err(Failure::Broken)
                }
            };
        }
        let codes = || reasons.iter().map(|reason| reason.code().unwrap_or("None"));
        if let Some(code) = codes()
            .find(|code| !matches!(*code, "None" | "ConditionalCheckFailed") && !is_passing(code))
        {
            self.complain(&format!("a transaction was cancelled: {code}"));
            return Err(Failure::Broken);
        }
        let Some((at, reason)) = stripes
            .iter()
            .enumerate()
            .find(|(_, reason)| failed(reason))
        else {
            return Ok(Written::Busy);
        };
        if codes().any(is_passing) {
            return Ok(Written::Busy);
        }
        let Some(item) = reason.item() else {
            return Ok(Written::NoStripe);
        };
        let stripe = self.read_stripe(item)?;
        Ok(match transaction.stripes.get(at) {
            _ if stripe.closed => Written::Closed,
            Some((_, Move::TakeAt(version))) if *version != stripe.version => Written::Stale,
            _ => Written::Short {
                remaining: stripe.remaining,
            },
        })
    }

    fn read_record(&self, item: &Item) -> Result<Record, Failure> {
        Record::read(item).map_err(|why| self.unreadable("record", item, RESERVATION_ID, &why))
    }

    fn read_stripe(&self, item: &Item) -> Result<Stripe, Failure> {
        Stripe::read(item).map_err(|why| self.unreadable("stripe", item, EVENT_ID, &why))
    }

    fn unreadable(&self, what: &str, item: &Item, key: &str, why: &str) -> Failure {
        let id = item.get(key).and_then(|id| id.as_s().ok());
        let id = id.map_or("without a key", String::as_str);
        self.complain(&format!("{what} {id} cannot be understood: {why}"));
        Failure::Broken
    }

    fn unbuilt(&self, error: &BuildError) -> Failure {
        self.complain(&format!("a request cannot be built: {error}"));
        Failure::Broken
    }

    fn failure<E>(&self, error: &SdkError<E>) -> Failure
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        if error.code().is_some_and(is_passing) {
            return Failure::Busy;
        }
        let failure = match error {
            SdkError::ConstructionFailure(_) => Failure::Broken,
            SdkError::ServiceError(service) if service.raw().status().is_client_error() => {
                Failure::Broken
            }
            _ => Failure::Unavailable,
        };
        // The whole chain of causes, without the response's bytes.
        self.complain(&format!("the store: {}", DisplayErrorContext(error)));
        failure
    }

    /// For whoever runs the peer; callers are told a reason, never the store's words.
    fn complain(&self, what: &str) {
        if self.complaints.fetch_add(1, Ordering::Relaxed) < COMPLAINTS_MAX {
            eprintln!("store-twin: {what}");
        }
    }
}

fn record_key(reservation: &str) -> Item {
    Item::from([(RESERVATION_ID.to_owned(), text(reservation))])
}

fn failed(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

/// Codes of what passes by itself, of whole requests and of single actions.
fn is_passing(code: &str) -> bool {
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

    #[test]
    fn endpoints_are_checked() {
        for good in ["http://127.0.0.1:8000", "http://model:8000/"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        let error = check_endpoint("https://dynamodb.eu-west-1.amazonaws.com");
        assert!(matches!(error, Err(EndpointError::Tls(_))), "{error:?}");
        for bad in ["", "127.0.0.1:8000", "http://", "http://a b", "ftp://x"] {
            let error = check_endpoint(bad);
            assert!(matches!(error, Err(EndpointError::Malformed(_))), "{bad}");
        }
    }
}
