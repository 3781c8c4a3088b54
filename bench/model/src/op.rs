//! The operations' names.

/// An operation of the DynamoDB API that the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
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

impl Op {
    const ALL: [(Op, &'static str); 17] = [
        (Op::TransactWriteItems, "TransactWriteItems"),
        (Op::GetItem, "GetItem"),
        (Op::BatchGetItem, "BatchGetItem"),
        (Op::Query, "Query"),
        (Op::Scan, "Scan"),
        (Op::PutItem, "PutItem"),
        (Op::UpdateItem, "UpdateItem"),
        (Op::DeleteItem, "DeleteItem"),
        (Op::BatchWriteItem, "BatchWriteItem"),
        (Op::TransactGetItems, "TransactGetItems"),
        (Op::CreateTable, "CreateTable"),
        (Op::DeleteTable, "DeleteTable"),
        (Op::DescribeTable, "DescribeTable"),
        (Op::ListTables, "ListTables"),
        (Op::UpdateTable, "UpdateTable"),
        (Op::DescribeTimeToLive, "DescribeTimeToLive"),
        (Op::UpdateTimeToLive, "UpdateTimeToLive"),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(op, _)| *op)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(op, _)| *op == self);
        found.map_or("", |(_, name)| name)
    }

    pub(crate) fn is_on_items(self) -> bool {
        self <= Op::Scan
    }

    /// Whether a transaction under way can be in its way.
    pub(crate) fn can_conflict(self) -> bool {
        matches!(
            self,
            Op::PutItem
                | Op::UpdateItem
                | Op::DeleteItem
                | Op::BatchWriteItem
                | Op::TransactGetItems
                | Op::TransactWriteItems
        )
    }
}
