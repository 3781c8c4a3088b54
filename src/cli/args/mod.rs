//! The command line as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use http::Uri;

use super::{client, help};
use crate::config::{format_span, parse_with_unit};
use crate::demo::DemoOptions;
use crate::limits::{TOP_EVERY_MAX, TOP_EVERY_MIN};

mod admin;

pub(super) use admin::*;

/// Sells tickets, never one twice: reservations in DynamoDB, grouped and committed per core.
#[derive(Debug, Parser)]
#[command(
    name = "inventory-api",
    version,
    disable_help_subcommand = true,
    after_help = help::START_HERE
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Run the server on an embedded engine: nothing to install, nothing to set
    Dev(DevArgs),

    /// Sell out an event in front of you, and prove that none was sold twice
    Demo(DemoOptions),

    /// Run the server on DynamoDB
    #[command(after_help = help::environment(help::HelpDetail::Short),
              after_long_help = help::environment(help::HelpDetail::Long))]
    Serve,

    /// Make the DynamoDB tables, or say how they differ
    #[command(subcommand, arg_required_else_help = true)]
    Tables(TablesCommand),

    /// Create, show, list, restock or close events
    #[command(subcommand, arg_required_else_help = true)]
    Event(EventCommand),

    /// Import the seats of an event, or take some out of the sale
    #[command(subcommand, arg_required_else_help = true)]
    Seats(SeatsCommand),

    /// Show one reservation, or refund it
    #[command(subcommand, arg_required_else_help = true)]
    Reservation(ReservationCommand),

    /// Write out the reservations of an event
    #[command(after_help = help::EXPORT)]
    Export(ExportArgs),

    /// Prove that an event's books balance: capacity, reservations, seats, orders
    Verify(VerifyArgs),

    /// Say how to repair what a hand put out of balance, or repair it
    Reconcile(ReconcileArgs),

    /// Tell what the running server logs, or change it until it ends
    LogLevel(LogLevelArgs),

    /// Watch the running server's figures in the terminal
    #[command(after_help = help::TOP)]
    Top(TopArgs),

    /// Look at everything `serve` needs before it is needed
    Check,

    /// Ask the running server whether it serves; exit code 0 if it does
    Health(HealthArgs),

    /// Print completions for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Keep everything in memory: it is gone when the server stops
    #[arg(long, conflicts_with = "data")]
    pub(super) memory: bool,

    /// Keep the data in this directory; made if missing
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(super) data: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum TablesCommand {
    /// Make the tables that are missing; those that are there stay as they are
    Create,

    /// Say what differs from what the server needs
    Check,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Where the server is [default: 127.0.0.1 at GRPC_PORT, 8080]
    #[arg(long = "server", value_name = "ADDR", value_parser = client::parse_address)]
    pub(super) address: Option<Uri>,

    /// Ask for one service, for example inventory.v1.Inventory, instead of the whole server
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) service: String,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Where the server's figures are [default: 127.0.0.1 at METRICS_PORT, 9090]
    #[arg(long, value_name = "ADDR", value_parser = client::parse_address)]
    pub(super) metrics: Option<Uri>,

    /// How often to look, from 250ms to 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(super) every: Duration,

    /// Look twice, print what happened in between, and end
    #[arg(long)]
    pub(super) once: bool,

    /// Print JSON instead of text for people
    #[arg(long, requires = "once")]
    pub(super) json: bool,
}

/// How often `top` looks.
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
    /// The shell: bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = known_shell, hide_possible_values = true)]
    pub(super) shell: Shell,
}

fn known_shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("want bash, zsh or fish".to_owned()),
    }
}
