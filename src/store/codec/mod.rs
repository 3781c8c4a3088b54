//! The domain's transaction as DynamoDB writes it, and DynamoDB's answers as the domain reads them.
//!
//! Pure functions between plain data and the SDK's types. Must not live here: a call, a clock, a
//! retry.
//!
//! Attribute names are the stored format. In expressions every one of them is aliased: many of the
//! names that fit are reserved words.

mod answer;
mod encode;
mod items;

pub(super) use answer::cancelled;
pub(super) use encode::{Encoder, event_stripe};
pub use items::StoredRecord;
pub(super) use items::{record, record_view, stripe_view};

/// Attributes of a stripe item.
pub(super) const EVENT_ID: &str = "event_id";
pub(super) const REMAINING: &str = "remaining";
pub(super) const VERSION: &str = "version";
pub(super) const TOTAL_SEATS: &str = "total_seats";
pub(super) const STRIPES: &str = "stripes";
pub(super) const UPDATED_AT: &str = "updated_at";

/// Attributes of a reservation's record, beside the event's.
pub(super) const RESERVATION_ID: &str = "reservation_id";
pub(super) const STATUS: &str = "status";
pub(super) const QTY: &str = "qty";
pub(super) const DRAWS: &str = "draws";
pub(super) const REQUEST_HASH: &str = "request_hash";
pub(super) const ORDER_ID: &str = "order_id";
pub(super) const PAYMENT_INTENT_ID: &str = "payment_intent_id";
pub(super) const CREATED_AT: &str = "created_at";

/// Epoch seconds after which the store's TTL may delete a record.
pub(super) const PURGE_AT: &str = "purge_at";

/// The keys of the expiry index; only reservations that can expire carry them.
pub(super) const EXPIRY_BUCKET: &str = "expiry_bucket";
pub(super) const EXPIRES_AT: &str = "expires_at";

/// Attribute of a seat item.
pub(super) const SEAT_ID: &str = "seat_id";

pub(super) const CONFIRMED: &str = "CONFIRMED";
pub(super) const RELEASED: &str = "RELEASED";
