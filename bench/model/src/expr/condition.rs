//! Conditions, and their evaluation on items.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{AliasBindings, AttributeName, ExpressionKind};
use crate::error::Error;
use crate::packed::{AttributeKind, ItemView, ValueView, put_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparator {
    fn name(self) -> &'static str {
        match self {
            Comparator::Equal => "=",
            Comparator::NotEqual => "<>",
            Comparator::Less => "<",
            Comparator::LessOrEqual => "<=",
            Comparator::Greater => ">",
            Comparator::GreaterOrEqual => ">=",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Operand {
    Path(AttributeName),
    /// A `:value` alias.
    Value(Box<str>),
    Size(AttributeName),
}

#[derive(Debug)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparator, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(AttributeName),
    Type(AttributeName, Box<str>),
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

    /// Calls `each` for every part that is not a combination of others.
    fn leaves(&self, each: &mut dyn FnMut(&Condition) -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().try_for_each(|part| part.leaves(each))
            }
            Condition::Not(inner) => inner.leaves(each),
            leaf => each(leaf),
        }
    }

    /// Appends every attribute that the condition reads.
    pub(crate) fn paths<'a>(&'a self, found: &mut Vec<&'a AttributeName>) {
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

    /// Rejects operands that the request's values alone show to be invalid.
    pub(crate) fn check(
        &self,
        member: ExpressionKind,
        bindings: &AliasBindings,
    ) -> Result<(), Error> {
        let value = |operand: &Operand| match operand {
            Operand::Value(alias) => bindings.value(alias),
            Operand::Size(_) | Operand::Path(_) => None,
        };
        let kind = |operand: &Operand| match operand {
            Operand::Size(_) => Some(AttributeKind::N),
            operand => value(operand).map(|value| value.kind),
        };
        let invalid = |what: &str, kind: AttributeKind| {
            Err(member.invalid(format!(
                "Incorrect operand type for operator or function; operator or function: {what}, operand \
                 type: {}",
                kind.name()
            )))
        };
        self.leaves(&mut |leaf| match leaf {
            Condition::Compare(left, comparator, right)
                if !matches!(comparator, Comparator::Equal | Comparator::NotEqual) =>
            {
                let mut kinds = [left, right].into_iter().filter_map(&kind);
                match kinds.find(|kind| !kind.is_scalar()) {
                    Some(kind) => invalid(comparator.name(), kind),
                    None => Ok(()),
                }
            }
            Condition::Between(_, low, high) => match (kind(low), kind(high)) {
                (Some(low), Some(high)) if low != high => Err(member.invalid(
                    "The BETWEEN operator requires same data type for lower and upper bounds",
                )),
                (Some(bound), Some(_)) if !bound.is_scalar() => invalid("BETWEEN", bound),
                _ => match value(low).zip(value(high)).and_then(|(l, h)| l.order(h)) {
                    Some(Ordering::Greater) => Err(member.invalid(
                        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound",
                    )),
                    _ => Ok(()),
                },
            },
            Condition::BeginsWith(_, prefix @ Operand::Value(_)) => match kind(prefix) {
                Some(kind) if !matches!(kind, AttributeKind::S | AttributeKind::B) => {
                    invalid("begins_with", kind)
                }
                _ => Ok(()),
            },
            Condition::Type(_, alias) => {
                let name = bindings.value(alias);
                let name = name.filter(|name| name.kind == AttributeKind::S);
                let name = name.and_then(|name| std::str::from_utf8(name.content).ok());
                match name.and_then(|name| name.parse::<AttributeKind>().ok()) {
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

/// What a condition is evaluated on.
struct EvaluationContext<'a> {
    item: Option<ItemView<'a>>,
    bindings: &'a AliasBindings,
}

/// Whether `condition` holds for `item`; `None`: the item does not exist.
pub(crate) fn holds(
    condition: &Condition,
    item: Option<ItemView<'_>>,
    bindings: &AliasBindings,
) -> bool {
    let context = EvaluationContext { item, bindings };
    context.holds(condition)
}

impl<'a> EvaluationContext<'a> {
    fn attribute(&self, name: &'a AttributeName) -> Option<ValueView<'a>> {
        self.item?.get(self.bindings.name(name))
    }

    /// The operand as packed bytes; `None` if the attribute does not exist.
    fn operand(&self, operand: &'a Operand) -> Option<Cow<'a, [u8]>> {
        match operand {
            Operand::Path(name) => Some(Cow::Borrowed(self.attribute(name)?.bytes())),
            Operand::Value(alias) => {
                let value = self.bindings.value(alias)?;
                Some(Cow::Borrowed(value.bytes()))
            }
            Operand::Size(name) => {
                let value = self.attribute(name)?;
                let size = match value.kind {
                    AttributeKind::S | AttributeKind::B => value.content.len(),
                    AttributeKind::N | AttributeKind::Bool | AttributeKind::Null => return None,
                    _ => value.count(),
                };
                let mut bytes = Vec::new();
                put_value(AttributeKind::N, size.to_string().as_bytes(), &mut bytes);
                Some(Cow::Owned(bytes))
            }
        }
    }

    fn compare(&self, left: &'a Operand, comparator: Comparator, right: &'a Operand) -> bool {
        let (left, right) = (self.operand(left), self.operand(right));
        let pair = Option::zip(
            left.as_deref().and_then(ValueView::new),
            right.as_deref().and_then(ValueView::new),
        );
        // A missing operand is unequal to everything and has no order.
        let Some((left, right)) = pair else {
            return comparator == Comparator::NotEqual;
        };
        let order = || left.order(right);
        match comparator {
            Comparator::Equal => left == right,
            Comparator::NotEqual => left != right,
            Comparator::Less => order() == Some(Ordering::Less),
            Comparator::LessOrEqual => order().is_some_and(Ordering::is_le),
            Comparator::Greater => order() == Some(Ordering::Greater),
            Comparator::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
        }
    }

    fn holds(&self, condition: &'a Condition) -> bool {
        match condition {
            Condition::All(parts) => parts.iter().all(|part| self.holds(part)),
            Condition::Any(parts) => parts.iter().any(|part| self.holds(part)),
            Condition::Not(inner) => !self.holds(inner),
            Condition::Compare(left, comparator, right) => self.compare(left, *comparator, right),
            Condition::Between(of, low, high) => {
                self.compare(of, Comparator::GreaterOrEqual, low)
                    && self.compare(of, Comparator::LessOrEqual, high)
            }
            Condition::In(of, among) => {
                among.iter().any(|one| self.compare(of, Comparator::Equal, one))
            }
            Condition::Exists(name) => self.attribute(name).is_some(),
            Condition::Type(name, alias) => {
                let wanted = self.bindings.value(alias);
                let found = self.attribute(name).map(|value| value.kind.name().as_bytes());
                found.is_some() && found == wanted.map(|value| value.content)
            }
            Condition::BeginsWith(of, prefix) => self.pair(of, prefix, |of, prefix| {
                of.kind == prefix.kind
                    && matches!(of.kind, AttributeKind::S | AttributeKind::B)
                    && of.content.starts_with(prefix.content)
            }),
            Condition::Contains(of, what) => self.pair(of, what, contains),
        }
    }

    fn pair(
        &self,
        a: &'a Operand,
        b: &'a Operand,
        test: impl Fn(ValueView<'_>, ValueView<'_>) -> bool,
    ) -> bool {
        let (a, b) = (self.operand(a), self.operand(b));
        let pair = Option::zip(
            a.as_deref().and_then(ValueView::new),
            b.as_deref().and_then(ValueView::new),
        );
        pair.is_some_and(|(a, b)| test(a, b))
    }
}

fn contains(of: ValueView<'_>, what: ValueView<'_>) -> bool {
    match of.kind {
        AttributeKind::S | AttributeKind::B if of.kind == what.kind => {
            let part = what.content;
            part.is_empty() || of.content.windows(part.len()).any(|window| window == part)
        }
        AttributeKind::L => of.list().any(|one| one == what),
        kind if kind.element() == Some(what.kind) => of.set().any(|one| one == what.content),
        _ => false,
    }
}
