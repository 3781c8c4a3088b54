//! Building a transaction's actions.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::TransactWriteItem;

use super::fields::timestamp;
use super::records::{Instant, RecordShapes, purge_at};
use super::seats::SeatShapes;
use super::stripes::StripeShapes;
use crate::domain::transaction::Transaction;
use crate::store::settings::TableNames;

/// What every request of one shard's store shares.
pub(in crate::store) struct Encoder {
    tables: TableNames,
    stripes: StripeShapes,
    records: RecordShapes,
    seats: SeatShapes,
}

impl Encoder {
    pub(in crate::store) fn new(tables: &TableNames) -> Self {
        Self {
            tables: tables.clone(),
            stripes: StripeShapes::new(),
            records: RecordShapes::new(),
            seats: SeatShapes::new(),
        }
    }

    /// One action per stripe, then one per record, then one per seat that a record moves, in order.
    pub(in crate::store) fn actions(
        &self,
        transaction: &Transaction,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let at = timestamp(transaction.at);
        let now = Instant {
            at: &at,
            millis: transaction.at,
            purge_at: purge_at(transaction.at),
        };
        let mut actions = Vec::with_capacity(transaction.action_count());
        for stripe in &transaction.stripes {
            let table = &self.tables.inventory;
            let update = self.stripes.action(table, &transaction.event, stripe, &at);
            actions.push(update?);
        }
        for record in &transaction.records {
            let table = &self.tables.idempotency;
            let write = self.records.action(table, transaction, record, &now);
            actions.push(write?);
        }
        for record in &transaction.records {
            let table = &self.tables.seats;
            let seats = &self.seats;
            seats.actions(table, transaction, record, &at, &mut actions)?;
        }
        Ok(actions)
    }
}
