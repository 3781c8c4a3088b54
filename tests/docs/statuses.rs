//! `docs/reference/statuses.md` has every status with its reason, and every exit code, as the code has them.
//! Business rejections are rendered next to their mapping, in `src/api`.

use std::collections::{BTreeMap, BTreeSet};

use super::generated::{check_block, read, table};
use super::source::{codes_of_reasons, constants, module, sources};

const DOCUMENT: &str = "docs/reference/statuses.md";
/// Where the reasons of the admin service are, written as literals.
const ADMIN: &str = "admin/status.rs";

/// The reasons of the gRPC layer: constants of a module `reason` outside of the contracts.
#[test]
fn transport_errors_are_those_of_the_grpc_layer() {
    let sources = sources();
    let mut reasons = BTreeMap::new();
    for text in sources.iter().filter(|(path, _)| !path.contains("/api/")).map(|(_, text)| text) {
        for constant in module(text, "reason").map(constants).unwrap_or_default() {
            reasons.insert(constant.value, constant.about);
        }
    }
    assert!(reasons.len() > 10, "{} reasons are not all", reasons.len());
    let names = reasons.keys().cloned().collect();
    let mut codes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in sources.values() {
        for (code, reason) in codes_of_reasons(text, &names) {
            codes.entry(reason).or_default().insert(format!("`{code}`"));
        }
    }
    let rows: Vec<_> = reasons
        .into_iter()
        .map(|(reason, about)| {
            let codes = codes.remove(&reason).unwrap_or_default();
            let codes: Vec<String> = codes.into_iter().collect();
            assert!(!codes.is_empty(), "no status is returned with {reason}");
            [format!("`{reason}`"), codes.join(", "), about]
        })
        .collect();
    check_block(DOCUMENT, "transport", &table(["reason", "status", "meaning"], &rows));
}

#[test]
fn admin_errors_are_those_of_the_admin_service() {
    let sources = sources();
    let (_, text) = sources.iter().find(|(path, _)| path.ends_with(ADMIN)).unwrap();
    let is_reason = |word: &&str| {
        let upper = word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        upper && word.len() > 4
    };
    let reasons = text.split('"').skip(1).step_by(2).filter(is_reason).map(str::to_owned).collect();
    let pairs = codes_of_reasons(text, &reasons);
    let found: BTreeSet<_> = pairs.iter().map(|(_, reason)| reason.clone()).collect();
    assert!(found.len() > 8 && found.is_subset(&reasons), "{found:?} are not all of {reasons:?}");
    let document = read(DOCUMENT);
    let (_, section) = document.split_once("## Admin service").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeSet<(String, String)> = section
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> =
                line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, reason, code, ..] = cells[..] else {
                return None;
            };
            is_reason(&reason).then(|| (code.to_owned(), reason.to_owned()))
        })
        .collect();
    let code_only: Vec<_> = pairs.difference(&documented).collect();
    let document_only: Vec<_> = documented.difference(&pairs).collect();
    assert!(
        code_only.is_empty() && document_only.is_empty(),
        "only in the code: {code_only:?}, only in the document: {document_only:?}"
    );
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let mut codes = BTreeMap::new();
    for constant in constants(&read("src/exit.rs")) {
        let code: u8 = constant.value.parse().unwrap();
        assert!(codes.insert(code, constant.about).is_none(), "exit code {code} twice");
    }
    let rows: Vec<_> = codes.into_iter().map(|(code, about)| [code.to_string(), about]).collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    check_block(DOCUMENT, "exit codes", &table(["code", "meaning"], &rows));
}
