//! The commands that run events, over the admin port.

use std::fmt::Display;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand, ValueEnum};
use http::Uri;

use super::super::{address, help};
use super::tls::TlsArgs;
use crate::config::whole_number;
use crate::limits::{EVENT_TOTAL_MAX, SEAT_KEYS_MAX, STRIPES_MAX};
use crate::telemetry::log::LogLevel;
use inventory_core::ids::{EventId, ReservationId, SeatId};

const TOTALS: std::ops::RangeInclusive<i64> = 1..=EVENT_TOTAL_MAX;

/// The server to call; for commands that do not print its answer.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServerArgs {
    /// Address of the server's admin port [default: 127.0.0.1 and ADMIN_PORT, 8081]
    #[arg(long = "admin", value_name = "ADDR", value_parser = address::parse_address)]
    pub(in crate::cli) address: Option<Uri>,

    /// File with the token of the admin port
    #[arg(
        long = "token-file",
        value_name = "FILE",
        env = "ADMIN_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(in crate::cli) token: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) tls: TlsArgs,
}

impl ServerArgs {
    /// `command` as it must be typed to reach the same server.
    pub(in crate::cli) fn command(&self, command: impl Display) -> String {
        let address = self.address.as_ref().map(|address| match address.scheme_str() {
            Some("https") => format!(" --admin {}", address::shown(address)),
            _ => format!(" --admin {}", address.authority().map_or("", |at| at.as_str())),
        });
        let token = self.token.as_ref().map(|path| format!(" --token-file {}", path.display()));
        let (address, token) = (address.unwrap_or_default(), token.unwrap_or_default());
        format!("inventory-api {command}{address}{token}{}", self.tls.typed())
    }
}

/// The server to call, and the format of the output.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdminArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EventCommand {
    /// Create an event; repeating the command changes nothing
    #[command(
        override_usage = "inventory-api event create <ID> --total <N> [OPTIONS]\n       \
                          inventory-api event create <ID> --seated [OPTIONS]",
        after_help = help::CREATE
    )]
    Create(CreateArgs),

    /// Show the stock of an event by stripe or by section
    Show(EventArgs),

    /// List all events
    #[command(after_help = help::EVENT_LIST)]
    List(ListEventsArgs),

    /// Change the number of tickets of an event
    #[command(
        override_usage = "inventory-api event restock <ID> <--total <N>|--add <N>> [OPTIONS]",
        after_help = help::RESTOCK
    )]
    Restock(RestockArgs),

    /// Close the sale for good: no new reservations; existing holds can still be confirmed
    #[command(after_help = help::CLOSE)]
    Close(CloseArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// Event id: 1 to 128 bytes of [A-Za-z0-9._:-]
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    /// Number of tickets
    #[arg(long, value_name = "N", required_unless_present = "seated",
          value_parser = whole_number(TOTALS))]
    pub(in crate::cli) total: Option<i64>,

    /// Stripes over which the stock is split, 1 to 64; auto is one per 250 tickets, up to 20
    /// [default: auto]
    #[arg(long, value_name = "N|auto", value_parser = stripes)]
    pub(in crate::cli) stripes: Option<u16>,

    /// Create a seated event; `seats import` adds its seats
    #[arg(long, conflicts_with_all = ["total", "stripes"])]
    pub(in crate::cli) seated: bool,

    #[command(flatten)]
    pub(in crate::cli) about: AboutArgs,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// Parses a number of stripes; 0 for `auto`.
fn stripes(text: &str) -> Result<u16, String> {
    if text == "auto" {
        return Ok(0);
    }
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=STRIPES_MAX).contains(number));
    number.ok_or_else(|| format!("{text} is not in 1..={STRIPES_MAX}, nor auto"))
}

