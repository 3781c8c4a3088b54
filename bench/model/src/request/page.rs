//! Queries and scans, and the attributes that reads show.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::input::{NameBindings, PageInput, Select, reject_members};
use super::{CapacityDetail, RequestParser, bindings};
use crate::error::Error;
use crate::expr::{
    AliasBindings, AliasUsage, AttributeName, Comparator, Condition, ExpressionKind, Operand,
    ParsedExpression, projection,
};
use crate::key::{ItemKey, KeySchema, SortCondition, key_range};
use crate::operation::ApiOperation;
use crate::packed::{AttributeKind, ItemView, ValueView};
use crate::table::Table;

/// Attributes that a read returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadProjection {
    All,
    Names(Rc<Vec<Vec<u8>>>),
    /// No attributes, only the number of items.
    Count,
}

impl ReadProjection {
    /// Projection of a read without other expressions.
    pub(super) fn new(text: Option<String>, names: Option<NameBindings>) -> Result<Self, Error> {
        let bindings = bindings(names, None, text.is_some())?;
        let Some(text) = text else {
            return Ok(Self::All);
        };
        let (names, parsed) = projected_names(&text, &bindings)?;
        let mut usage = AliasUsage::default();
        usage.add(&parsed, ExpressionKind::Projection, &bindings)?;
        usage.check(&bindings)?;
        Ok(Self::Names(Rc::new(names)))
    }

    pub(crate) fn shows(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|shown| shown == name),
            Self::Count => false,
        }
    }
}

/// A Query or Scan.
#[derive(Debug)]
pub(crate) struct PageRequest {
    pub(crate) table: u32,
    /// Position of the index in the table; `None`: the table itself.
    pub(crate) index: Option<usize>,
    pub(crate) from: Bound<ItemKey>,
    pub(crate) to: Bound<ItemKey>,
    pub(crate) is_backward: bool,
    pub(crate) is_consistent: bool,
    /// Maximum number of items examined.
    pub(crate) limit: usize,
    pub(crate) filter: Option<Rc<ParsedExpression<Condition>>>,
    pub(crate) bindings: AliasBindings,
    pub(crate) projection: ReadProjection,
    /// Partition that a query is charged to. A scan is charged to the partition of its first item.
    pub(crate) hash: Option<u64>,
}

impl RequestParser<'_> {
    pub(super) fn page(
        &mut self,
        operation: ApiOperation,
        input: PageInput,
    ) -> Result<(PageRequest, Option<CapacityDetail>), Error> {
        let is_query = operation == ApiOperation::Query;
        check_members(operation, &input)?;
        let mut condition = |text: &Option<String>, kind| match text {
            None => Ok(None),
            Some(text) => self.cache.condition(text, kind).map(Some),
        };
        let keys = condition(&input.key_condition_expression, ExpressionKind::KeyCondition)?;
        let filter = condition(&input.filter_expression, ExpressionKind::Filter)?;
        let has_expression =
            keys.is_some() || filter.is_some() || input.projection_expression.is_some();
        let bindings = bindings(
            input.expression_attribute_names,
            input.expression_attribute_values,
            has_expression,
        )?;
        let projection = page_projection(
            input.projection_expression.as_deref(),
            &input.select.unwrap_or_default(),
            keys.as_deref(),
            filter.as_deref(),
            &bindings,
        )?;
        let table = self.table(&input.table_name)?;
        let is_consistent = input.consistent_read.unwrap_or_default();
        let index = find_index(table, input.index_name.as_deref(), is_consistent)?;
        let schema = index.map_or(&table.schema, |at| &table.indexes[at].schema);
        let (mut from, mut to, hash) = match &keys {
            Some(keys) => {
                let (from, to) = query_range(&keys.tree, schema, &bindings)?;
                let hash = from.hash;
                (Bound::Included(from), Bound::Excluded(to), Some(hash))
            }
            None => {
                let total = input.total_segments.map(|total| total.get());
                let (from, to) = segment_range(input.segment, total)?;
                (from, to, None)
            }
        };
        if let (Some(filter), true) = (&filter, is_query) {
            check_filter(&filter.tree, schema, &bindings)?;
        }
        let is_backward = input.scan_index_forward == Some(false);
        if let Some(start) = input.exclusive_start_key {
            let key = start_key(table, index, start.view())?;
            check_start_key(&key, &from, &to)?;
            match is_backward {
                false => from = Bound::Excluded(key),
                true => to = Bound::Excluded(key),
            }
        }
        let page = PageRequest {
            table: table.id,
            index,
            from,
            to,
            is_backward,
            is_consistent,
            limit: input.limit.map_or(usize::MAX, |limit| limit.get()),
            filter,
            bindings,
            projection,
            hash,
        };
        Ok((page, input.return_consumed_capacity))
    }
}

