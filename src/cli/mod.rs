//! The command line: parses it, runs one command, and reports the outcome as text and exit code.
//!
//! [`args`] defines the commands, with one module per command. Must not be put here: behaviour of the server
//! (`server`) and settings (`config`).

mod admin;
mod args;
mod client;
mod event;
mod export;
mod health;
mod help;
mod log_level;
mod money;
mod reservation;
mod seats;
mod show;
mod tables;
mod top;
mod verify;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use crate::config::{Config, ConfigErrors, ProcessEnv};
use crate::{demo, preflight, server};
use args::{Cli, CliCommand, DevArgs};
use inventory_store::embedded;

/// Every exit code of the program.
pub mod exit {
    /// Success.
    pub const OK: u8 = 0;
    /// Failure; the reason is on stderr.
    pub const FAILED: u8 = 1;
    /// Usage or configuration error (`EX_USAGE` of sysexits.h); a retry cannot help.
    pub const USAGE: u8 = 64;
    /// `verify` found no breach but could not verify everything, because the event changed too fast
    /// (`EX_TEMPFAIL` of sysexits.h): try again.
    pub const MOVING: u8 = 75;
}

/// Why a command failed.
#[derive(Debug)]
struct CommandError {
    /// For stderr; empty if the error was reported already.
    message: String,
    code: u8,
}

impl CommandError {
    /// A failure.
    fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), code: exit::FAILED }
    }

    /// A usage or configuration error.
    fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: exit::USAGE }
    }
}

impl From<ConfigErrors> for CommandError {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(errors)
    }
}

/// Runs the command of this process's command line.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&error),
    };
    let Some(command) = cli.command else {
        // A closed pipe is not an error.
        let _ = Cli::command().print_help();
        return ExitCode::from(exit::OK);
    };
    match dispatch(command) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            if !failure.message.is_empty() {
                // A closed stderr is ignored.
                let _ = writeln!(io::stderr(), "inventory-api: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: CliCommand) -> Result<(), CommandError> {
    match command {
        CliCommand::Serve => {
            let config = config_to_serve()?;
            server::run_serve(config).map_err(CommandError::failed)
        }
        CliCommand::Dev(args) => {
            let config = config_to_serve()?;
            server::run_dev(config, dev_data(args)).map_err(CommandError::failed)
        }
        CliCommand::Demo(options) => {
            let config = config_to_serve()?;
            demo::run(config, &options).map_err(CommandError::failed)
        }
        CliCommand::Check => check(),
        CliCommand::Tables(command) => tables::run(&command),
        CliCommand::Event(command) => event::run(&command),
        CliCommand::Seats(command) => seats::run(&command),
        CliCommand::Reservation(command) => reservation::run(&command),
        CliCommand::Export(args) => export::run(&args),
        CliCommand::Verify(args) => verify::verify(&args),
        CliCommand::Reconcile(args) => verify::reconcile(&args),
        CliCommand::LogLevel(args) => log_level::run(&args),
        CliCommand::Top(args) => top::run(&args),
        CliCommand::Health(args) => health::run(&args),
        CliCommand::Completions(args) => {
            completions(args.shell);
            Ok(())
        }
    }
}

/// The settings of a serving process.
fn config_to_serve() -> Result<Config, CommandError> {
    let config = Config::from_env(&ProcessEnv)?;
    preflight::raise_soft_limits();
    Ok(config)
}

/// The script goes through memory: the generator panics where a reader has gone.
fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "inventory-api", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

fn dev_data(args: DevArgs) -> embedded::EngineStorage {
    if args.memory {
        embedded::EngineStorage::Memory
    } else {
        embedded::EngineStorage::Dir(args.data)
    }
}

fn check() -> Result<(), CommandError> {
    // With the limits as `serve` would raise them.
    let config = config_to_serve()?;
    let report = preflight::run(&config);
    say(&report.to_string());
    if report.wrong() > 0 {
        // The report ends in the same words.
        return Err(CommandError::failed(""));
    }
    Ok(())
}

/// Prints a message of clap: requested help on stdout, errors on stderr.
fn explain_usage(error: &clap::Error) -> ExitCode {
    // A closed pipe (`--help | head`) is not an error.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(exit::OK),
        _ => ExitCode::from(exit::USAGE),
    }
}

/// Prints a value for programs.
fn say_json(value: &serde_json::Value) {
    say(&format!("{value:#}"));
}

/// Prints a line; a closed pipe is not an error.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
