//! The binary: the allocator, the process-wide initialisation of the executor, and the command line.

use std::process::ExitCode;

use inventory_api::cli;

// Planted faults belong into the mutation run of the tests and into no server.
const _: () = assert!(!inventory_core::fault::CAN_PLANT, "built with planted faults");

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any other thread exists: a later registration would interrupt every running core.
    inventory_runtime::early_init();
    cli::run()
}
