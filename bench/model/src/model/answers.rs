//! The JSON of answers.

use std::collections::BTreeMap;

use crate::attribute::write_attributes;
use crate::capacity::Throttled;
use crate::error::{Code, Error};
use crate::json::write_string;
use crate::packed::Item;
use crate::request::{Body, Request, Told};

const ADVICE: &str = "Throughput exceeds the current capacity of your table or index. DynamoDB is \
                      automatically scaling your table or index so please try again shortly.";

/// Why one action of a transaction stands in its way.
#[derive(Clone, Debug)]
pub(super) enum Reason {
    None,
    ConditionalCheckFailed(Option<Vec<u8>>),
    TransactionConflict,
    Throttled,
    Validation(String),
}

impl Reason {
    fn code(&self) -> &'static str {
        match self {
            Reason::None => "None",
            Reason::ConditionalCheckFailed(_) => "ConditionalCheckFailed",
            Reason::TransactionConflict => "TransactionConflict",
            Reason::Throttled => "ThrottlingError",
            Reason::Validation(_) => "ValidationError",
        }
    }

    fn message(&self) -> &str {
        match self {
            Reason::None => "",
            Reason::ConditionalCheckFailed(_) => "The conditional request failed",
            Reason::TransactionConflict => "Transaction is ongoing for the item",
            Reason::Throttled => ADVICE,
            Reason::Validation(why) => why,
        }
    }
}

/// `TransactionCanceledException` with a reason for every action.
pub(super) fn cancelled(reasons: &[Reason]) -> Error {
    let codes: Vec<&str> = reasons.iter().map(Reason::code).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let mut more = b",\"CancellationReasons\":[".to_vec();
    for (at, reason) in reasons.iter().enumerate() {
        if at > 0 {
            more.push(b',');
        }
        more.extend_from_slice(b"{\"Code\":\"");
        more.extend_from_slice(reason.code().as_bytes());
        more.push(b'"');
        if !reason.message().is_empty() {
            more.extend_from_slice(b",\"Message\":");
            write_string(reason.message().as_bytes(), &mut more);
        }
        if let Reason::ConditionalCheckFailed(Some(item)) = reason {
            more.extend_from_slice(b",\"Item\":");
            write_attributes(Item(item).iter(), &mut more);
        }
        more.push(b'}');
    }
    more.push(b']');
    Error::new(Code::TransactionCanceled, message).with(text(more))
}

/// A failed condition of a single write, with what is there if that was wanted.
pub(super) fn condition_failed(old: Option<&[u8]>) -> Error {
    let error = Error::new(
        Code::ConditionalCheckFailed,
        "The conditional request failed",
    );
    let Some(old) = old else {
        return error;
    };
    let mut more = b",\"Item\":".to_vec();
    write_attributes(Item(old).iter(), &mut more);
    error.with(text(more))
}

/// What was written here is UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

pub(super) fn throttled(why: Throttled) -> Error {
    match why {
        Throttled::Partition => Error::new(
            Code::ProvisionedThroughputExceeded,
            "The level of configured provisioned throughput for one or more key ranges of the table or index \
             was exceeded. Consider spreading the load over more partition keys",
        ),
        Throttled::Table => Error::new(Code::Throttling, ADVICE),
    }
}

pub(super) fn conflict() -> Error {
    Error::new(
        Code::TransactionConflict,
        "Transaction is ongoing for the item",
    )
}

fn by_fault(request: &Request, reason: Reason, single: Error) -> Error {
    let count = match &request.body {
        Body::TransactWrite(writes, _) => writes.len(),
        Body::TransactGet(gets) => gets.len(),
        _ => return single,
    };
    let mut reasons = vec![Reason::None; count];
    reasons[0] = reason;
    cancelled(&reasons)
}

pub(super) fn throttled_by_fault(request: &Request) -> Error {
    by_fault(request, Reason::Throttled, throttled(Throttled::Table))
}

pub(super) fn conflict_by_fault(request: &Request) -> Error {
    by_fault(request, Reason::TransactionConflict, conflict())
}

/// What a call cost, by table and index.
#[derive(Debug, Default)]
pub(super) struct Bill {
    tables: BTreeMap<String, Units>,
}

#[derive(Debug, Default)]
struct Units {
    read: f64,
    write: f64,
    indexes: BTreeMap<String, f64>,
}

impl Bill {
    pub(super) fn read(&mut self, table: &str, units: f64) {
        self.tables.entry(table.to_owned()).or_default().read += units;
    }

    pub(super) fn write(&mut self, table: &str, units: f64) {
        self.tables.entry(table.to_owned()).or_default().write += units;
    }

    pub(super) fn index(&mut self, table: &str, index: &str, units: f64) {
        let table = self.tables.entry(table.to_owned()).or_default();
        *table.indexes.entry(index.to_owned()).or_default() += units;
    }

    /// The member `ConsumedCapacity` with a comma before it, if it is wanted.
    pub(super) fn write_json(&self, told: Told, is_list: bool, has_more: bool, out: &mut Vec<u8>) {
        if told == Told::Nothing {
            return;
        }
        let of = |(name, units): (&String, &Units)| {
            let indexes: f64 = units.indexes.values().sum();
            let mut one = serde_json::json!({
                "TableName": name,
                "CapacityUnits": units.read + units.write + indexes,
            });
            if is_list && units.write > 0.0 {
                one["WriteCapacityUnits"] = (units.write + indexes).into();
            }
            if is_list && units.read > 0.0 {
                one["ReadCapacityUnits"] = units.read.into();
            }
            if told == Told::Indexes {
                one["Table"] = serde_json::json!({ "CapacityUnits": units.read + units.write });
                if !units.indexes.is_empty() {
                    let units = units.indexes.iter();
                    let units = units
                        .map(|(name, units)| (name, serde_json::json!({ "CapacityUnits": units })));
                    one["GlobalSecondaryIndexes"] =
                        serde_json::json!(units.collect::<BTreeMap<_, _>>());
                }
            }
            one
        };
        let mut all: Vec<_> = self.tables.iter().map(of).collect();
        if has_more {
            out.push(b',');
        }
        out.extend_from_slice(b"\"ConsumedCapacity\":");
        let json = match is_list {
            true => serde_json::Value::Array(all),
            false => all.pop().unwrap_or_default(),
        };
        out.extend_from_slice(json.to_string().as_bytes());
    }
}
