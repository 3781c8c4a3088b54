//! The command line as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use http::Uri;

use super::{client, help};
use crate::demo::DemoOptions;
use crate::domain::ids::EventId;
use crate::limits::{EVENT_TOTAL_MAX, STRIPES_MAX};

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
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server on an embedded engine: nothing to install, nothing to set
    Dev(DevArgs),

    /// Sell out an event in front of you, and prove that none was sold twice
    Demo(DemoOptions),

    /// Run the server on DynamoDB
    #[command(after_help = help::environment(help::Detail::Short),
              after_long_help = help::environment(help::Detail::Long))]
    Serve,

    /// Make the DynamoDB tables, or say how they differ
    #[command(subcommand, arg_required_else_help = true)]
    Tables(TablesCommand),

    /// Create an event, or show its stock
    #[command(subcommand, arg_required_else_help = true)]
    Event(EventCommand),

    /// Prove that an event's books balance: capacity, reservations, seats, orders
    Verify(VerifyArgs),

    /// Say how to repair what a hand put out of balance, or repair it
    Reconcile(ReconcileArgs),

    /// Look at everything `serve` needs before it is needed
    Check,

    /// Ask the running server whether it serves; exit code 0 if it does
    Health(HealthArgs),
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

#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// Create an event with tickets to sell; repeating it changes nothing
    #[command(override_usage = "inventory-api event create <ID> --total <N> [OPTIONS]")]
    Create(CreateArgs),

    /// Show what is left of an event, stripe by stripe
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The event: 1 to 128 bytes of [A-Za-z0-9._:-]
    #[arg(value_name = "ID")]
    pub(super) event: EventId,

    /// Tickets to sell
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=EVENT_TOTAL_MAX))]
    pub(super) total: i64,

    /// Items the stock is split over: each sells on its own, so a hot event wants several
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(STRIPES_MAX)))]
    pub(super) stripes: u16,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The event
    #[arg(value_name = "ID")]
    pub(super) event: EventId,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[command(after_help = help::VERDICTS)]
pub(super) struct VerifyArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(super) event: EventId,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[command(after_help = help::VERDICTS)]
pub(super) struct ReconcileArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    pub(super) event: EventId,

    /// Carry the plan out, and verify again; without it nothing is changed
    #[arg(long)]
    pub(super) apply: bool,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Where the server's admin port is [default: 127.0.0.1 at ADMIN_PORT, 8081]
    #[arg(long = "admin", value_name = "ADDR", value_parser = client::parse_address)]
    pub(super) address: Option<Uri>,
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
