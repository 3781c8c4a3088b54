//! Encodings of text files: UTF-8, UTF-16 and CP949, recognised by their content.

use encoding_rs::{EUC_KR, Encoding, UTF_16BE, UTF_16LE};

/// Name of UTF-8 in spreadsheets.
const FIX: &str = "save it as \"CSV UTF-8\"";

/// Programs of DOS end their files with this character.
const END_OF_FILE: char = '\u{1a}';

/// Formats that are no text, by their first bytes.
const NO_TEXT: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "a spreadsheet or an archive (.xlsx, .ods, .zip)"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet (.xls)"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "compressed (.gz)"),
    (b"\x89PNG", "an image"),
];

/// The text, and a note if its encoding is not UTF-8.
///
/// # Errors
/// The format of the file, and how to convert it.
pub(super) fn decode(bytes: &[u8]) -> Result<(String, Option<String>), String> {
    let (mut text, note) = decode_all(bytes)?;
    text.truncate(text.trim_end_matches(END_OF_FILE).len());
    Ok((text, note))
}

fn decode_all(bytes: &[u8]) -> Result<(String, Option<String>), String> {
    if let Some((_, what)) = NO_TEXT.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(format!("is {what}, not text: open it in its program and {FIX}"));
    }
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        let body = bytes.get(length..).unwrap_or_default();
        let text = complete(encoding, body)
            .ok_or_else(|| format!("begins like {} and is not valid: {FIX}", encoding.name()))?;
        let note = (encoding != encoding_rs::UTF_8).then(|| read_as(encoding.name()));
        return no_nul(text, note);
    }
    if bytes.contains(&0) {
        let text = utf16(bytes).ok_or_else(|| format!("is not text: {FIX}"))?;
        return no_nul(text, Some(read_as("UTF-16")));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text.to_owned(), None)),
        Err(error) => korean(bytes).map(|text| (text, Some(read_as("CP949")))).ok_or_else(|| {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            format!("is neither UTF-8 nor UTF-16 nor CP949, on line {line}: {FIX}")
        }),
    }
}

fn read_as(encoding: &str) -> String {
    format!("read as {encoding}; look at the names in the result")
}

fn no_nul(text: String, note: Option<String>) -> Result<(String, Option<String>), String> {
    match text.contains('\0') {
        true => Err(format!("is not text: {FIX}")),
        false => Ok((text, note)),
    }
}

/// The text, if all of `bytes` is of this encoding.
fn complete(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    Some(text.into_owned())
}

/// UTF-16 without a byte order mark: most characters of a file of seats are ASCII, so one byte of most pairs is 0.
fn utf16(bytes: &[u8]) -> Option<String> {
    const CLEAR: usize = 4;
    let zeros = |offset| bytes.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    let encoding = match bytes.len().is_multiple_of(2) {
        true if second >= CLEAR * first.max(1) => UTF_16LE,
        true if first >= CLEAR * second.max(1) => UTF_16BE,
        _ => return None,
    };
    complete(encoding, bytes)
}

/// CP949, if that makes Korean text: Latin letters of an older encoding are rarely valid CP949, and not Korean.
fn korean(bytes: &[u8]) -> Option<String> {
    let text = complete(EUC_KR, bytes)?;
    let is_korean = |c: &char| matches!(c, '\u{ac00}'..='\u{d7a3}' | '\u{3131}'..='\u{318e}');
    let is_other_letter = |c: &char| c.is_alphabetic() && !c.is_ascii() && !is_korean(c);
    let korean = text.chars().filter(is_korean).count();
    let others = text.chars().filter(is_other_letter).count();
    (korean > 0 && korean >= others).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "seat_id,section\nA-1,무대\n";

    fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes_of).collect()
    }

    #[test]
    fn text_of_offices_is_read_in_its_encoding() {
        let marked = format!("\u{feff}{TEXT}");
        for (bytes, note) in [
            (TEXT.as_bytes().to_vec(), None),
            (marked.as_bytes().to_vec(), None),
            (utf16(&marked, u16::to_le_bytes), Some("UTF-16LE")),
            (utf16(&marked, u16::to_be_bytes), Some("UTF-16BE")),
            (utf16(TEXT, u16::to_le_bytes), Some("UTF-16")),
            (utf16(TEXT, u16::to_be_bytes), Some("UTF-16")),
            (EUC_KR.encode(TEXT).0.into_owned(), Some("CP949")),
            // 똠 is in CP949 and not in EUC-KR.
            (b"\x8c\x63".to_vec(), Some("CP949")),
        ] {
            let (text, found) = decode(&bytes).unwrap();
            assert_eq!(text, if bytes.len() == 2 { "똠" } else { TEXT });
            assert_eq!(found.is_some(), note.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(note.unwrap_or_default()));
        }
    }

    #[test]
    fn files_that_are_no_text_are_refused_with_a_fix() {
        for (bytes, expected) in [
            (&b"PK\x03\x04rest"[..], ".xlsx"),
            (b"\xd0\xcf\x11\xe0", ".xls"),
            (b"a\n\xe4b\xfc\n", "on line 2"),
            // Latin-1: two letters that CP949 has, too.
            (b"B\xfchne \xc4 \xd6", "neither"),
            (b"\0\0\0\0", "not text"),
            (b"\xff\xfe\0\0a\0\0\0", "not text"),
            (b"\xef\xbb\xbf\xff", "is not"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains("CSV UTF-8"), "{error}");
        }
    }
}
