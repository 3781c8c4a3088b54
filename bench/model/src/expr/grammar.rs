//! Grammar of expressions, as a parsing expression grammar (`peg`).
//!
//! What the grammar alone cannot express, such as reserved words, is reported through [`ParseContext`], because
//! `peg` reports only positions.

use std::cell::{Cell, RefCell};

use super::condition::{Comparator, Condition, Operand};
use super::reserved::is_reserved;
use super::update::{UpdateExpression, UpdateOperand, UpdateValue};
use super::{AttributeName, ExpressionKind};
use crate::error::Error;
use crate::limits;

/// Results of a parse besides the tree.
pub(super) struct ParseContext {
    kind: ExpressionKind,
    depth: Cell<usize>,
    error: RefCell<Option<Error>>,
    /// Aliases with their sign, each once.
    names: RefCell<Vec<Box<str>>>,
    values: RefCell<Vec<Box<str>>>,
}

/// A clause of an update expression.
enum Clause {
    Set(Vec<(AttributeName, UpdateValue)>),
    Remove(Vec<AttributeName>),
    Add(Vec<(AttributeName, Box<str>)>),
    Delete(Vec<(AttributeName, Box<str>)>),
}

/// What a rule returns for input that [`ParseContext::reject`] reported.
type Rejected = &'static str;

impl ParseContext {
    pub(super) fn new(kind: ExpressionKind) -> Self {
        Self {
            kind,
            depth: Cell::new(0),
            error: RefCell::new(None),
            names: RefCell::default(),
            values: RefCell::default(),
        }
    }

    /// Names and values that occur.
    pub(super) fn into_aliases(self) -> (Vec<Box<str>>, Vec<Box<str>>) {
        (self.names.into_inner(), self.values.into_inner())
    }

    /// Reports an error. The first one counts: later ones may stem from alternatives that do not apply.
    fn reject<T>(&self, error: Error) -> Result<T, Rejected> {
        self.error.borrow_mut().get_or_insert(error);
        Err("valid input")
    }

    fn invalid<T>(&self, why: impl std::fmt::Display) -> Result<T, Rejected> {
        self.reject(self.kind.invalid(why))
    }

    /// The error of a failed parse.
    fn error(&self, text: &str, failed_at: usize) -> Error {
        if let Some(error) = self.error.take() {
            return error;
        }
        let rest = &text[failed_at..];
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let token = match rest.chars().next() {
            None => "<EOF>",
            Some(first) => &rest[..end.max(first.len_utf8())],
        };
        self.kind.invalid(format!("Syntax error; token: \"{token}\""))
    }

    fn enter(&self) -> Result<(), Rejected> {
        self.depth.set(self.depth.get() + 1);
        match self.depth.get() > limits::EXPRESSION_DEPTH_MAX {
            true => self.invalid(format!(
                "The expression is nested deeper than {}",
                limits::EXPRESSION_DEPTH_MAX
            )),
            false => Ok(()),
        }
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }

    fn name(&self, alias: &str) -> AttributeName {
        note(&self.names, alias);
        AttributeName(alias.into())
    }

    fn value(&self, alias: &str) -> Box<str> {
        note(&self.values, alias);
        alias.into()
    }

    fn attribute(&self, word: &str) -> Result<AttributeName, Rejected> {
        if is_reserved(word) {
            return self.invalid(format!(
                "Attribute name is a reserved keyword; reserved keyword: {word}"
            ));
        }
        match word.starts_with(|first: char| first.is_ascii_digit()) {
            true => Err("an attribute name"),
            false => Ok(AttributeName(word.into())),
        }
    }
}

fn note(known: &RefCell<Vec<Box<str>>>, alias: &str) {
    let mut known = known.borrow_mut();
    if !known.iter().any(|known| **known == *alias) {
        known.push(alias.into());
    }
}

pub(super) fn parse_condition(text: &str, context: &ParseContext) -> Result<Condition, Error> {
    expression::condition(text, context).map_err(|error| context.error(text, error.location.offset))
}

pub(super) fn parse_projection(
    text: &str,
    context: &ParseContext,
) -> Result<Vec<AttributeName>, Error> {
    expression::projection(text, context)
        .map_err(|error| context.error(text, error.location.offset))
}

pub(super) fn parse_update(text: &str, context: &ParseContext) -> Result<UpdateExpression, Error> {
    let clauses = expression::update(text, context)
        .map_err(|error| context.error(text, error.location.offset))?;
    let mut update = UpdateExpression::default();
    for clause in clauses {
        let (name, is_repeated) = match clause {
            Clause::Set(set) => ("SET", !std::mem::replace(&mut update.set, set).is_empty()),
            Clause::Remove(remove) => {
                let before = std::mem::replace(&mut update.remove, remove);
                ("REMOVE", !before.is_empty())
            }
            Clause::Add(add) => ("ADD", !std::mem::replace(&mut update.add, add).is_empty()),
            Clause::Delete(delete) => {
                let before = std::mem::replace(&mut update.delete, delete);
                ("DELETE", !before.is_empty())
            }
        };
        if is_repeated {
            return Err(context.kind.invalid(format!(
                "The \"{name}\" section can only be used once in an update expression;"
            )));
        }
    }
    Ok(update)
}

