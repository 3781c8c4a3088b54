//! `docs/ARCHITECTURE.md` lists the crates of the server with the dependencies that Cargo enforces, and walks through
//! a commit in few files, each of which has the functions that the walk names.

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
fn a_manifest_is_read_without_its_test_dependencies() {
    let manifest = "[package]\nname = \"inventory-a\"\ndescription = \"A.\"\n\n[dependencies]\nbytes = \"1\"\n\
                    inventory-b.workspace = true\ninventory-c = { workspace = true }\n\n\
                    [dev-dependencies]\ninventory-d.workspace = true\n";
    let read = Crate::parse("crates/a", manifest);
    assert_eq!(read.dependencies, ["inventory-b", "inventory-c"]);
    assert_eq!((read.name.as_str(), read.description.as_str()), ("inventory-a", "A."));
}

#[test]
fn the_path_of_a_commit_has_few_files_and_both_paths_name_functions_that_these_have() {
    let document = read("docs/ARCHITECTURE.md");
    let text_of = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    let [commit, hold] = ["commit", "seat hold"].map(|call| {
        let (_, path) = document.split_once(&format!("\n## The path of a {call}\n")).unwrap();
        let (files, missing) = walked(path.split("\n## ").next().unwrap(), text_of);
        assert!(missing.is_empty(), "{call}:\n{}", missing.join("\n"));
        files
    });
    assert!((10..=WALK_FILES_MAX).contains(&commit.len()), "{} files: {commit:?}", commit.len());
    assert!(hold.len() > 4, "{hold:?}");
}

/// The files that the items of `walk` name, and the functions that none of the files of their item has. A file is a
/// word in code font with a slash, a function one with an underscore, or a method with `::`.
fn walked(walk: &str, text_of: impl Fn(&str) -> String) -> (BTreeSet<String>, Vec<String>) {
    let (mut files, mut missing) = (BTreeSet::new(), Vec::new());
    for item in walk.split("\n- ").flat_map(|item| item.split("\n\n")) {
        let words: Vec<&str> = item.split('`').skip(1).step_by(2).collect();
        let paths: Vec<&str> = words.iter().copied().filter(|word| word.contains('/')).collect();
        let texts: String = paths.iter().map(|path| text_of(path)).collect();
        files.extend(paths.into_iter().map(str::to_owned));
        for word in words.into_iter().filter(|word| !word.contains('/')) {
            let is_name = word.contains("::") || word.contains('_');
            let is_code = word.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
            let in_code = word.chars().any(char::is_lowercase) && is_name && is_code;
            let name = word.rsplit("::").next().unwrap();
            if in_code && !texts.contains(name) {
                missing.push(format!("{word} is not in the files of its step"));
            }
        }
    }
    (files, missing)
}

#[test]
fn a_function_that_a_file_does_not_have_is_reported() {
    let text_of = |path: &str| format!("fn of_{} Effect::Send", path.replace('/', "_"));
    let walk =
        "1. Intro.\n\n- **`a/b`** `of_a_b` and `Effect::Send`, `SNAKE_SETTING`.\n- `c/d` `of_c_d`.";
    let (files, missing) = walked(walk, text_of);
    assert_eq!((files.len(), missing.len()), (2, 0));
    let (_, missing) = walked("- `a/b` `of_c_d` and `Effect::Other`", text_of);
    assert_eq!(missing.len(), 2, "{missing:?}");
}
