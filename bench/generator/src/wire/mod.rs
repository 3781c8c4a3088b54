//! gRPC client on the `h2` crate with a minimal CPU cost per call.
//!
//! | file | content |
//! |---|---|
//! | `ready.rs` | wakers that name the connection or call to poll |
//! | `cork.rs` | a socket that collects writes until the end of a turn |
//! | `connection.rs` | one HTTP/2 connection and its handshake |
//! | `request.rs` | encoding of calls |
//! | `answer.rs` | decoding of answers into outcomes |
//!
//! There is no task per call or connection: the worker polls the futures that were woken.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod cork;
pub(crate) mod ready;
pub(crate) mod request;
