//! Files of the repository, generated blocks and tables.

use std::fs;
use std::path::{Path, PathBuf};

use inventory_testkit::documents;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares the block `name` of the document `path` with `rendered`, or rewrites it with UPDATE_DOCS=1.
#[track_caller]
pub(crate) fn check_block(path: &str, name: &str, rendered: &str) {
    documents::check_block(&root().join(path), name, rendered);
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
