//! Both READMEs have the same headings, commands and tables, and are short.

use super::generated::read;

/// Longest README, in lines.
const LINES_MAX: usize = 300;

#[test]
fn both_readmes_have_the_same_content() {
    let (english, korean) = (read("README.md"), read("README.ko.md"));
    for (name, text) in [("README.md", &english), ("README.ko.md", &korean)] {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines, more than {LINES_MAX}");
    }
    assert!(Outline::of(&english).code.len() > 5, "{:?}", Outline::of(&english));
    assert_eq!(difference(&english, &korean), None);
}

/// What does not depend on the language.
#[derive(Debug, Default, PartialEq)]
struct Outline {
    /// The levels of the headings.
    headings: Vec<usize>,
    /// Code blocks, whole.
    code: Vec<String>,
    /// Of each row of a table, and each item of a list, the parts in code font per cell.
    rows: Vec<Vec<Vec<String>>>,
    /// Targets of links, without the link to the other language.
    links: Vec<String>,
}

impl Outline {
    fn of(text: &str) -> Self {
        let mut outline = Self::default();
        let mut block: Option<String> = None;
        for line in text.lines() {
            match &mut block {
                Some(code) if line == "```" => {
                    outline.code.push(std::mem::take(code));
                    block = None;
                }
                Some(code) => code.push_str(&format!("{line}\n")),
                None if line.starts_with("```") => block = Some(format!("{line}\n")),
                None => outline.add(line),
            }
        }
        outline
    }

    fn add(&mut self, line: &str) {
        if line.starts_with('#') {
            self.headings.push(line.chars().take_while(|c| *c == '#').count());
        }
        if line.starts_with('|') {
            let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            self.rows.push(line.split(" | ").map(code).collect());
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split(')').next().unwrap_or_default();
            if !target.starts_with("README") {
                self.links.push(target.to_owned());
            }
        }
    }
}

/// The first difference between two READMEs.
fn difference(english: &str, korean: &str) -> Option<String> {
    let (mut a, mut b) = (Outline::of(english), Outline::of(korean));
    // Sentences have another order in another language.
    a.links.sort();
    b.links.sort();
    let first = |what: &str, a: Vec<String>, b: Vec<String>| {
        let at = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at))?;
        Some(format!("{what} {at}: {:?} and {:?}", a.get(at), b.get(at)))
    };
    let shown = |rows: &[Vec<Vec<String>>]| rows.iter().map(|row| format!("{row:?}")).collect();
    first(
        "heading",
        a.headings.iter().map(ToString::to_string).collect(),
        b.headings.iter().map(ToString::to_string).collect(),
    )
    .or_else(|| first("code block", a.code, b.code))
    .or_else(|| first("table row", shown(&a.rows), shown(&b.rows)))
    .or_else(|| first("link", a.links, b.links))
}

#[test]
fn another_heading_command_row_or_link_is_reported() {
    let text = "# A\n\n## B\n\n```bash\nrun it\n```\n\n| a | b |\n|---|---|\n| `X` | with `Y` |\n\n[c](docs/c.md)\n";
    assert_eq!(difference(text, &text.replace("with", "mit")), None);
    for (from, to) in [
        ("## B", "### B"),
        ("## B\n", ""),
        ("run it", "run that"),
        ("| `X` | with `Y` |\n", ""),
        ("`Y`", "`Z`"),
        ("docs/c.md", "docs/d.md"),
    ] {
        assert!(difference(text, &text.replace(from, to)).is_some(), "{from}");
    }
}
