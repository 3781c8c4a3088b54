//! Operations by name.

use strum::{EnumString, IntoStaticStr};

/// An operation of the DynamoDB API that the model supports; those on items first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr)]
pub(crate) enum ApiOperation {
    GetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    BatchGetItem,
    BatchWriteItem,
    TransactGetItems,
    TransactWriteItems,
    Query,
    Scan,
    CreateTable,
    DeleteTable,
    DescribeTable,
    ListTables,
    UpdateTable,
    DescribeTimeToLive,
    UpdateTimeToLive,
}

impl ApiOperation {
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn is_on_items(self) -> bool {
        self <= ApiOperation::Scan
    }

    /// Whether the operation can meet a transaction in flight.
    pub(crate) fn can_conflict(self) -> bool {
        matches!(
            self,
            ApiOperation::PutItem
                | ApiOperation::UpdateItem
                | ApiOperation::DeleteItem
                | ApiOperation::BatchWriteItem
                | ApiOperation::TransactGetItems
                | ApiOperation::TransactWriteItems
        )
    }
}
