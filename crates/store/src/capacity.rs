//! Consumed capacity as the store reports it. The store reports nothing for failed requests, which are charged
//! too: the figures are lower bounds.

use aws_sdk_dynamodb::operation::{
    batch_get_item::BatchGetItemOutput, create_table::CreateTableOutput,
    describe_table::DescribeTableOutput, describe_time_to_live::DescribeTimeToLiveOutput,
    get_item::GetItemOutput, query::QueryOutput, scan::ScanOutput,
    transact_get_items::TransactGetItemsOutput, transact_write_items::TransactWriteItemsOutput,
    update_item::UpdateItemOutput, update_table::UpdateTableOutput,
    update_time_to_live::UpdateTimeToLiveOutput,
};
use aws_sdk_dynamodb::types::ConsumedCapacity;

use super::seat_reads::SeatQueryOutput;

/// The table capacity that a request consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacityKind {
    Read,
    Write,
}

/// An answer that may report consumed capacity.
pub(super) trait CapacityReport {
    const KIND: CapacityKind;

    /// Per table; empty if nothing is reported.
    fn capacity(&self) -> &[ConsumedCapacity];

    /// In capacity units, over all tables.
    fn units(&self) -> f64 {
        let units = self.capacity().iter().filter_map(|c| c.capacity_units);
        units.sum()
    }
}

// Implements the trait for answers with a field per table, one field, or none.
macro_rules! costs {
    ($kind:ident, many: $($output:ty),+) => {
        $(impl CapacityReport for $output {
            const KIND: CapacityKind = CapacityKind::$kind;

            fn capacity(&self) -> &[ConsumedCapacity] {
                self.consumed_capacity()
            }
        })+
    };
    ($kind:ident, one: $($output:ty),+) => {
        $(impl CapacityReport for $output {
            const KIND: CapacityKind = CapacityKind::$kind;

            fn capacity(&self) -> &[ConsumedCapacity] {
                self.consumed_capacity.as_slice()
            }
        })+
    };
    ($kind:ident, none: $($output:ty),+) => {
        $(impl CapacityReport for $output {
            const KIND: CapacityKind = CapacityKind::$kind;

            fn capacity(&self) -> &[ConsumedCapacity] {
                &[]
            }
        })+
    };
}

costs!(Write, many: TransactWriteItemsOutput);
costs!(Write, one: UpdateItemOutput);
costs!(Read, many: BatchGetItemOutput, TransactGetItemsOutput);
costs!(Read, one: GetItemOutput, QueryOutput, ScanOutput);

impl CapacityReport for SeatQueryOutput {
    const KIND: CapacityKind = CapacityKind::Read;

    fn capacity(&self) -> &[ConsumedCapacity] {
        self.consumed.as_slice()
    }
}

costs!(Read, none: CreateTableOutput, DescribeTableOutput, DescribeTimeToLiveOutput,
    UpdateTableOutput, UpdateTimeToLiveOutput);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_of_a_transaction_is_reported_per_table() {
        let of = |units| ConsumedCapacity::builder().capacity_units(units).build();
        let answer = TransactWriteItemsOutput::builder()
            .consumed_capacity(of(2.0))
            .consumed_capacity(of(198.0))
            .build();
        assert!((answer.units() - 200.0).abs() < f64::EPSILON);
        let silent = TransactWriteItemsOutput::builder().build();
        assert!(silent.units().abs() < f64::EPSILON);
    }
}
