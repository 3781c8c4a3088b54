//! The commands that run events, over the admin port.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use http::Uri;

use super::super::{client, help};
use crate::limits::{EVENT_TOTAL_MAX, SEAT_KEYS_MAX, STRIPES_MAX};
use crate::telemetry::log::LogLevel;
use inventory_core::ids::{EventId, ReservationId, SeatId};

const TOTALS: std::ops::RangeInclusive<i64> = 1..=EVENT_TOTAL_MAX;

/// Where to call; for commands that print something else than an answer.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServerArgs {
    /// Where the server's admin port is [default: 127.0.0.1 at ADMIN_PORT, 8081]
    #[arg(long = "admin", value_name = "ADDR", value_parser = client::parse_address)]
    pub(in crate::cli) address: Option<Uri>,
}

/// Where to call, and how to print what comes back.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdminArgs {
    /// Print JSON instead of text for people
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EventCommand {
    /// Create an event; repeating it changes nothing
    #[command(
        override_usage = "inventory-api event create <ID> --total <N> [OPTIONS]\n       \
                          inventory-api event create <ID> --seated [OPTIONS]",
        after_help = help::CREATE
    )]
    Create(CreateArgs),

    /// Show what is left of an event, by stripe or by section
    Show(EventArgs),

    /// List all events
    List(AdminArgs),

    /// Give an event more tickets, or fewer
    #[command(
        override_usage = "inventory-api event restock <ID> <--total <N>|--add <N>> [OPTIONS]",
        after_help = help::RESTOCK
    )]
    Restock(RestockArgs),

    /// End the sale: no new reservations; what is held can still be confirmed
    Close(EventArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// The event: 1 to 128 bytes of [A-Za-z0-9._:-]
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    /// Tickets to sell
    #[arg(long, value_name = "N", required_unless_present = "seated",
          value_parser = clap::value_parser!(i64).range(TOTALS))]
    pub(in crate::cli) total: Option<i64>,

    /// Items the stock is split over, each sells on its own: 1 to 64, or auto, which is one per 250
    /// tickets up to 20 [default: auto]
    #[arg(long, value_name = "N|auto", value_parser = stripes)]
    pub(in crate::cli) stripes: Option<u16>,

    /// Sell seats instead of a number of tickets; `seats import` brings them
    #[arg(long, conflicts_with_all = ["total", "stripes"])]
    pub(in crate::cli) seated: bool,

    #[command(flatten)]
    pub(in crate::cli) about: AboutArgs,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// A number of stripes; 0 for `auto`.
fn stripes(text: &str) -> Result<u16, String> {
    if text == "auto" {
        return Ok(0);
    }
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=STRIPES_MAX).contains(number));
    number.ok_or_else(|| format!("{text} is not in 1..={STRIPES_MAX}, nor auto"))
}

/// What an event may be given when it is created.
#[derive(Debug, Args)]
pub(in crate::cli) struct AboutArgs {
    /// Partition keys the seats are spread over: each takes about 500 seat holds a second [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["total", "stripes"],
          value_parser = clap::value_parser!(u16).range(1..=i64::from(SEAT_KEYS_MAX)))]
    pub(in crate::cli) seat_keys: Option<u16>,

    /// What people call the event
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(in crate::cli) name: String,

    /// Where it takes place
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(in crate::cli) venue: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EventArgs {
    /// The event
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RestockArgs {
    /// The event
    #[arg(value_name = "ID")]
    pub(in crate::cli) event: EventId,

    /// Tickets in all, sold ones included
    #[arg(long, value_name = "N", required_unless_present = "add", conflicts_with = "add",
          value_parser = clap::value_parser!(i64).range(TOTALS))]
    pub(in crate::cli) total: Option<i64>,

    /// Tickets beside those there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(TOTALS))]
    pub(in crate::cli) add: Option<i64>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SeatsCommand {
    /// Bring seats into a seated event; repeating it, or going on after a break, is running it again
    #[command(after_help = help::IMPORT)]
    Import(ImportArgs),

    /// Take free seats out of the sale
    #[command(after_help = help::BLOCK)]
    Block(BlockArgs),

    /// Put blocked seats back into the sale
    #[command(after_help = help::BLOCK)]
    Unblock(BlockArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// CSV or JSON lines; - is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,

    /// Create the seated event first
    #[arg(long)]
    pub(in crate::cli) create: bool,

    /// Only look whether the file is good; send nothing
    #[arg(long, conflicts_with = "create")]
    pub(in crate::cli) check: bool,

    #[command(flatten)]
    pub(in crate::cli) about: ImportAboutArgs,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// As [`AboutArgs`], which go with --create only.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportAboutArgs {
    /// With --create: partition keys the seats are spread over [default: 1]
    #[arg(long, value_name = "N", requires = "create",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(SEAT_KEYS_MAX)))]
    pub(in crate::cli) seat_keys: Option<u16>,

    /// With --create: what people call the event
    #[arg(long, value_name = "TEXT", requires = "create")]
    pub(in crate::cli) name: Option<String>,

    /// With --create: where it takes place
    #[arg(long, value_name = "TEXT", requires = "create")]
    pub(in crate::cli) venue: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BlockArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// The seats
    #[arg(value_name = "SEAT", required_unless_present = "file")]
    pub(in crate::cli) seats: Vec<SeatId>,

    /// Read the seats from a file, one per line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "seats")]
    pub(in crate::cli) file: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ReservationCommand {
    /// Show how a reservation stands
    Show(ReservationArgs),

    /// Give back what a confirmed reservation has; repeating it changes nothing
    Refund(ReservationArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReservationArgs {
    /// The reservation
    #[arg(value_name = "ID")]
    pub(in crate::cli) reservation: ReservationId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// How each reservation is written
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(in crate::cli) format: ExportFormat,

    /// Write to this file, which is made whole or not at all, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,

    /// Only reservations of this status
    #[arg(long, value_enum)]
    pub(in crate::cli) status: Option<ExportStatus>,

    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
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
    /// The event
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[command(after_help = help::VERDICTS)]
pub(in crate::cli) struct ReconcileArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: EventId,

    /// Carry the plan out, and verify again; without it nothing is changed
    #[arg(long)]
    pub(in crate::cli) apply: bool,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogLevelArgs {
    /// debug (every call), info, warn or error; without it the level in force is told
    #[arg(value_name = "LEVEL")]
    pub(in crate::cli) level: Option<LogLevel>,

    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