/// Attributes of an event at its creation.
#[derive(Debug, Args)]
pub(in crate::cli) struct AboutArgs {
    /// Partition keys of the seats; each sells about 500 seats a second [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["total", "stripes"],
          value_parser = whole_number(1..=SEAT_KEYS_MAX))]
    pub(in crate::cli) seat_keys: Option<u16>,

    /// Name of the event
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(in crate::cli) name: String,

    /// Venue of the event
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(in crate::cli) venue: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListEventsArgs {
    /// Show the stock of each event; reads every event
    #[arg(long)]
    pub(in crate::cli) stock: bool,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EventArgs {
    /// Event id
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CloseArgs {
    /// Event id
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    /// Do not ask on a terminal
    #[arg(long)]
    pub(in crate::cli) yes: bool,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RestockArgs {
    /// Event id
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    /// New total, including held and sold tickets
    #[arg(long, value_name = "N", required_unless_present = "add", conflicts_with = "add",
          value_parser = whole_number(TOTALS))]
    pub(in crate::cli) total: Option<i64>,

    /// Tickets to add to the current total
    #[arg(long, value_name = "N", value_parser = whole_number(TOTALS))]
    pub(in crate::cli) add: Option<i64>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SeatsCommand {
    /// Import seats into a seated event; run it again after an interruption
    #[command(after_help = help::IMPORT)]
    Import(ImportArgs),

    /// List the seats of an event with price, state and reservation
    #[command(after_help = help::SEAT_LIST)]
    List(SeatListArgs),

    /// Block available seats
    #[command(after_help = help::BLOCK)]
    Block(BlockArgs),

    /// Make blocked seats available again
    #[command(after_help = help::BLOCK)]
    Unblock(BlockArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// CSV or JSON file; - is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,

    /// Create the seated event first, if it does not exist; another name or venue is refused
    #[arg(long)]
    pub(in crate::cli) create: bool,

    /// Only check the file and show its sections and prices; send nothing
    #[arg(long)]
    pub(in crate::cli) check: bool,

    #[command(flatten)]
    pub(in crate::cli) about: ImportAboutArgs,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// As [`AboutArgs`], only valid with --create.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportAboutArgs {
    /// With --create: partition keys of the seats [default: 1]
    #[arg(long, value_name = "N", requires = "create",
          value_parser = whole_number(1..=SEAT_KEYS_MAX))]
    pub(in crate::cli) seat_keys: Option<u16>,

    /// With --create: name of the event
    #[arg(long, value_name = "TEXT", requires = "create")]
    pub(in crate::cli) name: Option<String>,

    /// With --create: venue of the event
    #[arg(long, value_name = "TEXT", requires = "create")]
    pub(in crate::cli) venue: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SeatListArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// Only seats in this state
    #[arg(long, value_enum)]
    pub(in crate::cli) state: Option<SeatListState>,

    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SeatListState {
    Available,
    Held,
    Sold,
    Blocked,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BlockArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// Seat ids
    #[arg(value_name = "SEAT", required_unless_present = "file")]
    pub(in crate::cli) seats: Vec<SeatId>,

    /// File with seat ids; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "seats")]
    pub(in crate::cli) file: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ReservationCommand {
    /// Show a reservation
    Show(ReservationArgs),

    /// Refund a confirmed reservation; repeating the command changes nothing
    Refund(ReservationArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReservationArgs {
    /// Reservation id
    #[arg(value_name = "ID")]
    pub(in crate::cli) reservation: ReservationId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// Only reservations with this status
    #[arg(long, value_enum)]
    pub(in crate::cli) status: Option<ExportStatus>,

    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

/// Where rows are written, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct TableArgs {
    /// Format of the output [default: csv if the name of --out ends in .csv, otherwise jsonl]
    #[arg(long, value_enum)]
    pub(in crate::cli) format: Option<TableFormat>,

    /// Output file instead of standard output, complete or not at all; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,

    /// In CSV: write cells as they are stored, also those that a spreadsheet would evaluate or change
    #[arg(long)]
    pub(in crate::cli) raw: bool,

    /// In a CSV file of --out: no byte order mark, which spreadsheets need to read UTF-8
    #[arg(long)]
    pub(in crate::cli) no_bom: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TableFormat {
    Jsonl,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportStatus {
    Held,
    Confirmed,
    Released,
    Expired,
    Refunded,
}

#[derive(Debug, Args)]
#[command(after_help = help::VERDICTS)]
pub(in crate::cli) struct VerifyArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[command(after_help = help::VERDICTS)]
pub(in crate::cli) struct ReconcileArgs {
    /// Event id
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// Apply the repairs and verify again; without this option nothing changes
    #[arg(long)]
    pub(in crate::cli) apply: bool,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogLevelArgs {
    /// New level: debug (every call), info, warn or error [default: print the current level]
    #[arg(value_name = "LEVEL", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::as_str))
              .try_map(|level| level.parse::<LogLevel>()))]
    pub(in crate::cli) level: Option<LogLevel>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
