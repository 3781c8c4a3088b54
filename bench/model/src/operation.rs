//! Operations by name.

/// An operation of the DynamoDB API that the model supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    const ALL: [(ApiOperation, &'static str); 17] = [
        (ApiOperation::TransactWriteItems, "TransactWriteItems"),
        (ApiOperation::GetItem, "GetItem"),
        (ApiOperation::BatchGetItem, "BatchGetItem"),
        (ApiOperation::Query, "Query"),
        (ApiOperation::Scan, "Scan"),
        (ApiOperation::PutItem, "PutItem"),
        (ApiOperation::UpdateItem, "UpdateItem"),
        (ApiOperation::DeleteItem, "DeleteItem"),
        (ApiOperation::BatchWriteItem, "BatchWriteItem"),
        (ApiOperation::TransactGetItems, "TransactGetItems"),
        (ApiOperation::CreateTable, "CreateTable"),
        (ApiOperation::DeleteTable, "DeleteTable"),
        (ApiOperation::DescribeTable, "DescribeTable"),
        (ApiOperation::ListTables, "ListTables"),
        (ApiOperation::UpdateTable, "UpdateTable"),
        (ApiOperation::DescribeTimeToLive, "DescribeTimeToLive"),
        (ApiOperation::UpdateTimeToLive, "UpdateTimeToLive"),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(operation, _)| *operation)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(operation, _)| *operation == self);
        found.map_or("", |(_, name)| name)
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
