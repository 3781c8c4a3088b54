//! The bridge to reflection, which tonic serves on the control plane.
//!
//! Reflection shares the port of the contracts but needs a tokio runtime (the service spawns tasks). The body frames of each call travel through bounded channels between the shard ([`relay`]) and
//! the control plane ([`serve`]). The shard uses tokio's channels, which need only wakers, and no tokio
//! runtime.
//!
//! Not here: the services themselves.

mod channel;
pub(super) mod relay;
mod server;

pub use channel::{BridgeReceiver, TonicBridge, channel};
pub use server::serve;
