//! Attribute values and items as byte strings: a stored item is one allocation of about the size that
//! DynamoDB bills, and equal values are equal bytes.
//!
//! A value is its kind, the length of its content, the content. Attributes of items and maps, and elements
//! of sets, are sorted; numbers have one canonical form.
//!
//! Not here: JSON, expressions.

use std::cmp::Ordering;

use serde::Deserialize;
use strum::{EnumString, FromRepr, IntoStaticStr};

use crate::number;

/// Type of an attribute value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, EnumString, FromRepr, IntoStaticStr)]
#[repr(u8)]
pub(crate) enum AttributeKind {
    S = 0,
    N = 1,
    B = 2,
    #[serde(rename = "BOOL")]
    #[strum(serialize = "BOOL")]
    Bool = 3,
    #[serde(rename = "NULL")]
    #[strum(serialize = "NULL")]
    Null = 4,
    M = 5,
    L = 6,
    SS = 7,
    NS = 8,
    BS = 9,
}

impl AttributeKind {
    /// Name in JSON and in `attribute_type`.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// Kind of a set's elements.
    pub(crate) fn element(self) -> Option<Self> {
        match self {
            Self::SS => Some(Self::S),
            Self::NS => Some(Self::N),
            Self::BS => Some(Self::B),
            _ => None,
        }
    }

    /// Whether values have an order: strings, numbers and binaries.
    pub(crate) fn is_scalar(self) -> bool {
        matches!(self, Self::S | Self::N | Self::B)
    }
}

/// Appends a length in base 128, least significant group first.
pub(crate) fn put_len(mut len: usize, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_value(kind: AttributeKind, content: &[u8], out: &mut Vec<u8>) {
    out.push(kind as u8);
    put_bytes(content, out);
}

/// Takes a length and as many bytes from the front; `None` if `rest` is truncated.
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        let (first, more) = rest.split_first()?;
        *rest = more;
        len |= usize::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            break;
        }
    }
    let (bytes, more) = rest.split_at_checked(len)?;
    *rest = more;
    Some(bytes)
}

fn take_value<'a>(rest: &mut &'a [u8]) -> Option<ValueView<'a>> {
    let whole = *rest;
    let (tag, more) = rest.split_first()?;
    *rest = more;
    let kind = AttributeKind::from_repr(*tag)?;
    let content = take_bytes(rest)?;
    Some(ValueView { kind, content, whole: &whole[..whole.len() - rest.len()] })
}

/// A borrowed value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueView<'a> {
    pub(crate) kind: AttributeKind,
    pub(crate) content: &'a [u8],
    whole: &'a [u8],
}

impl PartialEq for ValueView<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.whole == other.whole
    }
}

impl<'a> ValueView<'a> {
    /// `None` if `bytes` is truncated.
    pub(crate) fn new(mut bytes: &'a [u8]) -> Option<Self> {
        take_value(&mut bytes)
    }

    /// Kind, length and content.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.whole
    }

    pub(crate) fn is_true(self) -> bool {
        self.content == [1]
    }

    /// Order of two scalars of the same kind.
    pub(crate) fn order(self, other: Self) -> Option<Ordering> {
        match (self.kind, other.kind) {
            (AttributeKind::N, AttributeKind::N) => {
                Some(number::compare(self.content, other.content))
            }
            (AttributeKind::S, AttributeKind::S) | (AttributeKind::B, AttributeKind::B) => {
                Some(self.content.cmp(other.content))
            }
            _ => None,
        }
    }

    /// Values of a list.
    pub(crate) fn list(self) -> impl Iterator<Item = ValueView<'a>> {
        let mut rest = self.content;
        std::iter::from_fn(move || take_value(&mut rest))
    }

    /// Elements of a set.
    pub(crate) fn set(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.content;
        std::iter::from_fn(move || take_bytes(&mut rest))
    }

    /// Attributes of a map.
    pub(crate) fn map(self) -> ItemView<'a> {
        ItemView(self.content)
    }

    /// Number of elements of a set or list, or attributes of a map.
    pub(crate) fn count(self) -> usize {
        match self.kind {
            AttributeKind::L => self.list().count(),
            AttributeKind::M => self.map().iter().count(),
            _ => self.set().count(),
        }
    }

    /// Contribution to the item size that DynamoDB bills, in bytes.
    pub(crate) fn size(self) -> usize {
        match self.kind {
            AttributeKind::S | AttributeKind::B => self.content.len(),
            AttributeKind::N => number::size(self.content),
            AttributeKind::Bool | AttributeKind::Null => 1,
            AttributeKind::L => 3 + self.list().map(|value| 1 + value.size()).sum::<usize>(),
            AttributeKind::M => {
                let one = |(name, value): (&[u8], ValueView<'_>)| 1 + name.len() + value.size();
                3 + self.map().iter().map(one).sum::<usize>()
            }
            AttributeKind::NS => self.set().map(number::size).sum(),
            AttributeKind::SS | AttributeKind::BS => self.set().map(<[u8]>::len).sum(),
        }
    }
}

