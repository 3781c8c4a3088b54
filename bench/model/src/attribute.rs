//! Attribute values and items between DynamoDB's JSON and [`packed`](crate::packed) form, by serde.
//!
//! Measured: serde instead of a parser written for the model costs 2 % more CPU time per action over HTTP and 12 %
//! in process (means of six interleaved runs of `examples/model_cost`).
//!
//! Not here: members of requests and responses.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::number;
use crate::packed::{
    AttributeKind, ItemBuilder, ItemView, PackedItem, PackedValue, ValueView, put_set, put_value,
};

/// A string that borrows from the input unless it contains escapes.
#[derive(Debug, Hash, Deserialize)]
pub(crate) struct InputText<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

// ---- Reading ------------------------------------------------------------------------------------

/// Appends one value, `{"S":"…"}` for example, to `out`.
struct ValueSeed<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

/// Appends the content of a value whose kind is known.
struct ContentSeed<'o> {
    kind: AttributeKind,
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("an AttributeValue")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth > limits::NESTING_MAX {
            return Err(A::Error::custom("Nesting Levels have exceeded supported limits"));
        }
        let Some(kind) = map.next_key()? else {
            return Err(A::Error::custom(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
            ));
        };
        map.next_value_seed(ContentSeed { kind, out: self.out, depth: self.depth })?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
                 supported datatypes",
            )),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ContentSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.kind {
            AttributeKind::S | AttributeKind::N | AttributeKind::B => input.deserialize_str(self),
            AttributeKind::Bool | AttributeKind::Null => input.deserialize_bool(self),
            AttributeKind::M => input.deserialize_map(self),
            _ => input.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for ContentSeed<'_> {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "the content of an AttributeValue {}", self.kind.name())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            AttributeKind::S => put_value(self.kind, text.as_bytes(), self.out),
            _ => put_value(self.kind, &scalar(self.kind, text)?, self.out),
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match (self.kind, value) {
            (AttributeKind::Bool, _) => put_value(self.kind, &[u8::from(value)], self.out),
            (_, true) => put_value(self.kind, &[], self.out),
            (_, false) => {
                return Err(E::custom(
                    "One or more parameter values were invalid: Null attribute value types must have the \
                     value of true",
                ));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Some(element) = self.kind.element() else {
            let mut content = Vec::new();
            loop {
                let next = sequence
                    .next_element_seed(ValueSeed { out: &mut content, depth: self.depth + 1 })?;
                if next.is_none() {
                    put_value(self.kind, &content, self.out);
                    return Ok(());
                }
            }
        };
        let mut elements = Vec::new();
        while let Some(InputText(text)) = sequence.next_element()? {
            elements.push(scalar(element, &text)?);
        }
        if elements.is_empty() {
            return Err(A::Error::custom(format!(
                "One or more parameter values were invalid: An {} set may not be empty",
                element.name()
            )));
        }
        let mut elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
        put_set(self.kind, &mut elements, self.out).map_err(|()| {
            A::Error::custom(
                "One or more parameter values were invalid: Input collection contains duplicates",
            )
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let builder = read_attributes(map, self.depth + 1)?;
        let content = builder.finish().map_err(duplicate)?;
        put_value(self.kind, &content, self.out);
        Ok(())
    }
}

/// Content of a string, number or binary.
fn scalar<E: Error>(kind: AttributeKind, text: &str) -> Result<Vec<u8>, E> {
    match kind {
        AttributeKind::N => {
            let mut form = Vec::with_capacity(24);
            number::canonical(text, &mut form).map_err(|error| E::custom(error.message()))?;
            Ok(form)
        }
        AttributeKind::B => STANDARD
            .decode(text)
            .map_err(|error| E::custom(format!("a binary is not valid base64: {error}"))),
        _ => Ok(text.as_bytes().to_vec()),
    }
}

fn read_attributes<'de, A: MapAccess<'de>>(
    mut map: A,
    depth: usize,
) -> Result<ItemBuilder, A::Error> {
    let mut builder = ItemBuilder::default();
    while let Some(InputText(name)) = map.next_key()? {
        if name.is_empty() {
            return Err(A::Error::custom(
                "One or more parameter values were invalid: an attribute has an empty name",
            ));
        }
        let out = builder.begin(name.as_bytes());
        map.next_value_seed(ValueSeed { out, depth })?;
        builder.end_value();
    }
    Ok(builder)
}

fn duplicate<E: Error>(name: String) -> E {
    E::custom(format!("the attribute {name} occurs twice"))
}

impl<'de> Deserialize<'de> for PackedItem {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = PackedItem;

            fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
                text.write_str("an item")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PackedItem, A::Error> {
                read_attributes(map, 0)?.build().map_err(duplicate)
            }
        }
        input.deserialize_map(ItemVisitor)
    }
}

impl<'de> Deserialize<'de> for PackedValue {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut bytes = Vec::new();
        let seed = ValueSeed { out: &mut bytes, depth: 0 };
        seed.deserialize(input)?;
        Ok(Self::new(bytes))
    }
}

