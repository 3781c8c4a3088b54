//! Normalises values, so that values that look equal are equal.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

/// `text` without surrounding space and invisible characters, with plain single spaces and composed letters: values
/// that look equal are equal. Control characters stay; the user of the value refuses them.
pub(in crate::cli) fn clean(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    let is_plain = |byte: &u8| matches!(byte, b'!'..=b'~');
    if text.as_bytes().iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for c in text.nfc() {
        let last = cleaned.chars().next_back();
        match c {
            _ if is_invisible(c) => {}
            // Persian and emoji need the joiners; letters of other scripts never do.
            '\u{200c}' | '\u{200d}' if last.is_none_or(|c| c.is_ascii() || is_hangul(c)) => {}
            _ if c.is_whitespace() && !c.is_control() => match last {
                None | Some(' ') => {}
                Some(_) => cleaned.push(' '),
            },
            _ => cleaned.push(c),
        }
    }
    cleaned.truncate(cleaned.trim_end().len());
    match cleaned == text {
        true => Cow::Borrowed(text),
        false => Cow::Owned(cleaned),
    }
}

fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{feff}'
    )
}

fn is_hangul(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{ac00}'..='\u{d7a3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_look_equal_are_equal() {
        for (text, expected) in [
            ("STALLS", "STALLS"),
            (" STALLS\u{a0}", "STALLS"),
            ("STA\u{200b}LLS", "STALLS"),
            ("\u{feff}STALLS\u{200d}", "STALLS"),
            ("STALLS \u{a0} LEFT", "STALLS LEFT"),
            ("1층\u{3000}왼쪽", "1층 왼쪽"),
            // Decomposed, as some systems write names.
            ("\u{1106}\u{116e}\u{1103}\u{1162}", "무대"),
            ("Ra\u{308}nge", "Ränge"),
            ("👩\u{200d}🎤", "👩\u{200d}🎤"),
            ("two\nlines", "two\nlines"),
            ("\u{202e}x", "\u{202e}x"),
            ("\u{a0}", ""),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }
}
