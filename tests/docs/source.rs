//! Reads constants with their documentation, and statuses with their reasons, from the source text.

use std::collections::{BTreeMap, BTreeSet};

use super::generated::{files, read, root};

/// A constant with the text of its documentation.
pub(crate) struct Constant {
    pub(crate) name: String,
    /// As written, without quotes.
    pub(crate) value: String,
    pub(crate) about: String,
}

/// The constants of `text` whose declaration starts with `prefix`, for example `pub const`.
pub(crate) fn constants(text: &str) -> Vec<Constant> {
    let mut found = Vec::new();
    let mut about: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            about.push(comment.trim());
            continue;
        }
        let declaration = line
            .split_once("const ")
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        if let Some((name, value)) = declaration.and_then(|(_, rest)| rest.split_once(':'))
            && let Some((_, value)) = value.split_once(" = ")
        {
            found.push(Constant {
                name: name.to_owned(),
                value: value.trim_end_matches(';').trim_matches('"').to_owned(),
                about: about.join(" "),
            });
        }
        about.clear();
    }
    found
}

/// The body of the module `name` in `text`, if it has one.
pub(crate) fn module<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let from = text.find(&format!("mod {name} {{\n"))?;
    let body = &text[from..];
    body.find("\n}").map(|end| &body[..end])
}

/// The text of every source file of the server without its tests, by path.
pub(crate) fn sources() -> BTreeMap<String, String> {
    let rust = files(|name| name.ends_with(".rs") && !name.ends_with("tests.rs"));
    let ours = rust.into_iter().filter_map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let is_server = name.starts_with("src/") || name.starts_with("crates/");
        (is_server && !name.contains("/tests/") && !name.contains("testkit")).then_some(name)
    });
    ours.map(|name| {
        let text = read(&name);
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (name, code)
    })
    .collect()
}

/// The gRPC codes that `text` returns with each of `reasons`. A reason is written as `reason::NAME` or as a
/// literal; the code is the last one named before it, or the first one after a call of `set_error_info`.
pub(crate) fn codes_of_reasons(
    text: &str,
    reasons: &BTreeSet<String>,
) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    for reason in reasons {
        for written in [format!("reason::{reason}"), format!("\"{reason}\"")] {
            for (at, _) in text.match_indices(&written) {
                let after = text[at + written.len()..].chars().next();
                if after.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let start =
                    (0..=at.saturating_sub(160)).rev().find(|at| text.is_char_boundary(*at));
                let before = &text[start.unwrap_or(0)..at];
                let named_after =
                    before.ends_with("set_error_info(").then(|| text[at..].split_once("Code::"));
                let code = match named_after.flatten() {
                    Some((_, code)) => Some(code_named(code)),
                    None => last_code(before),
                };
                if let Some(code) = code {
                    pairs.insert((code, reason.clone()));
                }
            }
        }
    }
    pairs
}

/// The last code named in `text`, in the notation of the gRPC specification.
fn last_code(text: &str) -> Option<String> {
    let mut last: Option<(usize, String)> = None;
    let mut offer = |at: Option<usize>, code: &str| {
        if let Some(at) = at
            && last.as_ref().is_none_or(|(best, _)| at > *best)
        {
            last = Some((at, code.to_owned()));
        }
    };
    offer(text.rfind("Status::internal("), "INTERNAL");
    offer(text.rfind("Status::unimplemented("), "UNIMPLEMENTED");
    offer(text.rfind("failed("), "FAILED_PRECONDITION");
    if let Some(at) = text.rfind("Code::") {
        offer(Some(at), &code_named(&text[at + 6..]));
    }
    last.map(|(_, code)| code)
}

/// The code whose name `text` begins with: `FailedPrecondition` is `FAILED_PRECONDITION`.
fn code_named(text: &str) -> String {
    let name = text.chars().take_while(|c| c.is_alphanumeric());
    let mut text = String::new();
    for c in name {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[test]
fn constants_and_codes_are_found_in_source_text() {
    let text = "pub mod reason {\n    /// One\n    /// line.\n    pub const A_B: &str = \"A_B\";\n}\n\
                fn f() { Status::new(\n Code::NotFound,\n reason::A_B, x); Status::internal(reason::A_B) }";
    let found = constants(module(text, "reason").unwrap());
    assert_eq!((found[0].name.as_str(), found[0].about.as_str()), ("A_B", "One line."));
    let reasons = BTreeSet::from(["A_B".to_owned()]);
    let pairs = codes_of_reasons(text, &reasons);
    let codes: Vec<&str> = pairs.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["INTERNAL", "NOT_FOUND"]);
}