/// Rejects the members of the other operation, and a query without a key condition.
fn check_members(operation: ApiOperation, input: &PageInput) -> Result<(), Error> {
    let has_keys = input.key_condition_expression.is_some();
    let members = match operation {
        ApiOperation::Query => [
            ("Segment", input.segment.is_some()),
            ("TotalSegments", input.total_segments.is_some()),
        ],
        _ => [
            ("KeyConditionExpression", has_keys),
            ("ScanIndexForward", input.scan_index_forward.is_some()),
        ],
    };
    reject_members(operation.name(), &members)?;
    match operation == ApiOperation::Query && !has_keys {
        true => Err(Error::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
        )),
        false => Ok(()),
    }
}

/// Position of the index in the table.
fn find_index(
    table: &Table,
    name: Option<&str>,
    is_consistent: bool,
) -> Result<Option<usize>, Error> {
    let Some(name) = name else {
        return Ok(None);
    };
    let index = table.index(name).ok_or_else(|| {
        Error::validation(format!("The table does not have the specified index: {name}"))
    })?;
    match is_consistent {
        true => {
            Err(Error::validation("Consistent reads are not supported on global secondary indexes"))
        }
        false => Ok(Some(index)),
    }
}

/// Attribute names with aliases resolved, and the expression they come from.
type ProjectedNames = (Vec<Vec<u8>>, ParsedExpression<Vec<AttributeName>>);

/// The names of a projection. A name may occur once.
fn projected_names(text: &str, bindings: &AliasBindings) -> Result<ProjectedNames, Error> {
    let parsed = projection(text)?;
    AliasUsage::default().add(&parsed, ExpressionKind::Projection, bindings)?;
    let names: Vec<Vec<u8>> = parsed.tree.iter().map(|name| bindings.name(name).to_vec()).collect();
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Error::validation(
            "Invalid ProjectionExpression: Two document paths overlap with each other",
        )),
        false => Ok((names, parsed)),
    }
}

/// Checks all expressions of a page and returns what it shows.
fn page_projection(
    text: Option<&str>,
    select: &Select,
    keys: Option<&ParsedExpression<Condition>>,
    filter: Option<&ParsedExpression<Condition>>,
    bindings: &AliasBindings,
) -> Result<ReadProjection, Error> {
    let mut usage = AliasUsage::default();
    let conditions = [(keys, ExpressionKind::KeyCondition), (filter, ExpressionKind::Filter)];
    for (condition, kind) in conditions {
        if let Some(condition) = condition {
            usage.add(condition, kind, bindings)?;
            condition.tree.check(kind, bindings)?;
        }
    }
    let projected = text.map(|text| projected_names(text, bindings));
    let projected = projected.transpose()?;
    if let Some((_, parsed)) = &projected {
        usage.add(parsed, ExpressionKind::Projection, bindings)?;
    }
    usage.check(bindings)?;
    match (projected, select) {
        (Some((names, _)), Select::AllProjectedAttributes | Select::SpecificAttributes) => {
            Ok(ReadProjection::Names(Rc::new(names)))
        }
        (None, Select::AllAttributes | Select::AllProjectedAttributes) => Ok(ReadProjection::All),
        (None, Select::Count) => Ok(ReadProjection::Count),
        (_, select) => Err(Error::validation(format!(
            "Select {select:?} cannot be combined with this request: must be ALL_ATTRIBUTES, COUNT, or \
             SPECIFIC_ATTRIBUTES with a ProjectionExpression"
        ))),
    }
}

/// A query must not filter by attributes of its key.
fn check_filter(
    filter: &Condition,
    schema: &KeySchema,
    bindings: &AliasBindings,
) -> Result<(), Error> {
    let mut paths = Vec::new();
    filter.paths(&mut paths);
    let mut names = paths.into_iter().map(|path| bindings.name(path));
    match names.find(|name| schema.has(name)) {
        None => Ok(()),
        Some(name) => Err(Error::validation(format!(
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: {}",
            String::from_utf8_lossy(name)
        ))),
    }
}

/// Range of hashes that a segment of a parallel scan reads.
fn segment_range(
    segment: Option<u32>,
    total: Option<u32>,
) -> Result<(Bound<ItemKey>, Bound<ItemKey>), Error> {
    let (segment, total) = match (segment, total) {
        (None, None) => return Ok((Bound::Unbounded, Bound::Unbounded)),
        (Some(segment), Some(total)) if segment < total && total <= 1_000_000 => {
            (u128::from(segment), u128::from(total))
        }
        _ => {
            return Err(Error::validation(
                "Segment and TotalSegments must be given together, with 0 <= Segment < TotalSegments <= 1000000",
            ));
        }
    };
    let edge = |n: u128| {
        let hash = u64::try_from((n << 64) / total).ok();
        hash.map(|hash| ItemKey { hash, bytes: Box::default() })
    };
    let from = edge(segment).map_or(Bound::Unbounded, Bound::Included);
    let to = edge(segment + 1).map_or(Bound::Unbounded, Bound::Excluded);
    Ok((from, to))
}

