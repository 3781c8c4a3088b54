//! Is this a store that the server can run on?

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnConsumedCapacity, TransactWriteItem};

use super::failure::{Failure, Kind};
use super::{ConnectError, Store, codec};

/// Never written: `#` is not legal in an id, and the condition cannot be true.
const PROBE_ID: &str = "#probe";
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

impl Store {
    /// Sends a transaction that cannot apply, to the idempotency table, and expects its condition
    /// to fail: proves that the store is there, knows transactions, has the table and lets this
    /// server write. Costs two write units.
    ///
    /// # Errors
    /// What is missing, with its cure.
    pub async fn probe(&self) -> Result<(), ConnectError> {
        let table = &self.tables().idempotency;
        let put = Put::builder()
            .table_name(table)
            .item(codec::RESERVATION_ID, AttributeValue::S(PROBE_ID.into()))
            .condition_expression(NEVER)
            .expression_attribute_names("#k", codec::RESERVATION_ID)
            .build();
        let store = || self.inner.place.clone();
        let put = put.map_err(|error| ConnectError::Refused {
            store: store(),
            why: error.to_string(),
        })?;
        let tried = self.persist("TransactWriteItems", table, || {
            self.client()
                .transact_write_items()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .transact_items(TransactWriteItem::builder().put(put.clone()).build())
                .send()
        });
        let failure: Failure<_> = match tried.await {
            Err(failure) if failure.kind == Kind::Cancelled => return Ok(()),
            Ok(_) => {
                return Err(ConnectError::NoTransactions {
                    store: store(),
                    why: "it applied a transaction whose condition was false".to_owned(),
                });
            }
            Err(failure) => failure,
        };
        let why = failure.text();
        Err(match (failure.code(), failure.kind) {
            (Some("UnknownOperationException"), _) => ConnectError::NoTransactions {
                store: store(),
                why,
            },
            (Some("ResourceNotFoundException"), _) => ConnectError::TableMissing {
                store: store(),
                table: table.clone(),
            },
            (_, Kind::Unknown | Kind::Throttled | Kind::Conflict) => ConnectError::Unreachable {
                store: store(),
                why,
            },
            _ => ConnectError::Refused {
                store: store(),
                why,
            },
        })
    }
}
