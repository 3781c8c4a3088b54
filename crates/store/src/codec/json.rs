//! JSON writer for the body of the hot request.
//!
//! The SDK builds a map of named values for every item and serializes the maps: some forty allocations per reservation.
//! Reservations differ in a few short texts only, so only these are written, between parts that are built once
//! ([`super::expression`]). Signing and sending: `direct_client`.
//!
//! Not here: items, expressions, tables.

use std::fmt::{Display, Write as _};

/// Usual size of one action in bytes: the put of a record with a payment and an order.
const ACTION_BYTES: usize = 768;

/// A JSON text being written.
pub(super) struct JsonWriter {
    out: String,
}

impl JsonWriter {
    pub(super) fn for_actions(count: usize) -> Self {
        Self { out: String::with_capacity(ACTION_BYTES * (count + 1)) }
    }

    /// Appends text that is JSON already.
    pub(super) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Appends a quoted string.
    pub(super) fn quoted(&mut self, text: &str) {
        quote(&mut self.out, text);
    }

    /// Writes the members of an item, a key or expression values; the caller writes the braces.
    pub(super) fn attributes(&mut self) -> AttributeWriter<'_> {
        AttributeWriter { out: &mut self.out, is_first: true }
    }

    pub(super) fn into_text(self) -> String {
        self.out
    }
}

/// Typed values by name, as DynamoDB writes them: `"qty":{"N":"2"}`.
pub(super) struct AttributeWriter<'a> {
    out: &'a mut String,
    is_first: bool,
}

impl AttributeWriter<'_> {
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.open(name, "S");
        quote(self.out, value);
        self.out.push('}');
    }

    /// A text that needs no escapes (digits, dots), formatted in place.
    pub(super) fn plain(&mut self, name: &str, value: impl Display) {
        self.open(name, "S");
        self.digits(value);
    }

    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        self.open(name, "N");
        self.digits(value);
    }

    pub(super) fn truth(&mut self, name: &str, value: bool) {
        self.open(name, "BOOL");
        self.out.push_str(if value { "true}" } else { "false}" });
    }

    pub(super) fn texts<'v>(&mut self, name: &str, values: impl Iterator<Item = &'v str>) {
        self.open(name, "L");
        self.out.push('[');
        for (n, value) in values.enumerate() {
            self.out.push_str(if n == 0 { "{\"S\":" } else { ",{\"S\":" });
            quote(self.out, value);
            self.out.push('}');
        }
        self.out.push_str("]}");
    }

    /// Names are attribute names and placeholders of this crate: none needs an escape.
    fn open(&mut self, name: &str, kind: &str) {
        let comma = if self.is_first { "\"" } else { ",\"" };
        self.is_first = false;
        for part in [comma, name, "\":{\"", kind, "\":"] {
            self.out.push_str(part);
        }
    }

    fn digits(&mut self, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "\"{value}\"}}");
    }
}

/// Appends `text` as a JSON string.
pub(super) fn quote(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    // Rare: identifiers have no such bytes, and non-ASCII text needs no escape.
    while let Some(at) = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\') {
        out.push_str(&rest[..at]);
        let _ = write!(out, "\\u{:04x}", rest.as_bytes()[at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn any_text_survives_the_round_trip() {
        let every: String = (0..0x250_u32).filter_map(char::from_u32).collect();
        for text in ["", "rsv_1", "a\"b\\c\n", "\u{0}\u{1f}\u{7f}", "좌석 🎫", &every] {
            let mut out = String::new();
            quote(&mut out, text);
            let read: String = serde_json::from_str(&out).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn attributes_are_json_of_the_right_types() {
        let mut json = JsonWriter::for_actions(1);
        json.raw("{");
        let mut of = json.attributes();
        of.text("a", "x\"y");
        of.number("b", -12);
        of.truth("c", false);
        of.texts("d", ["1", "2"].into_iter());
        of.texts("e", std::iter::empty());
        of.plain("f", format_args!("{}:{}", 1, 2));
        json.raw("}");
        let read: serde_json::Value = serde_json::from_str(&json.into_text()).unwrap();
        let expected = serde_json::json!({
            "a": {"S": "x\"y"}, "b": {"N": "-12"}, "c": {"BOOL": false},
            "d": {"L": [{"S": "1"}, {"S": "2"}]}, "e": {"L": []}, "f": {"S": "1:2"},
        });
        assert_eq!(read, expected);
    }
}