fn check_start_key(key: &ItemKey, from: &Bound<ItemKey>, to: &Bound<ItemKey>) -> Result<(), Error> {
    let is_above = !matches!(from, Bound::Included(from) if key < from);
    let is_below = !matches!(to, Bound::Excluded(to) if key >= to);
    match is_above && is_below {
        true => Ok(()),
        false => Err(Error::validation(
            "The provided starting key is outside query boundaries based on provided conditions",
        )),
    }
}

fn start_key(table: &Table, index: Option<usize>, start: ItemView<'_>) -> Result<ItemKey, Error> {
    let invalid = || Error::validation("The provided starting key is invalid");
    let Some(at) = index else {
        return table.schema.key(start).map_err(|_| invalid());
    };
    let schema = &table.indexes[at].schema;
    let is_key = |name: &[u8]| table.schema.has(name) || schema.has(name);
    if start.iter().any(|(name, _)| !is_key(name)) {
        return Err(invalid());
    }
    let table_key = table.schema.item_key(start).map_err(|_| invalid())?;
    schema.check_index_key(start, "").map_err(|_| invalid())?;
    schema.index_key(start, &table_key).ok_or_else(invalid)
}

/// Range of a key condition: the partition key by equality, the sort key by at most one comparison.
fn query_range(
    condition: &Condition,
    schema: &KeySchema,
    bindings: &AliasBindings,
) -> Result<(ItemKey, ItemKey), Error> {
    let parts: &[Condition] = match condition {
        Condition::All(parts) => parts,
        one => std::slice::from_ref(one),
    };
    let invalid = |why: &str| Error::validation(format!("Invalid KeyConditionExpression: {why}"));
    let no_partition = || {
        Error::validation(format!(
            "Query condition missed key schema element: {}",
            schema.partition.name
        ))
    };
    let value = |operand: &Operand| match operand {
        Operand::Value(alias) => {
            bindings.value(alias).ok_or_else(|| invalid("a value is not defined"))
        }
        _ => Err(invalid("a key can only be compared with a value")),
    };
    let mut tests: BTreeMap<&[u8], SortCondition<'_>> = BTreeMap::new();
    for part in parts {
        let (path, test) =
            key_condition(part, &value).ok_or_else(|| invalid("Invalid operator used"))?;
        let (name, test) = (bindings.name(path), test?);
        let mut attributes = schema.attributes();
        let attribute = attributes.find(|attribute| attribute.name.as_bytes() == name);
        let kind = attribute.ok_or_else(no_partition)?.kind;
        if test.values().iter().any(|value| value.kind != kind) {
            return Err(Error::validation(
                "One or more parameter values were invalid: Condition parameter type does not match schema type",
            ));
        }
        if tests.insert(name, test).is_some() {
            return Err(invalid("a key has more than one condition"));
        }
    }
    let partition = tests.remove(schema.partition.name.as_bytes());
    match partition {
        Some(SortCondition::Equal(value)) if !value.content.is_empty() => {
            let sort = tests.into_values().next();
            Ok(key_range(value, &sort.unwrap_or(SortCondition::All)))
        }
        Some(SortCondition::Equal(_)) => Err(Error::validation(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain \
             an empty string value",
        )),
        Some(_) => Err(Error::validation("Query key condition not supported")),
        None => Err(no_partition()),
    }
}

type KeyCondition<'a> = (&'a AttributeName, Result<SortCondition<'a>, Error>);

/// The attribute and test of one condition; `None` if a key cannot be tested like this.
fn key_condition<'a>(
    condition: &'a Condition,
    value: &dyn Fn(&Operand) -> Result<ValueView<'a>, Error>,
) -> Option<KeyCondition<'a>> {
    match condition {
        Condition::Compare(Operand::Path(path), comparator, right) => {
            let test = match comparator {
                Comparator::Equal => SortCondition::Equal,
                Comparator::Less => SortCondition::Less,
                Comparator::LessOrEqual => SortCondition::LessOrEqual,
                Comparator::Greater => SortCondition::Greater,
                Comparator::GreaterOrEqual => SortCondition::GreaterOrEqual,
                Comparator::NotEqual => return None,
            };
            Some((path, value(right).map(test)))
        }
        Condition::Between(Operand::Path(path), low, high) => {
            let bounds = value(low).and_then(|low| Ok((low, value(high)?)));
            let test = bounds.map(|(low, high)| SortCondition::Between(low, high));
            Some((path, test))
        }
        Condition::BeginsWith(Operand::Path(path), prefix) => {
            let prefix = value(prefix).and_then(|prefix| match prefix.kind {
                AttributeKind::S | AttributeKind::B => Ok(SortCondition::BeginsWith(prefix)),
                _ => Err(Error::validation("begins_with requires a string or a binary")),
            });
            Some((path, prefix))
        }
        _ => None,
    }
}
