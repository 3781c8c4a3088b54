//! HTTP/1.1 messages as the store and its clients exchange them: with a content-length or without a body, one at a time
//! on a connection.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Largest message. DynamoDB's answers end at 16 MB.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct HttpMessage {
    pub(crate) bytes: Vec<u8>,
    /// Where the body begins.
    body: usize,
}

impl HttpMessage {
    /// Reads one message; `None` if the connection ends before.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::with_capacity(4 << 10);
        let mut length = None;
        loop {
            let known = bytes.len();
            if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes.len() > MESSAGE_BYTES_MAX {
                return None;
            }
            if length.is_none() {
                let from = known.saturating_sub(HEAD_END.len());
                let end = bytes[from..].windows(4).position(|window| window == HEAD_END);
                length = end.map(|end| {
                    let body = from + end + HEAD_END.len();
                    (body, body + content_length(&bytes[..body]))
                });
            }
            if let Some((body, end)) = length
                && bytes.len() >= end
            {
                return Some(Self { bytes, body });
            }
        }
    }

    /// The beginning of the message, which ends within its body, or within its head if there is no body.
    pub(crate) fn cut_off(&self) -> &[u8] {
        let body = self.bytes.len() - self.body;
        match body {
            0 => &self.bytes[..self.body / 2],
            _ => &self.bytes[..self.body + body / 2],
        }
    }

    /// A complete message whose body is the first half of this one's.
    pub(crate) fn with_half_body(&self) -> Vec<u8> {
        let half = &self.bytes[self.body..self.body + (self.bytes.len() - self.body) / 2];
        let head = String::from_utf8_lossy(&self.bytes[..self.body - HEAD_END.len()]);
        let is_other = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default();
            // A checksum would expose the cut.
            !["content-length", "x-amz-crc32"].iter().any(|cut| name.eq_ignore_ascii_case(cut))
        };
        let mut message: String = head.lines().filter(is_other).flat_map(|l| [l, "\r\n"]).collect();
        message += &format!("content-length: {}\r\n\r\n", half.len());
        [message.as_bytes(), half].concat()
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.unwrap_or(0)
}

/// A call of the DynamoDB API on a connection of its own, past the code under test. Returns status and body.
pub(crate) async fn call_store(
    store: SocketAddr,
    operation: &str,
    body: &Value,
) -> io::Result<(u16, Value)> {
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: store\r\nx-amz-target: DynamoDB_20120810.{operation}\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-date: 20250101T000000Z\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=x/20250101/local/dynamodb/aws4_request, \
         SignedHeaders=host, Signature=0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(store).await?;
    stream.write_all(request.as_bytes()).await?;
    let answer = HttpMessage::read(&mut stream).await;
    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer.bytes[..answer.body]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, serde_json::from_slice(&answer.bytes[answer.body..])?))
}

/// GET on a metrics port: the status code; 0 if there is no answer.
pub(crate) async fn get_status(address: &str, path: &str) -> u16 {
    let get = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    };
    get.await.unwrap_or(0)
}
