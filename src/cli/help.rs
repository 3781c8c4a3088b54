//! What help says below the options.

use std::fmt::Write as _;

use super::exit;
use crate::config::variables::{READ_BY_THE_EXPORTER, READ_BY_THE_SDK, VARIABLES};

/// Below the list of commands.
pub(super) const START_HERE: &str = "\
Start here:
  inventory-api dev                 a server with a sample event; it prints what to try
  inventory-api serve --help        every setting, with its default

Exit codes: 0 well done, 1 failed, 64 wrong usage or settings";

// The text above is a constant: a changed code must not outlive it.
const _: () = assert!(exit::OK == 0 && exit::FAILED == 1 && exit::USAGE == 64);

/// Below `top`.
pub(super) const TOP: &str = "\
Keys: q quits, p pauses, s sorts the events, ? explains the columns. NO_COLOR is respected.

Exit codes: 0 well done, 1 with --once no figures could be had, 64 wrong usage";

/// Below `event create`.
pub(super) const CREATE: &str = "\
Exit codes: 0 created, or there already with the same arguments; 1 refused; 64 wrong usage";

/// Below `event restock`.
pub(super) const RESTOCK: &str = "\
A total below what is held or sold is refused with the numbers. --add reads the total first and
sends the sum; run twice it adds twice.

Exit codes: 0 done, 1 refused or failed, 64 wrong usage";

/// Below `seats import`.
pub(super) const IMPORT: &str = "\
CSV needs a first line that names its columns; JSON lines need one object per line. What it is
shows by its first character. Columns, or keys:
  seat_id        1 to 128 bytes of [A-Za-z0-9._:-]; must be there, each seat once
  section        up to 64 bytes each; may be empty or missing
  row
  number
  price          a decimal number, such as 120000 or 45.50, with no more decimals than the currency
                 has: none in KRW or JPY, three in KWD, two in most
  price_amount   instead of price: in the currency's smallest unit, such as 4550
  currency       ISO 4217, such as KRW; needed where there is a price

Every line is looked at before anything is sent; one wrong line, and nothing is. A seat that is there
already gets the facts of the file and stays sold, held or blocked as it is. Seats that the file does
not name stay as they are.

Exit codes: 0 all seats written, 1 refused or failed, 64 wrong usage or a wrong line";

/// Below `seats block` and `seats unblock`.
pub(super) const BLOCK: &str = "\
Held and sold seats are left as they are, and told.

Exit codes: 0 every seat is now as asked for, 1 some are not, 64 wrong usage";

/// Below `export`.
pub(super) const EXPORT: &str = "\
Columns, or keys: reservation_id, event_id, status, quantity, seat_ids, order_id, payment_intent_id,
expires_at, created_at, changed_at. Times are UTC; what there is not is empty, in JSON null. In CSV,
seat_ids have a space between them.

The reservations come as the store has them, in no order, while the sale goes on.

Exit codes: 0 all written, 1 failed, 64 wrong usage";

/// Below `completions`.
pub(super) const COMPLETIONS: &str = "\
For example:
  bash   inventory-api completions bash > ~/.local/share/bash-completion/completions/inventory-api
  zsh    inventory-api completions zsh > ~/.zfunc/_inventory-api, with ~/.zfunc in fpath
  fish   inventory-api completions fish > ~/.config/fish/completions/inventory-api.fish";

/// Below the options of `verify` and `reconcile`.
pub(super) const VERDICTS: &str = "\
Exit codes: 0 everything was proven, 1 a breach or no answer, 75 no breach among what stood still
but parts are being sold too fast to be judged";

const _: () = assert!(exit::MOVING == 75);

/// Width of the column of defaults; a longer one runs over.
const DEFAULT_COLUMN_MAX: usize = 15;

/// How much is said of each variable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HelpDetail {
    /// Name, default and purpose.
    Short,
    /// What a value must be, too.
    Long,
}

/// The environment variables, from the one table of them.
pub(super) fn environment(detail: HelpDetail) -> String {
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
            if detail == HelpDetail::Long {
                let _ = writeln!(text, "    {:name_width$}  {}", "", variable.expected());
            }
        }
    }
    let others = [
        ("the AWS SDK", READ_BY_THE_SDK),
        ("OpenTelemetry's exporter", READ_BY_THE_EXPORTER),
    ];
    for (reader, variables) in others {
        let _ = writeln!(text, "\n  Read by {reader} itself");
        for (name, about) in variables {
            let _ = writeln!(text, "    {name}: {about}");
        }
    }
    let _ = write!(
        text,
        "\nA value that cannot be used stops the start with exit code {}.",
        exit::USAGE
    );
    text
}
