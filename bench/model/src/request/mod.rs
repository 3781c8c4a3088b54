//! Requests on items: read, checked against the tables' schemas, ready for execution.
//!
//! Everything that the request alone shows to be invalid is rejected here.
//!
//! Not here: anything that depends on stored items.

mod input;
mod page;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::rc::Rc;

pub(crate) use input::{BatchWriteEntry, CapacityDetail, KeysInput, ReturnValues};
pub(crate) use page::{PageRequest, ReadProjection};

use crate::attribute::InputText;
use crate::catalog::TableCatalog;
use crate::error::Error;
use crate::expr::{
    AliasBindings, AliasUsage, Condition, ExpressionCache, ExpressionKind, ParsedExpression,
    UpdateExpression,
};
use crate::key::{ItemKey, KeyError, lock_id, seeded_hasher};
use crate::limits;
use crate::operation::ApiOperation;
use crate::packed::{PackedItem, PackedValue};
use crate::table::Table;
use crate::tokens::RequestToken;
use input::{
    ActionInput, BatchGetInput, BatchWriteInput, GetInput, NameBindings, ReadActionInput,
    ReturnOnFailure, TransactGetInput, TransactWriteInput, WriteInput, reject_members,
};

/// A checked request.
#[derive(Debug)]
pub(crate) struct ItemRequest {
    pub(crate) body: RequestBody,
    pub(crate) detail: CapacityDetail,
}

#[derive(Debug)]
pub(crate) enum RequestBody {
    Write(Box<WriteRequest>),
    BatchWrite(Vec<WriteRequest>),
    TransactWrite(Vec<WriteRequest>, Option<RequestToken>),
    Get(ReadRequest),
    BatchGet(Vec<BatchReadTable>),
    TransactGet(Vec<ReadRequest>),
    Page(Box<PageRequest>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteKind {
    Put,
    Update,
    Delete,
    Check,
}

/// One write of one item, or the condition check of a transaction.
#[derive(Debug)]
pub(crate) struct WriteRequest {
    pub(crate) kind: WriteKind,
    pub(crate) table: u32,
    /// The item of a put, the key of the others.
    pub(crate) target: PackedItem,
    /// In a transaction, an invalid key cancels it.
    pub(crate) key: Result<ItemKey, Error>,
    /// Id of the lock on the item.
    pub(crate) lock: u64,
    pub(crate) condition: Option<Rc<ParsedExpression<Condition>>>,
    pub(crate) update: Option<Rc<ParsedExpression<UpdateExpression>>>,
    pub(crate) bindings: AliasBindings,
    pub(crate) returns_item_on_failure: bool,
    pub(crate) returns: ReturnValues,
}

#[derive(Debug)]
pub(crate) struct ReadRequest {
    pub(crate) table: u32,
    pub(crate) key: ItemKey,
    pub(crate) projection: ReadProjection,
    pub(crate) is_consistent: bool,
}

/// The reads of one table in a BatchGetItem.
#[derive(Debug)]
pub(crate) struct BatchReadTable {
    pub(crate) name: String,
    /// In the order of `input.keys`.
    pub(crate) reads: Vec<ReadRequest>,
    pub(crate) input: KeysInput,
}

/// Reads and checks requests.
pub(crate) struct RequestParser<'m> {
    pub(crate) tables: &'m TableCatalog,
    pub(crate) cache: &'m mut ExpressionCache,
}

fn missing(member: &str) -> Error {
    Error::validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must \
         not be null"
    ))
}

