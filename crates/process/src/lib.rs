//! Server processes under measurement or test, and what Linux accounts of a process.
//!
//! [`ChildProcess`] is any started program with its output; [`ServerProcess`] starts a program pinned to a CPU and
//! reads its address from the banner; [`CpuTime`], [`resident_bytes`] and [`sleeps`] read `/proc`; [`print()`] writes the standard
//! output of benchmark programs. What is started, measured and printed is decided by the caller.

mod child_process;
mod output;
mod server;
mod usage;

pub use self::child_process::{ChildProcess, ProcessLog};
pub use self::output::{PrintError, print, report, report_failure};
pub use self::server::{LaunchError, ServerProcess, banner_address, pinned_command};
pub use self::usage::{CpuTime, allowed_cpus, resident_bytes, sleeps};
