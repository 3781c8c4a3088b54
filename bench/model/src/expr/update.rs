//! Update expressions, and their evaluation on items.

use std::borrow::Cow;

use super::{AliasBindings, AttributeName, ExpressionKind};
use crate::error::Error;
use crate::number;
use crate::packed::{AttributeKind, ItemView, ValueView, put_bytes, put_set, put_value};

#[derive(Debug)]
pub(crate) enum UpdateOperand {
    Path(AttributeName),
    /// A `:value` alias.
    Value(Box<str>),
    IfNotExists(AttributeName, Box<UpdateOperand>),
    ListAppend(Box<UpdateOperand>, Box<UpdateOperand>),
}

#[derive(Debug)]
pub(crate) enum UpdateValue {
    Operand(UpdateOperand),
    Sum(UpdateOperand, UpdateOperand),
    Difference(UpdateOperand, UpdateOperand),
}

/// The four clauses.
#[derive(Debug, Default)]
pub(crate) struct UpdateExpression {
    pub(super) set: Vec<(AttributeName, UpdateValue)>,
    pub(super) remove: Vec<AttributeName>,
    pub(super) add: Vec<(AttributeName, Box<str>)>,
    pub(super) delete: Vec<(AttributeName, Box<str>)>,
}

const NO_ATTRIBUTE: &str =
    "The provided expression refers to an attribute that does not exist in the item";
const WRONG_TYPE: &str = "An operand in the update expression has an incorrect data type";

/// New values by name; `None` removes the attribute.
type Changes<'a> = Vec<(&'a [u8], Option<Cow<'a, [u8]>>)>;