// ---- Writing ------------------------------------------------------------------------------------

/// Names and strings are stored as UTF-8.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// An item without the attributes that a filter hides.
pub(crate) struct FilteredItem<'a, F>(pub(crate) ItemView<'a>, pub(crate) F);

impl<F: Fn(&[u8]) -> bool> Serialize for FilteredItem<'_, F> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| self.1(name)) {
            map.serialize_entry(text(name), &value)?;
        }
        map.end()
    }
}

impl Serialize for ItemView<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        FilteredItem(*self, |_: &[u8]| true).serialize(output)
    }
}

impl Serialize for PackedItem {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        self.view().serialize(output)
    }
}

impl Serialize for ValueView<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(Some(1))?;
        map.serialize_entry(self.kind.name(), &Content(*self))?;
        map.end()
    }
}

struct Content<'a>(ValueView<'a>);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        match value.kind {
            AttributeKind::S | AttributeKind::N => output.serialize_str(text(value.content)),
            AttributeKind::B => output.serialize_str(&STANDARD.encode(value.content)),
            AttributeKind::Bool => output.serialize_bool(value.is_true()),
            AttributeKind::Null => output.serialize_bool(true),
            AttributeKind::M => value.map().serialize(output),
            AttributeKind::L => output.collect_seq(value.list()),
            AttributeKind::BS => output.collect_seq(value.set().map(|one| STANDARD.encode(one))),
            AttributeKind::SS | AttributeKind::NS => output.collect_seq(value.set().map(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(input: &str) -> Result<String, serde_json::Error> {
        let item: PackedItem = serde_json::from_str(input)?;
        serde_json::to_string(&item)
    }

    #[test]
    fn every_kind_survives_a_round_trip_in_canonical_form() {
        let input = r#"{"b":{"B":"AAEC"},"l":{"L":[{"S":""},{"NULL":true},{"M":{"z":{"N":"1"},"a":{"BOOL":false}}}]},
            "n":{"N":"1.50"},"s":{"S":"x\"y"},"ss":{"SS":["b","a"]},"ns":{"NS":["10","9"]},"bs":{"BS":["Ag==","AQ=="]}}"#;
        assert_eq!(
            round_trip(input).unwrap(),
            r#"{"b":{"B":"AAEC"},"bs":{"BS":["AQ==","Ag=="]},"l":{"L":[{"S":""},{"NULL":true},{"M":{"a":{"BOOL":false},"z":{"N":"1"}}}]},"n":{"N":"1.5"},"ns":{"NS":["9","10"]},"s":{"S":"x\"y"},"ss":{"SS":["a","b"]}}"#
        );
    }

    #[test]
    fn invalid_values_are_rejected() {
        let deep = format!(r#"{{"a":{}{}"#, r#"{"L":["#.repeat(40), "]}".repeat(40));
        for (input, expected) in [
            (r#"{"a":{}}"#, "is empty"),
            (r#"{"a":{"S":"x","N":"1"}}"#, "more than one"),
            (r#"{"a":{"X":"x"}}"#, "unknown variant"),
            (r#"{"a":{"S":1}}"#, "invalid type"),
            (r#"{"a":{"SS":[]}}"#, "may not be empty"),
            (r#"{"a":{"SS":["x","x"]}}"#, "duplicates"),
            (r#"{"a":{"NS":["1","1.0"]}}"#, "duplicates"),
            (r#"{"a":{"NULL":false}}"#, "true"),
            (r#"{"a":{"B":"?"}}"#, "base64"),
            (r#"{"a":{"S":"x"},"a":{"S":"y"}}"#, "twice"),
            (r#"{"":{"S":"x"}}"#, "empty name"),
            (&deep, "Nesting"),
        ] {
            let error = round_trip(input).unwrap_err().to_string();
            assert!(error.contains(expected), "{input}: {error}");
        }
    }
}
