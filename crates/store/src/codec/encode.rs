//! Encodes a transaction as a request body.

use super::fields::timestamp;
use super::json::JsonWriter;
use super::records::{RecordExpressions, WriteInstant, purge_at};
use super::seats::SeatExpressions;
use super::stripes::StripeExpressions;
use crate::settings::TableNames;
use inventory_core::transaction::{RequestToken, Transaction};

/// Data that all requests of one shard's store share.
pub(crate) struct TransactionEncoder {
    stripes: StripeExpressions,
    records: RecordExpressions,
    seats: SeatExpressions,
}

impl TransactionEncoder {
    pub(crate) fn new(tables: &TableNames) -> Self {
        Self {
            stripes: StripeExpressions::new(&tables.inventory),
            records: RecordExpressions::new(&tables.idempotency),
            seats: SeatExpressions::new(&tables.seats),
        }
    }

    /// Encodes a `TransactWriteItems` as JSON: one action per stripe, then per record, then per seat that a record
    /// moves, then for the confirmation counter. The same transaction always gives the same bytes.
    pub(crate) fn body(&self, transaction: &Transaction) -> String {
        let at = timestamp(transaction.at);
        let now =
            WriteInstant { at: &at, millis: transaction.at, purge_at: purge_at(transaction.at) };
        let mut json = JsonWriter::for_actions(transaction.action_count());
        json.raw("{\"ClientRequestToken\":");
        json.quoted(&token_text(transaction.token));
        json.raw(",\"ReturnConsumedCapacity\":\"TOTAL\",\"TransactItems\":");
        let mut before = "[";
        let mut next = |json: &mut JsonWriter| json.raw(std::mem::replace(&mut before, ","));
        for stripe in &transaction.stripes {
            next(&mut json);
            self.stripes.write(&mut json, &transaction.event, stripe, &at);
        }
        for record in &transaction.records {
            next(&mut json);
            self.records.write(&mut json, &transaction.event, record, &now);
        }
        for record in &transaction.records {
            for seat in record.seats_moved() {
                next(&mut json);
                self.seats.write(&mut json, transaction, record, seat, &at);
            }
        }
        if let Some(counter) = &transaction.counter {
            next(&mut json);
            self.stripes.write_counter(&mut json, &transaction.event, counter, &at);
        }
        json.raw("]}");
        json.into_text()
    }
}

/// The request token as sent: 32 of at most 36 characters.
pub(crate) fn token_text(token: RequestToken) -> String {
    format!("{:032x}", token.0)
}
