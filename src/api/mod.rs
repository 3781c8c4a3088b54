//! The contracts, as handlers on a shard: request → operation, answer → response or status.
//!
//! | file | what |
//! |---|---|
//! | `inventory.rs` | `inventory.v1.Inventory`, the handlers |
//! | `validate.rs` | what a request must look like |
//! | `refusal.rs` | which status a refusal is, with which details |
//!
//! Must not live here: rules about reservations (`domain`), HTTP/2 and encoding (`wire`).

pub mod inventory;
pub mod refusal;
pub mod validate;
