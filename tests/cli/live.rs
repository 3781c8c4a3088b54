//! A real server and the commands that talk to it.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::server::{Launch, Server, command};
use crate::{OK, Ran, read};

/// A server of its own for one test, in memory.
pub(crate) struct Live {
    pub(crate) server: Server,
}

impl Live {
    pub(crate) fn start() -> Self {
        Self {
            server: Launch::memory().start(),
        }
    }

    /// The command, told where the admin port is.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(args);
        command.args(["--admin", &self.server.admin]);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        read(self.command(args).output().unwrap())
    }

    /// Runs what must go well; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, OK, "{args:?}: {}", ran.err);
        ran.out
    }

    /// Runs what must go well, with --json; the value it printed.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}:\n{out}"))
    }

    /// Runs it with `input` on its standard input.
    pub(crate) fn run_on(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read it all is judged by what it says.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output: Output = child.wait_with_output().unwrap();
        read(output)
    }
}
