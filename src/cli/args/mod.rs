//! The command line as clap reads it.

use std::any::TypeId;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Command, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use http::Uri;

use super::{address, help};
use crate::build_info;
use crate::config::{format_span, parse_with_unit};
use crate::demo::DemoOptions;
use crate::limits::{TOP_EVERY_MAX, TOP_EVERY_MIN};

mod admin;
mod tls;

pub(super) use admin::*;
pub(super) use tls::TlsArgs;

/// Ticket inventory server: reservations in DynamoDB, never oversold, with one outcome per reservation id.
#[derive(Debug, Parser)]
#[command(
    name = "inventory-api",
    version = build_info::version_text(),
    disable_help_subcommand = true,
    after_help = help::START_HERE
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
}

/// The command line. Options with a number or a time take a value that begins with a hyphen, so that the error of
/// `--total -5` names the range and not another option.
pub(super) fn command() -> Command {
    fn with_signs(command: Command) -> Command {
        let numbers =
            [TypeId::of::<i64>(), TypeId::of::<u64>(), TypeId::of::<u32>(), TypeId::of::<u16>()];
        let command = command.mut_args(|arg| {
            let kind = arg.get_value_parser().type_id();
            let is_number =
                kind == TypeId::of::<Duration>() || numbers.iter().any(|id| kind == *id);
            match is_number && !arg.is_positional() {
                true => arg.allow_hyphen_values(true),
                false => arg,
            }
        });
        command.mut_subcommands(with_signs)
    }
    with_signs(Cli::command())
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Run the server on an embedded database, without any setup
    #[command(after_help = help::DEV)]
    Dev(DevArgs),

    /// Sell out an event with real clients and verify every promise
    Demo(DemoOptions),

    /// Run the server on DynamoDB
    #[command(after_help = help::environment(help::HelpDetail::Short),
              after_long_help = help::environment(help::HelpDetail::Long))]
    Serve,

    /// Create or check the DynamoDB tables
    #[command(subcommand, arg_required_else_help = true)]
    Tables(TablesCommand),

    /// Create, show, list, restock or close events
    #[command(subcommand, arg_required_else_help = true)]
    Event(EventCommand),

    /// Import, list, block or unblock the seats of an event
    #[command(subcommand, arg_required_else_help = true)]
    Seats(SeatsCommand),

    /// Show or refund a reservation
    #[command(subcommand, arg_required_else_help = true)]
    Reservation(ReservationCommand),

    /// Export the reservations of an event
    #[command(after_help = help::EXPORT)]
    Export(ExportArgs),

    /// Verify that capacity, reservations, seats and orders of an event agree
    Verify(VerifyArgs),

    /// Show, or apply, repairs for inconsistent stock
    Reconcile(ReconcileArgs),

    /// List the server processes that sell from the same store, as the running server sees them
    #[command(after_help = help::MEMBERS)]
    Members(AdminArgs),

    /// Show or change the log level of the running server
    LogLevel(LogLevelArgs),

    /// Show the metrics of the running server in the terminal
    #[command(after_help = help::TOP)]
    Top(TopArgs),

    /// Check everything that `serve` needs: kernel, limits, ports, store, tables
    Check,

    /// Check the health of the running server; exit code 0 if it serves
    Health(HealthArgs),

    /// Print shell completions
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Keep all data in memory; it is lost when the server stops
    #[arg(long, conflicts_with = "data")]
    pub(super) memory: bool,

    /// Directory of the data; created if missing
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(super) data: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum TablesCommand {
    /// Create missing tables; existing tables stay unchanged
    Create,

    /// Show how the tables differ from what the server needs
    Check,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Address of the server [default: 127.0.0.1 and GRPC_PORT, 8080]
    #[arg(long = "server", value_name = "ADDR", value_parser = address::parse_address)]
    pub(super) address: Option<Uri>,

    /// Check one service, for example inventory.v1.Inventory, instead of the whole server
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) service: String,

    #[command(flatten)]
    pub(super) tls: TlsArgs,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Address of the server's metrics [default: 127.0.0.1 and METRICS_PORT, 9090]
    #[arg(long, value_name = "ADDR", value_parser = address::parse_address)]
    pub(super) metrics: Option<Uri>,

    /// Interval between samples, from 250ms to 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(super) every: Duration,

    /// Take two samples, print the rates between them, and exit
    #[arg(long)]
    pub(super) once: bool,

    /// Print JSON instead of text
    #[arg(long, requires = "once")]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) tls: TlsArgs,
}

/// The interval between the samples of `top`.
fn interval(text: &str) -> Result<Duration, String> {
    let (shortest, longest) = (TOP_EVERY_MIN, TOP_EVERY_MAX);
    let wanted = || format!("want {} to {}", format_span(shortest), format_span(longest));
    let every = parse_with_unit(text).map_err(|why| format!("{why}; {}", wanted()))?;
    match (shortest..=longest).contains(&every) {
        true => Ok(every),
        false => Err(wanted()),
    }
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Shell that completes
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"])
          .try_map(|name| name.parse::<Shell>()))]
    pub(super) shell: Shell,
}
