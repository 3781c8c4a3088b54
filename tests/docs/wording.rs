//! Documents are written in plain technical English: phrases that only this project used are reported.

use std::fs;

use super::generated::{documents, root};

/// A phrase, in lower case, and what to write.
const PHRASES: [(&str, &str); 22] = [
    ("stands still", "is stalled"),
    ("stand still", "stall"),
    ("stood still", "was stalled"),
    ("turned away", "rejected"),
    ("at the door", "at admission"),
    ("contract a", "inventory.v1"),
    ("contract b", "reservation.v1"),
    ("is told", "gets"),
    ("are told", "get"),
    ("was told", "got"),
    ("be told", "get"),
    ("by a hand", "manually"),
    ("what a hand", "manual changes"),
    ("so as to", "to"),
    ("put off", "requeued"),
    ("that brings none", "without one"),
    ("who would be", "calls that would be"),
    ("the end of a hold", "hold expiry"),
    ("given back", "returned"),
    ("gives back", "returns"),
    ("under way", "in flight"),
    ("on their way", "in flight"),
];

#[test]
fn documents_use_standard_terms() {
    let mut found = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let name = document.strip_prefix(root()).unwrap().display().to_string();
        // The help of the commands is in code blocks.
        let with_code = name == "docs/reference/commands.md";
        found
            .extend(phrases(&text, with_code).into_iter().map(|phrase| format!("{name}:{phrase}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The phrases in a document, with their lines.
fn phrases(text: &str, with_code: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    let mut words_before = String::new();
    for (number, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        if (in_code && !with_code) || line.trim().is_empty() {
            words_before.clear();
            continue;
        }
        // A phrase may be broken over two lines.
        let both = format!("{words_before} {}", line.trim().to_lowercase());
        for (phrase, better) in PHRASES {
            let ends: Vec<usize> =
                both.match_indices(phrase).map(|(at, _)| at + phrase.len()).collect();
            let is_word = |end: &usize| !both[*end..].starts_with(char::is_alphanumeric);
            if ends.iter().any(|end| *end > words_before.len() && is_word(end)) {
                found.push(format!("{}: {phrase:?}: write {better:?}", number + 1));
            }
        }
        words_before = line.trim().to_lowercase();
    }
    found
}

#[test]
fn phrases_are_found_in_prose_and_not_in_code() {
    let text = "A shard stands still.\n\n```text\nstands still\n```\n\nThe call is\ntold. Contract additions are fine.\n";
    assert_eq!(phrases(text, true).len(), 3);
    let found = phrases(text, false);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("1: \"stands still\"") && found[1].starts_with("8: \"is told\""),
        "{found:?}"
    );
}
