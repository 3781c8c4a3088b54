//! The command line: parses it, runs one command, and reports the outcome as text and exit code.
//!
//! [`args`] defines the commands, with one module per command. Not here: behaviour of the server
//! (`server`) and settings (`config`).

mod address;
mod admin;
mod args;
mod client;
mod event;
mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod help;
mod input;
mod log_level;
mod members;
mod money;
mod reservation;
mod seats;
mod table_file;
mod tables;
mod top;
mod verify;
mod views;

use std::fmt::Display;
use std::process::ExitCode;

use clap::FromArgMatches as _;
use clap::error::ErrorKind;
use clap_complete::Shell;
use serde::Serialize;

use crate::config::{Config, ConfigErrors, ProcessEnv};
use crate::demo::{self, DemoError};
use crate::exit::{self, Exit};
use crate::output::{self, OutputError, OutputStream};
use crate::{preflight, server};
use args::{Cli, CliCommand, DevArgs};
use inventory_store::embedded;

/// Why a command failed.
#[derive(Debug)]
struct CommandError {
    /// For stderr; empty if the error was reported already.
    message: String,
    exit: Exit,
}

impl CommandError {
    /// A failure.
    fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Code(exit::FAILED) }
    }

    /// A usage or configuration error.
    fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Code(exit::USAGE) }
    }

    /// A failure that was reported.
    fn reported(code: u8) -> Self {
        Self { message: String::new(), exit: Exit::Code(code) }
    }

    /// A signal ended the command.
    fn signal(signal: libc::c_int) -> Self {
        Self { message: String::new(), exit: Exit::Signal(signal) }
    }
}

impl From<ConfigErrors> for CommandError {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(errors)
    }
}

impl From<OutputError> for CommandError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Closed => Self::signal(libc::SIGPIPE),
            error => Self::failed(error),
        }
    }
}

impl From<DemoError> for CommandError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Output(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

/// The result of a command, as text and as JSON.
trait View: Serialize {
    fn text(&self) -> String;
}

/// Prints the result of a command.
fn show(view: &impl View, json: bool) -> Result<(), CommandError> {
    match json {
        true => show_json(view),
        false => Ok(output::print(view.text())?),
    }
}

/// Prints a result as JSON.
fn show_json(view: &impl Serialize) -> Result<(), CommandError> {
    let value = serde_json::to_value(view).map_err(CommandError::failed)?;
    Ok(output::print_json(&value)?)
}

/// Runs the command of this process's command line.
pub fn run() -> ExitCode {
    let Err(error) = parse().and_then(dispatch) else {
        return ExitCode::from(exit::OK);
    };
    if !error.message.is_empty() {
        output::report(format_args!("inventory-api: {}", error.message));
    }
    error.exit.end()
}

/// The command of the command line. Help and usage errors are printed here.
fn parse() -> Result<Option<CliCommand>, CommandError> {
    let parsed = args::command().try_get_matches();
    let error = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => return Ok(cli.command),
        Err(error) => error,
    };
    let text = |is_coloured| match is_coloured {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    if error.use_stderr() {
        output::report_verbatim(&text(output::is_coloured(OutputStream::Error)));
        if error.kind() == ErrorKind::UnknownArgument && reads_settings() {
            output::report_verbatim(help::NO_OPTION);
        }
        return Err(CommandError::reported(exit::USAGE));
    }
    output::print_verbatim(&text(output::is_coloured(OutputStream::Output)))?;
    Err(CommandError::reported(exit::OK))
}

/// Whether the command of the command line has settings.
fn reads_settings() -> bool {
    let command = std::env::args().nth(1);
    matches!(command.as_deref(), Some("serve" | "dev" | "demo" | "check" | "tables"))
}

fn dispatch(command: Option<CliCommand>) -> Result<(), CommandError> {
    let Some(command) = command else {
        let help = args::command().render_help();
        return Ok(output::print_verbatim(&match output::is_coloured(OutputStream::Output) {
            true => help.ansi().to_string(),
            false => help.to_string(),
        })?);
    };
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
            Ok(demo::run(config, &options)?)
        }
        CliCommand::Check => check(),
        CliCommand::Tables(command) => tables::run(&command),
        CliCommand::Event(command) => event::run(&command),
        CliCommand::Seats(command) => seats::run(&command),
        CliCommand::Reservation(command) => reservation::run(&command),
        CliCommand::Export(args) => export::run(&args),
        CliCommand::Verify(args) => verify::verify(&args),
        CliCommand::Reconcile(args) => verify::reconcile(&args),
        CliCommand::Members(args) => members::run(&args),
        CliCommand::LogLevel(args) => log_level::run(&args),
        CliCommand::Top(args) => top::run(&args),
        CliCommand::Health(args) => health::run(&args),
        CliCommand::Completions(args) => completions(args.shell),
    }
}

/// The settings of a serving process.
fn config_to_serve() -> Result<Config, CommandError> {
    let config = Config::from_env(&ProcessEnv)?;
    preflight::raise_soft_limits();
    Ok(config)
}

fn completions(shell: Shell) -> Result<(), CommandError> {
    // The generator panics if a write fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "inventory-api", &mut script);
    // The generator for bash writes the hyphen of the program's name in two ways, and finds no subcommand then.
    let script =
        String::from_utf8_lossy(&script).replace("inventory__subcmd__api", "inventory__api");
    Ok(output::print_verbatim(&script)?)
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
    output::print(&report)?;
    if report.wrong() > 0 {
        // The last line of the report is the same.
        return Err(CommandError::reported(exit::FAILED));
    }
    Ok(())
}
