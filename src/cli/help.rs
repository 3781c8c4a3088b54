//! Help texts below the options.

use std::fmt::Write as _;

use crate::config::variables::{
    FURTHER_OF_THE_EXPORTER, READ_BY_THE_SDK, READ_BY_THE_STORE, VARIABLES,
};
use crate::exit;

/// Below the list of commands.
pub(super) const START_HERE: &str = "\
Start here:
  inventory-api dev                 a server with a sample event and commands to try
  inventory-api serve --help        all settings with their defaults

Exit codes: 0 success, 1 failure, 64 usage or configuration error, 70 stalled shard, 75 try again";

// The text above is a constant and must agree with the codes.
const _: () =
    assert!(exit::OK == 0 && exit::FAILED == 1 && exit::USAGE == 64 && exit::STALLED == 70);

/// Below `dev`.
pub(super) const DEV: &str = "\
Ports and all other settings are environment variables, as for `serve`, for example:
  GRPC_PORT=8090 GRPC_HOST=127.0.0.1 inventory-api dev

`inventory-api serve --help` lists them. The gRPC and metrics ports listen on all interfaces, without
authentication, unless GRPC_HOST names another address for gRPC.";

/// Below the error about an option that a command with settings does not have.
pub(super) const NO_OPTION: &str = "
Ports and all other settings are environment variables, such as GRPC_PORT=8090; see
`inventory-api serve --help`.
";

/// Below `top`.
pub(super) const TOP: &str = "\
Keys: q quits, p pauses, s sorts the events, ? explains the columns. NO_COLOR is respected.

Exit codes: 0 success, 1 no metrics with --once, 64 usage error";

/// Below `event list`.
pub(super) const EVENT_LIST: &str = "\
Column `items`: over how many stripes the tickets of an event are split, or over how many partition keys
its seats; more of them sell more per second.

With --stock, tickets that are neither available nor held are `sold`, as in `event show`; JSON has the field
names of `event show`. Each event is read by itself: the rows are not of one moment.";

/// Below `event create`.
pub(super) const CREATE: &str = "\
An event that exists with another total, stripes, seat keys, name or venue is refused and not changed. A
name or venue that is not given matches any.

Exit codes: 0 created, or exists with the same arguments; 1 failure; 64 usage error";

/// Below `event close`.
pub(super) const CLOSE: &str = "\
A closed event cannot be opened again: what is not sold stays unsold. Existing holds can be confirmed and
released, and orders refunded. On a terminal the command asks first.

Exit codes: 0 closed, also if it was closed before; 1 failure, or not confirmed; 64 usage error";

/// Below `event restock`.
pub(super) const RESTOCK: &str = "\
A total below the held and sold tickets is rejected. --add reads the current total and sends the sum;
running it twice adds twice. Tickets of a closed event are not on sale, also those that are added.

Exit codes: 0 success, 1 failure, 64 usage error";

/// Below `seats import`.
pub(super) const IMPORT: &str = "\
A CSV file needs a header line that names its columns, in any case. JSON is one object per line, an
array of objects, or {\"seats\": [...]}. Columns or keys:
  seat_id        1 to 128 bytes of [A-Za-z0-9._:-]; required, unique
  section        up to 64 bytes each; may be empty or missing
  row
  number
  price          a decimal number, such as 120000 or 45.50, with no more decimals than the currency
                 has: none in KRW or JPY, three in KWD, two in most
  price_amount   instead of price: an amount in the smallest unit of the currency, such as 4550
  currency       ISO 4217, such as KRW; required with a price

Files are read as spreadsheets write them: UTF-8, UTF-16 or CP949; separated by commas, semicolons or
tabs; with empty columns, rows and lines. Notes on stderr say what was done. docs/files.md has the rules.

Every line is checked before the first one is sent; nothing is sent if a line is wrong. A seat that
exists gets the section, row, number and price of the file and keeps its state, also if it is sold; the
result says how many seats are new, changed and unchanged, and how many of the changed seats are held
or sold. Seats that are not in the file do not change.

Exit codes: 0 all seats written, 1 failure, 64 usage error or wrong line";

/// Below `seats list`.
pub(super) const SEAT_LIST: &str = "\
The list is sorted by section, row and number. Without --format and --out it is text; CSV and JSON lines
have the columns or keys seat_id, section, row, number, price, currency, state, reservation_id and
hold_expires_at (UTC). A price is decimal, as in a seat file. A CSV file can be imported again after the
last three columns are removed. Cells are safe to open in a spreadsheet, as those of `export`.

A list during a sale is no consistent snapshot.

Exit codes: 0 success, 1 failure, 64 usage error";

/// Below `seats block` and `seats unblock`.
pub(super) const BLOCK: &str = "\
The file of --file is a list with one or more seat ids per line, a seat file, or JSON.

Held and sold seats do not change and are listed.

Exit codes: 0 all seats have the requested state, 1 some do not, 64 usage error";

/// Below `export`.
pub(super) const EXPORT: &str = "\
Columns or keys: reservation_id, event_id, status, quantity, seat_ids, order_id, payment_intent_id,
expires_at, created_at, changed_at, amount, currency, event_name, venue, seat_names; in JSON also draws,
the units per stripe. The amount is the sum of the prices that were recorded with the seats; it is
missing if there are none, or in several currencies. Seat names are section, row and number as they are
now. Times are UTC. Missing values are empty in CSV and null in JSON. In CSV, spaces separate the
seat_ids, and semicolons the seat_names.

A CSV file is safe to open in a spreadsheet: it begins with a byte order mark; an apostrophe stands
before a cell that would be a formula (=, +, -, @) or that would be read as another number or a date
(00123, 1e5, 1-2); control characters are written as \\u202e. --raw writes the cells as they are stored.

The order of the reservations is undefined. An export during a sale is no consistent snapshot.

Exit codes: 0 success, 1 failure, 64 usage error";

/// Below `members`.
pub(super) const MEMBERS: &str = "\
State: self is the process that answers, alive a process that beats, forgotten one that missed three
beats. Last beat is measured by the answering process, up by the clock of each process. Clock is the
offset of a process's clock from the store's, in seconds.

Exit codes: 0 success, 1 failure, 64 usage error";

/// Below `completions`.
pub(super) const COMPLETIONS: &str = "\
For example:
  bash   inventory-api completions bash > ~/.local/share/bash-completion/completions/inventory-api
  zsh    inventory-api completions zsh > ~/.zfunc/_inventory-api, with ~/.zfunc in fpath
  fish   inventory-api completions fish > ~/.config/fish/completions/inventory-api.fish";

/// Below the options of `verify` and `reconcile`.
pub(super) const VERDICTS: &str = "\
Exit codes: 0 no breach, 1 a breach or no answer, 75 no breach found, but parts changed too fast to be
verified: try again";

const _: () = assert!(exit::MOVING == 75);

/// Width of the column of defaults; a longer one runs over.
const DEFAULT_COLUMN_MAX: usize = 15;

/// Level of detail for each variable.
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
        ("Export of spans, further variables", FURTHER_OF_THE_EXPORTER),
        ("Connection to AWS", READ_BY_THE_STORE),
        ("Read by the AWS SDK itself", READ_BY_THE_SDK),
    ];
    for (title, variables) in others {
        let _ = writeln!(text, "\n  {title}");
        for (name, about) in variables {
            let _ = writeln!(text, "    {name}: {about}");
        }
    }
    let _ = write!(
        text,
        "\nA value that cannot be used stops the start with exit code {}. Variables of OpenTelemetry\n\
         never do: an empty value is unset, and one that cannot be used is a warning in the log.",
        exit::USAGE
    );
    text
}
