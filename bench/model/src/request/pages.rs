//! Queries and scans, and which attributes reads show.

use std::ops::Bound;
use std::rc::Rc;

use super::raw::Raw;
use super::{Parse, Told, projected};
use crate::attribute::Arena;
use crate::error::Error;
use crate::expr::{Bindings, Compare, Condition, Member, Operand, Parsed, Usage};
use crate::json::{Reader, write_string};
use crate::key::{Key, Schema, SortRange, range};
use crate::op::Op;
use crate::packed::{Kind, Value};
use crate::table::Table;

/// The attributes that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    All,
    Some(Rc<Vec<Vec<u8>>>),
    /// None at all, only how many items.
    Count,
}

impl Shows {
    /// Of a read that has no other expressions.
    pub(super) fn of_raw(raw: &Raw<'_>, arena: &Arena) -> Result<Self, Error> {
        raw.check_expressions(raw.projection.is_some())?;
        let Some(text) = &raw.projection else {
            return Ok(Shows::All);
        };
        let (names, parsed) = projected(text, &raw.bindings, arena)?;
        let mut usage = Usage::default();
        usage.of(&parsed, Member::Projection, &raw.bindings, arena)?;
        usage.check(&raw.bindings, arena)?;
        Ok(Shows::Some(Rc::new(names)))
    }

    pub(crate) fn shows(&self, name: &[u8]) -> bool {
        match self {
            Shows::All => true,
            Shows::Some(names) => names.iter().any(|shown| shown == name),
            Shows::Count => false,
        }
    }
}

/// A Query or Scan.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) table: u32,
    /// Its place in the table; none: the table itself.
    pub(crate) index: Option<usize>,
    pub(crate) from: Bound<Key>,
    pub(crate) to: Bound<Key>,
    pub(crate) is_backward: bool,
    pub(crate) is_consistent: bool,
    /// Items examined at most.
    pub(crate) limit: usize,
    pub(crate) filter: Option<Rc<Parsed<Condition>>>,
    pub(crate) bindings: Bindings,
    pub(crate) shows: Shows,
    /// Of a query: where it is charged. A scan is charged where its items are.
    pub(crate) hash: Option<u64>,
}

const QUERY: [&str; 13] = [
    "TableName",
    "IndexName",
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ExclusiveStartKey",
    "Limit",
    "ConsistentRead",
    "ScanIndexForward",
    "Select",
    "ReturnConsumedCapacity",
];

const SCAN: [&str; 13] = [
    "TableName",
    "IndexName",
    "FilterExpression",
    "ProjectionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ExclusiveStartKey",
    "Limit",
    "ConsistentRead",
    "Segment",
    "TotalSegments",
    "Select",
    "ReturnConsumedCapacity",
];

impl Parse<'_> {
    pub(super) fn page(
        &mut self,
        op: Op,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Page, Error> {
        let known: &[&str] = if op == Op::Query { &QUERY } else { &SCAN };
        let raw = Raw::read(reader, arena, op.name(), known)?;
        *told = raw.told;
        let mut condition = |text: Option<&str>, member| match text {
            None => Ok(None),
            Some(text) => self.cache.condition(text, member).map(Some),
        };
        let keys = condition(raw.key_condition.as_deref(), Member::KeyCondition)?;
        let filter = condition(raw.filter.as_deref(), Member::Filter)?;
        if op == Op::Query && keys.is_none() {
            return Err(Error::validation(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
            ));
        }
        let shows = shows(&raw, keys.as_deref(), filter.as_deref(), arena)?;
        let table = self.table(&raw)?;
        let index = match raw.index.as_deref() {
            None => None,
            Some(name) => Some(table.index(name).ok_or_else(|| {
                Error::validation(format!(
                    "The table does not have the specified index: {name}"
                ))
            })?),
        };
        if index.is_some() && raw.is_consistent {
            return Err(Error::validation(
                "Consistent reads are not supported on global secondary indexes",
            ));
        }
        let schema = index.map_or(&table.schema, |at| &table.indexes[at].schema);
        let (mut from, mut to, hash) = match &keys {
            Some(keys) => {
                let (from, to) = key_range(&keys.tree, schema, &raw.bindings, arena)?;
                let hash = from.hash;
                (Bound::Included(from), Bound::Excluded(to), Some(hash))
            }
            None => {
                let (from, to) = segment(&raw)?;
                (from, to, None)
            }
        };
        if let Some(filter) = &filter {
            check_filter(filter, op, schema, &raw, arena)?;
        }
        if let Some(start) = raw.start {
            let key = start_key(table, index, arena.item(start))?;
            let is_within = match (&from, &to) {
                (Bound::Included(from), Bound::Excluded(to)) => key >= *from && key < *to,
                (Bound::Included(from), _) => key >= *from,
                (_, Bound::Excluded(to)) => key < *to,
                _ => true,
            };
            if !is_within {
                return Err(Error::validation(
                    "The provided starting key is outside query boundaries based on provided conditions",
                ));
            }
            match raw.is_backward {
                false => from = Bound::Excluded(key),
                true => to = Bound::Excluded(key),
            }
        }
        Ok(Page {
            table: table.id,
            index,
            from,
            to,
            is_backward: raw.is_backward,
            is_consistent: raw.is_consistent,
            limit: raw.limit.unwrap_or(usize::MAX),
            filter,
            bindings: raw.bindings,
            shows,
            hash,
        })
    }
}

