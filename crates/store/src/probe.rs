//! Checks whether the server can run on a store.

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnConsumedCapacity, TransactWriteItem};

use super::failure::{CallFailure, FailureKind};
use super::{Store, StoreConnectError, codec};

/// Never written: `#` is not legal in an id, and the condition is never true.
const PROBE_ID: &str = "#probe";
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

impl Store {
    /// Sends a transaction that cannot apply to the idempotency table and expects its condition to fail. This
    /// proves that the store answers, supports transactions, has the table and accepts writes of this server.
    /// Costs two write units.
    ///
    /// # Errors
    /// The cause and its cure.
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
