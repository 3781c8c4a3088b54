//! HTTP on METRICS_PORT: /metrics, /healthz, /readyz.
//!
//! Bounded in headers, time and connections, none of which axum's own server offers: so hyper serves
//! the connections and axum the routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::connections::{Acceptor, Connection};
use super::readiness::{Readiness, State};
use super::scrape::{ScrapeError, Scraper};
use super::stopped;
use crate::limits;
use crate::telemetry::registry::TEXT_FORMAT;

const PLAIN: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");

/// The pages; any other path is 404, any other method than GET and HEAD 405.
pub(super) fn router(readiness: Readiness, scraper: Scraper) -> Router {
    let scraper = Arc::new(scraper);
    Router::new()
        .route("/metrics", get(metrics).with_state(scraper))
        .route("/healthz", get(async || page(StatusCode::OK, "ok")))
        .route("/readyz", get(readyz).with_state(readiness))
        .fallback(async || {
            let there_is = "not found; there are /metrics, /healthz and /readyz";
            page(StatusCode::NOT_FOUND, there_is)
        })
}

fn page(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, [PLAIN], format!("{text}\n")).into_response()
}

async fn metrics(Shared(scraper): Shared<Arc<Scraper>>) -> Response {
    match scraper.scrape().await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error @ ScrapeError::TooMany) => page(StatusCode::SERVICE_UNAVAILABLE, error),
        Err(error @ ScrapeError::Render(_)) => page(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn readyz(Shared(readiness): Shared<Readiness>) -> Response {
    match readiness.state() {
        State::Ready => page(StatusCode::OK, "ready"),
        State::Starting => page(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting"),
        State::Unwell { why } => page(
            StatusCode::SERVICE_UNAVAILABLE,
            format_args!("not ready: {why}"),
        ),
        State::Draining { why } => page(
            StatusCode::SERVICE_UNAVAILABLE,
            format_args!("not ready: draining ({why})"),
        ),
    }
}

/// Serves until told to stop, then until every connection has finished its request.
pub(super) async fn serve(listener: TcpListener, router: Router, stopping: watch::Receiver<bool>) {
    let acceptor = Acceptor::new(listener, limits::HTTP_CONNECTIONS_MAX, "metrics");
    let mut connections = JoinSet::new();
    loop {
        select! {
            () = stopped(stopping.clone()) => break,
            accepted = acceptor.accept() => {
                connections.spawn(connection(accepted, router.clone(), stopping.clone()));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}

async fn connection(io: Connection, router: Router, stopping: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEADER_TIMEOUT)
        .max_buf_size(limits::HTTP_HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut served = std::pin::pin!(served);
    let ended = select! {
        ended = &mut served => Ok(ended),
        () = leave(stopping) => {
            served.as_mut().graceful_shutdown();
            timeout(limits::HTTP_CONNECTION_AGE_GRACE, served).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "a metrics connection failed"),
        Err(_elapsed) => tracing::debug!("a metrics connection was cut for its age"),
    }
}

/// Ready when a connection should end: the stop, or its age.
async fn leave(stopping: watch::Receiver<bool>) {
    select! {
        () = stopped(stopping) => {}
        () = sleep(limits::HTTP_CONNECTION_AGE_MAX) => {}
    }
}
