//! How the process ends: every exit code of the program, and the end by a signal.

use std::process::ExitCode;

/// Success.
pub(crate) const OK: u8 = 0;
/// Failure; the reason is on stderr.
pub(crate) const FAILED: u8 = 1;
/// Usage or configuration error (`EX_USAGE` of sysexits.h); a retry cannot help.
pub(crate) const USAGE: u8 = 64;
/// A shard was stalled for longer than `SHARD_STALL_EXIT` (`EX_SOFTWARE` of sysexits.h).
pub(crate) const STALLED: u8 = 70;
/// `verify` found no breach but could not verify everything, because the event changed too fast
/// (`EX_TEMPFAIL` of sysexits.h): try again.
pub(crate) const MOVING: u8 = 75;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    /// As if this signal had killed the process: a shell reports 128 plus its number. The end of a reader of the
    /// output is SIGPIPE, as for every program that writes to a pipe.
    Signal(libc::c_int),
}

impl Exit {
    /// The exit code; does not return for a signal.
    pub(crate) fn end(self) -> ExitCode {
        match self {
            Self::Code(code) => ExitCode::from(code),
            Self::Signal(signal) => {
                // SAFETY: both calls take integers. The default action of the signal ends this process; nothing
                // of the program runs after it.
                unsafe {
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
                // The signal is blocked.
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(FAILED))
            }
        }
    }
}
