//! Bounds of the executor, each with its reason.

use std::time::Duration;

/// Registered buffer memory of one executor. glommio's default pins 30 MiB; no shard does file I/O.
pub const RING_BUFFER_BYTES: usize = 64 * 1024;

/// Depth of a shard's rings. The depth does not bound what is in flight, but the kernel finds the requests
/// of a ring in a hash table of a sixteenth as many buckets, and searches it whenever a timer is removed,
/// thousands of times per second. At glommio's default of 128, 5,000 connections lie in 8 buckets, 600 in
/// each (measured: 18 % of the CPU).
pub const RING_DEPTH: usize = 1024;

/// How long ready tasks run until sockets and timers are looked at again. If tasks are always ready, because clients send faster
/// than the shard reads, nothing else ends their run: with glommio's default of 100 ms each answer of the store and each
/// request of another client then waits for as long. A task that is running is not interrupted.
pub const IO_POLL_INTERVAL: Duration = Duration::from_millis(1);
