//! gRPC over the `h2` crate, as cheap as a client can be.
//!
//! | file | what |
//! |---|---|
//! | `bell.rs` | wakers that tell which connection or call has something to do |
//! | `cork.rs` | a socket whose writes gather until the turn is over |
//! | `connection.rs` | one HTTP/2 connection, and making it |
//! | `request.rs` | calls as bytes |
//! | `answer.rs` | answers as outcomes |
//!
//! No task per call and none per connection: the worker polls what its bell names.

pub(crate) mod answer;
pub(crate) mod bell;
pub mod connection;
pub(crate) mod cork;
pub(crate) mod request;
