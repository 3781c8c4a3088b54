//! DynamoDB's JSON over plain HTTP, as far as scans go. For a store on loopback or a trusted network:
//! requests carry a placeholder for a signature.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::limits;

/// Why the store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at {authority} does not answer: {why}")]
    Unreachable { authority: String, why: String },
    #[error("the store refused to scan {table}: {why}")]
    Refused { table: String, why: String },
    #[error("a page of {table} is not as the store writes it: {why}")]
    Page { table: String, why: String },
}

/// Reads pages of items; what it is given is the answer's body. Returns where the next one begins.
pub(super) type OnPage<'a> = &'a dyn Fn(&[u8]) -> Result<Option<Value>, String>;

pub(super) struct Client {
    authority: String,
}

/// Why one try failed.
enum Failed {
    /// Worth another try.
    Passing(String),
    Final(String),
}

impl Client {
    pub(super) fn new(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
        }
    }

    /// Scans `table` strongly, `segments` parts at once, `attributes` of each item.
    pub(super) async fn scan(
        &self,
        table: &str,
        attributes: &[&str],
        segments: u32,
        on_page: OnPage<'_>,
    ) -> Result<(), StoreError> {
        let parts =
            (0..segments).map(|n| self.scan_part(table, attributes, (n, segments), on_page));
        try_join_all(parts).await.map(drop)
    }

    async fn scan_part(
        &self,
        table: &str,
        attributes: &[&str],
        (part, parts): (u32, u32),
        on_page: OnPage<'_>,
    ) -> Result<(), StoreError> {
        let names: serde_json::Map<_, _> = attributes
            .iter()
            .enumerate()
            .map(|(n, name)| (format!("#{n}"), json!(name)))
            .collect();
        let projection: Vec<_> = (0..attributes.len()).map(|n| format!("#{n}")).collect();
        let mut request = json!({
            "TableName": table,
            "ConsistentRead": true,
            "ProjectionExpression": projection.join(", "),
            "ExpressionAttributeNames": names,
        });
        if parts > 1 {
            request["Segment"] = json!(part);
            request["TotalSegments"] = json!(parts);
        }
        let mut connection = None;
        loop {
            let body = self.ask(&mut connection, table, &request).await?;
            let page = on_page(&body).map_err(|why| StoreError::Page {
                table: table.to_owned(),
                why,
            })?;
            match page {
                Some(next) => request["ExclusiveStartKey"] = next,
                None => return Ok(()),
            }
        }
    }

    /// One scan request, repeated while it fails in passing.
    async fn ask(
        &self,
        connection: &mut Option<SendRequest<Full<Bytes>>>,
        table: &str,
        request: &Value,
    ) -> Result<Bytes, StoreError> {
        let mut pause = limits::STORE_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let attempt = self.attempt(connection, request);
            let why = match tokio::time::timeout(limits::STORE_TIMEOUT, attempt).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(Failed::Final(why))) => {
                    let table = table.to_owned();
                    return Err(StoreError::Refused { table, why });
                }
                Ok(Err(Failed::Passing(why))) => why,
                Err(_) => format!("no answer in {} s", limits::STORE_TIMEOUT.as_secs()),
            };
            // Whatever went wrong, the connection is not to be trusted.
            *connection = None;
            if tries >= limits::STORE_TRIES {
                return Err(StoreError::Unreachable {
                    authority: self.authority.clone(),
                    why,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn attempt(
        &self,
        connection: &mut Option<SendRequest<Full<Bytes>>>,
        request: &Value,
    ) -> Result<Bytes, Failed> {
        let passing = |why: &dyn std::fmt::Display| Failed::Passing(why.to_string());
        let sender = match connection {
            Some(sender) => sender,
            None => {
                let socket = TcpStream::connect(&self.authority)
                    .await
                    .map_err(|e| passing(&e))?;
                let (sender, driver) = handshake(TokioIo::new(socket))
                    .await
                    .map_err(|e| passing(&e))?;
                // Ends with the sender.
                tokio::spawn(driver);
                connection.insert(sender)
            }
        };
        let request = Request::post("/")
            .header("host", &self.authority)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", "DynamoDB_20120810.Scan")
            .header("x-amz-date", "20200101T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=local/20200101/local/dynamodb/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-target, \
                 Signature=0000000000000000000000000000000000000000000000000000000000000000",
            )
            .body(Full::new(Bytes::from(request.to_string())))
            .map_err(|error| Failed::Final(error.to_string()))?;
        sender.ready().await.map_err(|e| passing(&e))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| passing(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limits::PAGE_BYTES_MAX);
        let body = body.collect().await.map_err(|e| passing(&e))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
        let again = [
            "Throttling",
            "ThroughputExceeded",
            "RequestLimitExceeded",
            "InternalServerError",
        ];
        match status.is_server_error() || again.iter().any(|word| text.contains(word)) {
            true => Err(Failed::Passing(text)),
            false => Err(Failed::Final(text)),
        }
    }
}
