//! `tables create` and `tables check`.

use super::args::TablesCommand;
use super::{Failure, say};
use crate::config::{self, ProcessEnv};
use crate::preflight::store::{explain_call, look, production_settings, with_store};
use crate::store::StoreSettings;
use crate::store::tables;

pub(super) fn run(command: &TablesCommand) -> Result<(), Failure> {
    let store = production_settings(&config::store(&ProcessEnv)?);
    match command {
        TablesCommand::Create => create(&store),
        TablesCommand::Check => check(&store),
    }
}

fn create(settings: &StoreSettings) -> Result<(), Failure> {
    let made = with_store(settings, async |store| {
        let made = tables::create(store).await;
        made.map_err(|error| explain_call(&error, settings))
    });
    let made = made.map_err(Failure::failed)?;
    for one in &made {
        say(&format!("made {one}\n"));
    }
    if made.is_empty() {
        say("nothing to make: the tables are there\n");
    }
    Ok(())
}

fn check(settings: &StoreSettings) -> Result<(), Failure> {
    let differences = look(settings).map_err(Failure::failed)?;
    for difference in &differences {
        say(&format!("{difference}\n"));
    }
    if differences.is_empty() {
        say("the tables are as they should be\n");
        return Ok(());
    }
    let fatal = differences.iter().filter(|d| d.fatal).count();
    Err(Failure::failed(format!(
        "{} differ, {fatal} of them so that the server cannot run",
        differences.len()
    )))
}
