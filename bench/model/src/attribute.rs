//! Attribute values between JSON and [`packed`](crate::packed) form.
//!
//! Must not live here: which members a request has.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;
use crate::json::{Reader, broken, write_string};
use crate::limits;
use crate::number;
use crate::packed::{self, Item, Kind, Value, put_value};

/// A piece of a request's [`Arena`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    pub(crate) fn len(self) -> usize {
        self.len as usize
    }
}

/// What was read of one request: names, values, items, one behind the other. A body is below 4 GB.
#[derive(Debug, Default)]
pub(crate) struct Arena(Vec<u8>);

impl Arena {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn get(&self, span: Span) -> &[u8] {
        &self.0[span.start as usize..][..span.len as usize]
    }

    pub(crate) fn item(&self, span: Span) -> Item<'_> {
        Item(self.get(span))
    }

    fn since(&self, start: usize) -> Span {
        Span {
            start: start as u32,
            len: (self.0.len() - start) as u32,
        }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(bytes);
        self.since(start)
    }

    /// One value, `{"S":"…"}` or the like.
    pub(crate) fn read_value(&mut self, reader: &mut Reader<'_>) -> Result<Span, Error> {
        let start = self.0.len();
        read_value(reader, &mut self.0, 0)?;
        Ok(self.since(start))
    }

    /// An item or key: an object of values. Its attributes come out in the order of their names.
    pub(crate) fn read_item(&mut self, reader: &mut Reader<'_>) -> Result<Span, Error> {
        let mut parts: Vec<(Span, Span)> = Vec::with_capacity(16);
        reader.object(|reader, name| {
            if name.is_empty() {
                return Err(Error::validation(
                    "One or more parameter values were invalid: an attribute has an empty name",
                ));
            }
            let name = self.put(name.as_bytes());
            parts.push((name, self.read_value(reader)?));
            Ok(())
        })?;
        // The parts go to the front of the item's own place only after they are in order.
        let mut out = Vec::with_capacity(parts.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        let mut pairs: Vec<_> = parts
            .iter()
            .map(|(n, v)| (self.get(*n), self.get(*v)))
            .collect();
        packed::put_item(&mut pairs, &mut out).map_err(twice)?;
        Ok(self.put(&out))
    }
}

fn twice(name: &[u8]) -> Error {
    broken(format!("{} is given twice", String::from_utf8_lossy(name)))
}

fn read_value(reader: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
    if depth > limits::NESTING_MAX {
        return Err(Error::validation(
            "Nesting Levels have exceeded supported limits",
        ));
    }
    let mut members = 0;
    reader.object(|reader, kind| {
        members += 1;
        let Some(kind) = Kind::named(&kind) else {
            return Err(broken(format!("{kind} is no type of an attribute")));
        };
        if members > 1 {
            return Err(Error::validation(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
                 supported datatypes",
            ));
        }
        read_content(reader, kind, out, depth)
    })?;
    match members {
        0 => Err(Error::validation(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        )),
        _ => Ok(()),
    }
}

