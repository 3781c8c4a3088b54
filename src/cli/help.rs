//! What help says below the options.

use std::fmt::Write as _;

use super::exit;
use crate::config::variables::{READ_BY_THE_SDK, VARIABLES};

/// Below the list of commands.
pub(super) const START_HERE: &str = "\
Start here:
  inventory-api dev                 a server with a sample event; it prints what to try
  inventory-api serve --help        every setting, with its default

Exit codes: 0 well done, 1 failed, 64 wrong usage or settings";

// The text above is a constant: a changed code must not outlive it.
const _: () = assert!(exit::OK == 0 && exit::FAILED == 1 && exit::USAGE == 64);

/// Below the options of `verify` and `reconcile`.
pub(super) const VERDICTS: &str = "\
Exit codes: 0 everything was proven, 1 a breach or no answer, 75 no breach among what stood still
but parts are being sold too fast to be judged";

const _: () = assert!(exit::MOVING == 75);

/// Width of the column of defaults; a longer one runs over.
const DEFAULT_COLUMN_MAX: usize = 15;

/// How much is said of each variable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Name, default and purpose.
    Short,
    /// What a value must be, too.
    Long,
}

/// The environment variables, from the one table of them.
pub(super) fn environment(detail: Detail) -> String {
    let all = || VARIABLES.iter().flat_map(|group| group.variables);
    let name_width = all().map(|v| v.name().len()).max().unwrap_or(0);
    let default_width = all().map(|v| v.default().len()).max().unwrap_or(0);
    // One long URL must not push every line past the edge of a terminal.
    let default_width = default_width.min(DEFAULT_COLUMN_MAX);
    let mut text = String::from("Settings are environment variables:\n");
    // Writing to a String cannot fail.
    for group in VARIABLES {
        let _ = writeln!(text, "\n  {}", group.title);
        for variable in group.variables {
            let default = match variable.default() {
                "" => "-",
                default => default,
            };
            let _ = writeln!(
                text,
                "    {:name_width$}  {default:default_width$}  {}",
                variable.name(),
                variable.about()
            );
            if detail == Detail::Long {
                let _ = writeln!(text, "    {:name_width$}  {}", "", variable.wants());
            }
        }
    }
    text.push_str("\n  Read by the AWS SDK itself\n");
    for (name, about) in READ_BY_THE_SDK {
        let _ = writeln!(text, "    {name}: {about}");
    }
    let _ = write!(
        text,
        "\nA value that cannot be used stops the start with exit code {}.",
        exit::USAGE
    );
    text
}