impl RequestParser<'_> {
    pub(crate) fn parse(
        &mut self,
        operation: ApiOperation,
        body: &[u8],
    ) -> Result<ItemRequest, Error> {
        let (body, detail) = match operation {
            ApiOperation::PutItem => {
                self.single_write(WriteKind::Put, serde_json::from_slice(body)?)?
            }
            ApiOperation::UpdateItem => {
                self.single_write(WriteKind::Update, serde_json::from_slice(body)?)?
            }
            ApiOperation::DeleteItem => {
                self.single_write(WriteKind::Delete, serde_json::from_slice(body)?)?
            }
            ApiOperation::TransactWriteItems => {
                self.transact_write(serde_json::from_slice(body)?)?
            }
            ApiOperation::BatchWriteItem => self.batch_write(serde_json::from_slice(body)?)?,
            ApiOperation::GetItem => {
                let input: GetInput = serde_json::from_slice(body)?;
                let detail = input.return_consumed_capacity;
                (RequestBody::Get(self.get(input)?), detail)
            }
            ApiOperation::TransactGetItems => self.transact_get(serde_json::from_slice(body)?)?,
            ApiOperation::BatchGetItem => self.batch_get(serde_json::from_slice(body)?)?,
            ApiOperation::Query | ApiOperation::Scan => {
                let (page, detail) = self.page(operation, serde_json::from_slice(body)?)?;
                (RequestBody::Page(Box::new(page)), detail)
            }
            other => return Err(Error::unsupported(other.name())),
        };
        Ok(ItemRequest { body, detail: detail.unwrap_or_default() })
    }

    fn table(&self, name: &str) -> Result<&Table, Error> {
        self.tables.by_name(name).ok_or_else(Error::no_table)
    }

    // ---- Writes ---------------------------------------------------------------------------------

    fn single_write(
        &mut self,
        kind: WriteKind,
        input: WriteInput<'_>,
    ) -> Result<(RequestBody, Option<CapacityDetail>), Error> {
        let detail = input.return_consumed_capacity;
        let write = self.write(kind, input)?;
        match &write.key {
            Ok(_) => Ok((RequestBody::Write(Box::new(write)), detail)),
            Err(error) => Err(error.clone()),
        }
    }

    fn write(&mut self, kind: WriteKind, input: WriteInput<'_>) -> Result<WriteRequest, Error> {
        let has_update = input.update_expression.is_some();
        reject_members(
            "this operation",
            &[
                ("Item", input.item.is_some() && kind != WriteKind::Put),
                ("Key", input.key.is_some() && kind == WriteKind::Put),
                ("UpdateExpression", has_update && kind != WriteKind::Update),
            ],
        )?;
        let target = match kind {
            WriteKind::Put => input.item.ok_or_else(|| missing("item"))?,
            _ => input.key.ok_or_else(|| missing("key"))?,
        };
        if kind == WriteKind::Check && input.condition_expression.is_none() {
            return Err(missing("conditionExpression"));
        }
        let returns = input.return_values.unwrap_or_default();
        if !matches!(returns, ReturnValues::None | ReturnValues::AllOld)
            && kind != WriteKind::Update
        {
            return Err(Error::validation("ReturnValues can only be ALL_OLD or NONE"));
        }
        let has_expression = input.condition_expression.is_some() || has_update;
        let bindings = bindings(
            input.expression_attribute_names,
            input.expression_attribute_values,
            has_expression,
        )?;
        let condition = input.condition_expression.as_ref();
        let condition = condition
            .map(|text| self.cache.condition(&text.0, ExpressionKind::Condition))
            .transpose()?;
        let update = input.update_expression.as_ref();
        let update = update.map(|text| self.cache.update(&text.0)).transpose()?;
        check_expressions(condition.as_deref(), update.as_deref(), &bindings)?;
        let table = self.table(&input.table_name.ok_or_else(|| missing("tableName"))?.0)?;
        let (key, lock) = match write_key(kind, table, &target, update.as_deref(), &bindings) {
            Ok(key) => {
                let lock = lock_id(table.id, &key);
                (Ok(key), lock)
            }
            Err(KeyError::Empty(error)) => return Err(error),
            Err(KeyError::Mismatch(error)) => (Err(error), 0),
        };
        let on_failure = input.return_values_on_condition_check_failure;
        Ok(WriteRequest {
            kind,
            table: table.id,
            target,
            key,
            lock,
            condition,
            update,
            bindings,
            returns_item_on_failure: on_failure == Some(ReturnOnFailure::AllOld),
            returns,
        })
    }

    fn transact_write(
        &mut self,
        input: TransactWriteInput<'_>,
    ) -> Result<(RequestBody, Option<CapacityDetail>), Error> {
        check_count("transactItems", input.transact_items.len())?;
        let token = input.client_request_token.map(|text| {
            match (1..=limits::TOKEN_CHARS_MAX).contains(&text.chars().count()) {
                true => Ok(RequestToken::new(&text, fingerprint(&input.transact_items))),
                false => Err(Error::validation(format!(
                    "1 validation error detected: Value '{text}' at 'clientRequestToken' failed to satisfy \
                     constraint: Member must have length between 1 and {}",
                    limits::TOKEN_CHARS_MAX
                ))),
            }
        });
        let token = token.transpose()?;
        let mut writes = Vec::with_capacity(input.transact_items.len());
        for action in input.transact_items {
            let (kind, input) = match action {
                ActionInput::Put(input) => (WriteKind::Put, input),
                ActionInput::Update(input) => (WriteKind::Update, input),
                ActionInput::Delete(input) => (WriteKind::Delete, input),
                ActionInput::ConditionCheck(input) => (WriteKind::Check, input),
            };
            reject_members(
                "an action",
                &[
                    ("ReturnValues", input.return_values.is_some()),
                    ("ReturnConsumedCapacity", input.return_consumed_capacity.is_some()),
                    ("ReturnItemCollectionMetrics", input.return_item_collection_metrics.is_some()),
                ],
            )?;
            writes.push(self.write(kind, input)?);
        }
        let size = |write: &WriteRequest| write.target.view().size();
        check_distinct(writes.iter().filter_map(write_place), REPEATED_ITEM)?;
        if writes.iter().map(size).sum::<usize>() > limits::TRANSACTION_BYTES_MAX {
            return Err(Error::validation(
                "Collection size of items exceeded, which can also be caused by the aggregate size of the \
                 items in the transaction exceeding the 4MB limit",
            ));
        }
        let body = RequestBody::TransactWrite(writes, token);
        Ok((body, input.return_consumed_capacity))
    }

    fn batch_write(
        &mut self,
        input: BatchWriteInput,
    ) -> Result<(RequestBody, Option<CapacityDetail>), Error> {
        let count = input.request_items.values().map(Vec::len).sum::<usize>();
        if count > limits::BATCH_WRITE_MAX {
            return Err(Error::validation("Too many items requested for the BatchWriteItem call"));
        }
        check_count("requestItems", count)?;
        let mut writes = Vec::with_capacity(count);
        for (table, entries) in input.request_items {
            for entry in entries {
                let (kind, item, key) = match entry {
                    BatchWriteEntry::PutRequest { item } => (WriteKind::Put, Some(item), None),
                    BatchWriteEntry::DeleteRequest { key } => (WriteKind::Delete, None, Some(key)),
                };
                let input = WriteInput {
                    table_name: Some(InputText(table.as_str().into())),
                    item,
                    key,
                    ..WriteInput::default()
                };
                let write = self.write(kind, input)?;
                if let Err(error) = &write.key {
                    return Err(error.clone());
                }
                writes.push(write);
            }
        }
        check_distinct(writes.iter().filter_map(write_place), DUPLICATE_KEYS)?;
        let body = RequestBody::BatchWrite(writes);
        Ok((body, input.return_consumed_capacity))
    }

    // ---- Reads ----------------------------------------------------------------------------------

    fn get(&self, input: GetInput) -> Result<ReadRequest, Error> {
        let projection =
            ReadProjection::new(input.projection_expression, input.expression_attribute_names)?;
        let table = self.table(&input.table_name)?;
        Ok(ReadRequest {
            table: table.id,
            key: table.schema.key(input.key.view())?,
            projection,
            is_consistent: input.consistent_read.unwrap_or_default(),
        })
    }

    fn transact_get(
        &self,
        input: TransactGetInput,
    ) -> Result<(RequestBody, Option<CapacityDetail>), Error> {
        check_count("transactItems", input.transact_items.len())?;
        let actions = input.transact_items.into_iter();
        let reads: Vec<ReadRequest> =
            actions.map(|ReadActionInput::Get(input)| self.get(input)).collect::<Result<_, _>>()?;
        check_distinct(reads.iter().map(|read| (read.table, &read.key)), REPEATED_ITEM)?;
        Ok((RequestBody::TransactGet(reads), input.return_consumed_capacity))
    }

    fn batch_get(
        &self,
        input: BatchGetInput,
    ) -> Result<(RequestBody, Option<CapacityDetail>), Error> {
        let count = input.request_items.values().map(|table| table.keys.len());
        let count = count.sum::<usize>();
        if count > limits::BATCH_GET_KEYS_MAX {
            return Err(Error::validation("Too many items requested for the BatchGetItem call"));
        }
        check_count("requestItems", count)?;
        let tables = input.request_items.into_iter();
        let tables = tables.map(|(name, input)| self.batch_table(name, input));
        let body = RequestBody::BatchGet(tables.collect::<Result<_, _>>()?);
        Ok((body, input.return_consumed_capacity))
    }

    fn batch_table(&self, name: String, input: KeysInput) -> Result<BatchReadTable, Error> {
        let projection = ReadProjection::new(
            input.projection_expression.clone(),
            input.expression_attribute_names.clone(),
        )?;
        let table = self.table(&name)?;
        let read = |key: &PackedItem| {
            Ok(ReadRequest {
                table: table.id,
                key: table.schema.key(key.view())?,
                projection: projection.clone(),
                is_consistent: input.consistent_read.unwrap_or_default(),
            })
        };
        let reads: Vec<ReadRequest> = input.keys.iter().map(read).collect::<Result<_, Error>>()?;
        check_distinct(reads.iter().map(|read| (read.table, &read.key)), DUPLICATE_KEYS)?;
        Ok(BatchReadTable { name, reads, input })
    }
}