impl UpdateExpression {
    /// Attributes that the update changes.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &AttributeName> {
        let set = self.set.iter().map(|(name, _)| name);
        let add = self.add.iter().map(|(name, _)| name);
        let delete = self.delete.iter().map(|(name, _)| name);
        set.chain(&self.remove).chain(add).chain(delete)
    }

    /// Rejects what the request alone shows to be invalid.
    pub(crate) fn check(&self, bindings: &AliasBindings) -> Result<(), Error> {
        let mut targets: Vec<&[u8]> = self.targets().map(|name| bindings.name(name)).collect();
        targets.sort_unstable();
        if let Some(pair) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = String::from_utf8_lossy(pair[0]);
            return Err(ExpressionKind::Update.invalid(format!(
                "Two document paths overlap with each other; must remove or rewrite one of these paths; \
                 path one: [{name}], path two: [{name}]"
            )));
        }
        let wrong = |what: &str, kind: AttributeKind| {
            Err(ExpressionKind::Update.invalid(format!(
                "Incorrect operand type for operator or function; operator: {what}, operand type: {}",
                kind.name()
            )))
        };
        let kind = |alias: &str| bindings.value(alias).map(|value| value.kind);
        for (_, alias) in &self.add {
            match kind(alias) {
                Some(AttributeKind::N) => {}
                Some(kind) if kind.element().is_none() => return wrong("ADD", kind),
                _ => {}
            }
        }
        for (_, alias) in &self.delete {
            match kind(alias) {
                Some(kind) if kind.element().is_none() => return wrong("DELETE", kind),
                _ => {}
            }
        }
        for (_, assigned) in &self.set {
            if let UpdateValue::Sum(a, b) | UpdateValue::Difference(a, b) = assigned {
                for term in [a, b] {
                    if let UpdateOperand::Value(alias) = term
                        && let Some(kind) = kind(alias).filter(|kind| *kind != AttributeKind::N)
                    {
                        return wrong(
                            if matches!(assigned, UpdateValue::Sum(..)) { "+" } else { "-" },
                            kind,
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

/// The item after `update`. All values are computed from `old`.
pub(crate) fn apply(
    update: &UpdateExpression,
    old: ItemView<'_>,
    bindings: &AliasBindings,
) -> Result<Vec<u8>, Error> {
    let context = UpdateContext { old, bindings };
    let mut changes: Changes<'_> = Vec::with_capacity(8);
    for (name, assigned) in &update.set {
        let value = match assigned {
            UpdateValue::Operand(term) => context.term(term)?,
            UpdateValue::Sum(a, b) => Cow::Owned(context.sum(a, b, false)?),
            UpdateValue::Difference(a, b) => Cow::Owned(context.sum(a, b, true)?),
        };
        changes.push((context.name(name), Some(value)));
    }
    for name in &update.remove {
        changes.push((context.name(name), None));
    }
    for (name, alias) in &update.add {
        changes.push((context.name(name), Some(context.added(name, alias)?)));
    }
    for (name, alias) in &update.delete {
        changes.push((context.name(name), context.deleted(name, alias)?));
    }
    changes.sort_unstable_by_key(|(name, _)| *name);
    Ok(merge(old, &changes))
}

fn merge(old: ItemView<'_>, changes: &Changes<'_>) -> Vec<u8> {
    let more: usize =
        changes.iter().map(|(n, v)| n.len() + 2 + v.as_ref().map_or(0, |v| v.len())).sum();
    let mut out = Vec::with_capacity(old.0.len() + more);
    let mut put = |name: &[u8], value: &[u8]| {
        put_bytes(name, &mut out);
        out.extend_from_slice(value);
    };
    let mut changes = changes.iter().peekable();
    for (name, value) in old.iter() {
        while let Some((new, value)) = changes.next_if(|(new, _)| *new < name) {
            if let Some(value) = value {
                put(new, value);
            }
        }
        match changes.next_if(|(new, _)| *new == name) {
            None => put(name, value.bytes()),
            Some((_, Some(value))) => put(name, value),
            Some((_, None)) => {}
        }
    }
    for (new, value) in changes {
        if let Some(value) = value {
            put(new, value);
        }
    }
    out
}

struct UpdateContext<'a> {
    old: ItemView<'a>,
    bindings: &'a AliasBindings,
}

impl<'a> UpdateContext<'a> {
    fn name(&self, name: &'a AttributeName) -> &'a [u8] {
        self.bindings.name(name)
    }

    fn value(&self, alias: &str) -> Result<ValueView<'a>, Error> {
        let value = self.bindings.value(alias);
        value.ok_or_else(|| Error::validation(format!("{alias} is not defined")))
    }

    fn term(&self, term: &'a UpdateOperand) -> Result<Cow<'a, [u8]>, Error> {
        match term {
            UpdateOperand::Value(alias) => Ok(Cow::Borrowed(self.value(alias)?.bytes())),
            UpdateOperand::Path(name) => match self.old.get(self.name(name)) {
                Some(value) => Ok(Cow::Borrowed(value.bytes())),
                None => Err(Error::validation(NO_ATTRIBUTE)),
            },
            UpdateOperand::IfNotExists(name, or) => match self.old.get(self.name(name)) {
                Some(value) => Ok(Cow::Borrowed(value.bytes())),
                None => self.term(or),
            },
            UpdateOperand::ListAppend(first, second) => {
                let (first, second) = (self.term(first)?, self.term(second)?);
                let list = |bytes: &Cow<'_, [u8]>| {
                    let value =
                        ValueView::new(bytes).filter(|value| value.kind == AttributeKind::L);
                    value.map(|value| value.content.to_vec())
                };
                let both = list(&first).zip(list(&second));
                let (mut content, more) = both.ok_or_else(|| Error::validation(WRONG_TYPE))?;
                content.extend_from_slice(&more);
                let mut out = Vec::new();
                put_value(AttributeKind::L, &content, &mut out);
                Ok(Cow::Owned(out))
            }
        }
    }

    fn sum(
        &self,
        a: &'a UpdateOperand,
        b: &'a UpdateOperand,
        minus: bool,
    ) -> Result<Vec<u8>, Error> {
        let (a, b) = (self.term(a)?, self.term(b)?);
        match (ValueView::new(&a), ValueView::new(&b)) {
            (Some(a), Some(b)) => sum(a, b, minus),
            _ => Err(Error::validation(WRONG_TYPE)),
        }
    }

    fn added(&self, name: &'a AttributeName, alias: &str) -> Result<Cow<'a, [u8]>, Error> {
        let more = self.value(alias)?;
        let Some(old) = self.old.get(self.name(name)) else {
            return Ok(Cow::Borrowed(more.bytes()));
        };
        if old.kind != more.kind {
            return Err(Error::validation(WRONG_TYPE));
        }
        if old.kind == AttributeKind::N {
            return sum(old, more, false).map(Cow::Owned);
        }
        let mut elements: Vec<&[u8]> = old.set().collect();
        let new: Vec<&[u8]> = more.set().filter(|one| !elements.contains(one)).collect();
        elements.extend(new);
        let mut out = Vec::new();
        put_set(old.kind, &mut elements, &mut out).map_err(|()| Error::validation(WRONG_TYPE))?;
        Ok(Cow::Owned(out))
    }

    fn deleted(
        &self,
        name: &'a AttributeName,
        alias: &str,
    ) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let less = self.value(alias)?;
        let Some(old) = self.old.get(self.name(name)) else {
            return Ok(None);
        };
        if old.kind != less.kind {
            return Err(Error::validation(WRONG_TYPE));
        }
        let gone: Vec<&[u8]> = less.set().collect();
        let mut left: Vec<&[u8]> = old.set().filter(|one| !gone.contains(one)).collect();
        if left.is_empty() {
            return Ok(None);
        }
        let mut out = Vec::new();
        put_set(old.kind, &mut left, &mut out).map_err(|()| Error::validation(WRONG_TYPE))?;
        Ok(Some(Cow::Owned(out)))
    }
}

fn sum(a: ValueView<'_>, b: ValueView<'_>, minus: bool) -> Result<Vec<u8>, Error> {
    if (a.kind, b.kind) != (AttributeKind::N, AttributeKind::N) {
        return Err(Error::validation(WRONG_TYPE));
    }
    let sum = number::sum(a.content, b.content, minus)?;
    let mut out = Vec::with_capacity(sum.len() + 2);
    put_value(AttributeKind::N, &sum, &mut out);
    Ok(out)
}
