//! File length, white space, module heads, `#[path]`, machine paths, and names that only one crate may use.

use super::SourceFile;

/// Longest source file, in lines. Most are far shorter.
const LINES_MAX: usize = 800;

/// The macros that panic if a standard stream cannot be written, with those for standard error.
const PRINT_MACROS: &[&str] = &["print!(", "println!("];
const BENCH_OUTPUT: &str =
    "inventory_process::print reports failed writes, and report ignores them";

/// Words that must not occur below a directory, with the reason.
const FORBIDDEN_WORDS: [(&str, &[&str], &str); 7] = [
    (
        "crates/core/src/",
        &["Instant::now", "SystemTime::now", "thread_rng", "rand::rng("],
        "time and randomness enter the core as parameters",
    ),
    ("bench/", &["inventory_api"], "benchmarks use the wire contract, as any client does"),
    ("bench/src/", PRINT_MACROS, BENCH_OUTPUT),
    ("bench/baseline/src/", PRINT_MACROS, BENCH_OUTPUT),
    ("bench/generator/src/", PRINT_MACROS, BENCH_OUTPUT),
    ("bench/model/src/", PRINT_MACROS, BENCH_OUTPUT),
    (
        "src/",
        &["print!(", "println!(", "io::stdout()", "stdout().lock", "File::create(", "fs::rename("],
        "src/output writes standard output and files, and reports errors",
    ),
];

/// Where the words of a rule are allowed.
const ALLOWED_WORDS: [(&str, &str); 1] = [("src/", "src/output/")];

pub(super) fn problems(file: &SourceFile) -> Vec<String> {
    let mut found = Vec::new();
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        found.push(file.problem(
            lines,
            &format!("{lines} lines, more than {LINES_MAX}: split the file by topic"),
        ));
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        found.push(file.problem(lines, "no newline at the end"));
    }
    if file.is_rust() && !file.text.starts_with("//!") {
        found.push(file.problem(
            1,
            "missing module documentation (//!): describe what the module does and what does not belong there",
        ));
    }
    for (index, line) in file.text.lines().enumerate() {
        for what in line_problems(file, line) {
            found.push(file.problem(index + 1, &what));
        }
    }
    found
}

fn line_problems(file: &SourceFile, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    if line != line.trim_end() && !file.path.ends_with(".md") {
        found.push("trailing white space".to_owned());
    }
    if line.contains('\t') && !file.path.ends_with("Makefile") {
        found.push("a tab".to_owned());
    }
    // Assembled here, so that this file does not break its own rules.
    for root in ["home", "root", "work", "Users"] {
        let path = format!("/{root}/");
        let starts_a_path = |at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| " \"'`=(:".contains(c))
        };
        if line.match_indices(&path).any(|(at, _)| starts_a_path(at)) {
            found.push(format!("a path of one machine ({path})"));
        }
    }
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        if line.contains(mark) {
            found.push(format!("{mark}: finish the work or file an issue"));
        }
    }
    if file.is_rust() {
        let code = line.trim_start();
        if code.starts_with(concat!("#[", "path")) {
            found.push("#[path]: put shared code into a crate".to_owned());
        }
        let is_comment = code.starts_with("//");
        let is_rule = file.path.starts_with("tests/source_rules/");
        if !is_comment && !is_rule {
            if line.contains("glommio::") && !file.path.starts_with("crates/runtime/") {
                found.push("only crates/runtime names glommio, so that it can be exchanged".into());
            }
            for (directory, words, why) in FORBIDDEN_WORDS {
                let is_allowed = ALLOWED_WORDS
                    .iter()
                    .any(|(of, path)| *of == directory && file.path.starts_with(path));
                if !file.path.starts_with(directory) || is_allowed {
                    continue;
                }
                if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                    found.push(format!("`{word}`: {why}"));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::{LINES_MAX, problems};

    #[test]
    fn each_layout_rule_can_fail() {
        let long = format!("//! Head.\n{}", "fn f() {}\n".repeat(LINES_MAX));
        for (path, text, expected) in [
            ("src/a.rs", long.as_str(), "split the file"),
            ("src/a.rs", "//! Head.", "no newline"),
            ("src/a.rs", "fn f() {}\n", "missing module documentation"),
            ("src/a.rs", "//! Head. \n", "trailing white space"),
            ("src/a.rs", "//! Head.\n\tfn f() {}\n", "a tab"),
            ("src/a.rs", concat!("//! See /", "home/x/y.\n"), "one machine"),
            ("src/a.rs", concat!("//! Head. TO", "DO\n"), "file an issue"),
            ("tests/a.rs", "//! Head.\n    #[path = \"b.rs\"]\n", "into a crate"),
            ("src/a.rs", "//! Head.\nuse glommio::Task;\n", "crates/runtime"),
            ("crates/core/src/a.rs", "//! Head.\nlet t = Instant::now();\n", "parameters"),
            ("bench/a.rs", "//! Head.\nuse inventory_api::x;\n", "any client"),
            ("bench/src/a.rs", "//! Head.\nprintln!(\"a\");\n", "inventory_process::print"),
            ("bench/model/src/bin/a.rs", "//! Head.\neprint!(\"a\");\n", "inventory_process"),
            ("src/cli/a.rs", "//! Head.\nprintln!(\"a\");\n", "src/output writes"),
            ("src/server/a.rs", "//! Head.\n    eprint!(\"a\");\n", "src/output writes"),
            ("src/demo/a.rs", "//! Head.\nlet out = std::io::stdout();\n", "src/output writes"),
            ("src/cli/a.rs", "//! Head.\nlet out = File::create(path)?;\n", "src/output writes"),
        ] {
            let found = problems(&sample(path, text));
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{path}: {expected:?} is not all of {found:?}"
            );
        }
        for (path, text) in [
            ("crates/runtime/src/a.rs", "//! Head.\nuse glommio::Task;\n"),
            ("src/output/a.rs", "//! Head.\nlet out = io::stdout();\n"),
            ("README.md", "GET https://example.org/home/x\n"),
            ("Makefile", "all:\n\tcargo build\n"),
        ] {
            assert_eq!(problems(&sample(path, text)), Vec::<String>::new());
        }
    }
}
