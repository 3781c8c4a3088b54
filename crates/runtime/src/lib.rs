//! The executor of a shard: tasks, timers, sockets and CPU pinning on glommio, and the process's clocks.
//! The only crate that names glommio, so that the executor can be exchanged.
//!
//! Not here: what a shard does (the server's `shard`), knowledge of HTTP, gRPC or the store.

pub mod clock;
mod cpu;
mod executor;
pub mod limits;
mod net;
mod task;
pub mod timer_queue;

pub use cpu::{allowed_cpus, check_topology};
pub use executor::{early_init, run_pinned, run_unpinned, run_with_shard_rings};
pub use net::{AcceptedSocket, Listener, TcpStream, connect, has_input};
pub use task::{Task, WakeAfterIo, after_io, sleep, spawn, spawn_blocking, timeout, yield_now};