/// A borrowed item or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemView<'a>(pub(crate) &'a [u8]);

impl<'a> ItemView<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], ValueView<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take_bytes(&mut rest)?;
            Some((name, take_value(&mut rest)?))
        })
    }

    pub(crate) fn get(self, name: &[u8]) -> Option<ValueView<'a>> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    pub(crate) fn size(self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.size()).sum()
    }
}

/// An owned item or map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PackedItem(Box<[u8]>);

impl PackedItem {
    pub(crate) fn view(&self) -> ItemView<'_> {
        ItemView(&self.0)
    }
}

/// An owned value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PackedValue(Box<[u8]>);

impl PackedValue {
    /// `bytes` is one value as [`put_value`] writes it.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn view(&self) -> Option<ValueView<'_>> {
        ValueView::new(&self.0)
    }
}

/// Collects attributes in any order and sorts them by name.
#[derive(Debug)]
pub(crate) struct ItemBuilder {
    /// Names and values, in the order of arrival.
    bytes: Vec<u8>,
    /// For each attribute: start, start of the name's bytes, end of the name, end.
    attributes: Vec<[usize; 4]>,
}

impl Default for ItemBuilder {
    /// With space for a record of the server.
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(768), attributes: Vec::with_capacity(16) }
    }
}

impl ItemBuilder {
    /// Appends a name. One value must be appended to the returned buffer before [`ItemBuilder::end_value`].
    pub(crate) fn begin(&mut self, name: &[u8]) -> &mut Vec<u8> {
        let start = self.bytes.len();
        put_bytes(name, &mut self.bytes);
        let name_end = self.bytes.len();
        self.attributes.push([start, name_end - name.len(), name_end, name_end]);
        &mut self.bytes
    }

    pub(crate) fn end_value(&mut self) {
        if let Some(last) = self.attributes.last_mut() {
            last[3] = self.bytes.len();
        }
    }

    /// The packed bytes, or the name that occurs twice.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, String> {
        let name = |of: &[usize; 4]| &self.bytes[of[1]..of[2]];
        let is_sorted = self.attributes.windows(2).all(|two| name(&two[0]) < name(&two[1]));
        if is_sorted {
            return Ok(self.bytes);
        }
        self.attributes.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        let mut duplicates =
            self.attributes.windows(2).filter(|two| name(&two[0]) == name(&two[1]));
        if let Some(two) = duplicates.next() {
            return Err(String::from_utf8_lossy(name(&two[0])).into_owned());
        }
        let mut sorted = Vec::with_capacity(self.bytes.len());
        for [start, _, _, end] in &self.attributes {
            sorted.extend_from_slice(&self.bytes[*start..*end]);
        }
        Ok(sorted)
    }

    pub(crate) fn build(self) -> Result<PackedItem, String> {
        self.finish().map(|bytes| PackedItem(bytes.into()))
    }
}

/// Appends a set of sorted elements. A duplicate element is an error.
pub(crate) fn put_set(
    kind: AttributeKind,
    elements: &mut [&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), ()> {
    match kind {
        AttributeKind::NS => elements.sort_unstable_by(|a, b| number::compare(a, b)),
        _ => elements.sort_unstable(),
    }
    if elements.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(());
    }
    let mut content = Vec::new();
    for element in elements {
        put_bytes(element, &mut content);
    }
    put_value(kind, &content, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(attributes: &[(&str, AttributeKind, &[u8])]) -> Result<PackedItem, String> {
        let mut builder = ItemBuilder::default();
        for (name, kind, content) in attributes {
            put_value(*kind, content, builder.begin(name.as_bytes()));
            builder.end_value();
        }
        builder.build()
    }

    #[test]
    fn attributes_are_stored_in_the_order_of_their_names() {
        let (n, a) =
            (("n", AttributeKind::N, &b"1"[..]), ("a", AttributeKind::S, &[b'x'; 300][..]));
        let one = item(&[n, a]).unwrap();
        assert_eq!(one, item(&[a, n]).unwrap());
        let view = one.view();
        assert_eq!(view.get(b"n").unwrap().content, b"1");
        assert_eq!(view.get(b"a").unwrap().content.len(), 300);
        assert!(view.get(b"z").is_none());
        assert_eq!(view.size(), 1 + 2 + 1 + 300);
        assert_eq!(item(&[n, a, n]), Err("n".to_owned()));
    }

    #[test]
    fn truncated_bytes_are_rejected() {
        let mut value = Vec::new();
        put_value(AttributeKind::S, b"hello", &mut value);
        assert!((0..value.len()).all(|cut| ValueView::new(&value[..cut]).is_none()));
        assert!(ValueView::new(&[99, 0]).is_none());
    }
}
