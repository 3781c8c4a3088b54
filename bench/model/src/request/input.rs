//! Requests on items as JSON, by serde: members and their types. Unknown members are rejected by name.
//!
//! Not here: checks that need tables, expressions or several members.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};

use crate::attribute::InputText;
use crate::error::Error;
use crate::packed::{PackedItem, PackedValue};

/// Attributes that the response to a write contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ReturnValues {
    #[default]
    None,
    AllOld,
    AllNew,
    UpdatedOld,
    UpdatedNew,
}

/// Whether a response reports consumed capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum CapacityDetail {
    #[default]
    None,
    Total,
    Indexes,
}

/// The only value that the model supports.
#[derive(Clone, Copy, Debug, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ItemCollectionMetrics {
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ReturnOnFailure {
    #[default]
    None,
    AllOld,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Select {
    AllAttributes,
    #[default]
    AllProjectedAttributes,
    SpecificAttributes,
    Count,
}

pub(crate) type NameBindings = BTreeMap<String, String>;

/// One write, alone or as an action of a transaction; each operation has a part of the members.
#[derive(Debug, Default, Hash, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(super) struct WriteInput<'a> {
    #[serde(borrow)]
    pub(super) table_name: Option<InputText<'a>>,
    pub(super) item: Option<PackedItem>,
    pub(super) key: Option<PackedItem>,
    #[serde(borrow)]
    pub(super) update_expression: Option<InputText<'a>>,
    #[serde(borrow)]
    pub(super) condition_expression: Option<InputText<'a>>,
    pub(super) expression_attribute_names: Option<NameBindings>,
    pub(super) expression_attribute_values: Option<BTreeMap<String, PackedValue>>,
    pub(super) return_values_on_condition_check_failure: Option<ReturnOnFailure>,
    pub(super) return_values: Option<ReturnValues>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
    pub(super) return_item_collection_metrics: Option<ItemCollectionMetrics>,
}

#[derive(Debug, Hash, Deserialize)]
pub(super) enum ActionInput<'a> {
    Put(#[serde(borrow)] WriteInput<'a>),
    Update(#[serde(borrow)] WriteInput<'a>),
    Delete(#[serde(borrow)] WriteInput<'a>),
    ConditionCheck(#[serde(borrow)] WriteInput<'a>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct TransactWriteInput<'a> {
    #[serde(borrow)]
    pub(super) transact_items: Vec<ActionInput<'a>>,
    pub(super) client_request_token: Option<String>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
    #[serde(rename = "ReturnItemCollectionMetrics")]
    pub(super) _metrics: Option<ItemCollectionMetrics>,
}

/// One entry of a BatchWriteItem, and of its unprocessed items.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum BatchWriteEntry {
    #[serde(rename_all = "PascalCase")]
    PutRequest { item: PackedItem },
    #[serde(rename_all = "PascalCase")]
    DeleteRequest { key: PackedItem },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct BatchWriteInput {
    pub(super) request_items: BTreeMap<String, Vec<BatchWriteEntry>>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct GetInput {
    pub(super) table_name: String,
    pub(super) key: PackedItem,
    pub(super) consistent_read: Option<bool>,
    pub(super) projection_expression: Option<String>,
    pub(super) expression_attribute_names: Option<NameBindings>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
}

#[derive(Debug, Deserialize)]
pub(super) enum ReadActionInput {
    Get(GetInput),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct TransactGetInput {
    pub(super) transact_items: Vec<ReadActionInput>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
}

/// The keys of one table in a BatchGetItem, and in its unprocessed keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct KeysInput {
    pub(crate) keys: Vec<PackedItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consistent_read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) projection_expression: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expression_attribute_names: Option<NameBindings>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct BatchGetInput {
    pub(super) request_items: BTreeMap<String, KeysInput>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
}

/// A Query or Scan; each has a part of the members.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct PageInput {
    pub(super) table_name: String,
    pub(super) index_name: Option<String>,
    pub(super) key_condition_expression: Option<String>,
    pub(super) filter_expression: Option<String>,
    pub(super) projection_expression: Option<String>,
    pub(super) expression_attribute_names: Option<NameBindings>,
    pub(super) expression_attribute_values: Option<BTreeMap<String, PackedValue>>,
    pub(super) exclusive_start_key: Option<PackedItem>,
    pub(super) limit: Option<NonZeroUsize>,
    pub(super) consistent_read: Option<bool>,
    pub(super) scan_index_forward: Option<bool>,
    pub(super) segment: Option<u32>,
    pub(super) total_segments: Option<NonZeroU32>,
    pub(super) select: Option<Select>,
    pub(super) return_consumed_capacity: Option<CapacityDetail>,
}

/// Rejects members that this operation does not have.
pub(super) fn reject_members(operation: &str, members: &[(&str, bool)]) -> Result<(), Error> {
    match members.iter().find(|(_, is_present)| *is_present) {
        None => Ok(()),
        Some((name, _)) => Err(Error::unsupported(format!("the member {name} of {operation}"))),
    }
}
