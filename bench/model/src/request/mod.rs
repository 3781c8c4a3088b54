//! Requests on items: read, checked against the tables' schemas, ready to be carried out.
//!
//! Whatever the request alone shows to be wrong is refused here.
//!
//! Must not live here: anything that depends on what is stored.

mod pages;
mod raw;

use std::rc::Rc;

pub(crate) use pages::{Page, Shows};
pub(crate) use raw::{Returns, Told};

use crate::attribute::{Arena, Span};
use crate::error::Error;
use crate::expr::{Bindings, Cache, Condition, Member, Name, Parsed, Update, Usage, projection};
use crate::json::Reader;
use crate::key::{Key, NoKey, fingerprint, lock_of};
use crate::limits;
use crate::op::Op;
use crate::store::Tables;
use crate::table::Table;
use crate::tokens::Token;
use raw::{Raw, told, unknown};

/// A request and the bytes that its spans are in.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) arena: Arena,
    pub(crate) body: Body,
    pub(crate) told: Told,
}

#[derive(Debug)]
pub(crate) enum Body {
    Write(Box<Write>),
    BatchWrite(Vec<Write>),
    TransactWrite(Vec<Write>, Option<Token>),
    Get(Get),
    BatchGet(Vec<BatchTable>),
    TransactGet(Vec<Get>),
    Page(Box<Page>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteKind {
    Put,
    Update,
    Delete,
    Check,
}

/// One write of one item, or in a transaction a check of one.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) kind: WriteKind,
    pub(crate) table: u32,
    /// The item of a put, the key of the others.
    pub(crate) target: Span,
    /// Of a transaction, why there is none cancels it.
    pub(crate) key: Result<Key, Error>,
    /// What others must not touch meanwhile.
    pub(crate) lock: u64,
    pub(crate) condition: Option<Rc<Parsed<Condition>>>,
    pub(crate) update: Option<Rc<Parsed<Update>>>,
    pub(crate) bindings: Bindings,
    pub(crate) is_old_wanted: bool,
    pub(crate) returns: Returns,
}

#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) table: u32,
    pub(crate) key: Key,
    /// The key as it came.
    pub(crate) target: Span,
    pub(crate) shows: Shows,
    pub(crate) is_consistent: bool,
}

/// The keys of one table in a BatchGetItem.
#[derive(Debug)]
pub(crate) struct BatchTable {
    pub(crate) name: String,
    pub(crate) gets: Vec<Get>,
    /// Its members other than the keys, as JSON, for what is left unprocessed.
    pub(crate) rest: Vec<u8>,
}

/// What may be in a write alone, besides what may be in an action.
const ALONE: [&str; 3] = [
    "ReturnValues",
    "ReturnConsumedCapacity",
    "ReturnItemCollectionMetrics",
];

impl WriteKind {
    /// What may be in an action.
    fn members(self) -> &'static [&'static str] {
        macro_rules! with {
            ($($own:literal),*) => {
                &[
                    "TableName",
                    $($own,)*
                    "ConditionExpression",
                    "ExpressionAttributeNames",
                    "ExpressionAttributeValues",
                    "ReturnValuesOnConditionCheckFailure",
                ]
            };
        }
        match self {
            WriteKind::Put => with!("Item"),
            WriteKind::Update => with!("Key", "UpdateExpression"),
            WriteKind::Delete | WriteKind::Check => with!("Key"),
        }
    }

    fn of_action(name: &str) -> Option<Self> {
        match name {
            "Put" => Some(WriteKind::Put),
            "Update" => Some(WriteKind::Update),
            "Delete" => Some(WriteKind::Delete),
            "ConditionCheck" => Some(WriteKind::Check),
            _ => None,
        }
    }
}

/// Reads requests.
pub(crate) struct Parse<'m> {
    pub(crate) tables: &'m Tables,
    pub(crate) cache: &'m mut Cache,
}

fn missing(member: &str) -> Error {
    Error::validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must \
         not be null"
    ))
}

