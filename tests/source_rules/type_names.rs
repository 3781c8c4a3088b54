//! Type names: a noun, and one definition in the repository unless two layers share the concept.

use std::collections::BTreeMap;

use super::SourceFile;

/// Participles and fragments that say nothing about what a type is.
const NOT_NOUNS: [&str; 42] = [
    "About", "Answered", "Asked", "Because", "Begun", "Beyond", "Broken", "Chosen", "Counted",
    "Doing", "Done", "Drawn", "Due", "Ended", "Found", "Given", "Gone", "Heard", "Joined", "Kept",
    "Known", "Left", "Lost", "Met", "Named", "Parked", "Parting", "Ran", "Returned", "Said",
    "Seen", "Sent", "Settled", "Shared", "Spoken", "Taken", "Told", "Wanted", "Whatever", "Whose",
    "Written", "Wrote",
];

/// Names with two definitions on purpose, with the reason. No name may have three.
const DEFINED_TWICE: [(&str, &str); 14] = [
    ("CallSlot", "a call in flight: engine and load generator"),
    ("CapacityKind", "read or write capacity: store client and store model"),
    ("ErrorSubject", "subject of an error: server and baseline"),
    ("KeyAttribute", "key of a table: store client and store model"),
    ("LatencyHistogram", "server metrics and load generator"),
    ("NextStep", "next step of an operation: engine and baseline"),
    ("OrderId", "server and load generator"),
    ("RequestToken", "ClientRequestToken: core and store model"),
    ("Scenario", "load generator and simulation"),
    ("SeatClaim", "audit of the server and judge of the load generator"),
    ("SeatItem", "stored seat: core and judge of the load generator"),
    ("Store", "store client and the simulation's model of it"),
    ("StoredRecord", "stored record: store client and simulation"),
    ("TableNames", "store client and judge of the load generator"),
];

/// One `struct`, `enum`, `trait`, `union` or module-level `type`.
struct Definition<'a> {
    file: &'a SourceFile,
    line: usize,
    name: &'a str,
}

pub(super) fn problems(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    let mut by_name: BTreeMap<&str, Vec<Definition<'_>>> = BTreeMap::new();
    for definition in files.iter().filter(|file| file.is_rust()).flat_map(definitions) {
        if NOT_NOUNS.contains(&definition.name) {
            found.push(definition.file.problem(
                definition.line,
                &format!("`{}` does not say what the type is: use a noun", definition.name),
            ));
        }
        by_name.entry(definition.name).or_default().push(definition);
    }
    for (name, definitions) in &by_name {
        let allowed = match DEFINED_TWICE.iter().any(|(twice, _)| twice == name) {
            true => 2,
            false => 1,
        };
        if definitions.len() > allowed {
            for definition in definitions {
                found.push(definition.file.problem(
                    definition.line,
                    &format!(
                        "`{name}` is defined {} times: choose a name that tells them apart",
                        definitions.len()
                    ),
                ));
            }
        }
    }
    found
}

/// Entries of [`DEFINED_TWICE`] that are not needed any more.
pub(super) fn stale_exceptions(files: &[SourceFile]) -> Vec<String> {
    let is_defined_twice = |name: &str| {
        let rust = files.iter().filter(|file| file.is_rust());
        rust.flat_map(definitions).filter(|definition| definition.name == name).count() == 2
    };
    DEFINED_TWICE
        .iter()
        .filter(|(name, _)| !is_defined_twice(name))
        .map(|(name, _)| format!("`{name}` is not defined twice: remove it from DEFINED_TWICE"))
        .collect()
}

fn definitions(file: &SourceFile) -> impl Iterator<Item = Definition<'_>> {
    file.text.lines().enumerate().filter_map(move |(index, line)| {
        Some(Definition { file, line: index + 1, name: defined_name(line)? })
    })
}

/// The name that a line defines. An indented `type` is an associated type and defines none.
fn defined_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let is_indented = code.len() < line.len();
    let rest = match code.strip_prefix("pub") {
        Some(after) => match after.strip_prefix('(') {
            Some(scope) => scope.split_once(") ")?.1,
            None => after.strip_prefix(' ')?,
        },
        None => code,
    };
    let (keyword, after) = rest.split_once(' ')?;
    let is_type = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !is_indented,
        _ => false,
    };
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
    let name = &after[..end];
    (is_type && name.starts_with(|c: char| c.is_ascii_uppercase())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::{DEFINED_TWICE, defined_name, problems, stale_exceptions};

    #[test]
    fn duplicate_type_name_is_found() {
        let files = [
            sample("src/a.rs", "pub(crate) struct LineItem {\n"),
            sample("tests/b.rs", "mod x {\n    enum LineItem {\n"),
            sample("src/c.rs", "impl T for U {\n    type LineItem = u8;\n}\n"),
        ];
        let found = problems(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("src/a.rs:1: `LineItem` is defined 2 times"));
        assert!(found[1].starts_with("tests/b.rs:2: "));
    }

    #[test]
    fn exceptions_are_for_two_definitions_that_exist() {
        let (name, _) = DEFINED_TWICE[0];
        let file = |path| sample(path, &format!("pub struct {name};\n"));
        assert_eq!(problems(&[file("src/a.rs"), file("src/b.rs")]), Vec::<String>::new());
        assert_eq!(problems(&[file("src/a.rs"), file("src/b.rs"), file("src/c.rs")]).len(), 3);
        let stale = stale_exceptions(&[file("src/a.rs"), file("src/b.rs")]);
        assert_eq!(stale.len(), DEFINED_TWICE.len() - 1, "{stale:?}");
        assert!(stale_exceptions(&[file("src/a.rs")]).iter().any(|line| line.contains(name)));
    }

    #[test]
    fn a_participle_is_not_a_type_name() {
        let found = problems(&[sample("src/a.rs", "struct Told(u8);\n")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("use a noun"));
    }

    #[test]
    fn definitions_are_read_with_any_visibility() {
        assert_eq!(defined_name("pub struct A;"), Some("A"));
        assert_eq!(defined_name("    pub(in crate::x) enum Bc<T> {"), Some("Bc"));
        assert_eq!(defined_name("type D<'a> = &'a str;"), Some("D"));
        assert_eq!(defined_name("    type D = u8;"), None);
        assert_eq!(defined_name("// struct E"), None);
        assert_eq!(defined_name("let structure = 1;"), None);
    }
}
