//! Conditions and whether they hold.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Bindings, Member, Name};
use crate::attribute::Arena;
use crate::error::Error;
use crate::packed::{Item, Kind, Value, put_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Compare {
    fn name(self) -> &'static str {
        match self {
            Compare::Equal => "=",
            Compare::Unequal => "<>",
            Compare::Less => "<",
            Compare::AtMost => "<=",
            Compare::More => ">",
            Compare::AtLeast => ">=",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Operand {
    Path(Name),
    /// A `:alias`.
    Value(Box<str>),
    Size(Name),
}

#[derive(Debug)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Compare, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Name),
    Type(Name, Box<str>),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

impl Condition {
    pub(super) fn all(parts: Vec<Self>) -> Self {
        Self::joined(parts, Self::All)
    }

    pub(super) fn any(parts: Vec<Self>) -> Self {
        Self::joined(parts, Self::Any)
    }

    fn joined(mut parts: Vec<Self>, join: impl FnOnce(Vec<Self>) -> Self) -> Self {
        match parts.len() {
            1 => parts.remove(0),
            _ => join(parts),
        }
    }

    /// Calls `each` with every part that is no combination of others.
    fn leaves(&self, each: &mut dyn FnMut(&Condition) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().try_for_each(|part| part.leaves(each))
            }
            Condition::Not(inner) => inner.leaves(each),
            leaf => each(leaf),
        }
    }

    /// Every attribute it looks at.
    pub(crate) fn paths<'a>(&'a self, found: &mut Vec<&'a Name>) {
        let mut operand = |operand: &'a Operand| {
            if let Operand::Path(name) | Operand::Size(name) = operand {
                found.push(name);
            }
        };
        match self {
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().for_each(|part| part.paths(found));
            }
            Condition::Not(inner) => inner.paths(found),
            Condition::Compare(a, _, b)
            | Condition::BeginsWith(a, b)
            | Condition::Contains(a, b) => {
                operand(a);
                operand(b);
            }
            Condition::Between(a, b, c) => [a, b, c].into_iter().for_each(operand),
            Condition::In(a, among) => std::iter::once(a).chain(among).for_each(operand),
            Condition::Exists(name) | Condition::Type(name, _) => found.push(name),
        }
    }

    /// Refuses what the request's own values make senseless, whatever the item is.
    pub(crate) fn check(
        &self,
        member: Member,
        bindings: &Bindings,
        arena: &Arena,
    ) -> Result<(), Error> {
        let kind = |operand: &Operand| match operand {
            Operand::Value(alias) => bindings.value(arena, alias).map(|value| value.kind),
            Operand::Size(_) => Some(Kind::N),
            Operand::Path(_) => None,
        };
        let wrong = |what: &str, kind: Kind| {
            Err(member.invalid(format!(
                "Incorrect operand type for operator or function; operator or function: {what}, operand \
                 type: {}",
                kind.name()
            )))
        };
        self.leaves(&mut |leaf| match leaf {
            Condition::Compare(left, compare, right)
                if !matches!(compare, Compare::Equal | Compare::Unequal) =>
            {
                let mut kinds = [left, right].into_iter().filter_map(&kind);
                match kinds.find(|kind| !matches!(kind, Kind::S | Kind::N | Kind::B)) {
                    Some(kind) => wrong(compare.name(), kind),
                    None => Ok(()),
                }
            }
            Condition::Between(_, low, high) => match (kind(low), kind(high)) {
                (Some(low), Some(high)) if low != high => Err(member.invalid(
                    "The BETWEEN operator requires same data type for lower and upper bounds",
                )),
                (Some(Kind::S | Kind::N | Kind::B), Some(_)) => between_order(low, high, bindings, arena, member),
                (Some(kind), Some(_)) => wrong("BETWEEN", kind),
                _ => Ok(()),
            },
            Condition::BeginsWith(_, Operand::Value(alias)) => {
                match bindings.value(arena, alias).map(|value| value.kind) {
                    Some(kind) if !matches!(kind, Kind::S | Kind::B) => wrong("begins_with", kind),
                    _ => Ok(()),
                }
            }
            Condition::Type(_, alias) => {
                let value = bindings.value(arena, alias);
                let name = value.filter(|value| value.kind == Kind::S);
                let name = name.and_then(|value| std::str::from_utf8(value.content).ok());
                match name.and_then(Kind::named) {
                    Some(_) => Ok(()),
                    None => Err(member.invalid(format!(
                        "Invalid attribute type name found; {alias} is none of B, BOOL, BS, L, M, N, NS, \
                         NULL, S, SS"
                    ))),
                }
            }
            _ => Ok(()),
        })
    }
}

