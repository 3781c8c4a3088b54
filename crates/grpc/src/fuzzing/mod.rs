//! Fuzz target of the connection: what a peer sends and how it reads, against [`serve_connection`](crate::serve_connection).
//! Compiled for tests, which replay the corpus, and for the programs in `tests/fuzz`.
//!
//! | file | content |
//! |---|---|
//! | `connection.rs` | serves one connection and checks how it ends |
//! | `frames.rs` | an input as the bytes that a peer sends |
//! | `peer.rs` | the stream of that peer |
//! | `answers.rs` | the service, and the observer |

mod answers;
mod connection;
mod frames;
mod peer;

pub use connection::connection;

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_connections_is_served_within_the_limits() {
        inventory_testkit::corpus::replay("connection", super::connection);
    }
}
