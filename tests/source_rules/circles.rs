//! Files of one crate depend on each other in one direction: no circles.
//!
//! A file depends on another if a path in it, of a `use` or inline, names an item of the other's module. A module and the
//! modules below it share one name space and count as one direction, and so do unit tests.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceFile;

/// A module as the parts of its path; the crate's root has none.
type ModulePath = Vec<String>;

pub(super) fn problems(files: &[SourceFile]) -> Vec<String> {
    let mut by_crate: BTreeMap<&str, BTreeMap<ModulePath, &SourceFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if let Some((root, below)) = split_at_source(&file.path) {
            by_crate.entry(root).or_default().insert(module_of(below), file);
        }
    }
    by_crate.values().flat_map(circles).collect()
}

/// The directory `src` of a crate, and the path below it.
fn split_at_source(path: &str) -> Option<(&str, &str)> {
    let at = match path.starts_with("src/") {
        true => 0,
        false => path.find("/src/")? + 1,
    };
    Some((&path[..at], &path[at + "src/".len()..]))
}

fn module_of(below: &str) -> ModulePath {
    let mut parts: ModulePath =
        below.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

fn circles(modules: &BTreeMap<ModulePath, &SourceFile>) -> Vec<String> {
    let direct: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = modules
        .iter()
        .map(|(module, file)| (module, dependencies(module, file, modules)))
        .collect();
    let mut found = Vec::new();
    for (module, file) in modules {
        let (mut reached, mut open) = (BTreeSet::new(), vec![module]);
        while let Some(next) = open.pop() {
            open.extend(direct[next].iter().filter(|other| reached.insert(**other)));
        }
        if reached.contains(module) {
            let circle = reached.into_iter().filter(|other| reaches(other, module, &direct));
            let names: Vec<_> = circle.map(|other| modules[other].path.as_str()).collect();
            found.push(file.problem(1, &format!("in a circle of files: {}", names.join(", "))));
        }
    }
    found
}

fn reaches(
    from: &ModulePath,
    to: &ModulePath,
    direct: &BTreeMap<&ModulePath, BTreeSet<&ModulePath>>,
) -> bool {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        open.extend(direct[next].iter().filter(|other| reached.insert(**other)));
    }
    reached.contains(to)
}

fn dependencies<'a>(
    module: &ModulePath,
    file: &SourceFile,
    modules: &'a BTreeMap<ModulePath, &SourceFile>,
) -> BTreeSet<&'a ModulePath> {
    if module.iter().any(|part| part == "tests" || part.ends_with("_tests")) {
        return BTreeSet::new();
    }
    let is_one_line = |other: &ModulePath| other.starts_with(module) || module.starts_with(other);
    let named = paths(&file.text).into_iter().filter_map(|path| {
        let mut at = match path[0].as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        for part in &path[1..] {
            match part.as_str() {
                "super" => drop(at.pop()),
                part => at.push(part.to_owned()),
            }
        }
        // The deepest module on the path; the rest names an item.
        let depth = (0..=at.len()).rev().find(|depth| modules.contains_key(&at[..*depth]))?;
        modules.get_key_value(&at[..depth]).map(|(other, _)| other)
    });
    named.filter(|other| !is_one_line(other)).collect()
}

/// All paths of the code before its unit tests that begin with `crate`, `self` or `super`.
fn paths(text: &str) -> Vec<ModulePath> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<_> =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join(" ");
    let mut found = Vec::new();
    for start in ["crate", "self", "super"] {
        for (at, _) in code.match_indices(start) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if !code[..at].ends_with(is_word) && code[at + start.len()..].starts_with("::") {
                expand(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Adds the paths at the start of `text`, of which `before` is the common beginning; returns their length.
fn expand(text: &str, before: &mut ModulePath, found: &mut Vec<ModulePath>) -> usize {
    let depth = before.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while at < text.len() && !text[at..].starts_with('}') {
                let length = expand(&text[at..], before, found);
                let next = text[at + length..].find([',', '}']).unwrap_or(text.len() - at - length);
                at += length + next + usize::from(text[at + length + next..].starts_with(','));
            }
            at = (at + 1).min(text.len());
            break;
        }
        let spaces = rest.len() - rest.trim_start().len();
        let word = rest.trim_start();
        let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
        at += spaces + end;
        if end == 0 {
            break;
        }
        before.push(word[..end].to_owned());
        if !text[at..].starts_with("::") {
            found.push(before.clone());
            break;
        }
        at += 2;
    }
    before.truncate(depth);
    at
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::{paths, problems};

    #[test]
    fn a_circle_of_files_is_found() {
        let files = [
            sample("crates/x/src/a.rs", "use super::b::{self, B};\n"),
            sample("crates/x/src/b.rs", "use crate::{z::Z, c::deep::{C, D}};\n"),
            sample("crates/x/src/c/deep.rs", "fn f() -> super::super::a::A {}\n"),
            sample(
                "crates/x/src/z.rs",
                "use super::a::A;\n#[cfg(test)]\nmod tests {\nuse crate::b::B;\n}\n",
            ),
            sample("crates/y/src/a.rs", "use super::b::B;\n"),
        ];
        let found = problems(&files);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(
            found[0].contains("a.rs:1: in a circle of files: crates/x/src/a.rs, crates/x/src/b.rs")
        );
    }

    #[test]
    fn a_module_and_those_below_it_are_no_circle() {
        let files = [
            sample("src/a/mod.rs", "mod b;\nuse self::b::B;\n"),
            sample("src/a/b.rs", "use super::A;\n// use super::super::c::C;\n"),
            sample("src/c.rs", "use crate::a::b::B;\n"),
        ];
        assert_eq!(problems(&files), Vec::<String>::new());
    }

    #[test]
    fn paths_are_read_from_uses_and_code() {
        let text =
            "use crate::{\n    a::{B, c::D},\n    e,\n};\nlet x: super::f::G = 1;\nsuperb::h();\n";
        let found: Vec<_> = paths(text).into_iter().map(|path| path.join("::")).collect();
        let expected = ["crate::a::B", "crate::a::c::D", "crate::e", "super::f::G"];
        assert_eq!(found, expected);
    }
}