impl Parse<'_> {
    pub(crate) fn request(&mut self, op: Op, body: &[u8]) -> Result<Request, Error> {
        let mut reader = Reader::new(body)?;
        let mut arena = Arena::with_capacity(body.len() * 2);
        let mut told = Told::default();
        let parsed = match op {
            Op::PutItem => self.alone(&mut reader, &mut arena, WriteKind::Put, &mut told),
            Op::UpdateItem => self.alone(&mut reader, &mut arena, WriteKind::Update, &mut told),
            Op::DeleteItem => self.alone(&mut reader, &mut arena, WriteKind::Delete, &mut told),
            Op::TransactWriteItems => self.transact_write(&mut reader, &mut arena, &mut told),
            Op::TransactGetItems => self.transact_get(&mut reader, &mut arena, &mut told),
            Op::GetItem => self.get(&mut reader, &mut arena, &mut told).map(Body::Get),
            Op::BatchGetItem => self.batch_get(&mut reader, &mut arena, &mut told),
            Op::BatchWriteItem => self.batch_write(&mut reader, &mut arena, &mut told),
            Op::Query | Op::Scan => {
                let page = self.page(op, &mut reader, &mut arena, &mut told);
                page.map(|page| Body::Page(Box::new(page)))
            }
            other => Err(Error::unmodelled(other.name())),
        };
        let body = parsed?;
        reader.end()?;
        Ok(Request { arena, body, told })
    }

    fn table(&self, raw: &Raw<'_>) -> Result<&Table, Error> {
        let name = raw.table.as_deref().ok_or_else(|| missing("tableName"))?;
        self.tables.named(name).ok_or_else(Error::no_table)
    }

    // ---- Writes ---------------------------------------------------------------------------------

    fn alone(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        kind: WriteKind,
        told: &mut Told,
    ) -> Result<Body, Error> {
        let members = [kind.members(), &ALONE].concat();
        let raw = Raw::read(reader, arena, "the request", &members)?;
        *told = raw.told;
        let write = self.write(kind, raw, arena)?;
        if let Err(why) = &write.key {
            return Err(why.clone());
        }
        Ok(Body::Write(Box::new(write)))
    }

    fn write(&mut self, kind: WriteKind, raw: Raw<'_>, arena: &Arena) -> Result<Write, Error> {
        let target = match kind {
            WriteKind::Put => raw.item.ok_or_else(|| missing("item"))?,
            _ => raw.key.ok_or_else(|| missing("key"))?,
        };
        if kind == WriteKind::Check && raw.condition.is_none() {
            return Err(missing("conditionExpression"));
        }
        if !matches!(raw.returns, Returns::Nothing | Returns::AllOld) && kind != WriteKind::Update {
            return Err(Error::validation(
                "ReturnValues can only be ALL_OLD or NONE",
            ));
        }
        raw.check_expressions(raw.condition.is_some() || raw.update.is_some())?;
        let mut cached = |text: Option<&str>| match text {
            None => Ok(None),
            Some(text) => self.cache.condition(text, Member::Condition).map(Some),
        };
        let condition = cached(raw.condition.as_deref())?;
        let update = match (kind, raw.update.as_deref()) {
            (WriteKind::Update, Some(text)) => Some(self.cache.update(text)?),
            _ => None,
        };
        check_usage(&raw, condition.as_deref(), update.as_deref(), arena)?;
        let table = self.table(&raw)?;
        let (key, lock) = match key_of(kind, table, target, update.as_deref(), &raw.bindings, arena)
        {
            Ok(key) => {
                let lock = lock_of(table.id, &key);
                (Ok(key), lock)
            }
            Err(NoKey::Empty(error)) => return Err(error),
            Err(NoKey::Mismatch(error)) => (Err(error), 0),
        };
        Ok(Write {
            kind,
            table: table.id,
            target,
            key,
            lock,
            condition,
            update,
            bindings: raw.bindings,
            is_old_wanted: raw.is_old_wanted,
            returns: raw.returns,
        })
    }

    fn transact_write(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Body, Error> {
        let mut raws: Vec<(WriteKind, Raw<'_>)> = Vec::new();
        let mut token = None;
        let mut has_actions = false;
        reader.object(|reader, name| {
            match &*name {
                _ if reader.null() => {}
                "TransactItems" => {
                    has_actions = true;
                    reader.array(|reader| {
                        raws.push(read_action(reader, arena)?);
                        match raws.len() > limits::TRANSACTION_ACTIONS_MAX {
                            true => Err(too_many("transactItems")),
                            false => Ok(()),
                        }
                    })?;
                }
                "ClientRequestToken" => token = Some(reader.string()?.into_owned()),
                "ReturnConsumedCapacity" => *told = raw::told(&reader.string()?)?,
                "ReturnItemCollectionMetrics" if reader.string()? == "NONE" => {}
                other => return Err(unknown(other, "TransactWriteItems")),
            }
            Ok(())
        })?;
        if !has_actions {
            return Err(missing("transactItems"));
        }
        if raws.is_empty() {
            return Err(too_few("transactItems"));
        }
        let in_order = |sum: u64, (kind, raw): &(WriteKind, Raw<'_>)| {
            sum.rotate_left(5) ^ fingerprint(*kind as u8 + 16, &[&raw.fingerprint.to_ne_bytes()])
        };
        let print = raws.iter().fold(0, in_order);
        let token = match token {
            None => None,
            Some(text) if (1..=limits::TOKEN_CHARS_MAX).contains(&text.chars().count()) => {
                Some(Token::new(&text, print))
            }
            Some(text) => {
                return Err(Error::validation(format!(
                    "1 validation error detected: Value '{text}' at 'clientRequestToken' failed to satisfy \
                     constraint: Member must have length between 1 and {}",
                    limits::TOKEN_CHARS_MAX
                )));
            }
        };
        let mut writes = Vec::with_capacity(raws.len());
        for (kind, raw) in raws {
            writes.push(self.write(kind, raw, arena)?);
        }
        check_transaction(&writes, arena)?;
        Ok(Body::TransactWrite(writes, token))
    }

    fn batch_write(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Body, Error> {
        let mut raws: Vec<(WriteKind, Raw<'_>)> = Vec::new();
        reader.object(|reader, name| match &*name {
            "RequestItems" => reader.object(|reader, table| {
                reader.array(|reader| {
                    reader.object(|reader, name| {
                        let (kind, member) = match &*name {
                            "PutRequest" => (WriteKind::Put, "Item"),
                            "DeleteRequest" => (WriteKind::Delete, "Key"),
                            other => return Err(unknown(other, "a write request")),
                        };
                        let mut raw = Raw::read(reader, arena, &name, &[member])?;
                        raw.table = Some(table.clone());
                        raws.push((kind, raw));
                        match raws.len() > limits::BATCH_WRITE_MAX {
                            true => Err(Error::validation(
                                "Too many items requested for the BatchWriteItem call",
                            )),
                            false => Ok(()),
                        }
                    })
                })
            }),
            "ReturnConsumedCapacity" => {
                *told = raw::told(&reader.string()?)?;
                Ok(())
            }
            other => Err(unknown(other, "BatchWriteItem")),
        })?;
        if raws.is_empty() {
            return Err(too_few("requestItems"));
        }
        let mut writes = Vec::with_capacity(raws.len());
        for (kind, raw) in raws {
            let write = self.write(kind, raw, arena)?;
            if let Err(why) = &write.key {
                return Err(why.clone());
            }
            writes.push(write);
        }
        distinct(&writes, "Provided list of item keys contains duplicates")?;
        Ok(Body::BatchWrite(writes))
    }

    // ---- Reads ----------------------------------------------------------------------------------

    fn get(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Get, Error> {
        let known = [
            "TableName",
            "Key",
            "ConsistentRead",
            "ProjectionExpression",
            "ExpressionAttributeNames",
            "ReturnConsumedCapacity",
        ];
        let raw = Raw::read(reader, arena, "GetItem", &known)?;
        *told = raw.told;
        let target = raw.key.ok_or_else(|| missing("key"))?;
        let shows = Shows::of_raw(&raw, arena)?;
        let table = self.table(&raw)?;
        get(table, target, shows, raw.is_consistent, arena)
    }

    fn transact_get(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Body, Error> {
        let known = [
            "TableName",
            "Key",
            "ProjectionExpression",
            "ExpressionAttributeNames",
        ];
        let mut raws = Vec::new();
        reader.object(|reader, name| match &*name {
            "TransactItems" => reader.array(|reader| {
                reader.object(|reader, name| match &*name {
                    "Get" => {
                        raws.push(Raw::read(reader, arena, "Get", &known)?);
                        Ok(())
                    }
                    other => Err(unknown(other, "a transaction's read")),
                })
            }),
            "ReturnConsumedCapacity" => {
                *told = raw::told(&reader.string()?)?;
                Ok(())
            }
            other => Err(unknown(other, "TransactGetItems")),
        })?;
        match raws.len() {
            0 => return Err(too_few("transactItems")),
            n if n > limits::TRANSACTION_ACTIONS_MAX => return Err(too_many("transactItems")),
            _ => {}
        }
        let mut gets: Vec<Get> = Vec::with_capacity(raws.len());
        for raw in raws {
            let target = raw.key.ok_or_else(|| missing("key"))?;
            let shows = Shows::of_raw(&raw, arena)?;
            let table = self.table(&raw)?;
            gets.push(get(table, target, shows, true, arena)?);
        }
        let mut keys: Vec<_> = gets.iter().map(|get| (get.table, &get.key)).collect();
        keys.sort_unstable();
        match keys.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(twice()),
            false => Ok(Body::TransactGet(gets)),
        }
    }

    fn batch_get(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        told: &mut Told,
    ) -> Result<Body, Error> {
        let mut tables = Vec::new();
        let mut count = 0;
        reader.object(|reader, name| match &*name {
            "RequestItems" => reader.object(|reader, table| {
                let batch = self.batch_table(reader, arena, &table)?;
                count += batch.gets.len();
                tables.push(batch);
                Ok(())
            }),
            "ReturnConsumedCapacity" => {
                *told = self::told(&reader.string()?)?;
                Ok(())
            }
            other => Err(unknown(other, "BatchGetItem")),
        })?;
        match count {
            0 => Err(too_few("requestItems")),
            n if n > limits::BATCH_GET_KEYS_MAX => Err(Error::validation(
                "Too many items requested for the BatchGetItem call",
            )),
            _ => Ok(Body::BatchGet(tables)),
        }
    }

    fn batch_table(
        &mut self,
        reader: &mut Reader<'_>,
        arena: &mut Arena,
        name: &str,
    ) -> Result<BatchTable, Error> {
        let mut keys = Vec::new();
        let mut raw = Raw::default();
        reader.object(|reader, member| {
            match &*member {
                "Keys" => reader.array(|reader| {
                    keys.push(arena.read_item(reader)?);
                    Ok(())
                })?,
                "ConsistentRead" => raw.is_consistent = reader.boolean()?,
                "ProjectionExpression" => raw.projection = Some(reader.string()?),
                "ExpressionAttributeNames" => raw.names(reader, arena)?,
                other => return Err(unknown(other, "KeysAndAttributes")),
            }
            Ok(())
        })?;
        let shows = Shows::of_raw(&raw, arena)?;
        let table = self.tables.named(name).ok_or_else(Error::no_table)?;
        let get = |target: &Span| get(table, *target, shows.clone(), raw.is_consistent, arena);
        let gets: Vec<Get> = keys.iter().map(get).collect::<Result<_, _>>()?;
        let mut keys: Vec<_> = gets.iter().map(|get| &get.key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::validation(
                "Provided list of item keys contains duplicates",
            ));
        }
        Ok(BatchTable {
            name: name.to_owned(),
            gets,
            rest: pages::rest_of_batch(&raw, arena),
        })
    }
}

fn too_few(member: &str) -> Error {
    Error::validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have \
         length greater than or equal to 1"
    ))
}

fn too_many(member: &str) -> Error {
    Error::validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have \
         length less than or equal to {}",
        limits::TRANSACTION_ACTIONS_MAX
    ))
}

