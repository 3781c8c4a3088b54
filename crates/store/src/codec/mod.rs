//! The domain's transaction as DynamoDB writes it, and DynamoDB's answers as the domain reads them.
//!
//! | file | what |
//! |---|---|
//! | `encode.rs` | a transaction as the body of its request; what all requests of a shard share |
//! | `answer.rs` | a cancelled transaction's reasons |
//! | `stripes.rs`, `records.rs`, `seats.rs`, `events.rs` | one kind of item each: writing and reading it |
//! | `shape.rs` | an expression with its names |
//! | `json.rs` | writing the body |
//! | `fields.rs` | single attributes, to and from the SDK's types |
//!
//! Pure functions between plain data and the SDK's types. Must not live here: a call, a clock, a
//! retry.
//!
//! Attribute names are the stored format. In expressions every one of them is aliased: many of the
//! names that fit are reserved words.

mod answer;
mod encode;
mod events;
mod expression;
mod fields;
mod json;
mod records;
mod seats;
mod stripes;

pub(super) use answer::{cancelled, is_conflict, is_throttle};
pub(super) use encode::{TransactionEncoder, token_text};
pub(super) use events::{capacity_change, closing, event_about, event_stripe};
pub(super) use expression::ConditionalUpdate;
pub(super) use fields::{Item, timestamp};
pub use records::StoredRecord;
pub(super) use records::{record, record_view, state_name};
pub(super) use seats::{SeatPage, free_seat, seat, seat_item_key, seat_put, seat_state, seat_turn};
pub(super) use stripes::{is_closed, stripe_view};

/// Attributes of a stripe item.
pub(super) const EVENT_ID: &str = "event_id";
pub(super) const REMAINING: &str = "remaining";
pub(super) const VERSION: &str = "version";
pub(super) const TOTAL_SEATS: &str = "total_seats";
pub(super) const UPDATED_AT: &str = "updated_at";
/// There and not false: the event takes no new reservations. On every stripe.
pub(super) const CLOSED: &str = "closed";

/// Of stripe 0 only.
pub(super) const STRIPES: &str = "stripes";
pub(super) const SEAT_KEYS: &str = "seat_keys";
pub(super) const NAME: &str = "name";
pub(super) const VENUE: &str = "venue";

/// Attributes of a reservation's record, beside the event's.
pub(super) const RESERVATION_ID: &str = "reservation_id";
pub(super) const STATUS: &str = "status";
pub(super) const QTY: &str = "qty";
pub(super) const DRAWS: &str = "draws";
pub(super) const SEATS: &str = "seats";
pub(super) const REQUEST_HASH: &str = "request_hash";
pub(super) const ORDER_ID: &str = "order_id";
pub(super) const PAYMENT_INTENT_ID: &str = "payment_intent_id";
pub(super) const CREATED_AT: &str = "created_at";

/// Epoch seconds after which the store's TTL may delete a record.
pub(super) const PURGE_AT: &str = "purge_at";

/// The keys of the expiry index. Only reservations that hold something carry the bucket; the instant
/// stays on those that did.
pub(super) const EXPIRY_BUCKET: &str = "expiry_bucket";
pub(super) const EXPIRES_AT: &str = "expires_at";

/// Attributes of a seat item, beside those above.
pub(super) const SEAT_ID: &str = "seat_id";
pub(super) const HOLD_EXPIRES_AT: &str = "hold_expires_at";
pub(super) const SECTION: &str = "section";
pub(super) const ROW: &str = "row";
pub(super) const NUMBER: &str = "number";
pub(super) const PRICE_AMOUNT: &str = "price_amount";
pub(super) const PRICE_CURRENCY: &str = "price_currency";

/// A seat's `status`.
pub(super) const AVAILABLE: &str = "AVAILABLE";
pub(super) const HOLD: &str = "HOLD";
pub(super) const SOLD: &str = "SOLD";
pub(super) const BLOCKED: &str = "BLOCKED";
