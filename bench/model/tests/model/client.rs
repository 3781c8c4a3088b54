//! An HTTP/1.1 client with one connection, and dynoxide as the reference implementation.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// One keep-alive connection.
pub(crate) struct HttpClient(BufReader<TcpStream>);

impl HttpClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(socket))
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.0.get_ref().set_read_timeout(Some(timeout)).unwrap();
    }

    /// `None`: the connection was closed, or the response timed out.
    pub(crate) fn request(&mut self, head: &str, body: &str) -> Option<(u16, String)> {
        let request = format!("{head}host: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }

    /// A call of the DynamoDB API.
    pub(crate) fn call(&mut self, operation: &str, body: &Json) -> Option<(u16, Json)> {
        let head = format!(
            "POST / HTTP/1.1\r\nx-amz-target: DynamoDB_20120810.{operation}\r\ncontent-type: \
             application/x-amz-json-1.0\r\nx-amz-date: 20250101T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=x/20250101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n"
        );
        let (status, body) = self.request(&head, &body.to_string())?;
        let body = if body.is_empty() { Json::Null } else { serde_json::from_str(&body).unwrap() };
        Some((status, body))
    }
}

/// Starts dynoxide in memory on a free port and its own thread; it ends with the test process.
pub(crate) fn dynoxide() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let database = dynoxide::Database::memory().unwrap();
            dynoxide::server::serve_on(listener, database).await;
        });
    });
    address
}
