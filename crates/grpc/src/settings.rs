//! Settings of the gRPC layer. The defaults and their reasons are in [`limits`].

use std::time::Duration;

use crate::limits;
use inventory_core::time::Micros;

/// Settings of every connection of a shard.
#[derive(Clone, Debug)]
pub struct GrpcSettings {
    /// Default deadline for calls without a grpc-timeout.
    pub call_timeout: Duration,
    /// Concurrent streams of one connection.
    pub streams_per_connection: u32,
    /// Silence after which the server pings the peer; `None` never pings.
    pub keep_alive_period: Option<Duration>,
    /// How long the peer may take to answer that ping.
    pub keep_alive_timeout: Duration,
    /// Age after which a connection gets a GOAWAY, jittered by a tenth; `None` means no maximum age.
    pub connection_age: Option<Duration>,
    /// Time from that GOAWAY to the close of a connection that still has calls.
    pub connection_age_grace: Duration,
    /// Time from accept to the end of the HTTP/2 preface.
    pub handshake_timeout: Duration,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            call_timeout: limits::CALL_TIMEOUT_DEFAULT,
            streams_per_connection: limits::STREAMS_PER_CONNECTION_DEFAULT,
            keep_alive_period: Some(limits::KEEP_ALIVE_PERIOD_DEFAULT),
            keep_alive_timeout: limits::KEEP_ALIVE_TIMEOUT,
            connection_age: Some(limits::CONNECTION_AGE_DEFAULT),
            connection_age_grace: limits::CONNECTION_AGE_GRACE,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
        }
    }
}

/// `span` in the clock's unit, rounded up so that no deadline is early.
pub(super) fn micros(span: Duration) -> Micros {
    let rounded = span.as_nanos().div_ceil(1_000);
    Micros(u64::try_from(rounded).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(micros(Duration::from_nanos(1)), Micros(1));
        assert_eq!(micros(Duration::from_micros(7)), Micros(7));
    }
}
