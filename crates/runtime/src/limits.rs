//! Bounds of the executor, each with its reason.

/// Registered buffer memory of one executor. Its default pins 30 MiB; nothing here does file I/O.
pub const RING_BUFFER_BYTES: usize = 64 * 1024;

/// Depth of a shard's rings. Not for what is in flight: the kernel finds what a ring waits for in a table
/// of a sixteenth as many places, and looks there whenever a timer is taken back, thousands of times a second.
/// At the executor's own 128, 5,000 connections lie in 8 places, 600 in each (measured: 18 % of the CPU).
pub const RING_DEPTH: usize = 1024;
