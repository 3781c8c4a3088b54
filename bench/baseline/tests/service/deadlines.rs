//! A store that accepts no write, or never responds, does not delay a caller beyond its deadline.

use std::time::{Duration, Instant};

use crate::fixture::{EVENT, ModelFixture, commit, failure, serve};
use inventory_baseline::WriteMode;
use inventory_client::connect;
use inventory_store_model::{FaultKind, RequestAction};
use tonic::Code;
use tonic_types::StatusExt;

/// A store with stock in which every transaction meets a conflict.
fn contended_store() -> ModelFixture {
    let store = ModelFixture::start();
    store.create_event(EVENT, &[5]);
    let conflict = FaultKind::Conflict.with_probability(1.0);
    let faults = vec![conflict.on("TransactWriteItems")];
    store.server.set_faults(faults).unwrap();
    store
}

fn transactions(store: &ModelFixture) -> u64 {
    let report = store.server.report();
    let outcomes = report["operations"]["TransactWriteItems"].as_object();
    let counts = outcomes.into_iter().flatten();
    counts.filter_map(|(_, count)| count.as_u64()).sum()
}

#[tokio::test]
async fn contended_write_gives_up_after_its_retries() {
    for mode in [WriteMode::Transaction, WriteMode::Optimistic] {
        let store = contended_store();
        let address = serve(&store.server.endpoint(), mode, 3, 10).await;
        let mut client = connect(&address.to_string()).await.unwrap();
        let status = client.commit_reservation(commit("r", 1)).await;
        let status = status.unwrap_err();
        let delay = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(100)));
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert_eq!(pushback.unwrap(), "100");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["event_id"], EVENT);
        let error = failure::<()>(Err(status));
        assert_eq!(error, (Code::Unavailable, "STORE_BUSY".to_owned()));
        assert_eq!(transactions(&store), 4, "{mode:?}");
    }
}

#[tokio::test]
async fn a_caller_is_answered_within_its_deadline() {
    let store = ModelFixture::start();
    store.server.set_rule(|_| RequestAction::Hang);
    let address = serve(&store.server.endpoint(), WriteMode::Transaction, 3, 10).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    // Without a timeout: tonic's client enforces one itself and would not wait for the response.
    let request = commit("r", 1).into_inner();
    let sent = Instant::now();
    let late = client.commit_reservation(request).await;
    assert!(sent.elapsed() < Duration::from_secs(2));
    let reason = "DEADLINE_EXCEEDED".to_owned();
    assert_eq!(failure(late), (Code::DeadlineExceeded, reason));

    // More retries than fit into the deadline: a backoff that would outlast the deadline ends the call,
    // unless the last write itself took too long.
    let store = contended_store();
    let address = serve(&store.server.endpoint(), WriteMode::Transaction, 100, 10).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    let request = commit("r", 1).into_inner();
    let (code, reason) = failure(client.commit_reservation(request).await);
    let expected =
        [(Code::Unavailable, "STORE_BUSY"), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")];
    assert!(expected.contains(&(code, reason.as_str())), "{code} {reason}");
    assert!((2..101).contains(&transactions(&store)));
}