fn twice() -> Error {
    Error::validation("Transaction request cannot include multiple operations on one item")
}

fn read_action<'a>(
    reader: &mut Reader<'a>,
    arena: &mut Arena,
) -> Result<(WriteKind, Raw<'a>), Error> {
    let mut action = None;
    reader.object(|reader, name| {
        if reader.null() {
            return Ok(());
        }
        let kind =
            WriteKind::of_action(&name).ok_or_else(|| unknown(&name, "a transaction's action"))?;
        let raw = Raw::read(reader, arena, &name, kind.members())?;
        match action.replace((kind, raw)) {
            None => Ok(()),
            Some(_) => Err(Error::validation(
                "TransactItems can only contain one of Check, Put, Update or Delete",
            )),
        }
    })?;
    action.ok_or_else(|| {
        Error::validation(
            "Invalid Request: TransactWriteRequest should contain Delete or Put or Update request",
        )
    })
}

fn check_usage(
    raw: &Raw<'_>,
    condition: Option<&Parsed<Condition>>,
    update: Option<&Parsed<Update>>,
    arena: &Arena,
) -> Result<(), Error> {
    let mut usage = Usage::default();
    if let Some(update) = update {
        usage.of(update, Member::Update, &raw.bindings, arena)?;
        update.tree.check(&raw.bindings, arena)?;
    }
    if let Some(condition) = condition {
        usage.of(condition, Member::Condition, &raw.bindings, arena)?;
        condition
            .tree
            .check(Member::Condition, &raw.bindings, arena)?;
    }
    usage.check(&raw.bindings, arena)
}

