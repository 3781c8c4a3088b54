//! Benchmark runner of inventory-api.
//!
//! | module | content |
//! |---|---|
//! | `benchmarks` | the benchmarks: cases, columns of the table, bounds |
//! | `case` | one case: deploy, run the generator, collect the reports |
//! | `deployment` | the store model and the servers of a case |
//! | `measurement` | figures in the reports of the generator and the model |
//! | `report` | medians, tables, verdicts on bounds |
//! | `http` | requests to the store model and to the metrics port |
//! | `wire` | CPU time and latency of a repeated commit, by h2load |
//! | `expiry` | commits while many holds expire at the same time |
//!
//! Exit codes: 0 all bounds met, 1 a promise was broken, 2 a bound was missed, 3 invalid run (the generator was late or
//! did not send every call), 4 the measurement failed, 64 usage error.

mod benchmarks;
mod case;
mod deployment;
mod expiry;
mod http;
mod limits;
mod measurement;
mod report;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::benchmarks::{BenchmarkArgs, BenchmarkName};

/// Error that ends a measurement.
type BenchError = Box<dyn std::error::Error>;

/// Result of a measurement that completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BenchVerdict {
    Ok,
    /// A promise was broken: an answer or the store is wrong.
    Broken,
    /// A bound was missed.
    Missed,
    /// The generator was the limit.
    Invalid,
}

impl BenchVerdict {
    fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Broken => 1,
            Self::Missed => 2,
            Self::Invalid => 3,
        }
    }
}

const FAILED: u8 = 4;
const USAGE: u8 = 64;

/// Benchmark runner of inventory-api.
///
/// Exit codes: 0 all bounds met, 1 a promise was broken, 2 a bound was missed, 3 invalid run (the generator
/// was late or did not send every call), 4 the measurement failed, 64 usage error.
#[derive(Parser)]
#[command(name = "inventory-bench", version)]
struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// One hot event: 30,000 direct commits per second, compared with the baseline service
    Hot(BenchmarkArgs),
    /// Fifty events, mostly checks
    Mixed(BenchmarkArgs),
    /// 20,000 seats, by seat id and best available
    Seats(BenchmarkArgs),
    /// Three times the measured capacity
    Overload(BenchmarkArgs),
    /// More shards, connections and processes
    Scale(BenchmarkArgs),
    /// One hot event over 1, 2 and 4 processes that share one CPU
    Fleet(BenchmarkArgs),
    /// Twenty minutes of the mixed calls
    Soak(BenchmarkArgs),
    /// CPU time and latency of a repeated commit, compared with the baseline service (needs h2load)
    Wire(Box<wire::WireArgs>),
    /// Commits while 100,000 holds expire at the same time
    Expiry(expiry::ExpiryArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = match BenchArgs::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are not usage errors.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let verdict = match args.command {
        BenchCommand::Hot(args) => benchmarks::run(BenchmarkName::Hot, &args).await,
        BenchCommand::Mixed(args) => benchmarks::run(BenchmarkName::Mixed, &args).await,
        BenchCommand::Seats(args) => benchmarks::run(BenchmarkName::Seats, &args).await,
        BenchCommand::Overload(args) => benchmarks::run(BenchmarkName::Overload, &args).await,
        BenchCommand::Scale(args) => benchmarks::run(BenchmarkName::Scale, &args).await,
        BenchCommand::Fleet(args) => benchmarks::run(BenchmarkName::Fleet, &args).await,
        BenchCommand::Soak(args) => benchmarks::run(BenchmarkName::Soak, &args).await,
        BenchCommand::Wire(args) => wire::run(&args).await,
        BenchCommand::Expiry(args) => expiry::run(&args).await,
    };
    match verdict {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            inventory_process::report_failure("inventory-bench", &*error);
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        use clap::CommandFactory;
        BenchArgs::command().debug_assert();
    }
}
