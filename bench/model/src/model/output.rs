//! Responses: consumed capacity, cancellation reasons, errors of execution.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::capacity::ThrottleCause;
use crate::error::{Code, Error};
use crate::packed::ItemView;
use crate::request::{CapacityDetail, ItemRequest, RequestBody};

const THROTTLED_MESSAGE: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is \
                                 automatically scaling your table or index so please try again shortly.";

/// JSON of a response.
pub(super) fn to_body(output: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(output)
        .map_err(|error| Error::new(Code::InternalServerError, error.to_string()))
}

/// Why one action of a transaction prevents it.
#[derive(Clone, Debug)]
pub(super) enum CancellationReason {
    None,
    /// With the stored item, if the action asks for it.
    ConditionalCheckFailed(Option<Box<[u8]>>),
    TransactionConflict,
    Throttled,
    Validation(String),
}

impl CancellationReason {
    fn code(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ConditionalCheckFailed(_) => "ConditionalCheckFailed",
            Self::TransactionConflict => "TransactionConflict",
            Self::Throttled => "ThrottlingError",
            Self::Validation(_) => "ValidationError",
        }
    }

    fn to_json(&self) -> Json {
        let mut reason = json!({ "Code": self.code() });
        let message = match self {
            Self::None => return reason,
            Self::ConditionalCheckFailed(item) => {
                if let Some(item) = item {
                    reason["Item"] = json!(ItemView(item));
                }
                "The conditional request failed"
            }
            Self::TransactionConflict => "Transaction is ongoing for the item",
            Self::Throttled => THROTTLED_MESSAGE,
            Self::Validation(message) => message,
        };
        reason["Message"] = json!(message);
        reason
    }
}

/// `TransactionCanceledException` with one reason per action.
pub(super) fn cancelled(reasons: &[CancellationReason]) -> Error {
    let codes: Vec<&str> = reasons.iter().map(CancellationReason::code).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let reasons = reasons.iter().map(CancellationReason::to_json).collect();
    Error::new(Code::TransactionCanceled, message).with("CancellationReasons", reasons)
}

/// A failed condition of a single write, with the stored item if the request asks for it.
pub(super) fn condition_failed(stored: Option<ItemView<'_>>) -> Error {
    let error = Error::new(Code::ConditionalCheckFailed, "The conditional request failed");
    match stored {
        None => error,
        Some(item) => error.with("Item", json!(item)),
    }
}

pub(super) fn throttled(cause: ThrottleCause) -> Error {
    match cause {
        ThrottleCause::Partition => Error::new(
            Code::ProvisionedThroughputExceeded,
            "The level of configured provisioned throughput for one or more key ranges of the table or index \
             was exceeded. Consider spreading the load over more partition keys",
        ),
        ThrottleCause::Table => Error::new(Code::Throttling, THROTTLED_MESSAGE),
    }
}

pub(super) fn conflict() -> Error {
    Error::new(Code::TransactionConflict, "Transaction is ongoing for the item")
}

/// The error of an injected fault: a transaction reports it as the reason of its first action.
fn injected(request: &ItemRequest, reason: CancellationReason, single: Error) -> Error {
    let actions = match &request.body {
        RequestBody::TransactWrite(writes, _) => writes.len(),
        RequestBody::TransactGet(reads) => reads.len(),
        _ => return single,
    };
    let mut reasons = vec![CancellationReason::None; actions];
    reasons[0] = reason;
    cancelled(&reasons)
}

pub(super) fn injected_throttling(request: &ItemRequest) -> Error {
    let single = throttled(ThrottleCause::Table);
    injected(request, CancellationReason::Throttled, single)
}

pub(super) fn injected_conflict(request: &ItemRequest) -> Error {
    injected(request, CancellationReason::TransactionConflict, conflict())
}

/// Units that a request consumed, by table and index.
#[derive(Debug, Default)]
pub(super) struct ConsumedCapacity {
    tables: BTreeMap<String, ConsumedUnits>,
}

#[derive(Debug, Default)]
struct ConsumedUnits {
    read: f64,
    write: f64,
    indexes: BTreeMap<String, f64>,
}

impl ConsumedCapacity {
    fn table(&mut self, table: &str) -> &mut ConsumedUnits {
        self.tables.entry(table.to_owned()).or_default()
    }

    pub(super) fn read(&mut self, table: &str, units: f64) {
        self.table(table).read += units;
    }

    pub(super) fn write(&mut self, table: &str, units: f64) {
        self.table(table).write += units;
    }

    pub(super) fn index(&mut self, table: &str, index: &str, units: f64) {
        let indexes = &mut self.table(table).indexes;
        *indexes.entry(index.to_owned()).or_default() += units;
    }

    /// The member `ConsumedCapacity` of a request on one table.
    pub(super) fn of_table(&self, detail: CapacityDetail) -> Option<Json> {
        let first = self.tables.iter().next();
        let (name, units) = first.filter(|_| detail != CapacityDetail::None)?;
        Some(units.to_json(name, detail, false))
    }

    /// The member `ConsumedCapacity` of a request on several tables.
    pub(super) fn of_tables(&self, detail: CapacityDetail) -> Option<Json> {
        let tables = self.tables.iter();
        let tables = tables.map(|(name, units)| units.to_json(name, detail, true));
        (detail != CapacityDetail::None).then(|| tables.collect())
    }
}

impl ConsumedUnits {
    fn to_json(&self, table: &str, detail: CapacityDetail, is_split: bool) -> Json {
        let indexes: f64 = self.indexes.values().sum();
        let mut json = json!({
            "TableName": table,
            "CapacityUnits": self.read + self.write + indexes,
        });
        if is_split && self.write > 0.0 {
            json["WriteCapacityUnits"] = (self.write + indexes).into();
        }
        if is_split && self.read > 0.0 {
            json["ReadCapacityUnits"] = self.read.into();
        }
        if detail == CapacityDetail::Indexes {
            json["Table"] = json!({ "CapacityUnits": self.read + self.write });
            if !self.indexes.is_empty() {
                let indexes = self.indexes.iter();
                let indexes =
                    indexes.map(|(name, units)| (name.clone(), json!({ "CapacityUnits": units })));
                json["GlobalSecondaryIndexes"] = Json::Object(indexes.collect());
            }
        }
        json
    }
}
