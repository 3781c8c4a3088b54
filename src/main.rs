//! The binary: the allocator, the kernel's barrier, and the command line. Nothing else.

use std::process::ExitCode;

use inventory_api::cli;

// Planted faults belong into the mutation run of the tests and into no server.
const _: () = assert!(
    !inventory_core::fault::CAN_PLANT,
    "built with planted faults"
);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread exists: registering later would interrupt every running core.
    inventory_runtime::early_init();
    cli::run()
}