fn shows(
    raw: &Raw<'_>,
    keys: Option<&Parsed<Condition>>,
    filter: Option<&Parsed<Condition>>,
    arena: &Arena,
) -> Result<Shows, Error> {
    raw.check_expressions(keys.is_some() || filter.is_some() || raw.projection.is_some())?;
    let bindings = &raw.bindings;
    let mut usage = Usage::default();
    for (condition, member) in [(keys, Member::KeyCondition), (filter, Member::Filter)] {
        if let Some(condition) = condition {
            usage.of(condition, member, bindings, arena)?;
            condition.tree.check(member, bindings, arena)?;
        }
    }
    let named = raw
        .projection
        .as_deref()
        .map(|text| projected(text, bindings, arena));
    let named = named.transpose()?;
    if let Some((_, parsed)) = &named {
        usage.of(parsed, Member::Projection, bindings, arena)?;
    }
    usage.check(bindings, arena)?;
    let select = raw.select.as_deref();
    match (named, select) {
        (Some((names, _)), None | Some("SPECIFIC_ATTRIBUTES")) => Ok(Shows::Some(Rc::new(names))),
        (None, None | Some("ALL_ATTRIBUTES" | "ALL_PROJECTED_ATTRIBUTES")) => Ok(Shows::All),
        (None, Some("COUNT")) => Ok(Shows::Count),
        (_, Some(select)) => Err(Error::validation(format!(
            "Select {select} does not go with what is asked for; want ALL_ATTRIBUTES, COUNT, or \
             SPECIFIC_ATTRIBUTES with a ProjectionExpression"
        ))),
    }
}

/// A query must not filter by the attributes of its key.
fn check_filter(
    filter: &Parsed<Condition>,
    op: Op,
    schema: &Schema,
    raw: &Raw<'_>,
    arena: &Arena,
) -> Result<(), Error> {
    if op == Op::Scan {
        return Ok(());
    }
    let mut paths = Vec::new();
    filter.tree.paths(&mut paths);
    let name = |path: &&crate::expr::Name| raw.bindings.name(arena, path).to_vec();
    match paths.iter().map(name).find(|name| schema.has(name)) {
        None => Ok(()),
        Some(name) => Err(Error::validation(format!(
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: {}",
            String::from_utf8_lossy(&name)
        ))),
    }
}

/// The part of the table that a parallel scan's segment reads: by hash.
fn segment(raw: &Raw<'_>) -> Result<(Bound<Key>, Bound<Key>), Error> {
    let (at, count) = match (raw.segment, raw.segments) {
        (None, None) => return Ok((Bound::Unbounded, Bound::Unbounded)),
        (Some(at), Some(count)) if at < count && count <= 1_000_000 => (at as u128, count as u128),
        _ => {
            return Err(Error::validation(
                "Segment and TotalSegments belong together: want 0 <= Segment < TotalSegments <= 1000000",
            ));
        }
    };
    let edge = |n: u128| {
        let hash = u64::try_from((n << 64) / count).ok();
        hash.map(|hash| Key {
            hash,
            bytes: Box::default(),
        })
    };
    let from = edge(at).map_or(Bound::Unbounded, Bound::Included);
    let to = edge(at + 1).map_or(Bound::Unbounded, Bound::Excluded);
    Ok((from, to))
}

fn start_key(
    table: &Table,
    index: Option<usize>,
    start: crate::packed::Item<'_>,
) -> Result<Key, Error> {
    let invalid = || Error::validation("The provided starting key is invalid");
    let Some(at) = index else {
        return table.schema.of_key(start).map_err(|_| invalid());
    };
    let schemas = [&table.schema, &table.indexes[at].schema];
    if start
        .iter()
        .any(|(name, _)| !schemas.iter().any(|schema| schema.has(name)))
    {
        return Err(invalid());
    }
    let table_key = table.schema.of_item(start).map_err(|_| invalid())?;
    schemas[1].check_entry(start, "").map_err(|_| invalid())?;
    schemas[1].of_entry(start, &table_key).ok_or_else(invalid)
}

