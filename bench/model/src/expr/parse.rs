//! From words to trees, by descent.

use super::condition::{Compare, Condition, Operand};
use super::lex::{Token, tokens};
use super::reserved::is_reserved;
use super::update::{Assigned, Term, Update};
use super::{Member, Name};
use crate::error::Error;
use crate::limits;

/// Each once.
pub(super) type Aliases = Vec<Box<str>>;

pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    member: Member,
    names: Vec<Box<str>>,
    values: Vec<Box<str>>,
}

fn note(known: &mut Vec<Box<str>>, alias: &str) {
    if !known.iter().any(|known| **known == *alias) {
        known.push(alias.into());
    }
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, member: Member) -> Result<Self, Error> {
        Ok(Self {
            tokens: tokens(text, member)?,
            at: 0,
            depth: 0,
            member,
            names: Vec::new(),
            values: Vec::new(),
        })
    }

    /// The names and the values met; an error unless everything was read.
    pub(super) fn finish(self) -> Result<(Aliases, Aliases), Error> {
        match self.peek() {
            None => Ok((self.names, self.values)),
            Some(_) => self.unexpected(),
        }
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn unexpected<T>(&self) -> Result<T, Error> {
        let token = self.peek().map_or("<EOF>", Token::text);
        Err(self
            .member
            .invalid(format!("Syntax error; token: \"{token}\"")))
    }

    fn mark(&mut self, mark: &str) -> bool {
        let is_it = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(is_it);
        is_it
    }

    fn want(&mut self, mark: &str) -> Result<(), Error> {
        match self.mark(mark) {
            true => Ok(()),
            false => self.unexpected(),
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let is_it =
            matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    /// The name of a function that opens here.
    fn function(&mut self) -> Option<&'a str> {
        let (Some(Token::Word(word)), Some(Token::Mark("("))) =
            (self.peek(), self.tokens.get(self.at + 1).copied())
        else {
            return None;
        };
        let keywords = ["NOT", "AND", "OR", "IN", "BETWEEN"];
        if keywords
            .iter()
            .any(|keyword| keyword.eq_ignore_ascii_case(word))
        {
            return None;
        }
        self.at += 2;
        Some(word)
    }

    fn no_function<T>(&self, name: &str) -> Result<T, Error> {
        Err(self
            .member
            .invalid(format!("Invalid function name; function: {name}")))
    }

    fn path(&mut self) -> Result<Name, Error> {
        let name = match self.peek() {
            Some(Token::Name(alias)) => {
                note(&mut self.names, alias);
                alias
            }
            Some(Token::Word(word)) if is_reserved(word) => {
                return Err(self.member.invalid(format!(
                    "Attribute name is a reserved keyword; reserved keyword: {word}"
                )));
            }
            Some(Token::Word(word)) if !word.starts_with(|c: char| c.is_ascii_digit()) => word,
            _ => return self.unexpected(),
        };
        self.at += 1;
        match self.peek() {
            Some(Token::Mark("." | "[")) => Err(Error::unmodelled(format!(
                "document paths; {} has one that begins with {name}",
                self.member.name()
            ))),
            _ => Ok(Name(name.into())),
        }
    }

    fn value(&mut self) -> Result<Box<str>, Error> {
        let Some(Token::Value(alias)) = self.peek() else {
            return self.unexpected();
        };
        self.at += 1;
        note(&mut self.values, alias);
        Ok(alias.into())
    }

    // ---- Conditions -----------------------------------------------------------------------------

    pub(super) fn condition(&mut self) -> Result<Condition, Error> {
        self.depth += 1;
        if self.depth > limits::EXPRESSION_DEPTH_MAX {
            return Err(self.member.invalid(format!(
                "The expression is nested deeper than {}",
                limits::EXPRESSION_DEPTH_MAX
            )));
        }
        let mut any = vec![self.all()?];
        while self.keyword("OR") {
            any.push(self.all()?);
        }
        self.depth -= 1;
        Ok(Condition::any(any))
    }

    fn all(&mut self) -> Result<Condition, Error> {
        let mut all = vec![self.not()?];
        while self.keyword("AND") {
            all.push(self.not()?);
        }
        Ok(Condition::all(all))
    }

    fn not(&mut self) -> Result<Condition, Error> {
        let mut is_negated = false;
        while self.keyword("NOT") {
            is_negated = !is_negated;
        }
        let inner = self.simple()?;
        Ok(match is_negated {
            true => Condition::Not(Box::new(inner)),
            false => inner,
        })
    }

    fn simple(&mut self) -> Result<Condition, Error> {
        if self.mark("(") {
            let inner = self.condition()?;
            self.want(")")?;
            return Ok(inner);
        }
        let start = self.at;
        match self.function() {
            None | Some("size") => self.at = start,
            Some(name) => return self.test(name),
        }
        let left = self.operand()?;
        if self.keyword("BETWEEN") {
            let low = self.operand()?;
            if !self.keyword("AND") {
                return self.unexpected();
            }
            let high = self.operand()?;
            return Ok(Condition::Between(left, low, high));
        }
        if self.keyword("IN") {
            return self.list(left);
        }
        let compare = match self.peek() {
            Some(Token::Mark("=")) => Compare::Equal,
            Some(Token::Mark("<>")) => Compare::Unequal,
            Some(Token::Mark("<")) => Compare::Less,
            Some(Token::Mark("<=")) => Compare::AtMost,
            Some(Token::Mark(">")) => Compare::More,
            Some(Token::Mark(">=")) => Compare::AtLeast,
            _ => return self.unexpected(),
        };
        self.at += 1;
        Ok(Condition::Compare(left, compare, self.operand()?))
    }

    fn list(&mut self, left: Operand) -> Result<Condition, Error> {
        self.want("(")?;
        let mut among = vec![self.operand()?];
        while self.mark(",") {
            among.push(self.operand()?);
        }
        self.want(")")?;
        match among.len() > limits::IN_OPERANDS_MAX {
            true => Err(self.member.invalid(format!(
                "IN has {} operands, more than {}",
                among.len(),
                limits::IN_OPERANDS_MAX
            ))),
            false => Ok(Condition::In(left, among)),
        }
    }

    fn test(&mut self, name: &str) -> Result<Condition, Error> {
        let condition = match name {
            "attribute_exists" => Condition::Exists(self.path()?),
            "attribute_not_exists" => Condition::Not(Box::new(Condition::Exists(self.path()?))),
            "attribute_type" => {
                let path = self.path()?;
                self.want(",")?;
                Condition::Type(path, self.value()?)
            }
            "begins_with" => {
                let of = self.operand()?;
                self.want(",")?;
                Condition::BeginsWith(of, self.operand()?)
            }
            "contains" => {
                let of = self.operand()?;
                self.want(",")?;
                Condition::Contains(of, self.operand()?)
            }
            name => return self.no_function(name),
        };
        self.want(")")?;
        Ok(condition)
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        match (self.peek(), self.function()) {
            (_, Some("size")) => {
                let path = self.path()?;
                self.want(")")?;
                Ok(Operand::Size(path))
            }
            (_, Some(name)) => self.no_function(name),
            (Some(Token::Value(_)), None) => self.value().map(Operand::Value),
            _ => self.path().map(Operand::Path),
        }
    }

    // ---- Updates and projections ----------------------------------------------------------------

    pub(super) fn update(&mut self) -> Result<Update, Error> {
        let mut update = Update::default();
        let mut seen: Vec<&str> = Vec::new();
        while self.peek().is_some() {
            let clauses = ["SET", "REMOVE", "ADD", "DELETE"];
            let Some(clause) = clauses.into_iter().find(|clause| self.keyword(clause)) else {
                return self.unexpected();
            };
            if seen.contains(&clause) {
                return Err(self.member.invalid(format!(
                    "The \"{clause}\" section can only be used once in an update expression;"
                )));
            }
            seen.push(clause);
            loop {
                let path = self.path()?;
                match clause {
                    "SET" => {
                        self.want("=")?;
                        update.set.push((path, self.assigned()?));
                    }
                    "REMOVE" => update.remove.push(path),
                    "ADD" => update.add.push((path, self.value()?)),
                    _ => update.delete.push((path, self.value()?)),
                }
                if !self.mark(",") {
                    break;
                }
            }
        }
        Ok(update)
    }

    fn assigned(&mut self) -> Result<Assigned, Error> {
        let left = self.term()?;
        if self.mark("+") {
            return Ok(Assigned::Plus(left, self.term()?));
        }
        if self.mark("-") {
            return Ok(Assigned::Minus(left, self.term()?));
        }
        Ok(Assigned::Just(left))
    }

    fn term(&mut self) -> Result<Term, Error> {
        self.depth += 1;
        if self.depth > limits::EXPRESSION_DEPTH_MAX {
            return Err(self.member.invalid("The expression is nested too deep"));
        }
        let term = match (self.peek(), self.function()) {
            (_, Some("if_not_exists")) => {
                let path = self.path()?;
                self.want(",")?;
                let or = self.term()?;
                self.want(")")?;
                Term::IfNotExists(path, Box::new(or))
            }
            (_, Some("list_append")) => {
                let first = self.term()?;
                self.want(",")?;
                let second = self.term()?;
                self.want(")")?;
                Term::ListAppend(Box::new(first), Box::new(second))
            }
            (_, Some(name)) => return self.no_function(name),
            (Some(Token::Value(_)), None) => Term::Value(self.value()?),
            _ => Term::Path(self.path()?),
        };
        self.depth -= 1;
        Ok(term)
    }

    pub(super) fn projection(&mut self) -> Result<Vec<Name>, Error> {
        let mut names = vec![self.path()?];
        while self.mark(",") {
            names.push(self.path()?);
        }
        Ok(names)
    }
}
