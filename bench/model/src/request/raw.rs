//! The members that requests on items have, as they come.
//!
//! Must not live here: whether they make sense together.

use std::borrow::Cow;

use crate::attribute::{Arena, Span};
use crate::error::Error;
use crate::expr::Bindings;
use crate::json::Reader;
use crate::key::fingerprint;

/// Which attributes a write answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Returns {
    #[default]
    Nothing,
    AllOld,
    AllNew,
    UpdatedOld,
    UpdatedNew,
}

/// Whether an answer tells what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    Total,
    Indexes,
}

/// Everything that was said, by member.
#[derive(Default)]
pub(super) struct Raw<'a> {
    pub(super) table: Option<Cow<'a, str>>,
    pub(super) index: Option<Cow<'a, str>>,
    pub(super) item: Option<Span>,
    pub(super) key: Option<Span>,
    pub(super) condition: Option<Cow<'a, str>>,
    pub(super) update: Option<Cow<'a, str>>,
    pub(super) key_condition: Option<Cow<'a, str>>,
    pub(super) filter: Option<Cow<'a, str>>,
    pub(super) projection: Option<Cow<'a, str>>,
    pub(super) select: Option<Cow<'a, str>>,
    pub(super) start: Option<Span>,
    pub(super) bindings: Bindings,
    pub(super) has_names: bool,
    pub(super) has_values: bool,
    pub(super) is_old_wanted: bool,
    pub(super) returns: Returns,
    pub(super) told: Told,
    pub(super) is_consistent: bool,
    pub(super) is_backward: bool,
    pub(super) limit: Option<usize>,
    pub(super) segment: Option<usize>,
    pub(super) segments: Option<usize>,
    /// Of all that makes two requests the same, whatever order their members and attributes are in.
    pub(super) fingerprint: u64,
}

/// Refuses a member by name.
pub(super) fn unknown(member: &str, of: &str) -> Error {
    Error::unmodelled(format!("the member {member} of {of}"))
}

fn constraint(member: &str, value: &str, wanted: &str) -> Error {
    Error::validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member \
         must satisfy enum value set: [{wanted}]"
    ))
}

