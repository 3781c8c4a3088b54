//! The admin service on its port, before a backend in memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use inventory_api::domain::ids::EventId;
use inventory_api::domain::transaction::StripeView;
use inventory_api::side::admin::{AdminBackend, AdminError, Created, EventStock};
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{channel, client, start};

/// Events in memory; some names stand for troubles.
#[derive(Default)]
pub(crate) struct Events(Mutex<HashMap<EventId, EventStock>>);

fn trouble(event: &EventId) -> Result<(), AdminError> {
    let retry_after = Duration::from_millis(100);
    match event.as_str() {
        "busy" => Err(AdminError::Busy { retry_after }),
        "down" => Err(AdminError::Unavailable { retry_after }),
        "broken" => Err(AdminError::Internal),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl AdminBackend for Events {
    async fn create_event(
        &self,
        event: EventId,
        total: u64,
        stripes: u16,
    ) -> Result<Created, AdminError> {
        trouble(&event)?;
        let mut events = self.0.lock().unwrap();
        if let Some(stock) = events.get(&event) {
            let (standing, over) = (stock.total(), stock.stripes.len() as u16);
            return match (standing, over) == (total, stripes) {
                true => Ok(Created {
                    stock: stock.clone(),
                    created: false,
                }),
                false => Err(AdminError::EventExists {
                    total: standing,
                    stripes: over,
                }),
            };
        }
        let share =
            |index| total / u64::from(stripes) + u64::from(index < total % u64::from(stripes));
        let views = (0..u64::from(stripes)).map(|index| StripeView {
            capacity: share(index),
            remaining: share(index) - 1,
            version: 1,
            stripes: (index == 0).then_some(stripes),
        });
        let stock = EventStock {
            event: event.clone(),
            stripes: views.collect(),
        };
        events.insert(event, stock.clone());
        Ok(Created {
            stock,
            created: true,
        })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        trouble(&event)?;
        self.0
            .lock()
            .unwrap()
            .get(&event)
            .cloned()
            .ok_or(AdminError::EventNotFound)
    }
}

fn create(event_id: &str, total: i64, stripes: i32) -> pb::CreateEventRequest {
    let event_id = event_id.to_owned();
    pb::CreateEventRequest {
        event_id,
        total,
        stripes,
    }
}

#[test]
fn admin_creates_once_and_reads_back() {
    let (side, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        let made = admin
            .create_event(create("evt", 101, 4))
            .await
            .unwrap()
            .into_inner();
        assert!(made.created);
        let event = made.event.unwrap();
        assert_eq!(
            (event.total, event.remaining, event.confirmed),
            (101, 97, 4)
        );
        let shares: Vec<_> = event
            .stripes
            .iter()
            .map(|s| (s.index, s.capacity))
            .collect();
        assert_eq!(shares, [(0, 26), (1, 25), (2, 25), (3, 25)]);
        let again = admin
            .create_event(create("evt", 101, 4))
            .await
            .unwrap()
            .into_inner();
        assert!(!again.created);
        assert_eq!(again.event.as_ref(), Some(&event));
        let event_id = "evt".to_owned();
        let read = admin
            .get_event(pb::GetEventRequest { event_id })
            .await
            .unwrap();
        assert_eq!(read.into_inner().event, Some(event));
        // Not named, the stripe count is one.
        let one = admin
            .create_event(create("evt-1", 5, 0))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(one.event.unwrap().stripes.len(), 1);
    });
}

#[test]
fn admin_names_every_bad_field() {
    let (side, _readiness) = start();
    let long = "e".repeat(129);
    let cases = [
        (create("", 10, 1), vec!["event_id"]),
        (create(&long, 10, 1), vec!["event_id"]),
        (create("evt#1", 10, 1), vec!["event_id"]),
        (create("evt", 0, 1), vec!["total"]),
        (create("evt", -5, 1), vec!["total"]),
        (create("evt", 1_000_000_001, 1), vec!["total"]),
        (create("evt", 10, -1), vec!["stripes"]),
        (create("evt", 1_000, 65), vec!["stripes"]),
        (create("evt", 10, 11), vec!["stripes"]),
        (
            create("e v t", 0, i32::MIN),
            vec!["event_id", "total", "stripes"],
        ),
    ];
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        for (request, want) in cases {
            let error = admin.create_event(request.clone()).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{request:?}");
            let bad = error.get_details_bad_request().unwrap();
            let named: Vec<_> = bad
                .field_violations
                .iter()
                .map(|v| v.field.as_str())
                .collect();
            assert_eq!(named, want, "{request:?}");
            for violation in &bad.field_violations {
                assert!(violation.description.contains("want "), "{violation:?}");
                assert!(error.message().contains(&violation.description), "{error}");
            }
            assert_eq!(
                error.get_details_error_info().unwrap().reason,
                "INVALID_ARGUMENT"
            );
        }
        let error = admin
            .get_event(pb::GetEventRequest::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.get_details_bad_request().unwrap().field_violations[0].field,
            "event_id"
        );
    });
}

#[test]
fn admin_refusals_have_a_status_a_reason_and_the_event() {
    let (side, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        admin.create_event(create("evt", 10, 1)).await.unwrap();
        let other = admin.create_event(create("evt", 11, 1)).await.unwrap_err();
        assert!(other.message().contains("total 10 over 1"), "{other}");
        let mut refusals = vec![(other, Code::AlreadyExists, "EVENT_EXISTS", "evt")];
        for (event, code, reason) in [
            ("nowhere", Code::NotFound, "EVENT_NOT_FOUND"),
            ("busy", Code::ResourceExhausted, "STORE_BUSY"),
            ("down", Code::Unavailable, "STORE_UNAVAILABLE"),
            ("broken", Code::Internal, "INTERNAL"),
        ] {
            let event_id = event.to_owned();
            let error = admin
                .get_event(pb::GetEventRequest { event_id })
                .await
                .unwrap_err();
            refusals.push((error, code, reason, event));
        }
        for (error, code, reason, event) in refusals {
            assert_eq!(error.code(), code, "{event}");
            let info = error.get_details_error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.metadata["event_id"].as_str()),
                (reason, event)
            );
            let transient = matches!(event, "busy" | "down");
            let retry = error.get_details_retry_info();
            let pause = retry.map(|retry| retry.retry_delay.unwrap_or_default());
            assert_eq!(
                pause,
                transient.then_some(Duration::from_millis(100)),
                "{event}"
            );
            let pushback = error.metadata().get("grpc-retry-pushback-ms");
            assert_eq!(
                pushback.map(|ms| ms.to_str().unwrap()),
                transient.then_some("100")
            );
        }
    });
}
