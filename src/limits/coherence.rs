//! Relations between bounds of the server and of several crates, asserted at compile time. Each crate asserts its own.

use super::*;

const _: () = {
    assert!(TLS_HANDSHAKE_TIMEOUT.as_micros() < SHUTDOWN_GRACE_DEFAULT.as_micros());
    assert!(TLS_HANDSHAKE_SLICE.as_micros() < CALL_TIMEOUT_DEFAULT.as_micros());
    assert!(TLS_HANDSHAKES_PER_SHARD_MAX < CONNECTIONS_PER_SHARD_MAX);
    assert!(LATENCY_MAX.as_micros() >= CALL_TIMEOUT_MAX.as_micros());
    assert!(BEAT_TIMEOUT.as_micros() < BEAT_INTERVAL.as_micros());
    assert!(LEAVE_TIMEOUT.as_micros() < SHUTDOWN_GRACE_DEFAULT.as_micros());
    assert!(LOG_VALUE_BYTES_MAX <= LOG_WRITE_BYTES);
    assert!(HTTP_HEADER_TIMEOUT.as_micros() < HTTP_CONNECTION_AGE_MAX.as_micros());
    assert!(ADMIN_CALL_TIMEOUT.as_micros() < ADMIN_CONNECTION_AGE_MAX.as_micros());
    assert!(ADMIN_CHUNK_WAIT_MAX.as_micros() < ADMIN_CONNECTION_AGE_MAX.as_micros());
    assert!(IMPORT_STALL_MAX.as_micros() > ADMIN_CALL_TIMEOUT.as_micros());
    assert!(IMPORT_STALL_MAX.as_micros() > SEAT_WRITE_WAIT_MAX.as_micros());
    // Prices, ids, texts and their encoding.
    assert!(
        SEATS_PER_CHUNK_MAX * (ID_BYTES_MAX + 3 * SEAT_TEXT_BYTES_MAX + 48)
            <= ADMIN_MESSAGE_BYTES_MAX
    );
    assert!(STORE_ADMIN_THROTTLE_RETRY_MAX.as_micros() < ADMIN_CALL_TIMEOUT.as_micros());
    assert!(SCRAPE_TIMEOUT.as_micros() < CONTROL_PLANE_STOP_GRACE.as_micros());
    assert!(CONTROL_PLANE_STOP_GRACE.as_micros() < SHUTDOWN_GRACE_DEFAULT.as_micros());
    assert!(AUDIT_SEATS_PER_LOOK * (1 + AUDIT_RECORDS_PER_SEAT) <= TRANSACTION_ACTIONS_MAX);
    assert!(AUDIT_TIME_MAX.as_secs() < ADMIN_CONNECTION_AGE_MAX.as_secs());
    assert!(SHORT_QUEUE_DEADLINE_MIN.as_nanos() < CALL_TIMEOUT_DEFAULT.as_nanos());
    assert!(READ_STALENESS_MIN.as_micros() <= READ_STALENESS_DEFAULT.as_micros());
    assert!(READ_STALENESS_DEFAULT.as_micros() <= READ_STALENESS_MAX.as_micros());
    assert!(HOLD_TTL_MIN.as_millis() <= HOLD_TTL_DEFAULT.as_millis());
    assert!(HOLD_TTL_DEFAULT.as_millis() <= HOLD_TTL_MAX_DEFAULT.as_millis());
    assert!(HOLD_TTL_MAX_DEFAULT.as_millis() <= HOLD_TTL_CEILING.as_millis());
    // Each shard has three rings, each with the buffer; an entry takes 64 bytes for submission, two times 16 for
    // completion, and 4 for the index. The documented size covers them and is not below the minimum.
    assert!(3 * (RING_BUFFER_BYTES + 104 * RING_DEPTH) as u64 <= MEMLOCK_SHARD_BYTES);
    assert!(MEMLOCK_FLOOR_BYTES <= 2 * MEMLOCK_SHARD_BYTES);
};
