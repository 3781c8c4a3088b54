//! `docs/ARCHITECTURE.md` lists the crates of the server with the dependencies that Cargo enforces, and describes paths
//! through the code by functions that are defined or used in the files of their step.

use std::collections::BTreeSet;
use std::fs;

use super::generated::{check_block, read, root, table};

/// Most files on the path of a commit.
const WALK_FILES_MAX: usize = 15;

#[test]
fn crates_and_their_dependencies_are_those_of_cargo() {
    let mut folders: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    folders.sort();
    let all = ["proto".to_owned()].into_iter().chain(folders).chain([".".to_owned()]);
    let crates: Vec<Crate> = all.map(|folder| Crate::of(&folder)).collect();
    let folder_of = |name: &String| {
        let found = crates.iter().find(|of| of.name == *name);
        found.map_or_else(|| name.clone(), |of| of.folder.clone())
    };
    let rows: Vec<_> = crates
        .iter()
        .map(|of| {
            let folders: Vec<String> = of.dependencies.iter().map(folder_of).collect();
            let depends = match folders.join("`, `") {
                none if none.is_empty() => "–".to_owned(),
                some => format!("`{some}`"),
            };
            [format!("`{}`", of.folder), of.description.clone(), depends]
        })
        .collect();
    check_block(
        "docs/ARCHITECTURE.md",
        "crates",
        &table(["crate", "content", "depends on"], &rows),
    );
}

#[derive(Debug, PartialEq)]
struct Crate {
    name: String,
    /// `src` is the server's.
    folder: String,
    description: String,
    /// Crates of this repository, without those of tests and builds.
    dependencies: Vec<String>,
}

impl Crate {
    fn of(folder: &str) -> Self {
        let of = Self::parse(folder, &read(&format!("{folder}/Cargo.toml")));
        let folder = if folder == "." { "src".to_owned() } else { of.folder };
        Self { folder, ..of }
    }

    fn parse(folder: &str, manifest: &str) -> Self {
        let value = |section: &str, key: &str| {
            let (_, rest) = manifest.split_once(&format!("[{section}]\n")).unwrap();
            let own = rest.split("\n[").next().unwrap();
            let line = own.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let dependencies = manifest.split_once("\n[dependencies]\n").map_or("", |(_, rest)| rest);
        let dependencies = dependencies.split("\n[").next().unwrap().lines();
        let ours = dependencies.filter(|line| line.starts_with("inventory-"));
        Self {
            name: value("package", "name"),
            folder: folder.to_owned(),
            description: value("package", "description"),
            dependencies: ours
                .map(|line| line.split(['.', ' ']).next().unwrap().to_owned())
                .collect(),
        }
    }
}

#[test]
fn test_dependencies_of_a_manifest_are_skipped() {
    let manifest = "[package]\nname = \"inventory-a\"\ndescription = \"A.\"\n\n[dependencies]\nbytes = \"1\"\n\
                    inventory-b.workspace = true\ninventory-c = { workspace = true }\n\n\
                    [dev-dependencies]\ninventory-d.workspace = true\n";
    let read = Crate::parse("crates/a", manifest);
    assert_eq!(read.dependencies, ["inventory-b", "inventory-c"]);
    assert_eq!((read.name.as_str(), read.description.as_str()), ("inventory-a", "A."));
}

#[test]
fn paths_name_functions_that_are_code_in_the_files_of_their_step() {
    let document = read("docs/ARCHITECTURE.md");
    let text_of = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    let paths: Vec<&str> = document.split("\n## The path of a ").skip(1).collect();
    assert_eq!(
        paths.len(),
        5,
        "paths of a commit, seat hold, hold expiry, beat, move between stripes"
    );
    for path in paths {
        let (subject, _) = path.split_once('\n').unwrap();
        let (files, missing) = walked(path.split("\n## ").next().unwrap(), text_of);
        assert!(missing.is_empty(), "{subject}:\n{}", missing.join("\n"));
        let most = if subject == "commit" { WALK_FILES_MAX } else { usize::MAX };
        assert!((10..=most).contains(&files.len()), "{subject}, {} files: {files:?}", files.len());
    }
}

/// The files that the items of `walk` name, and the functions that are not code in a file of their item. A file is a word
/// in code font with a slash; a function is one with an underscore, with `::` or with `!`.
fn walked(walk: &str, text_of: impl Fn(&str) -> String) -> (BTreeSet<String>, Vec<String>) {
    let (mut files, mut missing) = (BTreeSet::new(), Vec::new());
    for item in walk.split("\n- ").flat_map(|item| item.split("\n\n")) {
        let words: Vec<&str> = item.split('`').skip(1).step_by(2).collect();
        let paths: Vec<&str> = words.iter().copied().filter(|word| word.contains('/')).collect();
        let code: String = paths.iter().map(|path| code_of(&text_of(path))).collect();
        files.extend(paths.into_iter().map(str::to_owned));
        for word in words.into_iter().filter(|word| !word.contains('/')) {
            let is_name = word.contains("::") || word.contains('_') || word.ends_with('!');
            let is_code = word.chars().all(|c| c.is_alphanumeric() || "_:!".contains(c));
            let is_function = word.chars().any(char::is_lowercase) && is_name && is_code;
            if is_function && !is_defined_or_used(word, &code) {
                missing
                    .push(format!("{word} is neither defined nor used in the files of its step"));
            }
        }
    }
    (files, missing)
}

/// The lines of a Rust file without comments.
fn code_of(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line.split(" // ").next().unwrap(), "\n"]).collect()
}

/// Whether `code` defines the last part of `word`, calls it, or makes a value of it.
fn is_defined_or_used(word: &str, code: &str) -> bool {
    let name = word.rsplit("::").next().unwrap().trim_end_matches('!');
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        let is_definition = ["fn ", "struct ", "enum ", "trait ", "macro_rules! "]
            .iter()
            .any(|keyword| before.ends_with(keyword));
        let is_use = ["(", "!", " {", "::", ","].iter().any(|next| after.starts_with(next));
        is_whole && (is_definition || is_use)
    })
}

#[test]
fn function_that_is_not_code_in_its_file_is_reported() {
    let text_of = |path: &str| {
        format!(
            "/// See of_text(\nfn of_{}() {{ Effect::Send {{}} }} // to_end(",
            path.replace('/', "_")
        )
    };
    let walk =
        "1. Intro.\n\n- **`a/b`** `of_a_b` and `Effect::Send`, `SNAKE_SETTING`.\n- `c/d` `of_c_d`.";
    let (files, missing) = walked(walk, text_of);
    assert_eq!((files.len(), missing.len()), (2, 0));
    let (_, missing) =
        walked("- `a/b` `of_c_d`, `of_a`, `Effect::Other`, `of_text`, `to_end`", text_of);
    assert_eq!(missing.len(), 5, "{missing:?}");
}
