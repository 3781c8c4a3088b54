//! Generated blocks of documents: compared with what the code renders, or rewritten.
//!
//! A block stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`; prose around the blocks is written by hand.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

/// Tests run in parallel and several blocks share a file.
static FILES: Mutex<()> = Mutex::new(());

/// Compares the block `name` of `document` with `rendered`, or rewrites it with UPDATE_DOCS=1.
///
/// # Panics
/// If they differ, with the first line that differs.
#[track_caller]
pub fn check_block(document: &Path, name: &str, rendered: &str) {
    let _guard = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = document.display();
    let text = fs::read_to_string(document).unwrap_or_else(|error| panic!("{path}: {error}"));
    if env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        let (before, block, after) =
            split(&text, name).unwrap_or_else(|| panic!("{path}: no block {name}"));
        // Another test may be reading the file.
        if block != rendered {
            fs::write(document, format!("{before}{rendered}{after}")).unwrap();
        }
        return;
    }
    if let Some(difference) = difference(&text, name, rendered) {
        panic!("{path}, block {name}: {difference}\nto rewrite it: UPDATE_DOCS=1 cargo test");
    }
}

/// The first line in which the block `name` of `text` differs from `rendered`.
fn difference(text: &str, name: &str, rendered: &str) -> Option<String> {
    let Some((_, block, _)) = split(text, name) else {
        return Some("the markers are missing".to_owned());
    };
    let (mut is, mut wanted) = (block.lines(), rendered.lines());
    loop {
        match (is.next(), wanted.next()) {
            (None, None) => return None,
            (is, wanted) if is == wanted => {}
            (is, wanted) => {
                let shown = |line: Option<&str>| line.unwrap_or("(end of block)").to_owned();
                return Some(format!("\n  document: {}\n  code:     {}", shown(is), shown(wanted)));
            }
        }
    }
}

/// The text up to the block, the block, and the text after it.
fn split<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str, &'t str)> {
    let open = format!("<!-- generated: {name} -->\n");
    let from = text.find(&open)? + open.len();
    let to = from + text[from..].find(&format!("<!-- end: {name} -->"))?;
    Some((&text[..from], &text[from..to], &text[to..]))
}

#[test]
fn missing_superfluous_and_different_rows_are_reported() {
    let rendered = "| `A` | 1 |\n| `B` | 2 |\n";
    let document =
        |block: &str| format!("# Title\n<!-- generated: x -->\n{block}<!-- end: x -->\nmore\n");
    assert_eq!(difference(&document(rendered), "x", rendered), None);
    for (block, names) in [
        ("| `A` | 1 |\n".to_owned(), "(end of block)"),
        (rendered.to_owned() + "| `C` | 3 |\n", "`C`"),
        (rendered.replace("| 2 |", "| 3 |"), "| 3 |"),
    ] {
        let reported = difference(&document(&block), "x", rendered).unwrap();
        assert!(reported.contains(names), "{reported}");
    }
    assert!(difference("# Title\n", "x", rendered).is_some());
}
