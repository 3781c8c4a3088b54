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
    // Nearly every text is printable ASCII. Without an early exit the loop compares many bytes per instruction.
    if text.bytes().fold(true, |all, b| all & matches!(b, b' '..=b'~')) {
        return None;
    }
    let found = text.chars().find(|c| is_control(*c))?;
    Some(format!("{found:?}"))
}

/// `text`, or its beginning and `…` if it has more than `bytes_max` bytes.
pub(crate) fn clip(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", &text[..end]))
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

/// `text` as a cell that a spreadsheet displays and neither evaluates nor changes: control characters are escaped, and
/// an apostrophe stands before a formula and before a text that is read as another number, a date or a time.
pub(crate) fn spreadsheet_cell(text: &str) -> Cow<'_, str> {
    let escaped = escape(text);
    // The full-width forms begin formulas in spreadsheets with an East Asian locale.
    let is_formula = escaped.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    match is_formula || is_changed_by_spreadsheets(&escaped) {
        true => Cow::Owned(format!("'{escaped}")),
        false => escaped,
    }
}

/// Whether a spreadsheet takes `text` for a value and shows another one: `00123` becomes 123, `1e5` becomes 100000, `1-2`
/// becomes a day, and of 20 digits the first 15 stay. Some texts that no spreadsheet changes are included.
fn is_changed_by_spreadsheets(text: &str) -> bool {
    /// Spreadsheets calculate with 15 digits.
    const DIGITS_KEPT: usize = 15;
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let is_separator = |c: char| matches!(c, '.' | ',' | ':' | '/' | '-' | '+' | ' ' | '%');
    let is_known = |c: char| c.is_ascii_alphanumeric() || is_separator(c);
    if !text.contains(|c: char| c.is_ascii_digit()) || !text.chars().all(is_known) {
        return false;
    }
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    match letters.to_ascii_lowercase().as_str() {
        "" => {
            let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
            !is_whole || text.len() > DIGITS_KEPT || (text.len() > 1 && text.starts_with('0'))
        }
        "e" => text.starts_with(|c: char| c.is_ascii_digit()),
        name => name.len() >= 3 && MONTHS.iter().any(|month| month.starts_with(name)),
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
        for byte in 0..=0x7f_u8 {
            let text = format!("pay_0123456789_{}", char::from(byte));
            let found = control_character(&text);
            assert_eq!(found.is_some(), byte < b' ' || byte == 0x7f, "{byte:#x}");
        }
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

    #[test]
    fn ids_that_a_spreadsheet_would_change_are_text() {
        for id in [
            "00123",
            "00012345678901234567",
            "1234567890123456",
            "1e5",
            "12E-3",
            "1.10",
            "1-2",
            "2025-10-01",
            "10:30",
            "3/4",
            "MAR-1",
            "1-dec",
            "sept5",
            "1 1/2",
        ] {
            assert_eq!(spreadsheet_cell(id), format!("'{id}"));
        }
        for id in [
            "0",
            "7",
            "123456789012345",
            "A-1",
            "1A-1-01",
            "rsv_1",
            "e5",
            "ord_00123",
            "1.000_a",
            "2025-11-29T22:43:03.431Z",
            "marble-1",
            "A-1 A-2",
            "",
        ] {
            assert_eq!(spreadsheet_cell(id), id);
        }
    }

    #[test]
    fn a_long_text_is_clipped_between_characters() {
        assert_eq!(clip("seats", 5), "seats");
        assert_eq!(clip("seats", 4), "s…");
        assert_eq!(clip("무대 왼쪽", 8), "무…");
        for length in 0..20 {
            assert!(clip("무대 왼쪽 x", length).len() <= length.max('…'.len_utf8()));
        }
    }
}