const REPEATED_ITEM: &str = "Transaction request cannot include multiple operations on one item";
const DUPLICATE_KEYS: &str = "Provided list of item keys contains duplicates";

/// Checks the number of actions of a transaction, or that a batch is not empty.
fn check_count(member: &str, count: usize) -> Result<(), Error> {
    let bound = match count {
        0 => "greater than or equal to 1".to_owned(),
        n if n > limits::TRANSACTION_ACTIONS_MAX => {
            format!("less than or equal to {}", limits::TRANSACTION_ACTIONS_MAX)
        }
        _ => return Ok(()),
    };
    Err(Error::validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have \
         length {bound}"
    )))
}

fn write_place(write: &WriteRequest) -> Option<(u32, &ItemKey)> {
    Some((write.table, write.key.as_ref().ok()?))
}

fn check_distinct<'a>(
    places: impl Iterator<Item = (u32, &'a ItemKey)>,
    message: &str,
) -> Result<(), Error> {
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    match places.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Error::validation(message)),
        false => Ok(()),
    }
}

/// Equal for transactions that mean the same, in whatever order their members and attributes are.
fn fingerprint(actions: &[ActionInput<'_>]) -> u64 {
    seeded_hasher(1).hash_one(actions)
}

/// Checks aliases by themselves. Without an expression there must be none.
fn bindings(
    names: Option<NameBindings>,
    values: Option<BTreeMap<String, PackedValue>>,
    has_expression: bool,
) -> Result<AliasBindings, Error> {
    fn check<'a>(
        member: &str,
        sign: char,
        aliases: impl Iterator<Item = &'a String>,
        has_expression: bool,
    ) -> Result<(), Error> {
        if !has_expression {
            return Err(Error::validation(format!(
                "{member} can only be specified when using expressions"
            )));
        }
        let mut aliases = aliases.peekable();
        if aliases.peek().is_none() {
            return Err(Error::validation(format!("{member} must not be empty")));
        }
        let is_valid = |alias: &str| {
            let word = alias.strip_prefix(sign).unwrap_or_default();
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match aliases.find(|alias| !is_valid(alias)) {
            None => Ok(()),
            Some(alias) => Err(Error::validation(format!(
                "{member} contains invalid key: Syntax error; key: \"{alias}\""
            ))),
        }
    }
    if let Some(names) = &names {
        check("ExpressionAttributeNames", '#', names.keys(), has_expression)?;
        if let Some((alias, _)) = names.iter().find(|(_, name)| name.is_empty()) {
            return Err(Error::validation(format!(
                "ExpressionAttributeNames contains invalid value: Empty attribute name for key {alias}"
            )));
        }
    }
    if let Some(values) = &values {
        check("ExpressionAttributeValues", ':', values.keys(), has_expression)?;
    }
    Ok(AliasBindings { names: names.unwrap_or_default(), values: values.unwrap_or_default() })
}

fn check_expressions(
    condition: Option<&ParsedExpression<Condition>>,
    update: Option<&ParsedExpression<UpdateExpression>>,
    bindings: &AliasBindings,
) -> Result<(), Error> {
    let mut usage = AliasUsage::default();
    if let Some(update) = update {
        usage.add(update, ExpressionKind::Update, bindings)?;
        update.tree.check(bindings)?;
    }
    if let Some(condition) = condition {
        usage.add(condition, ExpressionKind::Condition, bindings)?;
        condition.tree.check(ExpressionKind::Condition, bindings)?;
    }
    usage.check(bindings)
}

/// The key of a write. An update must not change an attribute of the key.
fn write_key(
    kind: WriteKind,
    table: &Table,
    target: &PackedItem,
    update: Option<&ParsedExpression<UpdateExpression>>,
    bindings: &AliasBindings,
) -> Result<ItemKey, KeyError> {
    if kind == WriteKind::Put {
        let key = table.schema.item_key(target.view())?;
        table.check(target.view(), "Item size has exceeded the maximum allowed size")?;
        return Ok(key);
    }
    let key = table.schema.key(target.view())?;
    let mut targets = update.into_iter().flat_map(|update| update.tree.targets());
    match targets.find(|name| table.schema.has(bindings.name(name))) {
        None => Ok(key),
        Some(name) => Err(KeyError::Mismatch(Error::validation(format!(
            "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part \
             of the key",
            String::from_utf8_lossy(bindings.name(name))
        )))),
    }
}
