//! The model on a port: keep-alive, latency, cuts, the control plane.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/http.rs"]
mod http;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{add, error, key, put};
use http::Client;
use inventory_store_model::{Model, Profile, Settings, serve};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

/// A served model; stops with it.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(settings: Settings) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (told, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let stop = async {
                    let _ = stopped.await;
                };
                serve::serve(listener, Model::new(settings), stop)
                    .await
                    .unwrap();
            });
        });
        let served = Self {
            address: address.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        };
        let table = json!({
            "TableName": "tab", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        });
        assert_eq!(served.client().call("CreateTable", &table).unwrap().0, 200);
        served
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.client()
            .request(&format!("GET {path} HTTP/1.1\r\n"), "")
            .unwrap()
    }

    fn post(&self, path: &str, body: &Json) -> (u16, String) {
        let head = format!("POST {path} HTTP/1.1\r\n");
        self.client().request(&head, &body.to_string()).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn calls_on_one_connection_are_answered_after_their_latency() {
    let served = Served::start(Settings::default());
    let mut client = served.client();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.call("UpdateItem", &add("a", 1)).unwrap().0, 200);
    }
    // The fastest write there is takes 2 ms.
    assert!(began.elapsed() > Duration::from_millis(40));
    let get = json!({ "TableName": "tab", "Key": key("a") });
    assert_eq!(
        client.call("GetItem", &get).unwrap().1["Item"]["n"]["N"],
        "20"
    );
}

#[test]
fn many_connections_wait_side_by_side() {
    let served = Served::start(Settings {
        profile: Profile::Lambda2020,
        ..Settings::default()
    });
    let address = served.address;
    let threads: Vec<_> = (0..16)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..10).all(|_| {
                    client
                        .call("UpdateItem", &add(&format!("k{n}"), 1))
                        .unwrap()
                        .0
                        == 200
                })
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    let report: Json = serde_json::from_str(&served.get("/model/report").1).unwrap();
    assert_eq!(report["operations"]["UpdateItem"]["ok"], 160);
    assert_eq!(report["tables"]["tab"]["items"], 16);
    // They did wait at the same time, rather than one after the other.
    assert!(report["calls"]["peak"].as_u64().unwrap() > 4, "{report}");
}

#[test]
fn a_lost_answer_cuts_the_connection_and_the_write_is_there() {
    let served = Served::start(Settings {
        profile: Profile::None,
        ..Settings::default()
    });
    served.client().call("PutItem", &put("a")).unwrap();
    let faults = json!({ "faults": [{ "kind": "lost-answer", "probability": 1.0, "operation": "UpdateItem" }] });
    assert_eq!(served.post("/model/faults", &faults).0, 200);
    assert!(served.client().call("UpdateItem", &add("a", 5)).is_none());
    assert_eq!(
        served.post("/model/faults", &json!({ "faults": [] })).0,
        200
    );
    let get = json!({ "TableName": "tab", "Key": key("a") });
    assert_eq!(
        served.client().call("GetItem", &get).unwrap().1["Item"]["n"]["N"],
        "5"
    );
}

#[test]
fn the_control_plane_says_what_is_wrong_and_resets() {
    let served = Served::start(Settings {
        profile: Profile::None,
        ..Settings::default()
    });
    served.client().call("PutItem", &put("a")).unwrap();
    for (body, word) in [
        (
            json!({ "faults": [{ "kind": "fly", "probability": 1.0 }] }),
            "fly",
        ),
        (
            json!({ "faults": [{ "kind": "throttle", "probability": 7.0 }] }),
            "0 to 1",
        ),
        (json!({ "fault": [] }), "fault"),
    ] {
        let (status, text) = served.post("/model/faults", &body);
        assert!(status == 400 && text.contains(word), "{text}");
    }
    assert_eq!(served.get("/nothing").0, 404);
    let report = || serde_json::from_str::<Json>(&served.get("/model/report").1).unwrap();
    assert_eq!(report()["tables"]["tab"]["wcu"]["total"], 1.0);
    assert_eq!(served.post("/model/reset", &json!({})).0, 200);
    assert_eq!(report()["tables"]["tab"]["wcu"]["total"], 0.0);
    assert_eq!(report()["tables"]["tab"]["items"], 1);
    assert_eq!(
        served.post("/model/reset", &json!({ "tables": true })).0,
        200
    );
    let (_, body) = served.client().call("PutItem", &put("a")).unwrap();
    assert_eq!(error(&body), "ResourceNotFoundException");
}
