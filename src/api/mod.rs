//! The contracts, as handlers on a shard: request → operation, answer → response or status.
//!
//! | file | what |
//! |---|---|
//! | `inventory.rs` | `inventory.v1.Inventory`, contract A: a refusal is a gRPC status |
//! | `reservation/` | `reservation.v1.InventoryService`, contract B: a refusal is in the response |
//! | `clerk.rs` | what both share: from a request to the domain's answer |
//! | `names.rs` | the names of events, remembered |
//! | `stored.rs` | what is read from the store past the domain |
//! | `validate.rs` | what a request must look like |
//! | `refusal.rs` | which status a refusal is, with which details |
//! | `convert.rs` | the domain's values as the contracts spell them |
//!
//! Must not live here: rules about reservations (`domain`), HTTP/2 and encoding (`wire`).

mod convert;
mod event_names;
pub mod inventory_v1;
pub mod rejection;
pub mod reservation_service;
pub mod reservation_v1;
mod store_reads;
pub mod validate;