/// The key of a write; refuses an update of a key's attribute.
fn key_of(
    kind: WriteKind,
    table: &Table,
    target: Span,
    update: Option<&Parsed<Update>>,
    bindings: &Bindings,
    arena: &Arena,
) -> Result<Key, NoKey> {
    if kind == WriteKind::Put {
        let item = arena.item(target);
        let key = table.schema.of_item(item)?;
        table.check(item, "Item size has exceeded the maximum allowed size")?;
        return Ok(key);
    }
    let key = table.schema.of_key(arena.item(target))?;
    let mut targets = update.into_iter().flat_map(|update| update.tree.targets());
    match targets.find(|name| table.schema.has(bindings.name(arena, name))) {
        None => Ok(key),
        Some(name) => {
            let name = String::from_utf8_lossy(bindings.name(arena, name)).into_owned();
            Err(NoKey::Mismatch(Error::validation(format!(
                "One or more parameter values were invalid: Cannot update attribute {name}. This attribute is \
                 part of the key"
            ))))
        }
    }
}

fn check_transaction(writes: &[Write], arena: &Arena) -> Result<(), Error> {
    distinct(
        writes,
        "Transaction request cannot include multiple operations on one item",
    )?;
    let size = |write: &Write| arena.item(write.target).size();
    match writes.iter().map(size).sum::<usize>() > limits::TRANSACTION_BYTES_MAX {
        true => Err(Error::validation(
            "Collection size of items exceeded, which can also be caused by the aggregate size of the items \
             in the transaction exceeding the 4MB limit",
        )),
        false => Ok(()),
    }
}

