//! Wires the rooms into a running server.

use thiserror::Error;

use crate::config::Config;
use crate::embedded;

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
pub fn run_dev(_config: Config, _data: embedded::Data) -> Result<(), StartError> {
    Err(StartError::NotBuilt)
}
