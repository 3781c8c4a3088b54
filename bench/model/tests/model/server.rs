//! The model's server on real sockets: keep-alive, latency, faults, rules, the control plane.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::client::HttpClient;
use crate::fixture::{add, error, key, put};
use inventory_store_model::{LatencyProfile, ModelServer, ModelSettings, RequestAction};
use serde_json::{Value as Json, json};

/// A server with the table `tab`.
fn start(profile: LatencyProfile) -> ModelServer {
    let server = ModelServer::start(ModelSettings { profile, ..ModelSettings::default() });
    let server = server.unwrap();
    let table = json!({
        "TableName": "tab", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
    });
    let created = client(&server).call("CreateTable", &table).unwrap();
    assert_eq!(created.0, 200);
    server
}

fn client(server: &ModelServer) -> HttpClient {
    HttpClient::connect(server.address())
}

fn get(server: &ModelServer, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\n");
    client(server).request(&head, "").unwrap()
}

fn post(server: &ModelServer, path: &str, body: &Json) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\n");
    client(server).request(&head, &body.to_string()).unwrap()
}

/// The counter of item `id`.
fn counter(server: &ModelServer, id: &str) -> Json {
    let get = json!({ "TableName": "tab", "Key": key(id) });
    client(server).call("GetItem", &get).unwrap().1["Item"]["n"]["N"].clone()
}

#[test]
fn calls_on_one_connection_take_their_latency() {
    let server = start(LatencyProfile::InRegion);
    let mut client = client(&server);
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.call("UpdateItem", &add("a", 1)).unwrap().0, 200);
    }
    // The fastest write takes 2 ms.
    assert!(began.elapsed() > Duration::from_millis(40));
    assert_eq!(counter(&server, "a"), "20");
}

#[test]
fn calls_of_many_connections_wait_concurrently() {
    let server = start(LatencyProfile::Lambda2020);
    let address = server.address();
    let threads: Vec<_> = (0..16)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = HttpClient::connect(address);
                let update = add(&format!("k{n}"), 1);
                (0..10).all(|_| client.call("UpdateItem", &update).unwrap().0 == 200)
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    let report = server.report();
    assert_eq!(report["operations"]["UpdateItem"]["ok"], 160);
    assert_eq!(report["tables"]["tab"]["items"], 16);
    assert!(report["calls"]["peak"].as_u64().unwrap() > 4, "{report}");
}

#[test]
fn each_request_action_does_what_it_says() {
    let hung = Duration::from_millis(200);
    let broken = RequestAction::error(500, "InternalServerError", "broken");
    // The status of the response, if there is one, and whether the write is executed.
    for (action, status, is_executed) in [
        (RequestAction::Execute, Some(200), true),
        (RequestAction::ExecuteAfter(hung), Some(200), true),
        (RequestAction::DropResponse, None, true),
        (RequestAction::DropRequest, None, false),
        (RequestAction::Hang, None, false),
        (broken, Some(500), false),
    ] {
        let server = start(LatencyProfile::None);
        client(&server).call("PutItem", &put("a")).unwrap();
        let chosen = action.clone();
        server.set_rule(move |request| match request.operation {
            "UpdateItem" => chosen.clone(),
            _ => RequestAction::Execute,
        });
        let mut client = client(&server);
        client.set_timeout(match action {
            RequestAction::Hang => hung,
            _ => Duration::from_secs(20),
        });
        let began = Instant::now();
        let response = client.call("UpdateItem", &add("a", 5));
        assert_eq!(response.map(|(status, _)| status), status, "{action:?}");
        if matches!(action, RequestAction::ExecuteAfter(_)) {
            assert!(began.elapsed() >= hung);
        }
        let expected = if is_executed { "5" } else { "0" };
        assert_eq!(counter(&server, "a"), expected, "{action:?}");
    }
}

#[test]
fn held_requests_and_responses_wait_for_the_next_rule() {
    for (action, while_held) in
        [(RequestAction::HoldRequest, "0"), (RequestAction::HoldResponse, "5")]
    {
        let server = start(LatencyProfile::None);
        client(&server).call("PutItem", &put("a")).unwrap();
        let (arrived, arrival) = mpsc::channel();
        let held = action.clone();
        server.set_rule(move |request| match request.operation {
            "UpdateItem" => {
                arrived.send(request.body.len()).unwrap();
                held.clone()
            }
            _ => RequestAction::Execute,
        });
        let mut caller = client(&server);
        let call = std::thread::spawn(move || caller.call("UpdateItem", &add("a", 5)).unwrap().0);
        assert!(arrival.recv().unwrap() > 0);
        // The request is executed, or held, before the server reads another one.
        assert_eq!(counter(&server, "a"), while_held, "{action:?}");
        assert!(!call.is_finished());
        server.clear_rule();
        assert_eq!(call.join().unwrap(), 200);
        assert_eq!(counter(&server, "a"), "5");
    }
}

#[test]
fn an_unreachable_server_closes_and_refuses_connections_and_keeps_its_items() {
    let server = start(LatencyProfile::None);
    let mut open = client(&server);
    open.call("PutItem", &put("a")).unwrap();
    server.set_reachable(false);
    assert!(open.call("UpdateItem", &add("a", 5)).is_none());
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline, "connections are still accepted");
    }
    server.set_reachable(true);
    while std::net::TcpStream::connect(server.address()).is_err() {
        assert!(Instant::now() < deadline, "connections are still refused");
    }
    assert_eq!(counter(&server, "a"), "0");
}

#[test]
fn an_address_in_use_is_an_error() {
    let server = start(LatencyProfile::None);
    let second = ModelServer::bind(server.address(), ModelSettings::default());
    assert!(second.is_err());
}

#[test]
fn the_control_plane_validates_faults_and_resets() {
    let server = start(LatencyProfile::None);
    client(&server).call("PutItem", &put("a")).unwrap();
    for (body, word) in [
        (json!({ "faults": [{ "kind": "fly", "probability": 1.0 }] }), "fly"),
        (json!({ "faults": [{ "kind": "throttle", "probability": 7.0 }] }), "0 to 1"),
        (json!({ "fault": [] }), "fault"),
    ] {
        let (status, text) = post(&server, "/model/faults", &body);
        assert!(status == 400 && text.contains(word), "{text}");
    }
    assert_eq!(get(&server, "/nothing").0, 404);
    let faults = json!({ "faults": [
        { "kind": "lost-answer", "probability": 1.0, "operation": "UpdateItem" },
    ] });
    assert_eq!(post(&server, "/model/faults", &faults).0, 200);
    assert!(client(&server).call("UpdateItem", &add("a", 5)).is_none());
    assert_eq!(counter(&server, "a"), "5");
    let report = || serde_json::from_str::<Json>(&get(&server, "/model/report").1).unwrap();
    assert_eq!(report()["tables"]["tab"]["wcu"]["total"], 2.0);
    assert_eq!(post(&server, "/model/reset", &json!({})).0, 200);
    assert_eq!(report()["tables"]["tab"]["wcu"]["total"], 0.0);
    assert_eq!(report()["tables"]["tab"]["items"], 1);
    assert_eq!(post(&server, "/model/reset", &json!({ "tables": true })).0, 200);
    let (_, body) = client(&server).call("PutItem", &put("a")).unwrap();
    assert_eq!(error(&body), "ResourceNotFoundException");
}
