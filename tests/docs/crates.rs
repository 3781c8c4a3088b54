//! `docs/ARCHITECTURE.md` lists the crates of the server with the dependencies that Cargo enforces.

use std::fs;

use super::generated::{check_block, read, root, table};

#[test]
fn crates_and_their_dependencies_are_those_of_cargo() {
    let mut folders: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    folders.sort();
    let all = ["proto".to_owned()]
        .into_iter()
        .chain(folders)
        .chain([".".to_owned()]);
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
        let folder = if folder == "." {
            "src".to_owned()
        } else {
            of.folder
        };
        Self { folder, ..of }
    }

    fn parse(folder: &str, manifest: &str) -> Self {
        let value = |section: &str, key: &str| {
            let (_, rest) = manifest.split_once(&format!("[{section}]\n")).unwrap();
            let own = rest.split("\n[").next().unwrap();
            let line = own
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let dependencies = manifest
            .split_once("\n[dependencies]\n")
            .map_or("", |(_, rest)| rest);
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
    assert_eq!(
        (read.name.as_str(), read.description.as_str()),
        ("inventory-a", "A.")
    );
}
