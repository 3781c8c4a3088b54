//! Wires the rooms into a running server.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::Config;

/// Where the embedded engine of `dev` keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevStore {
    /// In memory: gone when the server stops.
    Memory,
    /// In this directory, made if missing.
    Data(PathBuf),
}

/// Why a server did not start or did not stop well.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("this build has no server yet")]
    NotBuilt,
}

/// Serves on DynamoDB until it is told to stop.
///
/// # Errors
/// When the start or the stop fails.
pub fn run_serve(_config: Config) -> Result<(), StartError> {
    Err(StartError::NotBuilt)
}

/// Serves on the embedded engine until it is told to stop.
///
/// # Errors
/// When the start or the stop fails.
pub fn run_dev(_config: Config, _store: DevStore) -> Result<(), StartError> {
    Err(StartError::NotBuilt)
}
