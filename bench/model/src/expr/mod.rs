//! Expressions: parsed once per text, checked against the names and values of each request, evaluated
//! on items.
//!
//! Document paths (`a.b`, `a[0]`) are refused by name: the server addresses whole attributes.
//!
//! Must not live here: which requests have expressions, what a failed condition leads to.

mod condition;
mod lex;
mod parse;
mod reserved;
mod update;

use std::collections::HashMap;
use std::rc::Rc;

pub(crate) use condition::{Compare, Condition, Operand, holds};
pub(crate) use update::{Update, apply};

use crate::attribute::{Arena, Span};
use crate::error::Error;
use crate::limits;
use crate::packed::Value;
use parse::Parser;

/// An attribute's name: as it stands, or what a `#alias` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Box<str>);

/// A parsed expression and the aliases in it.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) tree: T,
    /// With their `#`, each once.
    names: Vec<Box<str>>,
    /// With their `:`, each once.
    values: Vec<Box<str>>,
}

/// Which expression of a request; for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Member {
    Condition,
    KeyCondition,
    Filter,
    Projection,
    Update,
}

impl Member {
    fn name(self) -> &'static str {
        match self {
            Member::Condition => "ConditionExpression",
            Member::KeyCondition => "KeyConditionExpression",
            Member::Filter => "FilterExpression",
            Member::Projection => "ProjectionExpression",
            Member::Update => "UpdateExpression",
        }
    }

    fn invalid(self, why: impl std::fmt::Display) -> Error {
        Error::validation(format!("Invalid {}: {why}", self.name()))
    }
}

/// What a request's aliases stand for: pairs of an alias, with its sign, and a name or value.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    pub(crate) names: Vec<(Span, Span)>,
    pub(crate) values: Vec<(Span, Span)>,
}

impl Bindings {
    fn find(pairs: &[(Span, Span)], arena: &Arena, alias: &str) -> Option<Span> {
        let mut pairs = pairs.iter();
        let found = pairs.find(|(name, _)| arena.get(*name) == alias.as_bytes());
        found.map(|(_, to)| *to)
    }

    /// The attribute's name; an alias without one was refused before.
    pub(crate) fn name<'a>(&self, arena: &'a Arena, name: &'a Name) -> &'a [u8] {
        match name.0.starts_with('#') {
            true => Self::find(&self.names, arena, &name.0).map_or(&[], |span| arena.get(span)),
            false => name.0.as_bytes(),
        }
    }

    pub(crate) fn value<'a>(&self, arena: &'a Arena, alias: &str) -> Option<Value<'a>> {
        let span = Self::find(&self.values, arena, alias)?;
        Value::of(arena.get(span))
    }
}

/// Parsed expressions by their text. Bounded by [`limits::EXPRESSIONS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    conditions: HashMap<Box<str>, Rc<Parsed<Condition>>>,
    updates: HashMap<Box<str>, Rc<Parsed<Update>>>,
}

fn cached<T>(
    known: &mut HashMap<Box<str>, Rc<Parsed<T>>>,
    text: &str,
    member: Member,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, Error>,
) -> Result<Rc<Parsed<T>>, Error> {
    if let Some(found) = known.get(text) {
        return Ok(found.clone());
    }
    if text.trim().is_empty() {
        return Err(member.invalid("The expression can not be empty;"));
    }
    if text.len() > limits::EXPRESSION_BYTES_MAX {
        return Err(member.invalid(format!(
            "Expression size has exceeded the maximum allowed size; expression size: {}",
            text.len()
        )));
    }
    let mut parser = Parser::new(text, member)?;
    let tree = parse(&mut parser)?;
    let (names, values) = parser.finish()?;
    let parsed = Rc::new(Parsed {
        tree,
        names,
        values,
    });
    if known.len() >= limits::EXPRESSIONS_MAX {
        known.clear();
    }
    known.insert(text.into(), parsed.clone());
    Ok(parsed)
}

impl Cache {
    /// A condition, key condition or filter.
    pub(crate) fn condition(
        &mut self,
        text: &str,
        member: Member,
    ) -> Result<Rc<Parsed<Condition>>, Error> {
        cached(&mut self.conditions, text, member, |parser| {
            parser.condition()
        })
    }

    pub(crate) fn update(&mut self, text: &str) -> Result<Rc<Parsed<Update>>, Error> {
        cached(&mut self.updates, text, Member::Update, |parser| {
            parser.update()
        })
    }
}

/// The attributes that a projection names.
pub(crate) fn projection(text: &str) -> Result<Parsed<Vec<Name>>, Error> {
    let mut one = HashMap::new();
    let parsed = cached(&mut one, text, Member::Projection, |parser| {
        parser.projection()
    })?;
    drop(one);
    Rc::try_unwrap(parsed).map_err(|_| Error::validation("a projection is in use"))
}

/// Gathers what a request's expressions use of its names and values: what is missing is refused, and
/// what is left over.
#[derive(Default)]
pub(crate) struct Usage<'a> {
    names: Vec<&'a str>,
    values: Vec<&'a str>,
}

impl<'a> Usage<'a> {
    pub(crate) fn of<T>(
        &mut self,
        parsed: &'a Parsed<T>,
        member: Member,
        bindings: &Bindings,
        arena: &Arena,
    ) -> Result<(), Error> {
        for alias in &parsed.names {
            if Bindings::find(&bindings.names, arena, alias).is_none() {
                return Err(member.invalid(format!(
                    "An expression attribute name used in the document path is not defined; attribute \
                     name: {alias}"
                )));
            }
            self.names.push(alias);
        }
        for alias in &parsed.values {
            if Bindings::find(&bindings.values, arena, alias).is_none() {
                return Err(member.invalid(format!(
                    "An expression attribute value used in expression is not defined; attribute value: \
                     {alias}"
                )));
            }
            self.values.push(alias);
        }
        Ok(())
    }

    /// Nothing may be declared that no expression uses.
    pub(crate) fn check(&self, bindings: &Bindings, arena: &Arena) -> Result<(), Error> {
        let unused = |pairs: &[(Span, Span)], used: &[&str], what: &str| {
            for (alias, _) in pairs {
                let alias = arena.get(*alias);
                if !used.iter().any(|used| used.as_bytes() == alias) {
                    let alias = String::from_utf8_lossy(alias);
                    return Err(Error::validation(format!(
                        "Value provided in {what} unused in expressions: keys: {{{alias}}}"
                    )));
                }
            }
            Ok(())
        };
        unused(&bindings.names, &self.names, "ExpressionAttributeNames")?;
        unused(&bindings.values, &self.values, "ExpressionAttributeValues")
    }
}
