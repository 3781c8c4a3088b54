//! `demo`: sells out an event in front of the user and proves the promises from the store.

use crate::config::Config;
use crate::limits;
use crate::server::StartError;

/// What `demo` sells, and to how many.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct DemoOptions {
    /// Tickets on sale
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..=limits::DEMO_TICKETS_MAX))]
    pub tickets: u64,

    /// Buyers, each asking for a few tickets [default: three for each ticket]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=limits::DEMO_BUYERS_MAX))]
    pub buyers: Option<u64>,

    /// Connections the buyers share
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..=limits::DEMO_CONNECTIONS_MAX as i64))]
    pub connections: u32,

    /// Items the event's stock is split over
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=limits::STRIPES_MAX as i64))]
    pub stripes: u16,
}

/// Runs the sale; an error also when a promise was broken.
///
/// # Errors
/// When the server does not start or the sale breaks a promise.
pub fn run(_config: Config, _options: &DemoOptions) -> Result<(), StartError> {
    Err(StartError::NotBuilt)
}