/// The partition key by equality, the sort key by at most one comparison.
fn key_range(
    condition: &Condition,
    schema: &Schema,
    bindings: &Bindings,
    arena: &Arena,
) -> Result<(Key, Key), Error> {
    let parts: &[Condition] = match condition {
        Condition::All(parts) => parts,
        one => std::slice::from_ref(one),
    };
    let invalid = |why: &str| Error::validation(format!("Invalid KeyConditionExpression: {why}"));
    if parts.len() > 2 {
        return Err(invalid("it has more than two conditions"));
    }
    let value = |operand: &Operand| match operand {
        Operand::Value(alias) => bindings
            .value(arena, alias)
            .ok_or_else(|| invalid("a value is not defined")),
        _ => Err(invalid("a key is compared with something that is no value")),
    };
    let mut partition = None;
    let mut sort = None;
    for part in parts {
        let (path, test) =
            key_test(part, &value).ok_or_else(|| invalid("Invalid operator used"))?;
        let test = test?;
        let name = bindings.name(arena, path);
        let is_partition = schema.partition.name.as_bytes() == name;
        let place = if is_partition {
            &mut partition
        } else {
            &mut sort
        };
        let attribute = match is_partition {
            true => &schema.partition,
            false => match &schema.sort {
                Some(attribute) if attribute.name.as_bytes() == name => attribute,
                _ => {
                    return Err(Error::validation(format!(
                        "Query condition missed key schema element: {}",
                        schema.partition.name
                    )));
                }
            },
        };
        if values_of(&test)
            .iter()
            .any(|value| value.kind != attribute.kind)
        {
            return Err(Error::validation(
                "One or more parameter values were invalid: Condition parameter type does not match schema type",
            ));
        }
        if place.replace(test).is_some() {
            return Err(invalid("a key has more than one condition"));
        }
    }
    match partition {
        Some(SortRange::Equal(value)) if !value.content.is_empty() => {
            Ok(range(value, &sort.unwrap_or(SortRange::All)))
        }
        Some(SortRange::Equal(_)) => Err(Error::validation(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain \
             an empty string value",
        )),
        Some(_) => Err(Error::validation("Query key condition not supported")),
        None => Err(Error::validation(format!(
            "Query condition missed key schema element: {}",
            schema.partition.name
        ))),
    }
}

type Test<'a> = (&'a crate::expr::Name, Result<SortRange<'a>, Error>);

fn key_test<'a>(
    condition: &'a Condition,
    value: &dyn Fn(&Operand) -> Result<Value<'a>, Error>,
) -> Option<Test<'a>> {
    match condition {
        Condition::Compare(Operand::Path(path), compare, right) => {
            let of = match compare {
                Compare::Equal => SortRange::Equal,
                Compare::Less => SortRange::Less,
                Compare::AtMost => SortRange::AtMost,
                Compare::More => SortRange::More,
                Compare::AtLeast => SortRange::AtLeast,
                Compare::Unequal => return None,
            };
            Some((path, value(right).map(of)))
        }
        Condition::Between(Operand::Path(path), low, high) => {
            let both = value(low).and_then(|low| Ok((low, value(high)?)));
            Some((path, both.map(|(low, high)| SortRange::Between(low, high))))
        }
        Condition::BeginsWith(Operand::Path(path), prefix) => {
            let prefix = value(prefix).and_then(|prefix| match prefix.kind {
                Kind::S | Kind::B => Ok(SortRange::BeginsWith(prefix)),
                _ => Err(Error::validation("begins_with wants a string or a binary")),
            });
            Some((path, prefix))
        }
        _ => None,
    }
}

fn values_of<'a>(test: &SortRange<'a>) -> Vec<Value<'a>> {
    match test {
        SortRange::All => Vec::new(),
        SortRange::Between(low, high) => vec![*low, *high],
        SortRange::Equal(value)
        | SortRange::Less(value)
        | SortRange::AtMost(value)
        | SortRange::More(value)
        | SortRange::AtLeast(value)
        | SortRange::BeginsWith(value) => vec![*value],
    }
}

/// The members of a BatchGetItem's table besides its keys, each with a comma behind.
pub(super) fn rest_of_batch(raw: &Raw<'_>, arena: &Arena) -> Vec<u8> {
    let mut out = Vec::new();
    if raw.is_consistent {
        out.extend_from_slice(b"\"ConsistentRead\":true,");
    }
    if let Some(text) = &raw.projection {
        out.extend_from_slice(b"\"ProjectionExpression\":");
        write_string(text.as_bytes(), &mut out);
        out.push(b',');
    }
    if !raw.bindings.names.is_empty() {
        out.extend_from_slice(b"\"ExpressionAttributeNames\":{");
        for (at, (alias, name)) in raw.bindings.names.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(arena.get(*alias), &mut out);
            out.push(b':');
            write_string(arena.get(*name), &mut out);
        }
        out.extend_from_slice(b"},");
    }
    out
}
