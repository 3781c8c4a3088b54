//! Words of an expression.

use super::Member;
use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, keyword or function.
    Word(&'a str),
    /// `#alias`, with its sign.
    Name(&'a str),
    /// `:alias`, with its sign.
    Value(&'a str),
    /// One of `( ) , = <> < <= > >= + - . [ ]`.
    Mark(&'a str),
}

impl<'a> Token<'a> {
    pub(super) fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Name(text) | Token::Value(text) | Token::Mark(text) => text,
        }
    }
}

pub(super) fn tokens(text: &str, member: Member) -> Result<Vec<Token<'_>>, Error> {
    let bytes = text.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let word_end = |from: usize| from + bytes[from..].iter().take_while(|b| is_word(b)).count();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' | b':' => word_end(at + 1),
            b'<' if matches!(bytes.get(at + 1), Some(b'>' | b'=')) => at + 2,
            b'>' if bytes.get(at + 1) == Some(&b'=') => at + 2,
            b'(' | b')' | b',' | b'=' | b'<' | b'>' | b'+' | b'-' | b'.' | b'[' | b']' => at + 1,
            byte if is_word(byte) => word_end(at),
            _ => {
                let token: String = text[at..].chars().take(1).collect();
                return Err(member.invalid(format!("Syntax error; token: \"{token}\"")));
            }
        };
        let piece = &text[at..end];
        if end == at + 1 && matches!(byte, b'#' | b':') {
            return Err(member.invalid(format!("Syntax error; token: \"{piece}\"")));
        }
        found.push(match byte {
            b'#' => Token::Name(piece),
            b':' => Token::Value(piece),
            byte if is_word(byte) => Token::Word(piece),
            _ => Token::Mark(piece),
        });
        at = end;
    }
    Ok(found)
}
