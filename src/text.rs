//! Text that came from outside: which characters must not be displayed raw, and how they are escaped.
//!
//! Not here: what a field accepts (`api::validate`, `control_plane::admin::check`).

use std::borrow::Cow;

/// Whether `c` controls the display instead of being displayed: control characters, direction overrides, line and
/// paragraph separators, and characters without width. U+200C and U+200D are text: Persian and emoji need them.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The first character of `text` that [`is_control`], for messages: `'\u{202e}'`.
pub(crate) fn control_character(text: &str) -> Option<String> {
    let found = text.chars().find(|c| is_control(*c))?;
    Some(format!("{found:?}"))
}

/// `text` with each control character as `\u202e`, an escape that JSON has too.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_if(text, is_control)
}

/// [`escape`] that keeps line ends.
pub(crate) fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| c != '\n' && is_control(c))
}

fn escape_if(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// `text` as a cell that a spreadsheet displays and does not evaluate: control characters are escaped, and an
/// apostrophe stands before a character that begins a formula.
pub(crate) fn spreadsheet_cell(text: &str) -> Cow<'_, str> {
    let escaped = escape(text);
    // The full-width forms begin formulas in spreadsheets with an East Asian locale.
    match escaped.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) {
        true => Cow::Owned(format!("'{escaped}")),
        false => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_as_json_does() {
        for (text, escaped) in [
            ("plain, 무대 é", "plain, 무대 é"),
            ("a\u{1b}[31mb", "a\\u001b[31mb"),
            ("\u{202e}txt.exe", "\\u202etxt.exe"),
            ("STA\u{200b}LLS", "STA\\u200bLLS"),
            ("c1 \u{9b} del \u{7f}", "c1 \\u009b del \\u007f"),
            ("tag \u{e0041}", "tag \\udb40\\udc41"),
            ("a\nb\tc\r", "a\\u000ab\\u0009c\\u000d"),
        ] {
            assert_eq!(escape(text), escaped);
        }
        assert_eq!(escape_lines("a\nb\r\n"), "a\nb\\u000d\n");
        // An emoji of several characters stays whole.
        assert_eq!(escape("👩\u{200d}🎤"), "👩\u{200d}🎤");
        assert_eq!(control_character("a\u{202e}").as_deref(), Some("'\\u{202e}'"));
        assert_eq!(control_character("가"), None);
    }

    #[test]
    fn cells_that_a_spreadsheet_would_evaluate_are_text() {
        for (text, cell) in [
            ("pi_1", "pi_1"),
            ("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\\u0009=1"),
            ("\r=1", "\\u000d=1"),
            ("＝1", "'＝1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(spreadsheet_cell(text), cell);
        }
    }
}
