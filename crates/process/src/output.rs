//! Standard output and standard error of benchmark programs. Every failed write to standard output is returned; a
//! reader that has gone ends the program quietly.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

/// Standard output was not written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub struct PrintError(#[from] io::Error);

/// Writes `text` and a line end to standard output, unbuffered.
///
/// # Errors
/// Any error of the write, including those that the standard library ignores: a descriptor that is closed or open for
/// reading only.
pub fn print(text: impl Display) -> Result<(), PrintError> {
    print_to(&mut File::from(io::stdout().as_fd().try_clone_to_owned()?), text)
}

fn print_to(file: &mut File, text: impl Display) -> Result<(), PrintError> {
    Ok(file.write_all(format!("{text}\n").as_bytes())?)
}

/// Writes a line to standard error. There is nowhere to report a failure to.
pub fn report(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Reports why `program` fails; returns if it is to exit with its code for failures. If the reader of standard output
/// has gone, the process ends by SIGPIPE without a message, as every program that writes to a pipe. To be called when
/// the processes that the program started have ended.
pub fn report_failure(program: &str, error: &(dyn std::error::Error + 'static)) {
    if !is_reader_gone(error) {
        report(format_args!("{program}: {error}"));
        return;
    }
    // SAFETY: both calls take integers. The default action of the signal ends this process; nothing of the program
    // runs after it, unless the signal is blocked.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
}

fn is_reader_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let output = error.downcast_ref::<PrintError>();
    output.is_some_and(|PrintError(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn failed_writes_are_returned() {
        let full = File::options().write(true).open("/dev/full");
        let read_only = File::open("/dev/null");
        for (mut file, cause) in [(full.unwrap(), "space"), (read_only.unwrap(), "descriptor")] {
            let error = print_to(&mut file, "text").unwrap_err();
            assert!(error.to_string().contains(cause), "{error}");
            assert!(
                error.to_string().starts_with("standard output cannot be written: "),
                "{error}"
            );
            assert!(!is_reader_gone(&error));
        }
    }

    #[test]
    fn reader_that_has_gone_is_recognised() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut file = File::from(std::os::fd::OwnedFd::from(writer));
        let error = print_to(&mut file, "text").unwrap_err();
        assert!(is_reader_gone(&error), "{error}");
        // As programs pass their errors on.
        let boxed: Box<dyn std::error::Error> = error.into();
        assert!(is_reader_gone(&*boxed));
    }
}
