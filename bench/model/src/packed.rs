//! Attribute values and items as single runs of bytes: a stored item is one allocation of about the
//! size that DynamoDB bills, and equal values are equal bytes.
//!
//! A value is its type, the length of its content, the content. Maps' and items' attributes are in the
//! order of their names, sets' elements in theirs, numbers in their one form.
//!
//! Must not live here: JSON, expressions.

use std::cmp::Ordering;

use crate::number;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    S = 0,
    N = 1,
    B = 2,
    Bool = 3,
    Null = 4,
    M = 5,
    L = 6,
    SS = 7,
    NS = 8,
    BS = 9,
}

impl Kind {
    /// As JSON and `attribute_type` name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::S => "S",
            Kind::N => "N",
            Kind::B => "B",
            Kind::Bool => "BOOL",
            Kind::Null => "NULL",
            Kind::M => "M",
            Kind::L => "L",
            Kind::SS => "SS",
            Kind::NS => "NS",
            Kind::BS => "BS",
        }
    }

    pub(crate) const ALL: [Kind; 10] = [
        Kind::S,
        Kind::N,
        Kind::B,
        Kind::Bool,
        Kind::Null,
        Kind::M,
        Kind::L,
        Kind::SS,
        Kind::NS,
        Kind::BS,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a set of this kind has in it.
    pub(crate) fn element(self) -> Option<Kind> {
        match self {
            Kind::SS => Some(Kind::S),
            Kind::NS => Some(Kind::N),
            Kind::BS => Some(Kind::B),
            _ => None,
        }
    }
}

/// A length of up to 2^32, seven bits a byte.
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

pub(crate) fn put_value(kind: Kind, content: &[u8], out: &mut Vec<u8>) {
    out.push(kind as u8);
    put_bytes(content, out);
}

/// Takes a length and so many bytes from the front. What this module wrote always has them; anything
/// else ends the reading.
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

fn take_value<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let whole = *rest;
    let (tag, more) = rest.split_first()?;
    *rest = more;
    let kind = *Kind::ALL.get(usize::from(*tag))?;
    let content = take_bytes(rest)?;
    Some(Value {
        kind,
        content,
        whole: &whole[..whole.len() - rest.len()],
    })
}

/// One value, in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) kind: Kind,
    pub(crate) content: &'a [u8],
    whole: &'a [u8],
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.whole == other.whole
    }
}

impl<'a> Value<'a> {
    pub(crate) fn of(mut bytes: &'a [u8]) -> Option<Self> {
        take_value(&mut bytes)
    }

    /// With type and length.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.whole
    }

    pub(crate) fn is_true(self) -> bool {
        self.content == [1]
    }

    /// By size, for two of a kind that has an order.
    pub(crate) fn order(self, other: Self) -> Option<Ordering> {
        match (self.kind, other.kind) {
            (Kind::N, Kind::N) => Some(number::compare(self.content, other.content)),
            (Kind::S, Kind::S) | (Kind::B, Kind::B) => Some(self.content.cmp(other.content)),
            _ => None,
        }
    }

    /// The values of a list.
    pub(crate) fn list(self) -> impl Iterator<Item = Value<'a>> {
        let mut rest = self.content;
        std::iter::from_fn(move || take_value(&mut rest))
    }

    /// The elements of a set.
    pub(crate) fn set(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.content;
        std::iter::from_fn(move || take_bytes(&mut rest))
    }

    /// The attributes of a map.
    pub(crate) fn map(self) -> Item<'a> {
        Item(self.content)
    }

    /// Elements of a set or list, attributes of a map.
    pub(crate) fn count(self) -> usize {
        match self.kind {
            Kind::L => self.list().count(),
            Kind::M => self.map().iter().count(),
            _ => self.set().count(),
        }
    }

    /// What it counts towards an item's size, in bytes.
    pub(crate) fn size(self) -> usize {
        match self.kind {
            Kind::S | Kind::B => self.content.len(),
            Kind::N => number::size(self.content),
            Kind::Bool | Kind::Null => 1,
            Kind::L => 3 + self.list().map(|value| 1 + value.size()).sum::<usize>(),
            Kind::M => {
                let one = |(name, value): (&[u8], Value<'_>)| 1 + name.len() + value.size();
                3 + self.map().iter().map(one).sum::<usize>()
            }
            Kind::NS => self.set().map(number::size).sum(),
            Kind::SS | Kind::BS => self.set().map(<[u8]>::len).sum(),
        }
    }
}

/// An item or a map, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a>(pub(crate) &'a [u8]);

impl<'a> Item<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take_bytes(&mut rest)?;
            Some((name, take_value(&mut rest)?))
        })
    }

    pub(crate) fn get(self, name: &[u8]) -> Option<Value<'a>> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn size(self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.size())
            .sum()
    }
}

/// Puts attributes in order: `pairs` are names and whole values. A name twice is `Err` with it.
pub(crate) fn put_item<'a>(
    pairs: &mut [(&'a [u8], &[u8])],
    out: &mut Vec<u8>,
) -> Result<(), &'a [u8]> {
    pairs.sort_unstable_by(|a, b| a.0.cmp(b.0));
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(twice[0].0);
    }
    for (name, value) in pairs {
        put_bytes(name, out);
        out.extend_from_slice(value);
    }
    Ok(())
}

/// A set of these elements, in order. An element twice is an error.
pub(crate) fn put_set(kind: Kind, elements: &mut [&[u8]], out: &mut Vec<u8>) -> Result<(), ()> {
    match kind {
        Kind::NS => elements.sort_unstable_by(|a, b| number::compare(a, b)),
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

    #[test]
    fn items_are_found_by_name_whatever_order_they_came_in() {
        let mut one = Vec::new();
        put_value(Kind::N, b"1", &mut one);
        let mut long = Vec::new();
        put_value(Kind::S, &[b'x'; 300], &mut long);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        put_item(&mut [(b"n", &one), (b"a", &long)], &mut a).unwrap();
        put_item(&mut [(b"a", &long), (b"n", &one)], &mut b).unwrap();
        assert_eq!(a, b);
        let item = Item(&a);
        assert_eq!(item.get(b"n").unwrap().content, b"1");
        assert_eq!(item.get(b"a").unwrap().content.len(), 300);
        assert!(item.get(b"z").is_none());
        assert_eq!(item.size(), 1 + 2 + 1 + 300);
        assert_eq!(
            put_item(&mut [(b"n", &one), (b"n", &one)], &mut b),
            Err(&b"n"[..])
        );
    }

    #[test]
    fn bytes_cut_short_end_the_reading() {
        let mut value = Vec::new();
        put_value(Kind::S, b"hello", &mut value);
        assert!((0..value.len()).all(|cut| Value::of(&value[..cut]).is_none()));
        assert!(Value::of(&[99, 0]).is_none());
    }
}