fn distinct(writes: &[Write], why: &str) -> Result<(), Error> {
    let mut keys: Vec<_> = writes
        .iter()
        .filter_map(|write| Some((write.table, write.key.as_ref().ok()?)))
        .collect();
    keys.sort_unstable();
    match keys.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Error::validation(why)),
        false => Ok(()),
    }
}

fn get(
    table: &Table,
    target: Span,
    shows: Shows,
    is_consistent: bool,
    arena: &Arena,
) -> Result<Get, Error> {
    Ok(Get {
        table: table.id,
        key: table.schema.of_key(arena.item(target))?,
        target,
        shows,
        is_consistent,
    })
}

/// Attributes' names, aliases resolved.
pub(crate) type Names = Vec<Vec<u8>>;

/// The names that a projection shows; checks them against what else uses names.
fn projected(
    text: &str,
    bindings: &Bindings,
    arena: &Arena,
) -> Result<(Names, Parsed<Vec<Name>>), Error> {
    let parsed = projection(text)?;
    Usage::default().of(&parsed, Member::Projection, bindings, arena)?;
    let names: Names = parsed
        .tree
        .iter()
        .map(|name| bindings.name(arena, name).to_vec())
        .collect();
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Error::validation(
            "Invalid ProjectionExpression: Two document paths overlap with each other",
        )),
        false => Ok((names, parsed)),
    }
}
