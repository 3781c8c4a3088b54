//! What the server says about itself: figures and log lines.
//!
//! A shard writes into its own [`recorder::Recorder`], which nobody else touches. A scrape asks each
//! shard to hand over the interval since the last one ([`recorder::Snapshot`]); the side thread adds
//! them up in a [`registry::Aggregate`] and renders it. Log lines go through [`log`].
//!
//! Must not live here: sockets, an executor, who asks for a scrape (that is `side`).

mod events;
mod families;
mod figures;
pub mod heartbeat;
pub mod log;
pub mod process;
pub mod recorder;
pub mod registry;
pub mod trace;
mod window;

pub use families::code_name;
