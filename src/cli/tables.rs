//! `tables create` and `tables check`.

use super::CommandError;
use super::args::TablesCommand;
use crate::config::{self, ProcessEnv, StoreConfig};
use crate::exit;
use crate::output;
use crate::preflight::{self, StoreQueryError};
use inventory_store::{AwsAccess, StoreSettings, tables};

pub(super) fn run(command: &TablesCommand) -> Result<(), CommandError> {
    let mut config = config::store(&ProcessEnv)?;
    for warning in config::warnings(&ProcessEnv) {
        output::report(format_args!("inventory-api: {warning}"));
    }
    preflight::raise_soft_limits();
    let settings = preflight::resolve_store(&mut config).map_err(CommandError::failed)?;
    match command {
        TablesCommand::Create => create(&config, settings),
        TablesCommand::Check => check(&config, settings),
    }
}

fn explain(error: &StoreQueryError, config: &StoreConfig) -> CommandError {
    CommandError::failed(preflight::explain_query_error(error, config))
}

fn create(config: &StoreConfig, settings: StoreSettings) -> Result<(), CommandError> {
    // First: tables are billed where they are created.
    let aws = settings.aws();
    let account = aws.and_then(|aws| aws.account()).unwrap_or("unknown");
    let endpoint = aws.map_or_else(String::new, AwsAccess::endpoint);
    let region = config.region_text();
    output::print(format_args!("account   {account}\nregion    {region}\nendpoint  {endpoint}"))?;
    let made = preflight::query_at(settings, async |store| Ok(tables::create(store).await?));
    let made = made.map_err(|error| explain(&error, config))?;
    if made.is_empty() {
        output::print("nothing to create: the tables exist")?;
    }
    for one in &made {
        output::print(one)?;
    }
    Ok(())
}

fn check(config: &StoreConfig, settings: StoreSettings) -> Result<(), CommandError> {
    let differences = preflight::query_at(settings, async |store| Ok(tables::check(store).await?));
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
            "{verdict}  table {}: {}\nfix    {}",
            difference.table, difference.what, difference.fix
        ))?;
    }
    match differences.iter().any(|difference| difference.fatal) {
        // The differences have been printed.
        true => Err(CommandError::reported(exit::FAILED)),
        false => Ok(()),
    }
}
