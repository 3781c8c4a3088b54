//! Scans over the DynamoDB JSON protocol and plain HTTP. For a store on loopback or a trusted network only:
//! requests carry a placeholder signature.

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

/// Why the store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    #[error("the store at {authority} does not answer: {why}")]
    Unreachable { authority: String, why: String },
    #[error("the store rejected a scan of {table}: {why}")]
    Refused { table: String, why: String },
    #[error("a page of {table} has an unexpected format: {why}")]
    Page { table: String, why: String },
}

/// Processes the body of a page. Returns the start key of the next page.
pub(super) type OnPage<'a> = &'a dyn Fn(&[u8]) -> Result<Option<Value>, String>;

pub(super) struct ScanClient {
    authority: String,
}

/// Why one attempt failed.
enum ScanFailure {
    /// A retry may succeed.
    Transient(String),
    Permanent(String),
}

impl ScanClient {
    pub(super) fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned() }
    }

    /// Scans `table` with consistent reads in `segments` parallel parts, projecting `attributes`.
    pub(super) async fn scan(
        &self,
        table: &str,
        attributes: &[&str],
        segments: u32,
        on_page: OnPage<'_>,
    ) -> Result<(), ReadBackError> {
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
    ) -> Result<(), ReadBackError> {
        let names: serde_json::Map<_, _> =
            attributes.iter().enumerate().map(|(n, name)| (format!("#{n}"), json!(name))).collect();
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
            let body = self.request_page(&mut connection, table, &request).await?;
            let page = on_page(&body)
                .map_err(|why| ReadBackError::Page { table: table.to_owned(), why })?;
            match page {
                Some(next) => request["ExclusiveStartKey"] = next,
                None => return Ok(()),
            }
        }
    }

    /// One scan request, retried after transient failures.
    async fn request_page(
        &self,
        connection: &mut Option<SendRequest<Full<Bytes>>>,
        table: &str,
        request: &Value,
    ) -> Result<Bytes, ReadBackError> {
        let mut delay = limits::STORE_RETRY_DELAY;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self.attempt(connection, request);
            let why = match tokio::time::timeout(limits::STORE_TIMEOUT, attempt).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(ScanFailure::Permanent(why))) => {
                    let table = table.to_owned();
                    return Err(ReadBackError::Refused { table, why });
                }
                Ok(Err(ScanFailure::Transient(why))) => why,
                Err(_) => format!("no answer in {} s", limits::STORE_TIMEOUT.as_secs()),
            };
            // The state of the connection is unknown after a failure.
            *connection = None;
            if attempts >= limits::STORE_ATTEMPTS {
                return Err(ReadBackError::Unreachable { authority: self.authority.clone(), why });
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(5));
        }
    }

    async fn attempt(
        &self,
        connection: &mut Option<SendRequest<Full<Bytes>>>,
        request: &Value,
    ) -> Result<Bytes, ScanFailure> {
        let transient = |why: &dyn std::fmt::Display| ScanFailure::Transient(why.to_string());
        let sender = match connection {
            Some(sender) => sender,
            None => {
                let socket =
                    TcpStream::connect(&self.authority).await.map_err(|e| transient(&e))?;
                let (sender, driver) =
                    handshake(TokioIo::new(socket)).await.map_err(|e| transient(&e))?;
                // The task ends when the sender is dropped.
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
            .map_err(|error| ScanFailure::Permanent(error.to_string()))?;
        sender.ready().await.map_err(|e| transient(&e))?;
        let response = sender.send_request(request).await.map_err(|e| transient(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limits::PAGE_BYTES_MAX);
        let body = body.collect().await.map_err(|e| transient(&e))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
        let transient_errors =
            ["Throttling", "ThroughputExceeded", "RequestLimitExceeded", "InternalServerError"];
        match status.is_server_error() || transient_errors.iter().any(|word| text.contains(word)) {
            true => Err(ScanFailure::Transient(text)),
            false => Err(ScanFailure::Permanent(text)),
        }
    }
}