fn between_order(
    low: &Operand,
    high: &Operand,
    bindings: &Bindings,
    arena: &Arena,
    member: Member,
) -> Result<(), Error> {
    let value = |operand: &Operand| match operand {
        Operand::Value(alias) => bindings.value(arena, alias),
        _ => None,
    };
    match value(low)
        .zip(value(high))
        .and_then(|(low, high)| low.order(high))
    {
        Some(Ordering::Greater) => Err(member.invalid(
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound",
        )),
        _ => Ok(()),
    }
}

/// An item, absent or there, and a request's names and values.
struct Sight<'a> {
    item: Option<Item<'a>>,
    bindings: &'a Bindings,
    arena: &'a Arena,
}

/// Whether `condition` holds of `item`; `None`: there is none.
pub(crate) fn holds(
    condition: &Condition,
    item: Option<Item<'_>>,
    bindings: &Bindings,
    arena: &Arena,
) -> bool {
    let sight = Sight {
        item,
        bindings,
        arena,
    };
    sight.holds(condition)
}

impl<'a> Sight<'a> {
    fn attribute(&self, name: &'a Name) -> Option<Value<'a>> {
        self.item?.get(self.bindings.name(self.arena, name))
    }

    /// As packed bytes; `None`: there is none.
    fn operand(&self, operand: &'a Operand) -> Option<Cow<'a, [u8]>> {
        match operand {
            Operand::Path(name) => Some(Cow::Borrowed(self.attribute(name)?.bytes())),
            Operand::Value(alias) => {
                let value = self.bindings.value(self.arena, alias)?;
                Some(Cow::Borrowed(value.bytes()))
            }
            Operand::Size(name) => {
                let value = self.attribute(name)?;
                let size = match value.kind {
                    Kind::S | Kind::B => value.content.len(),
                    Kind::N | Kind::Bool | Kind::Null => return None,
                    _ => value.count(),
                };
                let mut bytes = Vec::new();
                put_value(Kind::N, size.to_string().as_bytes(), &mut bytes);
                Some(Cow::Owned(bytes))
            }
        }
    }

    fn compare(&self, left: &'a Operand, compare: Compare, right: &'a Operand) -> bool {
        let (left, right) = (self.operand(left), self.operand(right));
        let pair = Option::zip(
            left.as_deref().and_then(Value::of),
            right.as_deref().and_then(Value::of),
        );
        // What is missing is unequal to everything, and in no order with anything.
        let Some((left, right)) = pair else {
            return compare == Compare::Unequal;
        };
        let order = || left.order(right);
        match compare {
            Compare::Equal => left == right,
            Compare::Unequal => left != right,
            Compare::Less => order() == Some(Ordering::Less),
            Compare::AtMost => order().is_some_and(Ordering::is_le),
            Compare::More => order() == Some(Ordering::Greater),
            Compare::AtLeast => order().is_some_and(Ordering::is_ge),
        }
    }

    fn holds(&self, condition: &'a Condition) -> bool {
        match condition {
            Condition::All(parts) => parts.iter().all(|part| self.holds(part)),
            Condition::Any(parts) => parts.iter().any(|part| self.holds(part)),
            Condition::Not(inner) => !self.holds(inner),
            Condition::Compare(left, compare, right) => self.compare(left, *compare, right),
            Condition::Between(of, low, high) => {
                self.compare(of, Compare::AtLeast, low) && self.compare(of, Compare::AtMost, high)
            }
            Condition::In(of, among) => among
                .iter()
                .any(|one| self.compare(of, Compare::Equal, one)),
            Condition::Exists(name) => self.attribute(name).is_some(),
            Condition::Type(name, alias) => {
                let wanted = self.bindings.value(self.arena, alias);
                let found = self
                    .attribute(name)
                    .map(|value| value.kind.name().as_bytes());
                found.is_some() && found == wanted.map(|value| value.content)
            }
            Condition::BeginsWith(of, prefix) => self.pair(of, prefix, |of, prefix| {
                of.kind == prefix.kind
                    && matches!(of.kind, Kind::S | Kind::B)
                    && of.content.starts_with(prefix.content)
            }),
            Condition::Contains(of, what) => self.pair(of, what, contains),
        }
    }

    fn pair(
        &self,
        a: &'a Operand,
        b: &'a Operand,
        test: impl Fn(Value<'_>, Value<'_>) -> bool,
    ) -> bool {
        let (a, b) = (self.operand(a), self.operand(b));
        let pair = Option::zip(
            a.as_deref().and_then(Value::of),
            b.as_deref().and_then(Value::of),
        );
        pair.is_some_and(|(a, b)| test(a, b))
    }
}

fn contains(of: Value<'_>, what: Value<'_>) -> bool {
    match of.kind {
        Kind::S | Kind::B if of.kind == what.kind => {
            let part = what.content;
            part.is_empty() || of.content.windows(part.len()).any(|window| window == part)
        }
        Kind::L => of.list().any(|one| one == what),
        kind if kind.element() == Some(what.kind) => of.set().any(|one| one == what.content),
        _ => false,
    }
}
