//! Wording of documents, comments, texts and scripts: phrases that a newcomer has to read twice.

use super::{SourceFile, prose};

/// Phrases without plain meaning and what to write instead. A phrase matches whole words; one with a capital
/// letter matches as written, others in any case.
const BANNED: [(&str, &str); 38] = [
    ("told", "reported, returned, passed"),
    ("tells", "reports, shows, returns"),
    ("stands still", "is stalled"),
    ("stand still", "be stalled"),
    ("stood still", "was stalled"),
    ("whoever", "the caller, the process"),
    ("in vain", "without a result"),
    ("for want of", "because there is no"),
    ("well done", "success"),
    ("is said", "is reported"),
    ("says so", "reports an error, exits with"),
    ("so as to", "to"),
    ("turned away", "rejected"),
    ("at the door", "at admission"),
    ("who came", "calls that arrived"),
    ("who comes", "calls that arrive"),
    ("who waits", "calls that wait"),
    ("who asks", "the caller"),
    ("who would", "calls that would"),
    ("that brings none", "without one"),
    ("who takes", "reservations that take"),
    ("who reads", "the reader"),
    ("who sells", "the process that sells"),
    ("by a hand", "manually"),
    ("what a hand", "manual changes"),
    ("given back", "returned"),
    ("gives back", "returns"),
    ("under way", "in flight"),
    ("on their way", "in flight"),
    ("the end of a hold", "hold expiry"),
    ("contract A", "inventory.v1"),
    ("contract B", "reservation.v1"),
    ("side thread", "control plane"),
    ("the house", "the repository, the venue"),
    ("lets go", "releases, resumes"),
    ("let go", "released, resumed"),
    ("put off", "delayed, requeued"),
    ("of its own accord", "by itself"),
];

/// The directory whose subject is the banned words themselves.
const EXEMPT: &str = "tests/source_rules/";

/// The document whose code blocks are the help of the commands, which is prose.
const COMMANDS: &str = "docs/reference/commands.md";

pub(super) fn problems(file: &SourceFile) -> Vec<String> {
    if file.path.starts_with(EXEMPT) {
        return Vec::new();
    }
    let is_document = file.path.ends_with(".md");
    let mut found = Vec::new();
    let mut is_in_code = false;
    let mut before = String::new();
    let lines = file.text.lines().zip(prose::lines(file));
    for (index, (line, prose)) in lines.enumerate() {
        is_in_code ^= is_document && line.trim_start().starts_with("```");
        if is_document && (line.trim().is_empty() || (is_in_code && file.path != COMMANDS)) {
            before.clear();
            continue;
        }
        // In a document, a phrase may be broken over two lines.
        let prose = format!("{before} {}", prose.trim());
        let lower_case = prose.to_lowercase();
        for (phrase, instead) in BANNED {
            let text = match phrase.chars().any(char::is_uppercase) {
                true => &prose,
                false => &lower_case,
            };
            if contains_words(text, phrase) && !contains_words(&before.to_lowercase(), phrase) {
                found.push(file.problem(index + 1, &format!("\"{phrase}\": write {instead}")));
            }
        }
        if is_document {
            before = line.trim().to_owned();
        }
    }
    found
}

/// Whether `phrase` stands in `text` between non-letters.
fn contains_words(text: &str, phrase: &str) -> bool {
    let is_boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    text.match_indices(phrase).any(|(at, _)| {
        is_boundary(text[..at].chars().next_back())
            && is_boundary(text[at + phrase.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::problems;

    #[test]
    fn banned_phrases_are_found_where_people_read() {
        for (path, text) in [
            ("Makefile", "# A caller is told the rest.\n"),
            ("src/a.rs", "//! Head.\nlet text = \"a shard stands still\";\n"),
            ("src/a.rs", "/// What contract A promises.\n"),
            ("src/a.rs", "let a = 1; // told before\n"),
            ("deploy/a.yaml", "# Whoever asks.\n"),
            (
                "src/a.rs",
                "const HELP: &str = \"\\\nA \\\"shard\\\"\nstood still\nfor long\";\nfn told() {}\n",
            ),
        ] {
            let found = problems(&sample(path, text));
            assert_eq!(found.len(), 1, "{path} {text:?}: {found:?}");
        }
    }

    #[test]
    fn documents_are_prose_but_for_their_code_blocks() {
        let text = "A shard stands\nstill.\n\n```text\nstands still\n```\n\nThe call is\ntold.\n";
        let lines = |path| {
            let found = problems(&sample(path, text));
            found.iter().map(|line| line.split(':').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines("docs/a.md"), ["2", "9"]);
        assert_eq!(lines("docs/reference/commands.md"), ["2", "5", "9"]);
    }

    #[test]
    fn identifiers_and_parts_of_words_are_not_prose() {
        for (path, text) in [
            ("src/a.rs", "let told = untold(told_by);\n"),
            ("src/a.rs", "// Untold riches.\n"),
            ("a.proto", "// A contract a client compiles against.\n"),
        ] {
            let found = problems(&sample(path, text));
            assert_eq!(found, Vec::<String>::new(), "{text:?}");
        }
    }
}
