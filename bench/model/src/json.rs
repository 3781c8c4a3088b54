//! Reading requests' JSON without a tree in between, and writing strings. A transaction of a hundred
//! actions is some hundred kilobytes, a thousand times a second.
//!
//! Must not live here: what the members mean.

use std::borrow::Cow;

use crate::error::{Code, Error};
use crate::limits;

/// Reads one JSON text from front to back.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

pub(crate) fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(Code::Serialization, what.to_string())
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|_| broken("the body is no UTF-8"))?;
        Ok(Self {
            text,
            at: 0,
            depth: 0,
        })
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T, Error> {
        Err(broken(format!("at byte {}: want {wanted}", self.at)))
    }

    fn expect(&mut self, byte: u8, wanted: &str) -> Result<(), Error> {
        match self.peek() == Some(byte) {
            true => {
                self.at += 1;
                Ok(())
            }
            false => self.unexpected(wanted),
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        match self.depth > limits::JSON_DEPTH_MAX {
            true => Err(broken(format!(
                "nested deeper than {}",
                limits::JSON_DEPTH_MAX
            ))),
            false => Ok(()),
        }
    }

    /// Calls `member` with each name; it must read the value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'{', "an object")?;
        self.enter()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let name = self.string()?;
                self.expect(b':', "a colon")?;
                member(self, name)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break self.at += 1,
                    _ => return self.unexpected("a comma or the object's end"),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `element` once for each element; it must read it.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'[', "a list")?;
        self.enter()?;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                element(self)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break self.at += 1,
                    _ => return self.unexpected("a comma or the list's end"),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                b'\\' => return self.escaped(start),
                0..=0x1f => break,
                _ => self.at += 1,
            }
        }
        self.unexpected("the string's end")
    }

    /// The rest of a string that has escapes; serde_json knows them all.
    fn escaped(&mut self, start: usize) -> Result<Cow<'a, str>, Error> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    let quoted = &self.text[start - 1..=self.at];
                    self.at += 1;
                    let text: String = serde_json::from_str(quoted).map_err(broken)?;
                    return Ok(Cow::Owned(text));
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.unexpected("the string's end")
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Error> {
        self.peek();
        let rest = &self.text[self.at..];
        for (word, value) in [("true", true), ("false", false)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.unexpected("true or false")
    }

    pub(crate) fn integer(&mut self) -> Result<i64, Error> {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-');
        let digits = &rest[..end.unwrap_or(rest.len())];
        let Ok(value) = digits.parse() else {
            return self.unexpected("a whole number");
        };
        self.at += digits.len();
        Ok(value)
    }

    /// Whether null comes next, which is then read: SDKs write it for "not set".
    pub(crate) fn null(&mut self) -> bool {
        self.peek();
        let is_null = self.text[self.at..].starts_with("null");
        self.at += if is_null { 4 } else { 0 };
        is_null
    }

    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.unexpected("the end"),
        }
    }
}

/// `text`, which is UTF-8, quoted.
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => {
                out.extend_from_slice(&text[from..at]);
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                from = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(escape);
        from = at + 1;
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lists_and_strings_are_read() {
        let body = br#" { "a" : [ "x", "y\"\u00e9\n" ] , "b":{}, "c": -12, "d":true, "e":null } "#;
        let mut reader = Reader::new(body).unwrap();
        let mut seen = Vec::new();
        reader
            .object(|reader, name| {
                match &*name {
                    "a" => reader.array(|r| r.string().map(|s| seen.push(s.into_owned())))?,
                    "b" => reader.object(|_, _| Ok(()))?,
                    "c" => assert_eq!(reader.integer()?, -12),
                    "d" => assert!(reader.boolean()?),
                    _ => assert!(reader.null()),
                }
                Ok(())
            })
            .unwrap();
        reader.end().unwrap();
        assert_eq!(seen, ["x", "y\"é\n"]);
    }

    #[test]
    fn broken_text_is_refused_and_never_runs_over_the_end() {
        for body in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":\"x\\",
            "{\"a\":\"x\\\"",
            "[",
            "{\"a\" 1}",
            "\"\n\"",
        ] {
            let mut reader = Reader::new(body.as_bytes()).unwrap();
            let read = reader.object(|reader, _| reader.string().map(|_| ()));
            assert!(read.is_err(), "{body}");
        }
        let deep = "{\"a\":".repeat(limits::JSON_DEPTH_MAX + 1);
        fn down(reader: &mut Reader<'_>) -> Result<(), Error> {
            reader.object(|reader, _| down(reader))
        }
        let error = down(&mut Reader::new(deep.as_bytes()).unwrap()).unwrap_err();
        assert!(error.message().contains("deeper"), "{error:?}");
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = "a\"b\\c\n\u{1}é\t";
        let mut out = Vec::new();
        write_string(text.as_bytes(), &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
