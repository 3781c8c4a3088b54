//! Checks whether the server can run on a store.

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnConsumedCapacity, TransactWriteItem};

use super::failure::{CallFailure, FailureKind};
use super::{Store, StoreConnectError, codec};
use crate::limits;
use inventory_runtime::clock;

/// Not legal in an id, so it is no reservation. Written only after writes have failed, by
/// [`Store::probe_write`].
const PROBE_ID: &str = "#probe";
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

impl Store {
    /// Makes one cheap read. The observer sees whether the store answers.
    pub async fn probe_read(&self) {
        let table = &self.tables().idempotency;
        let attempt = self
            .client()
            .get_item()
            .table_name(table)
            .key(codec::RESERVATION_ID, AttributeValue::S(PROBE_ID.into()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send();
        let _observed = self.call("GetItem", table, limits::STORE_PROBE_TIMEOUT, attempt).await;
    }

    /// Makes one write. The observer sees whether the store applies it, which a condition that fails would not show: a full
    /// disk fails writes only. The item is overwritten each time, and purged by the store's TTL.
    pub async fn probe_write(&self) {
        let table = &self.tables().idempotency;
        let purge_at = codec::purge_at(clock::now().unix);
        let put = Put::builder()
            .table_name(table)
            .item(codec::RESERVATION_ID, AttributeValue::S(PROBE_ID.into()))
            .item(codec::PURGE_AT, AttributeValue::N(purge_at.to_string()))
            .build();
        let Ok(put) = put else { return };
        let attempt = self
            .client()
            .transact_write_items()
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .transact_items(TransactWriteItem::builder().put(put).build())
            .send();
        let limit = limits::STORE_PROBE_TIMEOUT;
        let _observed = self.call("TransactWriteItems", table, limit, attempt).await;
    }

    /// Sends a transaction that cannot apply to the idempotency table and expects its condition to fail. This
    /// proves that the store answers, supports transactions, has the table and accepts writes of this server.
    /// Costs two write units.
    ///
    /// # Errors
    /// The cause and its fix.
    pub async fn probe(&self) -> Result<(), StoreConnectError> {
        let table = &self.tables().idempotency;
        let put = Put::builder()
            .table_name(table)
            .item(codec::RESERVATION_ID, AttributeValue::S(PROBE_ID.into()))
            .condition_expression(NEVER)
            .expression_attribute_names("#k", codec::RESERVATION_ID)
            .build();
        let store = || self.inner.place.clone();
        let put = put.map_err(|error| StoreConnectError::Refused {
            store: store(),
            why: error.to_string(),
        })?;
        let tried = self.call_with_retries("TransactWriteItems", table, || {
            self.client()
                .transact_write_items()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .transact_items(TransactWriteItem::builder().put(put.clone()).build())
                .send()
        });
        let failure: CallFailure<_> = match tried.await {
            Err(failure) if failure.kind == FailureKind::Cancelled => return Ok(()),
            Ok(_) => {
                return Err(StoreConnectError::NoTransactions {
                    store: store(),
                    why: "it applied a transaction whose condition was false".to_owned(),
                });
            }
            Err(failure) => failure,
        };
        let why = failure.text();
        Err(match (failure.code(), failure.kind) {
            (Some("UnknownOperationException"), _) => {
                StoreConnectError::NoTransactions { store: store(), why }
            }
            (Some("ResourceNotFoundException"), _) => {
                StoreConnectError::TableMissing { store: store(), table: table.clone() }
            }
            (
                _,
                FailureKind::NotSent
                | FailureKind::Unknown
                | FailureKind::Throttled
                | FailureKind::Conflict,
            ) => StoreConnectError::Unreachable { store: store(), why },
            _ => StoreConnectError::Refused { store: store(), why },
        })
    }
}
