//! The `store-model` command: what happens if its output cannot be written.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

/// signal(7).
const SIGPIPE: i32 = 13;

/// Runs the command until it ends; with output that can be written it would serve.
fn output_to(stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store-model"));
    let command = command.args(["--port", "0"]).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let ran = output_to(File::options().write(true).open("/dev/full").unwrap());
    let text = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{text}");
    assert!(text.starts_with("store-model: standard output cannot be written: "), "{text}");
}

#[test]
fn reader_that_has_gone_ends_the_program_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = output_to(writer);
    assert_eq!(ran.status.signal(), Some(SIGPIPE), "{:?}", ran.status);
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), "");
}