impl<'a> Raw<'a> {
    /// Reads an object whose members are all in `known`; `of` names it.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        arena: &mut Arena,
        of: &str,
        known: &[&str],
    ) -> Result<Self, Error> {
        let mut raw = Self::default();
        reader.object(|reader, name| {
            if !known.contains(&&*name) {
                return Err(unknown(&name, of));
            }
            if reader.null() {
                return Ok(());
            }
            raw.member(reader, arena, &name)
        })?;
        Ok(raw)
    }

    fn note(&mut self, name: &str, content: &[u8]) {
        let name = fingerprint(1, &[name.as_bytes(), content]);
        self.fingerprint = self.fingerprint.wrapping_add(name);
    }

    fn text(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<Option<Cow<'a, str>>, Error> {
        let text = reader.string()?;
        self.note(name, text.as_bytes());
        Ok(Some(text))
    }

    fn attributes(
        &mut self,
        reader: &mut Reader<'a>,
        arena: &mut Arena,
        name: &str,
    ) -> Result<Option<Span>, Error> {
        let span = arena.read_item(reader)?;
        self.note(name, arena.get(span));
        Ok(Some(span))
    }

    fn member(
        &mut self,
        reader: &mut Reader<'a>,
        arena: &mut Arena,
        name: &str,
    ) -> Result<(), Error> {
        match name {
            "TableName" => self.table = self.text(reader, name)?,
            "IndexName" => self.index = self.text(reader, name)?,
            "Item" => self.item = self.attributes(reader, arena, name)?,
            "Key" => self.key = self.attributes(reader, arena, name)?,
            "ConditionExpression" => self.condition = self.text(reader, name)?,
            "UpdateExpression" => self.update = self.text(reader, name)?,
            "KeyConditionExpression" => self.key_condition = self.text(reader, name)?,
            "FilterExpression" => self.filter = self.text(reader, name)?,
            "ProjectionExpression" => self.projection = self.text(reader, name)?,
            "Select" => self.select = self.text(reader, name)?,
            "ExclusiveStartKey" => self.start = self.attributes(reader, arena, name)?,
            "ExpressionAttributeNames" => self.names(reader, arena)?,
            "ExpressionAttributeValues" => self.values(reader, arena)?,
            "ConsistentRead" => self.is_consistent = reader.boolean()?,
            "ScanIndexForward" => self.is_backward = !reader.boolean()?,
            "Limit" => self.limit = Some(self.count(reader, name, 1)?),
            "Segment" => self.segment = Some(self.count(reader, name, 0)?),
            "TotalSegments" => self.segments = Some(self.count(reader, name, 1)?),
            _ => return self.returned(reader, name),
        }
        Ok(())
    }

    /// The members that say what is wanted back.
    fn returned(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), Error> {
        let text = reader.string()?;
        match name {
            "ReturnValuesOnConditionCheckFailure" => {
                self.note(name, text.as_bytes());
                self.is_old_wanted = match &*text {
                    "ALL_OLD" => true,
                    "NONE" => false,
                    other => {
                        return Err(constraint(
                            "returnValuesOnConditionCheckFailure",
                            other,
                            "ALL_OLD, NONE",
                        ));
                    }
                };
            }
            "ReturnValues" => {
                self.returns = match &*text {
                    "NONE" => Returns::Nothing,
                    "ALL_OLD" => Returns::AllOld,
                    "ALL_NEW" => Returns::AllNew,
                    "UPDATED_OLD" => Returns::UpdatedOld,
                    "UPDATED_NEW" => Returns::UpdatedNew,
                    other => {
                        let wanted = "ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW";
                        return Err(constraint("returnValues", other, wanted));
                    }
                };
            }
            "ReturnConsumedCapacity" => self.told = told(&text)?,
            "ReturnItemCollectionMetrics" if text == "NONE" => {}
            "ReturnItemCollectionMetrics" => {
                return Err(Error::unmodelled(format!(
                    "ReturnItemCollectionMetrics {text}"
                )));
            }
            other => return Err(unknown(other, "a request")),
        }
        Ok(())
    }

    fn count(&self, reader: &mut Reader<'a>, name: &str, min: usize) -> Result<usize, Error> {
        let value = reader.integer()?;
        let fits = usize::try_from(value)
            .ok()
            .filter(|count| (min..=1_000_000_000).contains(count));
        fits.ok_or_else(|| {
            Error::validation(format!(
                "1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: \
                 Member must have value greater than or equal to {min}"
            ))
        })
    }

    pub(super) fn names(
        &mut self,
        reader: &mut Reader<'a>,
        arena: &mut Arena,
    ) -> Result<(), Error> {
        self.has_names = true;
        reader.object(|reader, alias| {
            check_alias(&alias, '#', "ExpressionAttributeNames")?;
            let name = reader.string()?;
            if name.is_empty() {
                return Err(Error::validation(format!(
                    "ExpressionAttributeNames contains invalid value: Empty attribute name for key {alias}"
                )));
            }
            let print = fingerprint(2, &[alias.as_bytes(), name.as_bytes()]);
            self.fingerprint = self.fingerprint.wrapping_add(print);
            let pair = (arena.put(alias.as_bytes()), arena.put(name.as_bytes()));
            self.bindings.names.push(pair);
            Ok(())
        })?;
        not_empty(self.bindings.names.len(), "ExpressionAttributeNames")
    }

    fn values(&mut self, reader: &mut Reader<'a>, arena: &mut Arena) -> Result<(), Error> {
        self.has_values = true;
        reader.object(|reader, alias| {
            check_alias(&alias, ':', "ExpressionAttributeValues")?;
            let pair = (arena.put(alias.as_bytes()), arena.read_value(reader)?);
            let print = fingerprint(3, &[alias.as_bytes(), arena.get(pair.1)]);
            self.fingerprint = self.fingerprint.wrapping_add(print);
            self.bindings.values.push(pair);
            Ok(())
        })?;
        not_empty(self.bindings.values.len(), "ExpressionAttributeValues")
    }

    /// Names and values belong to expressions.
    pub(super) fn check_expressions(&self, any: bool) -> Result<(), Error> {
        for (has, what) in [
            (self.has_names, "ExpressionAttributeNames"),
            (self.has_values, "ExpressionAttributeValues"),
        ] {
            if has && !any {
                return Err(Error::validation(format!(
                    "{what} can only be specified when using expressions"
                )));
            }
        }
        Ok(())
    }
}

pub(super) fn told(text: &str) -> Result<Told, Error> {
    match text {
        "NONE" => Ok(Told::Nothing),
        "TOTAL" => Ok(Told::Total),
        "INDEXES" => Ok(Told::Indexes),
        other => Err(constraint(
            "returnConsumedCapacity",
            other,
            "INDEXES, TOTAL, NONE",
        )),
    }
}

fn check_alias(alias: &str, sign: char, member: &str) -> Result<(), Error> {
    let is_good = alias.strip_prefix(sign).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    match is_good {
        true => Ok(()),
        false => Err(Error::validation(format!(
            "{member} contains invalid key: Syntax error; key: \"{alias}\""
        ))),
    }
}

fn not_empty(count: usize, member: &str) -> Result<(), Error> {
    match count {
        0 => Err(Error::validation(format!("{member} must not be empty"))),
        _ => Ok(()),
    }
}
