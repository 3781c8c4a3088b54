//! House rules that no compiler checks: file length, module heads, rooms that must not know each
//! other, nothing about the machine a file was written on.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines. Most are far shorter.
const LINES_MAX: usize = 800;

/// Files looked at, by how their name ends.
const KINDS: [&str; 9] = [
    ".rs", ".toml", ".proto", ".md", ".py", ".sh", ".yml", ".yaml", "Makefile",
];

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 3] = ["target", ".git", "data"];

/// Rooms and words that must not be in them, with the reason. `/` at the end means a folder.
const WALLS: [(&str, &[&str], &str); 2] = [
    (
        "crates/core/",
        &[
            "Instant::now",
            "SystemTime::now",
            "thread_rng",
            "rand::rng(",
        ],
        "time and randomness come into the domain as parameters",
    ),
    (
        "bench/",
        &["inventory_api"],
        "load client, peers and reports see only what any client sees",
    ),
];

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(root, &mut files);
    assert!(files.len() > 20, "looked in the wrong place: {files:?}");
    let mut complaints = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        match fs::read_to_string(&file) {
            Ok(text) => complaints.extend(complaints_about(name, &text)),
            Err(error) => complaints.push(format!("{name}: {error}")),
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        if path.is_dir() {
            if !FOREIGN.contains(&name) {
                walk(&path, files);
            }
        } else if KINDS.iter().any(|kind| name.ends_with(kind)) || path.ends_with(".ci/run") {
            files.push(path);
        }
    }
}

/// What is wrong with a file, one line each.
fn complaints_about(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |line: usize, what: &str| found.push(format!("{name}:{line}: {what}"));
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complain(
            lines,
            &format!("{lines} lines, more than {LINES_MAX}: split it by topic"),
        );
    }
    if !text.is_empty() && !text.ends_with('\n') {
        complain(lines, "no newline at the end");
    }
    let rust = name.ends_with(".rs");
    if rust && !text.starts_with("//!") {
        complain(
            1,
            "no module head: open with what lives here and what must not (//!)",
        );
    }
    for (number, line) in text.lines().enumerate() {
        for what in complaints_about_line(name, line) {
            complain(number + 1, &what);
        }
    }
    found
}

fn complaints_about_line(name: &str, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    if line != line.trim_end() && !name.ends_with(".md") {
        found.push("spaces at the end of the line".to_owned());
    }
    if line.contains('\t') && !name.ends_with("Makefile") {
        found.push("a tab".to_owned());
    }
    // Put together here, so that this file does not complain about itself.
    for place in ["home", "root", "work", "Users"] {
        let path = format!("/{place}/");
        let starts_a_path = |at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| " \"'`=(:".contains(c))
        };
        if line.match_indices(&path).any(|(at, _)| starts_a_path(at)) {
            found.push(format!("a path of one machine ({path})"));
        }
    }
    for mark in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ] {
        if line.contains(mark) {
            found.push(format!(
                "{mark}: do it, or write it down where work is planned"
            ));
        }
    }
    let in_runtime = name.starts_with("crates/runtime/") || name == "tests/tidy.rs";
    if name.ends_with(".rs") && !in_runtime && line.contains("glommio::") {
        found.push(
            "glommio is named in crates/runtime only, so that it can be exchanged".to_owned(),
        );
    }
    for (room, words, why) in WALLS {
        if !name.starts_with(room) || line.trim_start().starts_with("//") {
            continue;
        }
        for word in words.iter().filter(|word| line.contains(**word)) {
            found.push(format!("`{word}`: {why}"));
        }
    }
    found
}

#[test]
fn each_rule_can_fail() {
    let long = format!("//! Head.\n{}", "fn f() {}\n".repeat(LINES_MAX));
    for (name, text, wanted) in [
        ("src/a.rs", long.as_str(), "split it"),
        ("src/a.rs", "//! Head.", "no newline"),
        ("src/a.rs", "fn f() {}\n", "no module head"),
        ("src/a.rs", "//! Head. \n", "spaces at the end"),
        ("src/a.rs", "//! Head.\n\tfn f() {}\n", "a tab"),
        (
            "src/a.rs",
            concat!("//! See /", "home/x/y.\n"),
            "one machine",
        ),
        (
            "src/a.rs",
            concat!("//! Head. TO", "DO\n"),
            "where work is planned",
        ),
        (
            "src/api/a.rs",
            "//! Head.\nuse glommio::Task;\n",
            "crates/runtime only",
        ),
        (
            "crates/core/src/a.rs",
            "//! Head.\nlet t = Instant::now();\n",
            "parameters",
        ),
        (
            "bench/src/a.rs",
            "//! Head.\nuse inventory_api::x;\n",
            "any client sees",
        ),
    ] {
        let complaints = complaints_about(name, text);
        assert!(
            complaints.len() == 1 && complaints[0].contains(wanted),
            "{name}: {wanted:?} is not all of {complaints:?}"
        );
    }
    for (name, text) in [
        ("crates/runtime/src/a.rs", "//! Head.\nuse glommio::Task;\n"),
        ("README.md", "GET https://example.org/home/x\n"),
        ("Makefile", "all:\n\tcargo build\n"),
    ] {
        assert_eq!(complaints_about(name, text), Vec::<String>::new());
    }
}
