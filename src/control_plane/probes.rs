//! HTTP on METRICS_PORT: /metrics, /healthz, /readyz.
//!
//! Bounded in headers, time and connections. axum's server has no such bounds, so hyper serves the connections and axum
//! only routes requests.

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

use super::connections::{LimitedConnection, LimitedListener};
use super::readiness::{Readiness, ReadinessState};
use super::scrape::Scraper;
use super::stop_requested;
use crate::limits;
use crate::telemetry::aggregate::TEXT_FORMAT;

const PLAIN: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");

/// Routes of the three pages. Other paths are 404, methods other than GET and HEAD 405.
pub(super) fn router(readiness: Readiness, scraper: Scraper) -> Router {
    let scraper = Arc::new(scraper);
    Router::new()
        .route("/metrics", get(metrics).with_state(scraper))
        .route("/healthz", get(async || page(StatusCode::OK, "ok")))
        .route("/readyz", get(readyz).with_state(readiness))
        .fallback(async || {
            let paths = "not found; available: /metrics, /healthz, /readyz";
            page(StatusCode::NOT_FOUND, paths)
        })
}

fn page(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, [PLAIN], format!("{text}\n")).into_response()
}

async fn metrics(Shared(scraper): Shared<Arc<Scraper>>) -> Response {
    match scraper.scrape().await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            let failed = format_args!("metrics cannot be rendered: {error}");
            page(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
    }
}

async fn readyz(Shared(readiness): Shared<Readiness>) -> Response {
    match readiness.state() {
        ReadinessState::Ready => page(StatusCode::OK, "ready"),
        ReadinessState::Starting => page(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting"),
        ReadinessState::Unhealthy { reason } => {
            page(StatusCode::SERVICE_UNAVAILABLE, format_args!("not ready: {reason}"))
        }
        ReadinessState::Draining { reason } => {
            page(StatusCode::SERVICE_UNAVAILABLE, format_args!("not ready: draining ({reason})"))
        }
    }
}

/// Serves until the stop, then until every connection has finished its request.
pub(super) async fn serve(listener: TcpListener, router: Router, stopping: watch::Receiver<bool>) {
    let listener = LimitedListener::new(listener, limits::HTTP_CONNECTIONS_MAX, "metrics");
    let mut connections = JoinSet::new();
    loop {
        select! {
            () = stop_requested(stopping.clone()) => break,
            accepted = listener.accept() => {
                connections.spawn(connection(accepted, router.clone(), stopping.clone()));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(io: LimitedConnection, router: Router, stopping: watch::Receiver<bool>) {
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
        () = connection_must_end(stopping) => {
            served.as_mut().graceful_shutdown();
            timeout(limits::HTTP_CONNECTION_AGE_GRACE, served).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "metrics connection failed"),
        Err(_elapsed) => tracing::debug!("metrics connection reached its maximum age"),
    }
}

/// Completes at the stop, or when the connection reaches its maximum age.
async fn connection_must_end(stopping: watch::Receiver<bool>) {
    select! {
        () = stop_requested(stopping) => {}
        () = sleep(limits::HTTP_CONNECTION_AGE_MAX) => {}
    }
}