peg::parser! {
    grammar expression(context: &ParseContext) for str {
        rule _() = quiet!{ [' ' | '\t' | '\n' | '\r']* }
        rule word() -> &'input str = $(['a'..='z' | 'A'..='Z' | '0'..='9' | '_']+)
        rule keyword(expected: &'static str)
            = found:word() _ {? if found.eq_ignore_ascii_case(expected) { Ok(()) } else { Err(expected) } }
        rule function(expected: &'static str)
            = found:word() _ "(" _ {? if found == expected { Ok(()) } else { Err(expected) } }
        rule comma() = "," _
        rule close() = ")" _

        // ---- Operands ----

        rule value() -> Box<str> = alias:$(":" word()) _ { context.value(alias) }
        rule path() -> AttributeName = name:name() _ document_path()? { name }
        rule name() -> AttributeName
            = alias:$("#" word()) { context.name(alias) }
            / unknown_function()
            / word:word() {? context.attribute(word) }
        rule document_path() = ['.' | '['] {? context.reject(Error::unsupported("document paths (a.b, a[0])")) }
        rule unknown_function() -> AttributeName
            = word:word() _ "(" {? context.invalid(format!("Invalid function name; function: {word}")) }
        rule operand() -> Operand
            = function("size") path:path() close() { Operand::Size(path) }
            / value:value() { Operand::Value(value) }
            / path:path() { Operand::Path(path) }

        // ---- Conditions ----

        pub rule condition() -> Condition = _ condition:any() { condition }
        rule any() -> Condition = parts:(all() ++ keyword("OR")) { Condition::any(parts) }
        rule all() -> Condition = parts:(not() ++ keyword("AND")) { Condition::all(parts) }
        rule not() -> Condition = negations:(at:position!() keyword("NOT") { at })* inner:simple() {
            match negations.len() % 2 {
                0 => inner,
                _ => Condition::Not(Box::new(inner)),
            }
        }
        rule simple() -> Condition
            = open() inner:any() close() { context.leave(); inner }
            / test()
            / left:operand() right:comparison() { right.of(left) }
        rule open() = "(" _ {? context.enter() }
        rule test() -> Condition
            = function("attribute_exists") path:path() close() { Condition::Exists(path) }
            / function("attribute_not_exists") path:path() close() {
                Condition::Not(Box::new(Condition::Exists(path)))
            }
            / function("attribute_type") path:path() comma() kind:value() close() { Condition::Type(path, kind) }
            / function("begins_with") of:operand() comma() prefix:operand() close() {
                Condition::BeginsWith(of, prefix)
            }
            / function("contains") of:operand() comma() part:operand() close() { Condition::Contains(of, part) }
        rule comparison() -> Comparison
            = keyword("BETWEEN") low:operand() keyword("AND") high:operand() { Comparison::Between(low, high) }
            / keyword("IN") "(" _ among:(operand() ++ comma()) close() {?
                match among.len() > limits::IN_OPERANDS_MAX {
                    true => context.invalid(format!(
                        "IN has {} operands, more than {}", among.len(), limits::IN_OPERANDS_MAX
                    )),
                    false => Ok(Comparison::In(among)),
                }
            }
            / comparator:comparator() _ right:operand() { Comparison::Compare(comparator, right) }
        rule comparator() -> Comparator
            = "=" { Comparator::Equal }
            / "<>" { Comparator::NotEqual }
            / "<=" { Comparator::LessOrEqual }
            / "<" { Comparator::Less }
            / ">=" { Comparator::GreaterOrEqual }
            / ">" { Comparator::Greater }

        // ---- Updates and projections ----

        pub rule update() -> Vec<Clause> = _ clauses:clause()* { clauses }
        rule clause() -> Clause
            = keyword("SET") set:(assignment() ++ comma()) { Clause::Set(set) }
            / keyword("REMOVE") remove:(path() ++ comma()) { Clause::Remove(remove) }
            / keyword("ADD") add:(path_and_value() ++ comma()) { Clause::Add(add) }
            / keyword("DELETE") delete:(path_and_value() ++ comma()) { Clause::Delete(delete) }
        rule path_and_value() -> (AttributeName, Box<str>) = path:path() value:value() { (path, value) }
        rule assignment() -> (AttributeName, UpdateValue)
            = path:path() "=" _ value:assigned_value() { (path, value) }
        rule assigned_value() -> UpdateValue
            = left:update_operand() "+" _ right:update_operand() { UpdateValue::Sum(left, right) }
            / left:update_operand() "-" _ right:update_operand() { UpdateValue::Difference(left, right) }
            / operand:update_operand() { UpdateValue::Operand(operand) }
        rule nested_operand() -> UpdateOperand = enter() operand:update_operand() { context.leave(); operand }
        rule enter() = {? context.enter() }
        rule update_operand() -> UpdateOperand
            = function("if_not_exists") path:path() comma() otherwise:nested_operand() close() {
                UpdateOperand::IfNotExists(path, Box::new(otherwise))
            }
            / function("list_append") first:nested_operand() comma() second:nested_operand() close() {
                UpdateOperand::ListAppend(Box::new(first), Box::new(second))
            }
            / value:value() { UpdateOperand::Value(value) }
            / path:path() { UpdateOperand::Path(path) }
        pub rule projection() -> Vec<AttributeName> = _ names:(path() ++ comma()) { names }
    }
}

/// Right side of a comparison.
enum Comparison {
    Between(Operand, Operand),
    In(Vec<Operand>),
    Compare(Comparator, Operand),
}

impl Comparison {
    fn of(self, left: Operand) -> Condition {
        match self {
            Self::Between(low, high) => Condition::Between(left, low, high),
            Self::In(among) => Condition::In(left, among),
            Self::Compare(comparator, right) => Condition::Compare(left, comparator, right),
        }
    }
}
