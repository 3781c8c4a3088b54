//! Decision records have one form, and their index lists each of them with its title.

use std::fs;

use super::generated::{check_block, root, table};

const SECTIONS: [&str; 5] = ["Status", "Context", "Decision", "Consequences", "Measured"];

#[test]
fn records_have_the_same_sections_and_the_index_lists_them() {
    let mut names: Vec<String> = fs::read_dir(root().join("docs/adr"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    let mut rows = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let text = fs::read_to_string(root().join("docs/adr").join(name)).unwrap();
        let number = format!("{:04}", at + 1);
        assert!(name.starts_with(&number), "{name} does not follow {at:04}");
        assert_eq!(problem(&text, &number), None, "{name}");
        let title = text.lines().next().unwrap().trim_start_matches(&format!("# {number} "));
        rows.push([format!("[{number}]({name})"), title.to_owned()]);
    }
    assert!(rows.len() >= 20, "{} records are not all", rows.len());
    check_block("docs/adr/README.md", "index", &table(["", "decision"], &rows));
}

/// What is wrong with the form of a record.
fn problem(text: &str, number: &str) -> Option<String> {
    if !text.starts_with(&format!("# {number} ")) {
        return Some(format!("the title does not start with {number}"));
    }
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    if sections != SECTIONS {
        return Some(format!("sections {sections:?} instead of {SECTIONS:?}"));
    }
    let empty = text.split("\n## ").skip(1).find(|section| section.lines().count() < 3);
    empty.map(|section| format!("nothing in {:?}", section.lines().next()))
}

#[test]
fn a_record_in_another_form_is_reported() {
    let section = |name: &&str| format!("## {name}\n\nText.\n\n");
    let good = format!("# 0007 A title\n\n{}", SECTIONS.iter().map(section).collect::<String>());
    assert_eq!(problem(&good, "0007"), None);
    for bad in [
        good.replace("# 0007", "# 0008"),
        good.replace("## Context", "## Why"),
        good.replace("## Measured\n\nText.\n", ""),
        good.replace("## Status\n\nText.\n", "## Status\n"),
    ] {
        assert!(problem(&bad, "0007").is_some(), "{bad}");
    }
}
