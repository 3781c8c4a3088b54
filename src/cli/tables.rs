//! `tables create` and `tables check`.

use super::args::TablesCommand;
use super::{CommandError, say};
use crate::config::{self, ProcessEnv, StoreConfig};
use crate::preflight::{self, StoreQueryError};
use inventory_store::tables;

pub(super) fn run(command: &TablesCommand) -> Result<(), CommandError> {
    let config = config::store(&ProcessEnv)?;
    preflight::raise_soft_limits();
    let outcome = match command {
        TablesCommand::Create => create(&config),
        TablesCommand::Check => check(&config),
    };
    match outcome {
        Ok(true) => Ok(()),
        // What is wrong has been printed.
        Ok(false) => Err(CommandError::failed("")),
        Err(error) => Err(CommandError::failed(preflight::explain_query_error(&error, &config))),
    }
}

fn create(config: &StoreConfig) -> Result<bool, StoreQueryError> {
    let made = preflight::query(config, async |store| Ok(tables::create(store).await?))?;
    if made.is_empty() {
        say("nothing to make: the tables are there");
    }
    for one in &made {
        say(&one.to_string());
    }
    Ok(true)
}

fn check(config: &StoreConfig) -> Result<bool, StoreQueryError> {
    let differences = preflight::query(config, async |store| Ok(tables::check(store).await?))?;
    if differences.is_empty() {
        let names = &config.tables;
        say(&format!(
            "{}, {} and {} are as the server needs them",
            names.inventory, names.seats, names.idempotency
        ));
    }
    for difference in &differences {
        let verdict = if difference.fatal { "wrong" } else { "note " };
        say(&format!(
            "{verdict}  table {}: {}\n cure  {}",
            difference.table, difference.what, difference.cure
        ));
    }
    Ok(!differences.iter().any(|difference| difference.fatal))
}
