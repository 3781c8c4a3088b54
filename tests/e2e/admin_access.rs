//! Access to the admin port: tokens, TLS, client certificates, the commands that use them, and the audit log.

use std::fs;
use std::path::Path;

use futures::StreamExt as _;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{
    CreateEventRequest, GetEventRequest, ImportSeatsRequest, NewSeat, SetTotalRequest,
};
use inventory_testkit::certificates::Authority;
use inventory_testkit::server::{CommandOutput, ServerCommand, TestServer};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::client::*;
use crate::fake_store::{FakeStore, RecordedRequest, RequestAction};

const EVENT: &str = "evt_2025_1001";
const ALICE: &str = "0123456789abcdef0123456789abcdef";
const BOB: &str = "fedcba9876543210fedcba9876543210";

/// A command against the admin port at `address`.
fn command(address: &str, args: &[&str]) -> CommandOutput {
    let command = inventory_testkit::server::command(&[args, &["--admin", address]].concat());
    ServerCommand::from(command).run()
}

async fn anonymous(server: &TestServer) -> InventoryAdminClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.admin)).unwrap();
    InventoryAdminClient::new(endpoint.connect().await.unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_need_a_token_and_changes_are_logged_with_their_caller() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("alice {ALICE}\nbob {BOB}\n")).unwrap();
    let mine = dir.path().join("mine");
    fs::write(&mine, format!("{BOB}\n")).unwrap();
    let server = ServerCommand::dev_in_memory()
        .env("ADMIN_HOST", "0.0.0.0")
        .env("ADMIN_TOKEN_FILE", text(&tokens))
        .start();
    assert!(server.banner.contains("with a token, without TLS"), "{}", server.banner);

    // Without a token, and with a wrong one.
    let request = || GetEventRequest { event_id: EVENT.to_owned() };
    let refused = anonymous(&server).await.get_event(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let mut wrong = tonic::Request::new(request());
    let header = format!("Bearer {}", ALICE.replace('0', "1"));
    wrong.metadata_mut().insert("authorization", header.parse().unwrap());
    let refused = anonymous(&server).await.get_event(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let metrics = MetricsSample::scrape(&server).await;
    for reason in ["no_token", "wrong_token"] {
        let name = format!("inventory_admin_calls_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(metrics.get(&name), 1.0, "{reason}");
    }
    let ran = command(&server.admin, &["event", "show", EVENT]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.assert_error_names(&["--token-file"]);

    // Health answers everybody: probes have no token.
    let ran = ServerCommand::new(&["health", "--server", &server.admin]).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");

    // With a token: the change is in the audit log, with what there was before.
    let with = ["--token-file", text(&mine)];
    let ran =
        command(&server.admin, &[&["event", "restock", EVENT, "--add", "7"][..], &with].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = |log: &str, needle: &str| {
        log.lines()
            .rfind(|line| line.contains("admin change") && line.contains(needle))
            .map(str::to_owned)
    };
    assert!(server.log.wait_for(|log| line(log, "set total").is_some()));
    let change = line(&server.log.text(), "set total").unwrap();
    for needle in
        ["token bob at ", EVENT, "\"before\":\"open, total ", "\"after\":\"open, total ", "OK"]
    {
        assert!(change.contains(needle), "no {needle} in {change}");
    }
    // A refused change is logged, too.
    let ran =
        command(&server.admin, &[&["event", "restock", EVENT, "--total", "1"][..], &with].concat());
    let needle =
        if ran.code == Some(0) { "\"after\":\"open, total 1\"" } else { "FAILED_PRECONDITION" };
    assert!(server.log.wait_for(|log| line(log, needle).is_some()), "{ran:?}");
    assert!(!server.log.text().contains(BOB), "a token in the log");

    // A file without usable tokens leaves the previous ones in use; a new one replaces them.
    fs::write(&tokens, "short\n").unwrap();
    server.signal(libc::SIGHUP);
    assert!(server.log.wait_for(|log| log.contains("admin tokens not reloaded")));
    let show = [&["event", "show", EVENT][..], &with].concat();
    assert_eq!(command(&server.admin, &show).code, Some(0));
    fs::write(&tokens, format!("alice {ALICE}\n")).unwrap();
    server.signal(libc::SIGHUP);
    assert!(server.log.wait_for(|log| log.contains("admin tokens reloaded")));
    assert_eq!(command(&server.admin, &show).code, Some(1), "bob's token is still in use");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_ports_with_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let pair = authority.issue_server().write(dir.path(), "server");
    let authorities = authority.write(dir.path(), "ca.crt");
    let client = authority.issue_client("ops.sale.svc").write(dir.path(), "client");
    let stranger =
        Authority::new("other").issue_client("ops.sale.svc").write(dir.path(), "stranger");
    let server = ServerCommand::dev_in_memory()
        .env("TLS_CERT_FILE", text(&pair.certificate))
        .env("TLS_KEY_FILE", text(&pair.key))
        .env("ADMIN_TLS_CERT_FILE", text(&pair.certificate))
        .env("ADMIN_TLS_KEY_FILE", text(&pair.key))
        .env("ADMIN_TLS_CLIENT_CA_FILE", text(&authorities))
        .env("ADMIN_TLS_ALLOWED_CLIENTS", "ops.sale.svc")
        .start();
    let trust = ["--tls-ca", text(&authorities)];
    let identity = ["--tls-cert", text(&client.certificate), "--tls-key", text(&client.key)];
    let admin = format!("https://{}", server.admin);

    let health = ["health", "--server", &*format!("https://{}", server.grpc)];
    let ran = ServerCommand::new(&[&health[..], &trust].concat()).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = ServerCommand::new(&health).run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.assert_error_names(&["UnknownIssuer", "--tls-ca"]);

    let show = [&["event", "show", EVENT][..], &trust].concat();
    let ran = command(&admin, &[&show[..], &identity].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let other = ["--tls-cert", text(&stranger.certificate), "--tls-key", text(&stranger.key)];
    for refused in [show.clone(), [&show[..], &other].concat()] {
        let ran = command(&admin, &refused);
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    let close = [&["event", "close", EVENT, "--yes"][..], &trust, &identity].concat();
    assert_eq!(command(&admin, &close).code, Some(0));
    let logged = |log: &str| {
        log.contains("certificate ops.sale.svc at ") && log.contains("\"after\":\"closed, total ")
    };
    assert!(server.log.wait_for(logged), "{}", server.log.text());
    let metrics = MetricsSample::scrape(&server).await;
    for result in ["no_certificate", "unknown_authority"] {
        let name = format!("inventory_tls_handshakes_total{{port=\"admin\",result=\"{result}\"}}");
        assert!(metrics.get(&name) >= 1.0, "{result}");
    }
    // A client without TLS gets an answer.
    let ran = command(&server.admin, &["event", "show", EVENT]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.assert_error_names(&["requires TLS", "https://"]);
    let ran = ServerCommand::new(&["health", "--server", &server.grpc]).run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.assert_error_names(&["requires TLS", "https://"]);
    server.stop().await;
}

/// The audit log line of an action whose outcome nobody has seen.
fn unfinished(log: &str, action: &str) -> Option<String> {
    let is_it = |line: &&str| line.contains("admin change") && line.contains(action);
    log.lines().rfind(is_it).filter(|line| line.contains("UNKNOWN")).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_clients_that_disconnect_are_logged() {
    let store = FakeStore::start();
    store.create_event("units", 10, 1);
    let server = store.start_server();
    let mut admin = anonymous(&server).await;

    // While the store executes the write.
    let is_change = |request: &RecordedRequest| {
        request.operation == "UpdateItem" && request.body["Key"].to_string().contains("units")
    };
    store.set_rule(move |request| match is_change(request) {
        true => RequestAction::HoldRequest,
        false => RequestAction::Execute,
    });
    let request = SetTotalRequest { event_id: "units".to_owned(), total: 12 };
    let mut changing = anonymous(&server).await;
    let call = tokio::spawn(async move { changing.set_total(request).await });
    until("the write", async || store.requests().iter().any(is_change)).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert!(server.log.wait_for(|log| unfinished(log, "set total").is_some()));
    let line = unfinished(&server.log.text(), "set total").unwrap();
    for needle in
        ["anonymous at 127.0.0.1:", "units", "\"before\":\"open, total 10\"", "disconnected"]
    {
        assert!(line.contains(needle), "no {needle} in {line}");
    }
    // The change has been made, as the line says it may have.
    store.clear_rule();
    let get = || GetEventRequest { event_id: "units".to_owned() };
    until("the change", async || {
        let event = anonymous(&server).await.get_event(get()).await.unwrap().into_inner().event;
        event.unwrap().total == 12
    })
    .await;

    // Between two messages of an import: the line has what is stored.
    let hall = CreateEventRequest {
        event_id: "hall".to_owned(),
        seat_keys: 1,
        ..CreateEventRequest::default()
    };
    admin.create_event(hall).await.unwrap();
    let seat = NewSeat { seat_id: "A-1".to_owned(), ..NewSeat::default() };
    let first = ImportSeatsRequest { event_id: "hall".to_owned(), seats: vec![seat] };
    let messages = futures::stream::iter([first]).chain(futures::stream::pending());
    let mut importing = anonymous(&server).await;
    let call = tokio::spawn(async move { importing.import_seats(messages).await });
    let body = serde_json::json!({ "TableName": "inventory_seats", "Select": "COUNT" });
    until("a stored seat", async || store.call("Scan", body.clone())["Count"] == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert!(server.log.wait_for(|log| unfinished(log, "import seats").is_some()));
    let line = unfinished(&server.log.text(), "import seats").unwrap();
    // The client may have gone before the server has read the answer of the store.
    let is_counted = line.contains("1 added, 0 changed") || line.contains("0 added, 0 changed");
    assert!(line.contains("hall") && is_counted, "{line}");
    server.stop().await;
}

#[test]
fn an_admin_port_for_everybody_and_unusable_tokens_end_the_start() {
    let ran = ServerCommand::dev_in_memory().env("ADMIN_HOST", "0.0.0.0").run();
    assert_eq!(ran.code, Some(64), "{ran:?}");
    ran.assert_error_names(&["ADMIN_HOST=\"0.0.0.0\"", "ADMIN_TOKEN_FILE", "loopback"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, "guess me\n").unwrap();
    let ran = ServerCommand::dev_in_memory().env("ADMIN_TOKEN_FILE", text(&path)).run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.assert_error_names(&["ADMIN_TOKEN_FILE", text(&path), "only 2 characters", "openssl rand"]);
    assert!(!ran.err.contains("guess"), "{}", ran.err);
}
