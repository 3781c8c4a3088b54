//! Generated blocks: find, compare, rewrite.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs};

/// Tests run in parallel and several blocks share a file.
static FILES: Mutex<()> = Mutex::new(());

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares the block `name` of the document `path` with `rendered`, or rewrites it with UPDATE_DOCS=1.
pub(crate) fn check_block(path: &str, name: &str, rendered: &str) {
    let _guard = FILES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let text = read(path);
    if env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        let (before, block, after) =
            split(&text, name).unwrap_or_else(|| panic!("{path}: no block {name}"));
        // Another test may be reading the file.
        if block != rendered {
            fs::write(root().join(path), format!("{before}{rendered}{after}")).unwrap();
        }
        return;
    }
    if let Some(difference) = difference(&text, name, rendered) {
        panic!(
            "{path}, block {name}: {difference}\nto rewrite it: UPDATE_DOCS=1 cargo test --test docs"
        );
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

/// A Markdown table. Cells must not contain a line break.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned));
    text.push_str(&format!("|{}\n", "---|".repeat(N)));
    for row in rows {
        text.push_str(&line(&row.clone().map(|cell| cell.replace('|', "\\|"))));
    }
    text
}

/// All documents: Markdown files outside of build output.
pub(crate) fn documents() -> Vec<PathBuf> {
    files(|name| name.ends_with(".md"))
}

/// All files whose name matches, below the root, outside of build output.
pub(crate) fn files(matches: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "data", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if matches(&name) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn missing_superfluous_and_different_rows_are_reported() {
    let rows = [["`A`".to_owned(), "1".to_owned()], ["`B`".to_owned(), "2".to_owned()]];
    let rendered = table(["name", "value"], &rows);
    let document =
        |block: &str| format!("# Title\n<!-- generated: x -->\n{block}<!-- end: x -->\nmore\n");
    assert_eq!(difference(&document(&rendered), "x", &rendered), None);
    for (block, names) in [
        (table(["name", "value"], &rows[..1]), "(end of block)"),
        (rendered.clone() + "| `C` | 3 |\n", "`C`"),
        (rendered.replace("| 2 |", "| 3 |"), "| 3 |"),
    ] {
        let reported = difference(&document(&block), "x", &rendered).unwrap();
        assert!(reported.contains(names), "{reported}");
    }
    assert!(difference("# Title\n", "x", &rendered).is_some());
}
