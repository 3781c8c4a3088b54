//! Requests for the membership item: one update per beat, which returns the whole item.
//!
//! A beat is one attempt with a time limit. Not here: the content of an update, and the decision which processes are
//! alive (`inventory_core::membership`).

use std::time::Duration;

use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue};

use super::codec::{self, Item};
use super::{Store, StoreError};
use crate::limits;
use inventory_core::membership::{MembersRead, MembershipUpdate};

impl Store {
    /// Applies `update` to the membership item and returns the item after it. An update that changes nothing is a read.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call. After [`StoreError::Unavailable`] the update may have been applied.
    pub async fn update_members(
        &self,
        update: &MembershipUpdate,
        limit: Duration,
    ) -> Result<MembersRead, StoreError> {
        let item = match codec::members_expression(update) {
            None => self.get_members(limit).await?,
            Some(expression) => {
                let attempt = self
                    .client()
                    .update_item()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .table_name(&self.tables().inventory)
                    .set_key(Some(codec::members_key()))
                    .update_expression(expression.update.trim_start())
                    .set_expression_attribute_names(Some(expression.names))
                    .set_expression_attribute_values(expression.values)
                    .return_values(ReturnValue::AllNew)
                    .send();
                let table = &self.tables().inventory;
                self.call("UpdateItem", table, limit, attempt).await?.attributes
            }
        };
        Ok(codec::members(item.as_ref()))
    }

    /// The membership item; strongly consistent.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn read_members(&self) -> Result<MembersRead, StoreError> {
        let item = self.get_members(limits::STORE_ADMIN_CALL_TIMEOUT).await?;
        Ok(codec::members(item.as_ref()))
    }

    async fn get_members(&self, limit: Duration) -> Result<Option<Item>, StoreError> {
        let attempt = self
            .client()
            .get_item()
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .table_name(&self.tables().inventory)
            .set_key(Some(codec::members_key()))
            .consistent_read(true)
            .send();
        let table = &self.tables().inventory;
        Ok(self.call("GetItem", table, limit, attempt).await?.item)
    }
}
