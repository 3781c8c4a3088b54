//! HTTP/2 without a gRPC client in between, for what stock clients hide.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::{HeaderMap, Request};
use inventory_proto::inventory::v1::{CheckReq, CommitReq};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::server::PATIENCE;

pub(crate) struct Raw {
    send: SendRequest<Bytes>,
    ping: PingPong,
    task: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("no answer")
}

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, mut connection) = soon(h2::client::handshake(stream)).await.unwrap();
        let ping = connection.ping_pong().unwrap();
        let task = tokio::spawn(connection);
        Self { send, ping, task }
    }

    /// One PING, answered.
    pub(crate) async fn ping(&mut self) {
        soon(self.ping.ping(Ping::opaque())).await.unwrap();
        assert!(!self.task.is_finished(), "the connection has ended");
    }

    /// CheckAvailability with nothing but these headers on top; status and how long it took.
    pub(crate) async fn check(
        &mut self,
        event: &str,
        qty: i32,
        headers: &[(&'static str, &str)],
    ) -> (Code, Duration) {
        let (status, took) = self.try_check(event, qty, headers).await;
        (status.code(), took)
    }

    pub(crate) async fn try_check(
        &mut self,
        event: &str,
        qty: i32,
        headers: &[(&'static str, &str)],
    ) -> (Status, Duration) {
        let call = CheckReq {
            event_id: event.to_owned(),
            qty,
            seat_ids: Vec::new(),
        };
        let path = "/inventory.v1.Inventory/CheckAvailability";
        self.call(path, &call, headers).await
    }

    /// CommitReservation with this grpc-timeout, and nobody on this side to keep time as well.
    pub(crate) async fn commit(&mut self, call: &CommitReq, timeout: &str) -> (Status, Duration) {
        let path = "/inventory.v1.Inventory/CommitReservation";
        self.call(path, call, &[("grpc-timeout", timeout)]).await
    }

    /// One unary call; its status and how long it took.
    async fn call(
        &mut self,
        path: &str,
        message: &impl Message,
        headers: &[(&'static str, &str)],
    ) -> (Status, Duration) {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut ready = soon(self.send.clone().ready()).await.unwrap();
        let began = std::time::Instant::now();
        let (response, mut stream) = ready
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        stream.send_data(framed(message), true).unwrap();
        let status = soon(status(response)).await;
        (status, began.elapsed())
    }
}

/// A message behind its prefix.
fn framed(message: &impl Message) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    framed.extend(message.encode_to_vec());
    framed.into()
}

async fn status(response: h2::client::ResponseFuture) -> Status {
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let read = |headers: &HeaderMap| Status::from_header_map(headers);
    read(&trailers)
        .or_else(|| read(&head.headers))
        .expect("an answer without grpc-status")
}

/// A peer that writes its frames by hand: it answers no ping until it wants to.
pub(crate) struct Bare {
    stream: TcpStream,
    next_stream: u32,
    /// Streams whose message has come and whose end has not.
    with_message: HashSet<u32>,
    ping: Option<Vec<u8>>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Bare {
    /// Connected, settings exchanged.
    pub(crate) async fn open(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(preface).await.unwrap();
        let mut bare = Self {
            stream,
            next_stream: 1,
            with_message: HashSet::new(),
            ping: None,
        };
        bare.send(SETTINGS, 0, 0, &[]).await;
        assert_eq!(bare.frame_of(SETTINGS).await.flags & ACK, 0);
        bare.send(SETTINGS, ACK, 0, &[]).await;
        bare
    }

    /// The last stream of the next GOAWAY.
    pub(crate) async fn wait_for_goaway(&mut self) -> u32 {
        let goaway = self.frame_of(GOAWAY).await.payload;
        u32::from_be_bytes(goaway[..4].try_into().unwrap())
    }

    pub(crate) async fn commit(&mut self, call: &CommitReq) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/inventory.v1.Inventory/CommitReservation"),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "20S"),
        ] {
            // Literal, not indexed, not compressed.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.send(HEADERS, END_HEADERS, stream, &block).await;
        self.send(DATA, END_STREAM, stream, &framed(call)).await;
    }

    /// Waits for the end of the next answer, and whether it had a message: as far as can be told
    /// without decompressing headers, one with a message is OK and one of headers alone is not.
    pub(crate) async fn answered_with_a_message(&mut self) -> bool {
        loop {
            let frame = self.frame().await;
            match frame.kind {
                DATA => _ = self.with_message.insert(frame.stream),
                HEADERS if frame.flags & END_STREAM != 0 => {
                    return self.with_message.remove(&frame.stream);
                }
                _ => {}
            }
        }
    }

    /// Answers the ping that a leaving server sends, by which it knows that its GOAWAY was read.
    pub(crate) async fn answer_ping(&mut self) {
        if self.ping.is_none() {
            self.frame_of(PING).await;
        }
        let ping = self.ping.take().unwrap();
        self.send(PING, ACK, 0, &ping).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        soon(self.stream.write_all(&bytes)).await.unwrap();
    }

    async fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    async fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        soon(self.stream.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        soon(self.stream.read_exact(&mut payload)).await.unwrap();
        if head[3] == PING && head[4] & ACK == 0 {
            self.ping = Some(payload.clone());
        }
        Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        }
    }
}
