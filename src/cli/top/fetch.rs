//! One scrape over HTTP/1.1, bounded in bytes and time. Not here: the content of the response (`parse`).

use std::time::{Instant, SystemTime};

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use inventory_client::{ClientTls, HttpVersion, connect_stream};
use tokio::time::timeout;

use super::model::TimedScrape;
use super::parse::MetricSamples;
use crate::cli::address::shown;
use crate::limits::{TOP_BODY_BYTES_MAX, TOP_FETCH_TIMEOUT};

/// A server, and how it is reached.
#[derive(Clone)]
pub(super) struct ScrapeTarget {
    pub(super) address: Uri,
    /// For an https address.
    pub(super) tls: Option<ClientTls>,
}

/// Scrapes the server at `target`; `began` is the instant from which scrapes are dated.
///
/// # Errors
/// A message for the user: nothing listens, no answer in time, or the answer is not from inventory-api.
pub(super) async fn scrape(target: &ScrapeTarget, began: Instant) -> Result<TimedScrape, String> {
    let at = shown(&target.address);
    let asked = began.elapsed().as_secs_f64();
    let text = timeout(TOP_FETCH_TIMEOUT, body(target))
        .await
        .map_err(|_| format!("{at} did not answer within {TOP_FETCH_TIMEOUT:?}"))?
        .map_err(|why| format!("{at}: {why}"))?;
    let samples = MetricSamples::parse(&text)
        .map_err(|why| format!("the server at {at} is not inventory-api: {why}"))?;
    if samples.first("inventory_build_info").is_none() {
        return Err(format!(
            "the server at {at} is not inventory-api: it has no metric inventory_build_info (the \
             metrics are on METRICS_PORT, 9090 by default)"
        ));
    }
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    Ok(TimedScrape { at: asked, wall, samples })
}

async fn body(target: &ScrapeTarget) -> Result<String, String> {
    let ScrapeTarget { address, tls } = target;
    let host = address.host().unwrap_or("");
    let stream =
        connect_stream(address, tls.as_ref(), HttpVersion::Http1).await.map_err(|why| match why
            .kind()
        {
            std::io::ErrorKind::ConnectionRefused => {
                "no server listens there (METRICS_PORT, 9090 by default)".to_owned()
            }
            _ => why.to_string(),
        })?;
    let (mut send, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|why| why.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header(header::HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|why| why.to_string())?;
    let answer = send
        .send_request(request)
        .await
        .map_err(|why| {
            format!(
                "the server there does not speak HTTP/1.1 ({why}); the metrics are on METRICS_PORT, 9090 by default"
            )
        })?;
    if answer.status() == StatusCode::HTTP_VERSION_NOT_SUPPORTED {
        return Err(
            "this is the gRPC port; the metrics are on METRICS_PORT, 9090 by default".to_owned()
        );
    }
    if answer.status() != StatusCode::OK {
        return Err(format!("/metrics is answered by {}", answer.status()));
    }
    let body =
        Limited::new(answer.into_body(), TOP_BODY_BYTES_MAX).collect().await.map_err(|why| {
            format!("/metrics cannot be read ({TOP_BODY_BYTES_MAX} bytes at most): {why}")
        })?;
    driver.abort();
    String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "/metrics is not text".to_owned())
}
