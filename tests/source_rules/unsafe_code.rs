//! The inventory of `unsafe`: docs/unsafe.md lists each file that has some, with the number of its uses; each use has its
//! proof in a SAFETY comment.

use std::collections::BTreeMap;

use super::SourceFile;

/// The document with the inventory.
const INVENTORY: &str = "docs/unsafe.md";

/// A SAFETY comment begins at most this many lines above the use that it proves: the comment, and a statement that is
/// broken over lines.
const PROOF_LINES_MAX: usize = 6;

pub(super) fn problems(files: &[SourceFile]) -> Vec<String> {
    let Some(inventory) = files.iter().find(|file| file.path == INVENTORY) else {
        return vec![format!("{INVENTORY} is missing")];
    };
    let listed = listed(inventory);
    let mut found = Vec::new();
    let mut counted = BTreeMap::new();
    for file in
        files.iter().filter(|file| file.is_rust() && !file.path.starts_with("tests/source_rules/"))
    {
        let uses = uses(file);
        found.extend(
            uses.iter().filter(|line| !is_proven(file, **line)).map(|line| {
                file.problem(*line, "`unsafe` without a SAFETY comment directly above")
            }),
        );
        if !uses.is_empty() {
            counted.insert(file.path.clone(), uses.len());
        }
    }
    for path in counted.keys().chain(listed.keys().filter(|path| !counted.contains_key(*path))) {
        let (has, says) = (counted.get(path).unwrap_or(&0), listed.get(path).unwrap_or(&0));
        if has != says {
            found.push(format!(
                "{path}: `unsafe` {has} times, {INVENTORY} says {says}: avoid it, or say there what it is for"
            ));
        }
    }
    found
}

/// Rows `| `path` | count | purpose |` of the inventory.
fn listed(inventory: &SourceFile) -> BTreeMap<String, usize> {
    let rows = inventory.text.lines().filter_map(|line| {
        let (path, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (count, _) = rest.split_once(" |")?;
        Some((path.to_owned(), count.parse().ok()?))
    });
    rows.collect()
}

/// The lines, counted from 1, that use the keyword; a line with two uses twice.
fn uses(file: &SourceFile) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // Every second part between quotes is a literal.
        for part in code.split('"').step_by(2) {
            let words = part.split(|c: char| !c.is_alphanumeric() && c != '_');
            found.extend(words.filter(|word| *word == "unsafe").map(|_| index + 1));
        }
    }
    found
}

fn is_proven(file: &SourceFile, line: usize) -> bool {
    let lines: Vec<&str> = file.text.lines().collect();
    // The methods of an `unsafe impl` keep the contract that is proven above it.
    if lines[line - 1].contains("unsafe fn") {
        return true;
    }
    lines[line.saturating_sub(1 + PROOF_LINES_MAX)..line - 1]
        .iter()
        .any(|above| above.trim_start().starts_with("// SAFETY: "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::problems;

    const PROVEN: &str = "//! Head.\n// SAFETY: takes integers.\nlet a = unsafe { f() };\n";

    fn problems_of(code: &str, inventory: &str) -> Vec<String> {
        problems(&[sample("src/a.rs", code), sample("docs/unsafe.md", inventory)])
    }

    #[test]
    fn each_rule_of_the_inventory_can_fail() {
        let row = "| `src/a.rs` | 1 | one call |\n";
        assert_eq!(problems_of(PROVEN, row), Vec::<String>::new());
        let second = format!("{PROVEN}// SAFETY: again.\nunsafe impl Send for A {{}}\n");
        for (code, inventory, expected) in [
            (PROVEN, "", "1 times, docs/unsafe.md says 0"),
            (second.as_str(), row, "2 times, docs/unsafe.md says 1"),
            ("//! Head.\n", row, "0 times, docs/unsafe.md says 1"),
            ("//! Head.\nlet a = unsafe { f() };\n", row, "without a SAFETY comment"),
        ] {
            let found = problems_of(code, inventory);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected:?}: {found:?}");
        }
        assert_eq!(problems(&[sample("src/a.rs", PROVEN)]), ["docs/unsafe.md is missing"]);
    }

    #[test]
    fn comments_strings_and_longer_words_are_no_uses() {
        let code = "//! Head, unsafe.\n#![deny(unsafe_code)]\nlet a = \"unsafe\"; // unsafe\n";
        assert_eq!(problems_of(code, ""), Vec::<String>::new());
    }
}
