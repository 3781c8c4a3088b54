//! Relations between bounds, asserted at compile time.

use super::*;

const _: () = {
    assert!(LATENCY_MAX.as_micros() >= CALL_TIMEOUT_MAX.as_micros());
    assert!(LOG_VALUE_BYTES_MAX <= LOG_WRITE_BYTES);
    assert!(HTTP_HEADER_TIMEOUT.as_micros() < HTTP_CONNECTION_AGE_MAX.as_micros());
    assert!(ADMIN_CALL_TIMEOUT.as_micros() < ADMIN_CONNECTION_AGE_MAX.as_micros());
    assert!(ADMIN_CHUNK_WAIT_MAX.as_micros() < ADMIN_CONNECTION_AGE_MAX.as_micros());
    assert!(IMPORT_STALL_MAX.as_micros() > ADMIN_CALL_TIMEOUT.as_micros());
    // Prices, ids, texts and their encoding.
    assert!(
        SEATS_PER_CHUNK_MAX * (ID_BYTES_MAX + 3 * SEAT_TEXT_BYTES_MAX + 48)
            <= ADMIN_MESSAGE_BYTES_MAX
    );
    assert!(STORE_ADMIN_THROTTLE_RETRY_MAX.as_micros() < ADMIN_CALL_TIMEOUT.as_micros());
    assert!(SCRAPE_TIMEOUT.as_micros() < CONTROL_PLANE_STOP_GRACE.as_micros());
    assert!(CONTROL_PLANE_STOP_GRACE.as_micros() < SHUTDOWN_GRACE_DEFAULT.as_micros());
    assert!(BATCH_ENTRIES_MAX < TRANSACTION_ACTIONS_MAX);
    assert!(AUDIT_SEATS_PER_LOOK * (1 + AUDIT_RECORDS_PER_SEAT) <= TRANSACTION_ACTIONS_MAX);
    assert!(AUDIT_TIME_MAX.as_secs() < ADMIN_CONNECTION_AGE_MAX.as_secs());
    assert!(AUDIT_PAGE_ITEMS <= STORE_SCAN_PAGE_MAX);
    assert!(RECORD_BYTES_MAX * TRANSACTION_ACTIONS_MAX < TRANSACTION_BYTES_MAX);
    // With the overhead of each seat in the request: its type, quotes, a comma.
    assert!(
        4 * ID_BYTES_MAX
            + PAYMENT_INTENT_BYTES_MAX
            + SEATS_PER_RESERVATION_MAX * (ID_BYTES_MAX + 16)
            < RECORD_BYTES_MAX
    );
    assert!(STRIPES_MAX as usize <= BATCH_GET_KEYS_MAX);
    assert!(STRIPES_AUTO_MAX <= STRIPES_MAX);
    // One bit per lane that takes from a shared queue.
    assert!(STRIPES_MAX as u32 <= u64::BITS && SEAT_LANES as u32 <= u64::BITS);
    // A reservation with units of every stripe must fit into one transaction.
    assert!((STRIPES_MAX as usize) < TRANSACTION_ACTIONS_MAX);
    assert!(LANE_QUEUE_MAX <= OPERATIONS_IN_FLIGHT_MAX);
    assert!(SHORT_QUEUE_DEADLINE_MIN.as_nanos() < CALL_TIMEOUT_DEFAULT.as_nanos());
    // A queue in short-queue mode still fills a transaction.
    assert!(BATCH_ENTRIES_MAX < LANE_QUEUE_MAX);
    assert!(RETRY_AFTER.as_micros() <= RETRY_AFTER_MAX.as_micros());
    assert!(RETRY_BACKOFF_MAX.as_micros() <= LANE_YIELD_MAX.as_micros());
    assert!(STREAM_WINDOW_BYTES as usize >= REQUEST_MESSAGE_BYTES_MAX + 5);
    // The grace period of auxiliary streams ends before that of their connection.
    assert!(AUXILIARY_DRAIN_GRACE.as_millis() < CONNECTION_AGE_GRACE.as_millis());
    assert!(WRITE_BUFFER_BYTES_KEPT <= WRITE_BUFFER_BYTES_MAX);
    assert!(STORE_SPARE_CONNECTION_AGE_MAX.as_secs() < STORE_IDLE_CONNECTION_AGE_MAX.as_secs());
    assert!(STORE_IDLE_CONNECTIONS_MAX <= STORE_CONNECTIONS_MAX);
    assert!(CALL_TIMEOUT_DEFAULT.as_nanos() <= CALL_TIMEOUT_MAX.as_nanos());
    assert!(STREAMS_PER_CONNECTION_DEFAULT <= STREAMS_PER_CONNECTION_MAX);
    assert!(QTY_MAX_DEFAULT <= QTY_MAX_CEILING);
    assert!(READ_STALENESS_MIN.as_micros() <= READ_STALENESS_DEFAULT.as_micros());
    assert!(READ_STALENESS_DEFAULT.as_micros() <= READ_STALENESS_MAX.as_micros());
    assert!(SEAT_RUNS_COMPARED <= SEAT_ORPHANS_COMPARED_MAX);
    // Seats are numbered by 32 bits.
    assert!(SEATS_PER_EVENT_MAX < u32::MAX as usize);
    assert!(HOLD_TTL_MIN.as_millis() <= HOLD_TTL_DEFAULT.as_millis());
    assert!(HOLD_TTL_DEFAULT.as_millis() <= HOLD_TTL_MAX_DEFAULT.as_millis());
    assert!(HOLD_TTL_MAX_DEFAULT.as_millis() <= HOLD_TTL_CEILING.as_millis());
    // Each shard has three rings, each with the buffer; an entry takes 64 bytes for submission, two times 16 for
    // completion, and 4 for the index. The documented size covers them and is not below the minimum.
    assert!(3 * (RING_BUFFER_BYTES + 104 * RING_DEPTH) as u64 <= MEMLOCK_SHARD_BYTES);
    assert!(MEMLOCK_FLOOR_BYTES <= 2 * MEMLOCK_SHARD_BYTES);
    assert!(CREDENTIALS_LOOK_EVERY.as_secs() < CREDENTIALS_RENEW_AHEAD.as_secs());
};
