//! What people read in a file: comments and string literals of code, everything of a document.

use super::SourceFile;

/// Files that are prose as a whole.
const DOCUMENTS: [&str; 9] = [
    ".md",
    ".yml",
    ".yaml",
    ".proto",
    ".sh",
    ".ci/run",
    "Makefile",
    "Dockerfile.amd64",
    "Dockerfile.arm64",
];

/// The prose of each line. A literal over several lines is prose on each of them.
pub(super) fn lines(file: &SourceFile) -> Vec<String> {
    if DOCUMENTS.iter().any(|ending| file.path.ends_with(ending)) {
        return file.text.lines().map(str::to_owned).collect();
    }
    let has_slashes = [".rs", ".c", ".js"].iter().any(|ending| file.path.ends_with(ending));
    let comment = if has_slashes { "//" } else { "#" };
    let mut literal = None;
    file.text.lines().map(|line| prose_of(line, comment, &mut literal)).collect()
}

/// `literal` is the end of the literal in which the line begins, and then of that in which it ends.
fn prose_of(line: &str, comment: &str, literal: &mut Option<String>) -> String {
    let mut prose = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        if let Some(end) = literal {
            let (inside, after) = split_literal(rest, end);
            prose.push_str(inside);
            prose.push(' ');
            let Some(after) = after else {
                break;
            };
            rest = after;
            *literal = None;
        } else if rest.starts_with(comment) {
            prose.push_str(rest);
            break;
        } else if let Some((begin, end)) = literal_at(rest, comment) {
            rest = &rest[begin..];
            *literal = Some(end);
        } else {
            // A character literal may be a quote.
            let quote =
                ["'\"'", "'\\\"'", "b'\"'"].into_iter().find(|quote| rest.starts_with(quote));
            let length =
                quote.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), str::len);
            // On to the next character that may begin a comment or a literal.
            let next = rest[length..].find(['"', '\'', 'b', 'r', '/', '#']);
            rest = &rest[length + next.unwrap_or(rest.len() - length)..];
        }
    }
    prose
}

/// The part of `text` up to the end of the literal, and what follows it; `None` if the literal goes on.
fn split_literal<'a>(text: &'a str, end: &str) -> (&'a str, Option<&'a str>) {
    let mut from = 0;
    while let Some(found) = text[from..].find(end) {
        let at = from + found;
        let before = text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if end != "\"" || before % 2 == 0 {
            return (&text[..at], Some(&text[at + end.len()..]));
        }
        from = at + end.len();
    }
    (text, None)
}

/// Length of the beginning of a literal at the start of `text`, and the end that it needs.
fn literal_at(text: &str, comment: &str) -> Option<(usize, String)> {
    if text.starts_with("\"\"\"") && comment == "#" {
        return Some((3, "\"\"\"".to_owned()));
    }
    if text.starts_with('"') {
        return Some((1, "\"".to_owned()));
    }
    let hashes = text.strip_prefix('r')?.bytes().take_while(|byte| *byte == b'#').count();
    let is_raw = text[1 + hashes..].starts_with('"') && comment == "//";
    is_raw.then(|| (2 + hashes, format!("\"{}", "#".repeat(hashes))))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::lines;

    #[test]
    fn comments_and_literals_are_prose_and_code_is_not() {
        for (path, text, expected) in [
            ("a.rs", "let a = \"one\"; // two", "one // two"),
            ("a.rs", "let quote = '\"'; call(\"one\", b);", "one"),
            ("a.rs", "let a = \"say \\\"one\\\" twice\"; b", "say \\\"one\\\" twice"),
            ("a.rs", "let a = r#\"one \"two\" \\\"#; b", "one \"two\" \\"),
            ("a.py", "a = \"one\"  # two", "one # two"),
            ("a.toml", "name = \"one\"", "one"),
            ("a.md", "one `two`", "one `two`"),
        ] {
            let found: Vec<_> =
                lines(&sample(path, text))[0].split_whitespace().map(str::to_owned).collect();
            assert_eq!(found.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn lines_of_a_long_literal_are_prose() {
        for (path, text) in [
            ("a.rs", "let a = \"\none two\n\"; code();\n"),
            ("a.rs", "let a = \"begin \\\n   one two\";\n"),
            ("a.rs", "let a = r#\"\none two\n\"#;\n"),
            ("a.py", "\"\"\"Head.\none two\n\"\"\"\n"),
        ] {
            let found = lines(&sample(path, text));
            assert!(found[1].contains("one two"), "{text:?}: {found:?}");
            assert!(!found.concat().contains("code"), "{found:?}");
        }
    }
}
