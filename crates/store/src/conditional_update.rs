//! One conditional write of one item, off the request path.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::codec::{ConditionalUpdate, Item};
use super::failure::{CallFailure, FailureKind};
use super::{Store, StoreError};
use crate::limits;

/// Outcome of a [`ConditionalUpdate`].
pub(super) enum UpdateOutcome {
    Applied,
    /// The condition failed on this item; `None`: there is no item.
    ConditionFailed(Option<Item>),
}

impl Store {
    /// Applies `change`, with retries while transactions conflict with it. The change must be idempotent,
    /// because an answer may be lost.
    pub(super) async fn update_if(
        &self,
        table: &str,
        change: &ConditionalUpdate,
    ) -> Result<UpdateOutcome, StoreError> {
        let mut made = 1;
        loop {
            let updated = self.call_with_retries("UpdateItem", table, || {
                self.client()
                    .update_item()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .table_name(table)
                    .set_key(Some(change.key.clone()))
                    .update_expression(&*change.shape.update)
                    .condition_expression(&*change.shape.condition)
                    .set_expression_attribute_names(Some(change.shape.names.clone()))
                    .set_expression_attribute_values(Some(change.values.clone()))
                    .return_values_on_condition_check_failure(
                        ReturnValuesOnConditionCheckFailure::AllOld,
                    )
                    .send()
            });
            let failure = match updated.await {
                Ok(_) => return Ok(UpdateOutcome::Applied),
                Err(failure) => failure,
            };
            if let Some(found) = found_instead(&failure) {
                return Ok(UpdateOutcome::ConditionFailed(found.cloned()));
            }
            // On a stripe that is being sold, about half of the time a transaction is in progress.
            if failure.kind != FailureKind::Conflict || made == limits::STORE_ADMIN_ATTEMPTS_MAX {
                return Err(failure.into());
            }
            made += 1;
        }
    }
}

/// The item on which a condition failed; `None` for any other failure.
fn found_instead(failure: &CallFailure<UpdateItemError>) -> Option<Option<&Item>> {
    let error = failure.error.as_ref()?.as_service_error()?;
    match error {
        UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed.item()),
        _ => None,
    }
}
