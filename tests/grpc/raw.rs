//! HTTP/2 clients for tests: requests as headers, bytes and frames that no client library sends.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use inventory_grpc::Code;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic_types::StatusExt;

use crate::support::{Server, within};

pub(crate) const CHECK: &str = "/inventory.v1.Inventory/CheckAvailability";

/// An HTTP/2 client connection whose task ends when the connection does.
pub(crate) struct Raw {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) task: JoinHandle<Result<(), h2::Error>>,
    pub(crate) ping: h2::PingPong,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn status(&self) -> tonic::Status {
        tonic::Status::from_header_map(&self.trailers)
            .or_else(|| tonic::Status::from_header_map(&self.headers))
            .expect("an answer without grpc-status")
    }

    pub(crate) fn code(&self) -> Code {
        self.status().code()
    }

    pub(crate) fn reason(&self) -> String {
        let info = self.status().get_details_error_info();
        info.map_or_else(|| "none".to_owned(), |info| info.reason)
    }
}

impl Raw {
    pub(crate) async fn connect(server: &Server) -> Self {
        let mut builder = h2::client::Builder::new();
        // With its small default window, h2 treats a thousand responses at once as a flood.
        builder.initial_connection_window_size(5 * 1024 * 1024);
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, mut connection) = within(builder.handshake(stream)).await.unwrap();
        let ping = connection.ping_pong().unwrap();
        let task = tokio::spawn(connection);
        Self { send, task, ping }
    }

    pub(crate) async fn open(
        &mut self,
        request: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = within(self.send.clone().ready()).await?;
        ready.send_request(request, false)
    }

    /// Sends `body` in one frame with the end of the stream.
    pub(crate) async fn call(&mut self, request: Request<()>, body: Bytes) -> Answer {
        let (response, mut stream) = self.open(request).await.unwrap();
        stream.send_data(body, true).unwrap();
        within(answer(response)).await.unwrap()
    }
}

pub(crate) async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body): (_, RecvStream) = Response::into_parts(response.await?);
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Answer {
        http: head.status,
        headers: head.headers,
        body: all,
        trailers,
    })
}

/// The headers of a valid request, to be modified by the test.
pub(crate) fn request(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub(crate) fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    framed.extend(message.encode_to_vec());
    framed.into()
}

/// A client that writes and reads single frames.
pub(crate) struct Bare(pub TcpStream);

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl Bare {
    /// Connects, sends preface and settings, and takes the server's settings.
    pub(crate) async fn open(server: &Server) -> (Self, Frame) {
        let mut bare = Self::connect(server).await;
        bare.0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        bare.send(&frame(SETTINGS, 0, 0, &[])).await;
        let settings = bare.frame().await.unwrap();
        assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
        bare.send(&frame(SETTINGS, ACK, 0, &[])).await;
        (bare, settings)
    }

    /// [`Bare::open`], then waits until the connection is idle on both sides.
    pub(crate) async fn open_and_settle(server: &Server) -> Self {
        let (mut bare, _) = Self::open(server).await;
        bare.send(&frame(PING, 0, 0, b"settled?")).await;
        let pong = bare.frame_of(PING).await.unwrap();
        assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"settled?"[..]));
        let mut polls = server.polls().await;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = server.polls().await;
            if now == polls {
                return bare;
            }
            polls = now;
        }
    }

    pub(crate) async fn connect(server: &Server) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.unwrap();
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        within(self.0.read_exact(&mut payload)).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next frame of that kind; `None` when the connection ended without one.
    pub(crate) async fn frame_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Whether the server closes in order and still accepts writes: a reset would fail a write.
    pub(crate) async fn ends_in_order(mut self) -> bool {
        let mut rest = Vec::new();
        let mut in_order = within(self.0.read_to_end(&mut rest)).await.is_ok();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            in_order &= within(self.0.write_all(b"more")).await.is_ok();
        }
        in_order
    }

    /// Whether the server closes the connection within five seconds.
    pub(crate) async fn comes_to_end(mut self) -> bool {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), self.0.read_to_end(&mut rest));
        read.await.is_ok()
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression and without the table.
pub(crate) fn header_block(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}
