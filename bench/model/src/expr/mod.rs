//! Expressions: parsed once per text, checked against the names and values of each request, evaluated on
//! items.
//!
//! Document paths (`a.b`, `a[0]`) are rejected by name: the server addresses whole attributes.
//!
//! Not here: which requests have expressions, what a failed condition leads to.

mod condition;
mod grammar;
mod reserved;
mod update;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

pub(crate) use condition::{Comparator, Condition, Operand, holds};
pub(crate) use update::{UpdateExpression, apply};

use crate::error::Error;
use crate::limits;
use crate::packed::{PackedValue, ValueView};
use grammar::ParseContext;

/// An attribute name as written, or an alias, `#name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttributeName(Box<str>);

/// A parsed expression and its aliases, each once and with its sign.
#[derive(Debug)]
pub(crate) struct ParsedExpression<T> {
    pub(crate) tree: T,
    names: Vec<Box<str>>,
    values: Vec<Box<str>>,
}

/// Member of a request that holds an expression; for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ExpressionKind {
    Condition,
    KeyCondition,
    Filter,
    Projection,
    Update,
}

impl ExpressionKind {
    fn name(self) -> &'static str {
        match self {
            Self::Condition => "ConditionExpression",
            Self::KeyCondition => "KeyConditionExpression",
            Self::Filter => "FilterExpression",
            Self::Projection => "ProjectionExpression",
            Self::Update => "UpdateExpression",
        }
    }

    fn invalid(self, why: impl std::fmt::Display) -> Error {
        Error::validation(format!("Invalid {}: {why}", self.name()))
    }
}

/// Names and values that a request's aliases stand for. Aliases keep their sign.
#[derive(Debug, Default)]
pub(crate) struct AliasBindings {
    pub(crate) names: BTreeMap<String, String>,
    pub(crate) values: BTreeMap<String, PackedValue>,
}

impl AliasBindings {
    /// Name of an attribute. Undefined aliases were rejected before.
    pub(crate) fn name<'a>(&'a self, name: &'a AttributeName) -> &'a [u8] {
        match name.0.starts_with('#') {
            true => self.names.get(&*name.0).map_or(&[], |name| name.as_bytes()),
            false => name.0.as_bytes(),
        }
    }

    pub(crate) fn value(&self, alias: &str) -> Option<ValueView<'_>> {
        self.values.get(alias)?.view()
    }
}

/// Parsed expressions by text. Bounded by [`limits::EXPRESSIONS_MAX`]; a full cache is cleared.
#[derive(Debug, Default)]
pub(crate) struct ExpressionCache {
    conditions: HashMap<Box<str>, Rc<ParsedExpression<Condition>>>,
    updates: HashMap<Box<str>, Rc<ParsedExpression<UpdateExpression>>>,
}

fn parse<T>(
    text: &str,
    kind: ExpressionKind,
    parser: impl FnOnce(&str, &ParseContext) -> Result<T, Error>,
) -> Result<ParsedExpression<T>, Error> {
    if text.trim().is_empty() {
        return Err(kind.invalid("The expression can not be empty;"));
    }
    if text.len() > limits::EXPRESSION_BYTES_MAX {
        return Err(kind.invalid(format!(
            "Expression size has exceeded the maximum allowed size; expression size: {}",
            text.len()
        )));
    }
    let context = ParseContext::new(kind);
    let tree = parser(text, &context)?;
    let (names, values) = context.into_aliases();
    Ok(ParsedExpression { tree, names, values })
}

fn cached<T>(
    cache: &mut HashMap<Box<str>, Rc<ParsedExpression<T>>>,
    text: &str,
    parse: impl FnOnce() -> Result<ParsedExpression<T>, Error>,
) -> Result<Rc<ParsedExpression<T>>, Error> {
    if let Some(parsed) = cache.get(text) {
        return Ok(parsed.clone());
    }
    let parsed = Rc::new(parse()?);
    if cache.len() >= limits::EXPRESSIONS_MAX {
        cache.clear();
    }
    cache.insert(text.into(), parsed.clone());
    Ok(parsed)
}

impl ExpressionCache {
    /// A condition, key condition or filter.
    pub(crate) fn condition(
        &mut self,
        text: &str,
        kind: ExpressionKind,
    ) -> Result<Rc<ParsedExpression<Condition>>, Error> {
        cached(&mut self.conditions, text, || parse(text, kind, grammar::parse_condition))
    }

    pub(crate) fn update(
        &mut self,
        text: &str,
    ) -> Result<Rc<ParsedExpression<UpdateExpression>>, Error> {
        cached(&mut self.updates, text, || {
            parse(text, ExpressionKind::Update, grammar::parse_update)
        })
    }
}

/// Attributes named by a projection.
pub(crate) fn projection(text: &str) -> Result<ParsedExpression<Vec<AttributeName>>, Error> {
    parse(text, ExpressionKind::Projection, grammar::parse_projection)
}

/// Collects the aliases that a request's expressions use: undefined and unused aliases are errors.
#[derive(Default)]
pub(crate) struct AliasUsage<'a> {
    names: Vec<&'a str>,
    values: Vec<&'a str>,
}

impl<'a> AliasUsage<'a> {
    pub(crate) fn add<T>(
        &mut self,
        parsed: &'a ParsedExpression<T>,
        kind: ExpressionKind,
        bindings: &AliasBindings,
    ) -> Result<(), Error> {
        for alias in &parsed.names {
            if !bindings.names.contains_key(&**alias) {
                return Err(kind.invalid(format!(
                    "An expression attribute name used in the document path is not defined; attribute \
                     name: {alias}"
                )));
            }
            self.names.push(alias);
        }
        for alias in &parsed.values {
            if !bindings.values.contains_key(&**alias) {
                return Err(kind.invalid(format!(
                    "An expression attribute value used in expression is not defined; attribute value: \
                     {alias}"
                )));
            }
            self.values.push(alias);
        }
        Ok(())
    }

    /// Rejects aliases that no expression uses.
    pub(crate) fn check(&self, bindings: &AliasBindings) -> Result<(), Error> {
        let unused = |alias: Option<&String>, member: &str| match alias {
            None => Ok(()),
            Some(alias) => Err(Error::validation(format!(
                "Value provided in {member} unused in expressions: keys: {{{alias}}}"
            ))),
        };
        let mut names = bindings.names.keys();
        let name = names.find(|alias| !self.names.contains(&alias.as_str()));
        unused(name, "ExpressionAttributeNames")?;
        let mut values = bindings.values.keys();
        let value = values.find(|alias| !self.values.contains(&alias.as_str()));
        unused(value, "ExpressionAttributeValues")
    }
}
