//! Links between documents, paths of the repository and metrics that documents name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::generated::{documents, root};

/// Folders at the top; a word in code font that starts with one of them is a path.
const FOLDERS: [&str; 13] = [
    "src/",
    "crates/",
    "tests/",
    "docs/",
    "bench/",
    "proto/",
    "deploy/",
    "perf/",
    "tuning/",
    ".ci/",
    "examples/",
    "benches/",
    "tools/",
];

#[test]
fn links_and_paths_in_documents_exist() {
    let documents = documents();
    assert!(documents.len() > 25, "{} documents are not all", documents.len());
    let mut wrong = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let name = document.strip_prefix(root()).unwrap().display().to_string();
        wrong.extend(
            problems(&text, document.parent().unwrap())
                .into_iter()
                .map(|problem| format!("{name}{problem}")),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn metrics_in_documents_exist() {
    let reference = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let mut wrong = Vec::new();
    // The changelog names metrics of earlier versions, too.
    let current = documents().into_iter().filter(|document| !document.ends_with("CHANGELOG.md"));
    for document in current {
        let text = fs::read_to_string(&document).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            if let Some(problem) = metric_problem(word, &reference) {
                wrong.push(format!("{}: {problem}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is wrong with `word` if it is a metric, with or without labels: `name{label="value",label}`.
fn metric_problem(word: &str, reference: &str) -> Option<String> {
    const FAMILIES: [&str; 4] = ["inventory_", "grpc_re", "dynamodb_", "idempotency_"];
    let (name, labels) = word.split_once('{').unwrap_or((word, "}"));
    let name = name.split([' ', '/']).next().unwrap();
    let is_metric =
        FAMILIES.iter().any(|family| name.starts_with(family)) && name.matches('_').count() > 1;
    if !is_metric || name.contains('*') {
        return None;
    }
    let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let row =
        |name: &str| reference.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let Some(row) = row(name).or_else(|| series.and_then(row)) else {
        return Some(format!("`{name}` is no metric"));
    };
    let labels = labels.split('}').next().unwrap().split(',').filter(|label| !label.is_empty());
    let mut names = labels.map(|label| label.split(['=', '!']).next().unwrap());
    let unknown = names.find(|label| !row.contains(&format!("`{label}`")))?;
    Some(format!("`{name}` has no label {unknown}"))
}

#[test]
fn unknown_metrics_and_labels_are_reported() {
    let reference = "| `inventory_a_total` | counter | `reason` | A. |\n| `inventory_b_seconds` | histogram |  | B. |\n";
    for good in [
        "inventory_a_total{reason=\"x\"}",
        "inventory_a_total",
        "inventory_b_seconds_sum",
        "inventory-api top",
    ] {
        assert_eq!(metric_problem(good, reference), None, "{good}");
    }
    for bad in ["inventory_a_total{why}", "inventory_c_total", "inventory_a_total{reason,why}"] {
        assert!(metric_problem(bad, reference).is_some(), "{bad}");
    }
}

/// Links and paths that lead nowhere, with their lines.
fn problems(text: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let mut complain = |what: String| found.push(format!(":{}: {what}", number + 1));
        for target in link_targets(line) {
            if let Some(problem) = link_problem(&target, text, folder) {
                complain(problem);
            }
        }
        for word in line.split('`').skip(1).step_by(2) {
            let path = word.split([' ', ':']).next().unwrap().trim_end_matches('/');
            let is_path = FOLDERS.iter().any(|top| word.starts_with(top));
            let exists = folder
                .ancestors()
                .any(|above| above.starts_with(root()) && above.join(path).exists());
            if is_path && !path.contains(['*', '{', '<', '…']) && !exists {
                complain(format!("`{path}` does not exist"));
            }
        }
    }
    found
}

fn link_targets(line: &str) -> Vec<String> {
    let ends = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

fn link_problem(target: &str, text: &str, folder: &Path) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = folder.join(file);
    if !file.is_empty() && !path.exists() {
        return Some(format!("link to {file}, which does not exist"));
    }
    if anchor.is_empty() {
        return None;
    }
    let linked = if file.is_empty() { text.to_owned() } else { fs::read_to_string(path).unwrap() };
    (!anchors(&linked).contains(anchor))
        .then(|| format!("link to #{anchor}, which {target} does not have"))
}

/// The anchors of all headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn dead_links_and_paths_are_reported() {
    let good = "# A title\n[a](README.md) [b](#a-title) [c](https://example.org) `src/main.rs` `src/*.rs` `cargo run`\n";
    assert_eq!(problems(good, root()), Vec::<String>::new());
    for bad in ["[a](NOWHERE.md)", "[a](#nowhere)", "[a](README.md#nowhere)", "`src/nowhere.rs`"] {
        assert_eq!(problems(bad, root()).len(), 1, "{bad}");
    }
}
