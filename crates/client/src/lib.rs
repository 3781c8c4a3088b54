//! Client side of `inventory.v1.Inventory`: what any client of the servers needs, and nothing of the server.
//!
//! | module | content |
//! |---|---|
//! | `connect` | one connection over a tonic channel |
//! | `secure` | connections over TLS |
//! | `outcome` | what a failed call means: answered, never processed, or lost |
//! | `failover` | a client that moves between several servers |
//! | [`sale`] | many buyers in a closed loop, and a ledger that checks every answer |

mod connect;
mod failover;
pub(crate) mod limits;
mod outcome;
pub mod sale;
mod secure;

pub use self::connect::{ConnectError, InventoryClient, connect, connect_secure};
pub use self::failover::{CallStats, FailoverClient};
pub use self::outcome::{CallOutcome, code_name, reason};
pub use self::secure::{ClientStream, ClientTls, HttpVersion, connect_endpoint, connect_stream};
