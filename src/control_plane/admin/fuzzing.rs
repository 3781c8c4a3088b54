//! Fuzz target of the admin API: any bytes as the message of any method, decoded and checked as for the service. Compiled for
//! tests, which replay the corpus, and for the programs in `tests/fuzz`.

use inventory_proto::inventory::v1 as pb;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::check;
use crate::currency;
use crate::fuzzed_messages::message_bytes;
use crate::limits;
use crate::text::control_character;
use inventory_core::ids::SeatId;
use inventory_core::seats::SeatFacts;
use inventory_store::NewEvent;

/// From this method on the message is built from the rest of the input.
const BUILT: u8 = 128;

/// Size of an error: its text and its details, which are sent in base64. Clients accept 8 KB of trailers.
const STATUS_BYTES_MAX: usize = 6 * 1024;

/// One byte for the method, and the rest is the message, or builds it. What is accepted is within the limits; an error names its fields
/// and fits into the trailers.
pub fn admin_messages(input: &[u8]) {
    let Some((method, body)) = input.split_first() else {
        return;
    };
    let body = &message_bytes(*method >= BUILT, body);
    match method % 9 {
        0 => run(body, check::new_event, assert_event),
        1 => run(body, check::set_total, |(_, total)| {
            assert!((1..=limits::EVENT_TOTAL_MAX as u64).contains(total), "a total of {total}");
        }),
        2 => run(
            body,
            |message: pb::ImportSeatsRequest| check::new_seats(message.seats),
            |seats| {
                assert!(seats.len() <= limits::SEATS_PER_CHUNK_MAX, "{} seats", seats.len());
                seats.iter().for_each(assert_seat);
            },
        ),
        3 => run(
            body,
            |message: pb::BlockSeatsRequest| check::seats_of(message.event_id, message.seat_ids),
            |(_, seats)| {
                assert!(
                    (1..=limits::SEATS_PER_CHUNK_MAX).contains(&seats.len()),
                    "{}",
                    seats.len()
                );
                let mut distinct = seats.clone();
                distinct.sort();
                distinct.dedup();
                assert_eq!(distinct.len(), seats.len(), "a seat twice");
            },
        ),
        4 => run(body, check::seat_listing, |_| {}),
        5 => run(body, check::listing, |_| {}),
        6 => run(body, |message: pb::SetLogLevelRequest| check::log_level(&message.level), |_| {}),
        7 => run(
            body,
            |message: pb::RefundReservationRequest| check::reservation_id(message.reservation_id),
            |id| assert!(!id.is_release_record(), "{id}"),
        ),
        _ => run(body, |message: pb::GetEventRequest| check::event_id(message.event_id), |_| {}),
    }
}

fn run<M, T>(body: &[u8], validate: impl Fn(M) -> Result<T, Status>, assert: impl Fn(&T))
where
    M: Message + Default,
{
    let Ok(message) = M::decode(body) else {
        return;
    };
    match validate(message) {
        Ok(accepted) => assert(&accepted),
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            let bytes = status.message().len() + status.details().len();
            assert!(bytes <= STATUS_BYTES_MAX, "an error of {bytes} bytes: {}", status.message());
            let details = status.get_error_details();
            let violations = details.bad_request().map(|bad| &bad.field_violations[..]);
            let violations = violations.unwrap_or_default();
            assert!((1..=limits::FIELD_VIOLATIONS_MAX).contains(&violations.len()), "{status:?}");
            let is_named =
                violations.iter().all(|one| !one.field.is_empty() && !one.description.is_empty());
            assert!(is_named, "{violations:?}");
        }
    }
}

fn assert_event(event: &NewEvent) {
    assert!((1..=limits::STRIPES_MAX).contains(&event.stripes), "{} stripes", event.stripes);
    assert!(event.seat_keys <= limits::SEAT_KEYS_MAX, "{} seat keys", event.seat_keys);
    assert!(event.total <= limits::EVENT_TOTAL_MAX as u64, "a total of {}", event.total);
    match event.seat_keys {
        0 => assert!(u64::from(event.stripes) <= event.total, "stripes without units"),
        _ => assert_eq!((event.total, event.stripes), (0, 1), "units of a seated event"),
    }
    for text in [&event.name, &event.venue] {
        assert!(text.len() <= limits::EVENT_TEXT_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(control_character(text), None);
    }
}

fn assert_seat((_, facts): &(SeatId, SeatFacts)) {
    for text in [&facts.section, &facts.row, &facts.number] {
        assert!(text.len() <= limits::SEAT_TEXT_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(control_character(text), None);
    }
    if let Some(price) = &facts.price {
        assert!((0..=limits::PRICE_AMOUNT_MAX).contains(&price.amount), "{price:?}");
        assert!(currency::is_currency(&price.currency), "{price:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_admin_messages_is_accepted_within_the_limits_or_refused_by_field() {
        inventory_testkit::corpus::replay("admin_messages", super::admin_messages);
    }
}
