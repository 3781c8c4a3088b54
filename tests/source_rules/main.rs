//! Rules for the source tree that no compiler checks: file layout, module heads, type names, wording, the inventory of
//! `unsafe`.
//!
//! Walls between crates do not belong here: Cargo enforces them. Each rule has a case in its module's
//! tests that shows that the rule can fail.
#![allow(clippy::unwrap_used)]

mod circles;
mod layout;
mod prose;
mod type_names;
mod unsafe_code;
mod wording;

use std::fs;
use std::path::{Path, PathBuf};

/// Endings of the files that are checked.
const CHECKED_ENDINGS: [&str; 13] = [
    ".rs",
    ".toml",
    ".proto",
    ".md",
    ".py",
    ".sh",
    ".yml",
    ".yaml",
    ".c",
    ".js",
    "Makefile",
    "Dockerfile.amd64",
    "Dockerfile.arm64",
];

/// Directories with generated or foreign content, relative to the root.
const SKIPPED_DIRECTORIES: [&str; 4] = ["target", ".git", "data", "proto/generated"];

/// A text file of the repository.
struct SourceFile {
    /// Relative to the root, with `/` between its parts.
    path: String,
    text: String,
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// `path:line: problem`; lines count from 1.
    fn problem(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

#[cfg(test)]
fn sample(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned() }
}

fn read_tree() -> Vec<SourceFile> {
    let files = read_tree_of(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(files.len() > 20, "not the repository: {} files", files.len());
    files
}

fn read_tree_of(root: &Path) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    collect(root, root, &mut paths);
    paths
        .into_iter()
        .map(|path| SourceFile {
            text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")),
            path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        })
        .collect()
}

fn collect(root: &Path, directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        if path.is_dir() {
            let below_root = path.strip_prefix(root).unwrap();
            if !SKIPPED_DIRECTORIES.iter().any(|skipped| below_root == Path::new(skipped)) {
                collect(root, &path, paths);
            }
        } else if CHECKED_ENDINGS.iter().any(|ending| name.ends_with(ending))
            || path.ends_with(".ci/run")
        {
            paths.push(path);
        }
    }
}

fn assert_none(mut problems: Vec<String>) {
    problems.sort();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_are_laid_out_by_the_rules() {
    assert_none(read_tree().iter().flat_map(layout::problems).collect());
}

#[test]
fn type_names_are_unique_nouns() {
    let files = read_tree();
    assert_none(type_names::problems(&files));
    assert_none(type_names::stale_exceptions(&files));
}

#[test]
fn wording_is_plain() {
    assert_none(read_tree().iter().flat_map(wording::problems).collect());
}

#[test]
fn files_of_one_crate_do_not_depend_on_each_other_in_circles() {
    assert_none(circles::problems(&read_tree()));
}

#[test]
fn new_directories_are_checked() {
    let root = tempfile::tempdir().unwrap();
    for path in
        ["src/data/a.rs", "new/deeper/b.md", "data/c.rs", "target/d.rs", "proto/generated/e.rs"]
    {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let mut found: Vec<_> = read_tree_of(root.path()).into_iter().map(|file| file.path).collect();
    found.sort();
    assert_eq!(found, ["new/deeper/b.md", "src/data/a.rs"]);
}

#[test]
fn uses_of_unsafe_are_listed_and_proven() {
    assert_none(unsafe_code::problems(&read_tree()));
}
