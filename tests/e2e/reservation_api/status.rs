//! GetInventoryStatus, and checks restricted to a section.

use inventory_proto::common::v1::ErrorCode;

use super::*;
use crate::client::until;

#[tokio::test]
async fn status_counts_every_seat_once() {
    let (_store, _server, api) = selling().await;
    let a = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    api.hold(hold("r1", HALL, 2, &a)).await;
    api.commit(sell("r2", HALL, 1, &["B-1-4".to_owned()])).await;
    let status = api.status(HALL, "").await;
    let event = status.event.unwrap();
    assert_eq!((event.id.as_str(), event.total_seats), (HALL, 14));
    assert_eq!(event.remaining_seats, 11);
    let stats = status.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (14, 11));
    assert_eq!((stats.reserved_seats, stats.sold_seats), (2, 1));
    assert!((stats.availability_percentage - 100.0 * 11.0 / 14.0).abs() < 0.01);
    assert!(seconds_ahead(stats.last_updated).abs() < 60);
    let sections = status.sections.iter();
    let sections: Vec<_> =
        sections.map(|s| (&s.section_id[..], s.total_seats, s.available_seats)).collect();
    assert_eq!(sections, [("A", 10, 8), ("B", 4, 3)]);
    let price = status.sections[0].min_price.as_ref().unwrap().amount;
    assert_eq!(price, 8_800);
    let b = api.status(HALL, "B").await;
    assert_eq!(b.sections.len(), 1);
    assert_eq!(b.stats.unwrap().sold_seats, 1);
    assert_eq!(b.event.unwrap().total_seats, 14);
    let none = api.status(HALL, "C").await;
    assert_eq!(none.error.unwrap().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn status_of_a_quantity_has_no_sections() {
    let (_store, _server, api) = selling().await;
    api.hold(hold("r1", EVENT, 3, &[])).await;
    let status = api.status(EVENT, "").await;
    assert!(status.sections.is_empty() && status.error.is_none());
    let stats = status.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (10, 7));
    assert_eq!((stats.reserved_seats, stats.sold_seats), (3, 0));
}

#[tokio::test]
async fn status_has_the_name_of_the_event() {
    let (_store, _server, api) = selling().await;
    let event = api.status(HALL, "").await.event.unwrap();
    assert_eq!(event.name, "The last night");
}

#[tokio::test]
async fn section_restricts_the_offered_seats() {
    let (_store, _server, api) = selling().await;
    let in_section = |section: &str, quantity| CheckAvailabilityRequest {
        section: section.to_owned(),
        ..check(HALL, quantity)
    };
    let found = api.check(in_section("B", 4)).await;
    assert!(found.available);
    assert!(found.available_seats.iter().all(|seat| seat.section == "B"));
    assert_eq!(found.remaining_in_section, 4);
    let found = api.check(in_section("B", 5)).await;
    assert!(!found.available && found.available_seats.is_empty());
    assert_eq!(found.remaining_in_section, 4);
}

#[tokio::test]
async fn repeated_status_follows_every_change() {
    // The shard of the event caches the encoded status.
    let (_store, _server, api) = selling_as(|command| command.env("SHARDS", "1")).await;
    let counts = async || {
        let status = api.status(HALL, "").await;
        let (stats, sections) = (status.stats.unwrap(), status.sections);
        let of_sections: i32 = sections.iter().map(|section| section.available_seats).sum();
        assert_eq!(stats.available_seats, of_sections);
        (stats.available_seats, stats.reserved_seats, stats.sold_seats)
    };
    for _ in 0..3 {
        assert_eq!(counts().await, (14, 0, 0));
    }
    let a = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    let brief = ReserveSeatRequest {
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(2)).into()),
        ..hold("r1", HALL, 2, &a)
    };
    api.hold(brief).await;
    assert_eq!(counts().await, (12, 2, 0));
    api.commit(sell("r2", HALL, 1, &["B-1-4".to_owned()])).await;
    for _ in 0..3 {
        assert_eq!(counts().await, (11, 2, 1));
    }
    // The hold expires without a write.
    until("the seats are available again", async || counts().await == (13, 0, 1)).await;
}
