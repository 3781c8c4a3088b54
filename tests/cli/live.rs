//! A real server and the commands that call it.

use inventory_testkit::server::{CommandOutput, ServerCommand, TestServer, command};
use serde_json::Value;

use crate::OK;

/// A server in memory, for one test.
pub(crate) struct LiveServer {
    pub(crate) server: TestServer,
}

impl LiveServer {
    pub(crate) fn start() -> Self {
        Self { server: ServerCommand::dev_in_memory().start() }
    }

    /// A command with the address of the admin port.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(args);
        command.args(["--admin", &self.server.admin]);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        ServerCommand::from(self.command(args)).run()
    }

    /// Runs a command that must succeed; its output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, OK, "{args:?}: {}", ran.err);
        ran.out
    }

    /// Runs a command that must succeed, with --json; the value it prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}:\n{out}"))
    }

    /// Runs a command with `input` on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> CommandOutput {
        ServerCommand::from(self.command(args)).run_with_input(input)
    }
}
