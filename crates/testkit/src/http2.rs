//! HTTP/2 clients below gRPC: [`Http2Client`] sends requests that a gRPC library would not send, and watches no
//! deadline of its own; [`FrameConnection`] sends and receives single frames (RFC 9113).

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use inventory_proto::inventory::v1::{CheckReq, CommitReq};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::within_deadline;

pub const CHECK: &str = "/inventory.v1.Inventory/CheckAvailability";
pub const COMMIT: &str = "/inventory.v1.Inventory/CommitReservation";
pub const RELEASE: &str = "/inventory.v1.Inventory/ReleaseHold";

/// One connection. Its task ends when the connection ends.
pub struct Http2Client {
    send: SendRequest<Bytes>,
    ping: PingPong,
    pub task: JoinHandle<Result<(), h2::Error>>,
}

impl Http2Client {
    pub async fn connect(address: impl ToSocketAddrs) -> Self {
        let mut builder = h2::client::Builder::new();
        // With the small default window, h2 takes a thousand responses at once for a flood.
        builder.initial_connection_window_size(5 * 1024 * 1024);
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let handshake = within_deadline(builder.handshake(stream)).await;
        let (send, mut connection) = handshake.unwrap();
        let ping = connection.ping_pong().unwrap();
        let task = tokio::spawn(connection);
        Self { send, ping, task }
    }

    /// Opens a stream; the body is sent by the caller.
    pub async fn open(
        &mut self,
        request: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = within_deadline(self.send.clone().ready()).await?;
        ready.send_request(request, false)
    }

    /// Sends `body` in one frame and waits for the response.
    pub async fn call(&mut self, request: Request<()>, body: Bytes) -> Http2Response {
        let (response, mut stream) = self.open(request).await.unwrap();
        stream.send_data(body, true).unwrap();
        within_deadline(read_response(response)).await.unwrap()
    }

    /// Sends a PING and waits for its acknowledgement.
    pub async fn ping(&mut self) {
        within_deadline(self.ping.ping(Ping::opaque())).await.unwrap();
        assert!(!self.task.is_finished(), "the connection has ended");
    }

    /// CheckAvailability with these headers; the status and the time it took.
    pub async fn check(
        &mut self,
        event: &str,
        qty: i32,
        headers: &[(&'static str, &str)],
    ) -> (Status, Duration) {
        let call = CheckReq { event_id: event.to_owned(), qty, seat_ids: Vec::new() };
        self.timed_call(CHECK, &call, headers).await
    }

    /// CommitReservation with this grpc-timeout; the status and the time it took.
    pub async fn commit(&mut self, call: &CommitReq, timeout: &str) -> (Status, Duration) {
        self.timed_call(COMMIT, call, &[("grpc-timeout", timeout)]).await
    }

    /// One unary call; the status and the time it took.
    pub async fn timed_call(
        &mut self,
        path: &str,
        message: &impl Message,
        headers: &[(&'static str, &str)],
    ) -> (Status, Duration) {
        let mut request = request(path);
        for (name, value) in headers {
            request = with_header(request, name, value);
        }
        let began = Instant::now();
        let response = self.call(request, encode(message)).await;
        (response.status(), began.elapsed())
    }
}

#[derive(Debug)]
pub struct Http2Response {
    pub http: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Http2Response {
    /// The gRPC status.
    pub fn status(&self) -> Status {
        Status::from_header_map(&self.trailers)
            .or_else(|| Status::from_header_map(&self.headers))
            .expect("a response without grpc-status")
    }

    pub fn code(&self) -> Code {
        self.status().code()
    }

    /// The reason in the error's details; `none` without details.
    pub fn reason(&self) -> String {
        let info = self.status().get_details_error_info();
        info.map_or_else(|| "none".to_owned(), |info| info.reason)
    }
}

/// Reads a response to its end.
pub async fn read_response(response: ResponseFuture) -> Result<Http2Response, h2::Error> {
    let (head, mut body): (_, RecvStream) = Response::into_parts(response.await?);
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(Http2Response {
        http: head.status,
        headers: head.headers,
        body: bytes,
        trailers: body.trailers().await?.unwrap_or_default(),
    })
}

/// The head of a correct gRPC request.
pub fn request(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub fn with_header(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// A message with its gRPC prefix.
pub fn encode(message: &impl Message) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes.into()
}

/// An HTTP/2 connection without a state machine: the test writes and reads the frames.
pub struct FrameConnection {
    pub stream: TcpStream,
    /// Payload of the newest PING of the server that was not acknowledged.
    ping: Option<Vec<u8>>,
}

pub struct Http2Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl FrameConnection {
    /// Connects, without preface and settings.
    pub async fn connect(address: impl ToSocketAddrs) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, ping: None }
    }

    /// Connects and exchanges settings; returns the server's settings as well.
    pub async fn open(address: impl ToSocketAddrs) -> (Self, Http2Frame) {
        let mut connection = Self::connect(address).await;
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        connection.send(&frame(SETTINGS, 0, 0, &[])).await;
        let settings = connection.frame().await.unwrap();
        assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
        connection.send(&frame(SETTINGS, ACK, 0, &[])).await;
        (connection, settings)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within_deadline(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Http2Frame> {
        let mut head = [0; 9];
        within_deadline(self.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        within_deadline(self.stream.read_exact(&mut payload)).await.ok()?;
        if head[3] == PING && head[4] & ACK == 0 {
            self.ping = Some(payload.clone());
        }
        Some(Http2Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next frame of that kind; `None` if the connection ends before.
    pub async fn frame_of(&mut self, kind: u8) -> Option<Http2Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The last stream id of the next GOAWAY.
    pub async fn wait_for_goaway(&mut self) -> u32 {
        let goaway = self.frame_of(GOAWAY).await.expect("no GOAWAY").payload;
        u32::from_be_bytes(goaway[..4].try_into().unwrap())
    }

    /// Acknowledges the server's PING; waits for one if none has arrived. A draining server sends it after its
    /// GOAWAY.
    pub async fn acknowledge_ping(&mut self) {
        if self.ping.is_none() {
            self.frame_of(PING).await.expect("no PING");
        }
        let ping = self.ping.take().unwrap();
        self.send(&frame(PING, ACK, 0, &ping)).await;
    }

    /// Reads to the end; `false` if the server does not close the connection in time.
    pub async fn is_closed_by_server(mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(5), read).await.is_ok()
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of a gRPC request, with `extra` headers: literal fields, not indexed, not compressed (RFC 7541, 6.2.2).
pub fn header_block(path: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields.iter().chain(extra) {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}
