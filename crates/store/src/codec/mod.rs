//! Converts the core's transactions to DynamoDB requests, and DynamoDB's answers to the core's types.
//!
//! | file | content |
//! |---|---|
//! | `encode.rs` | a transaction as a request body; data that all requests of a shard share |
//! | `answer.rs` | the reasons of a cancelled transaction |
//! | `stripes.rs`, `records.rs`, `seats.rs`, `events.rs`, `members.rs` | writing and reading one kind of item each |
//! | `expression.rs` | expression templates with their names |
//! | `seat_page.rs` | a page of seats from the body of the answer |
//! | `json.rs` | the JSON writer of the body |
//! | `fields.rs` | single attributes, to and from the SDK's types |
//!
//! Pure functions between plain data and the SDK's types. Not here: calls, clocks, retries.
//!
//! Attribute names are the stored format. Expressions alias every name, because many of the obvious names are
//! reserved words.

mod answer;
mod encode;
mod events;
mod expression;
mod fields;
mod json;
mod members;
mod records;
mod seat_page;
mod seats;
mod stripes;

pub(super) use answer::{cancelled, is_conflict, is_throttle};
pub(super) use encode::{TransactionEncoder, token_text};
pub(super) use events::{capacity_change, closing, event_about, event_stripe};
pub(super) use expression::ConditionalUpdate;
pub(super) use fields::{Item, timestamp};
pub(super) use members::{members, members_expression, members_key};
pub use records::StoredRecord;
pub(super) use records::{purge_at, record, record_view};
pub(super) use seat_page::{DecodedSeatPage, decode_seat_page};
pub(super) use seats::{SeatPage, free_seat, seat, seat_item_key, seat_put, seat_state, seat_turn};
pub(super) use stripes::{confirmed_units, is_closed, stripe_view};

/// Attributes of a stripe item.
pub(super) const EVENT_ID: &str = "event_id";
pub(super) const REMAINING: &str = "remaining";
pub(super) const VERSION: &str = "version";
pub(super) const TOTAL_SEATS: &str = "total_seats";
pub(super) const UPDATED_AT: &str = "updated_at";
/// Units moved to the stripe from other stripes, less those moved away; missing: 0. Included in `total_seats`.
pub(super) const MOVED: &str = "moved";
/// If present and not false, the event accepts no new reservations. On every stripe.
pub(super) const CLOSED: &str = "closed";

/// Units of the stripe that were held and not returned since, those of confirmed holds included. Missing: 0.
pub(super) const HELD_UNITS: &str = "held_units";

/// Of a confirmation counter's item only: units of confirmed holds.
pub(super) const CONFIRMED_UNITS: &str = "confirmed_units";

/// Of stripe 0 only.
pub(super) const STRIPES: &str = "stripes";
pub(super) const SEAT_KEYS: &str = "seat_keys";
pub(super) const NAME: &str = "name";
pub(super) const VENUE: &str = "venue";

/// Attributes of a reservation's record, in addition to those of the event.
pub(super) const RESERVATION_ID: &str = "reservation_id";
pub(super) const STATUS: &str = "status";
pub(super) const QTY: &str = "qty";
pub(super) const DRAWS: &str = "draws";
pub(super) const SEATS: &str = "seats";
pub(super) const REQUEST_HASH: &str = "request_hash";
pub(super) const ORDER_ID: &str = "order_id";
/// The stripes counted the units as held when the hold was written. Missing in records of earlier versions: false.
pub(super) const COUNTED_AS_HELD: &str = "counted_as_held";
pub(super) const SEAT_PRICES: &str = "seat_prices";
pub(super) const PAYMENT_INTENT_ID: &str = "payment_intent_id";
pub(super) const CREATED_AT: &str = "created_at";

/// Epoch seconds after which the store's TTL may delete a record.
pub(super) const PURGE_AT: &str = "purge_at";

/// Keys of the expiry index. Only records in state HELD have the bucket; the records of ended holds keep the expiry
/// time.
pub(super) const EXPIRY_BUCKET: &str = "expiry_bucket";
pub(super) const EXPIRES_AT: &str = "expires_at";

/// Attributes of a seat item, in addition to those above.
pub(super) const SEAT_ID: &str = "seat_id";
pub(super) const HOLD_EXPIRES_AT: &str = "hold_expires_at";
pub(super) const SECTION: &str = "section";
pub(super) const ROW: &str = "row";
pub(super) const NUMBER: &str = "number";
pub(super) const PRICE_AMOUNT: &str = "price_amount";
pub(super) const PRICE_CURRENCY: &str = "price_currency";

/// Values of a seat's `status`.
pub(super) const AVAILABLE: &str = "AVAILABLE";
pub(super) const HOLD: &str = "HOLD";
pub(super) const SOLD: &str = "SOLD";
pub(super) const BLOCKED: &str = "BLOCKED";