fn read_content(
    reader: &mut Reader<'_>,
    kind: Kind,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Error> {
    match kind {
        Kind::S => put_value(kind, reader.string()?.as_bytes(), out),
        Kind::N => {
            let mut form = Vec::with_capacity(24);
            number::canonical(&reader.string()?, &mut form)?;
            put_value(kind, &form, out);
        }
        Kind::B => put_value(kind, &binary(&reader.string()?)?, out),
        Kind::Bool => put_value(kind, &[u8::from(reader.boolean()?)], out),
        Kind::Null => match reader.boolean()? {
            true => put_value(kind, &[], out),
            false => {
                return Err(Error::validation(
                    "One or more parameter values were invalid: Null attribute value types must have the \
                     value of true",
                ));
            }
        },
        Kind::L => {
            let mut content = Vec::new();
            reader.array(|reader| read_value(reader, &mut content, depth + 1))?;
            put_value(kind, &content, out);
        }
        Kind::M => {
            let mut parts: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            reader.object(|reader, name| {
                let mut value = Vec::new();
                read_value(reader, &mut value, depth + 1)?;
                parts.push((name.as_bytes().to_vec(), value));
                Ok(())
            })?;
            let mut pairs: Vec<_> = parts.iter().map(|(n, v)| (&n[..], &v[..])).collect();
            let mut content = Vec::new();
            packed::put_item(&mut pairs, &mut content).map_err(twice)?;
            put_value(kind, &content, out);
        }
        Kind::SS | Kind::NS | Kind::BS => read_set(reader, kind, out)?,
    }
    Ok(())
}

fn read_set(reader: &mut Reader<'_>, kind: Kind, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut elements: Vec<Vec<u8>> = Vec::new();
    reader.array(|reader| {
        let text = reader.string()?;
        elements.push(match kind {
            Kind::NS => {
                let mut form = Vec::new();
                number::canonical(&text, &mut form)?;
                form
            }
            Kind::BS => binary(&text)?,
            _ => text.as_bytes().to_vec(),
        });
        Ok(())
    })?;
    if elements.is_empty() {
        return Err(Error::validation(format!(
            "One or more parameter values were invalid: An {} set may not be empty",
            kind.element().map_or("", Kind::name)
        )));
    }
    let mut elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
    packed::put_set(kind, &mut elements, out).map_err(|()| {
        Error::validation(
            "One or more parameter values were invalid: Input collection contains duplicates",
        )
    })
}

fn binary(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD
        .decode(text)
        .map_err(|why| broken(format!("a B is no base64: {why}")))
}

pub(crate) fn write_item(item: Item<'_>, out: &mut Vec<u8>) {
    write_attributes(item.iter(), out);
}

pub(crate) fn write_attributes<'a>(
    attributes: impl Iterator<Item = (&'a [u8], Value<'a>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (at, (name, value)) in attributes.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

pub(crate) fn write_value(value: Value<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(value.kind.name().as_bytes());
    out.extend_from_slice(b"\":");
    match value.kind {
        Kind::S | Kind::N | Kind::B => write_scalar(value.kind, value.content, out),
        Kind::Bool => out.extend_from_slice(if value.is_true() { b"true" } else { b"false" }),
        Kind::Null => out.extend_from_slice(b"true"),
        Kind::M => write_item(value.map(), out),
        Kind::L => {
            out.push(b'[');
            for (at, value) in value.list().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_value(value, out);
            }
            out.push(b']');
        }
        Kind::SS | Kind::NS | Kind::BS => {
            out.push(b'[');
            for (at, element) in value.set().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_scalar(value.kind.element().unwrap_or(Kind::S), element, out);
            }
            out.push(b']');
        }
    }
    out.push(b'}');
}

fn write_scalar(kind: Kind, content: &[u8], out: &mut Vec<u8>) {
    match kind {
        Kind::B => write_string(STANDARD.encode(content).as_bytes(), out),
        _ => write_string(content, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, Error> {
        let mut arena = Arena::default();
        let span = arena.read_item(&mut Reader::new(text.as_bytes())?)?;
        let mut out = Vec::new();
        write_item(arena.item(span), &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_type_survives_the_round_trip_in_its_one_form() {
        let text = r#"{"b":{"B":"AAEC"},"l":{"L":[{"S":""},{"NULL":true},{"M":{"z":{"N":"1"},"a":{"BOOL":false}}}]},
            "n":{"N":"1.50"},"s":{"S":"x\"y"},"ss":{"SS":["b","a"]},"ns":{"NS":["10","9"]},"bs":{"BS":["Ag==","AQ=="]}}"#;
        assert_eq!(
            read(text).unwrap(),
            r#"{"b":{"B":"AAEC"},"bs":{"BS":["AQ==","Ag=="]},"l":{"L":[{"S":""},{"NULL":true},{"M":{"a":{"BOOL":false},"z":{"N":"1"}}}]},"n":{"N":"1.5"},"ns":{"NS":["9","10"]},"s":{"S":"x\"y"},"ss":{"SS":["a","b"]}}"#
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (text, word) in [
            (r#"{"a":{}}"#, "is empty"),
            (r#"{"a":{"S":"x","N":"1"}}"#, "more than one"),
            (r#"{"a":{"X":"x"}}"#, "no type"),
            (r#"{"a":{"SS":[]}}"#, "may not be empty"),
            (r#"{"a":{"SS":["x","x"]}}"#, "duplicates"),
            (r#"{"a":{"NS":["1","1.0"]}}"#, "duplicates"),
            (r#"{"a":{"NULL":false}}"#, "true"),
            (r#"{"a":{"B":"?"}}"#, "base64"),
            (r#"{"a":{"S":"x"},"a":{"S":"y"}}"#, "twice"),
            (r#"{"":{"S":"x"}}"#, "empty name"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(word), "{text}: {error:?}");
        }
    }
}
