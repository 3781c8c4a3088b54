//! `tables create` and `tables check`.

use super::Failure;
use super::args::TablesCommand;
use crate::config::{self, ProcessEnv, StoreConfig};

pub(super) fn run(command: &TablesCommand) -> Result<(), Failure> {
    let store = config::store(&ProcessEnv)?;
    match command {
        TablesCommand::Create => create(&store),
        TablesCommand::Check => check(&store),
    }
}

fn create(_store: &StoreConfig) -> Result<(), Failure> {
    Err(Failure::failed("this build has no store yet".to_owned()))
}

fn check(_store: &StoreConfig) -> Result<(), Failure> {
    Err(Failure::failed("this build has no store yet".to_owned()))
}
