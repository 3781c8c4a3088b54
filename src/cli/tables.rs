//! `tables create` and `tables check`.

use super::CommandError;
use super::args::TablesCommand;
use crate::config::{self, ProcessEnv, StoreConfig};
use crate::exit;
use crate::output;
use crate::preflight::{self, StoreQueryError};
use inventory_store::tables;

pub(super) fn run(command: &TablesCommand) -> Result<(), CommandError> {
    let config = config::store(&ProcessEnv)?;
    preflight::raise_soft_limits();
    match command {
        TablesCommand::Create => create(&config),
        TablesCommand::Check => check(&config),
    }
}

fn explain(error: &StoreQueryError, config: &StoreConfig) -> CommandError {
    CommandError::failed(preflight::explain_query_error(error, config))
}

fn create(config: &StoreConfig) -> Result<(), CommandError> {
    let made = preflight::query(config, async |store| Ok(tables::create(store).await?));
    let made = made.map_err(|error| explain(&error, config))?;
    if made.is_empty() {
        output::print("nothing to make: the tables are there")?;
    }
    for one in &made {
        output::print(one)?;
    }
    Ok(())
}

fn check(config: &StoreConfig) -> Result<(), CommandError> {
    let differences = preflight::query(config, async |store| Ok(tables::check(store).await?));
    let differences = differences.map_err(|error| explain(&error, config))?;
    if differences.is_empty() {
        let names = &config.tables;
        output::print(format_args!(
            "{}, {} and {} are as the server needs them",
            names.inventory, names.seats, names.idempotency
        ))?;
    }
    for difference in &differences {
        let verdict = if difference.fatal { "wrong" } else { "note " };
        output::print(format_args!(
            "{verdict}  table {}: {}\n cure  {}",
            difference.table, difference.what, difference.cure
        ))?;
    }
    match differences.iter().any(|difference| difference.fatal) {
        // The differences have been printed.
        true => Err(CommandError::reported(exit::FAILED)),
        false => Ok(()),
    }
}
