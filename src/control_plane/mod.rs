//! The control plane: one thread with a tokio runtime for everything that is not a reservation.
//!
//! Serves probes and metrics over HTTP (`probes`), the admin service ([`admin`]), audits ([`audit`]), reflection and
//! the health of ADMIN_PORT (`auxiliary`), span export (`span_export`) and signals (`signals`). The thread is not
//! pinned to a core; a stall or a panic here does not affect a shard.
//!
//! Not here: reservation handling, or the conditions of readiness (the server updates [`Readiness`]).

mod access;
pub mod admin;
mod admin_log;
mod admin_stream;
pub(crate) mod audit;
mod auxiliary;
mod connections;
mod probes;
mod readiness;
mod scrape;
mod signals;
mod span_export;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;

pub(crate) use access::RefusedAdminCalls;
pub(crate) use access::first_token;
pub use access::{AdminTokens, TokenFileError};
pub use auxiliary::reflection_routes;
pub use readiness::Readiness;
pub use scrape::MetricsSource;
pub use signals::ShutdownSignal;
pub(crate) use span_export::SpanExportConfig;

use crate::limits;
use crate::telemetry::aggregate::BuildInfo;
use crate::tls::PortTls;
use admin::AdminBackend;
use audit::AuditBackend;

/// A future that runs on the control plane until it ends or the control plane stops.
pub(crate) type ControlPlaneTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Configuration of the control plane. The caller binds the listeners, so that a port in use fails the start before any
/// part runs.
pub struct ControlPlaneConfig {
    /// METRICS_PORT: /metrics, /healthz, /readyz.
    pub metrics: TcpListener,
    /// ADMIN_PORT and its backend; `None` disables the admin service.
    pub admin: Option<(TcpListener, Arc<dyn AdminBackend>)>,
    /// Who may call ADMIN_PORT, and how connections to it are encrypted.
    pub admin_access: AdminAccess,
    /// Backend of the audit service on ADMIN_PORT; `None` disables it.
    pub audit: Option<Arc<dyn AuditBackend>>,
    /// Source of the metrics of the shards.
    pub scrape: Arc<dyn MetricsSource>,
    pub readiness: Readiness,
    pub build: BuildInfo,
    /// `None` disables span export.
    pub export: Option<SpanExportConfig>,
    /// Whether to catch SIGTERM, SIGINT and SIGHUP and report them through [`ControlPlane::shutdown`].
    pub signals: bool,
    /// Notified at SIGHUP, which reloads certificates; `None`: there is nothing to reload.
    pub reload: Option<Arc<Notify>>,
    /// Further tasks, such as reflection on GRPC_PORT. At the stop they are aborted after the connections of
    /// the control plane have ended.
    pub tasks: Vec<ControlPlaneTask>,
}

/// TLS and tokens of ADMIN_PORT; the default serves everybody without TLS, as on loopback.
#[derive(Clone, Default)]
pub struct AdminAccess {
    pub tls: Option<PortTls>,
    pub tokens: Option<AdminTokens>,
    pub(crate) refused: Arc<RefusedAdminCalls>,
}

impl AdminAccess {
    pub(crate) fn new(
        tls: Option<PortTls>,
        tokens: Option<AdminTokens>,
        refused: Arc<RefusedAdminCalls>,
    ) -> Self {
        Self { tls, tokens, refused }
    }
}

/// The control plane could not start.
#[derive(Debug, Error)]
#[error("control plane: cannot {action}: {source}")]
pub struct ControlPlaneStartError {
    action: &'static str,
    source: io::Error,
}

fn cannot(action: &'static str) -> impl FnOnce(io::Error) -> ControlPlaneStartError {
    move |source| ControlPlaneStartError { action, source }
}

/// The control plane did not stop in time; the process may exit anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the control plane did not stop within {0:?}")]
pub struct ControlPlaneStopTimeout(Duration);

/// The running control plane. Dropping it stops the thread without waiting.
#[derive(Debug)]
pub struct ControlPlane {
    stop: watch::Sender<bool>,
    stopped: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
    shutdown: watch::Receiver<ShutdownSignal>,
    metrics_address: SocketAddr,
    admin_address: Option<SocketAddr>,
}

impl ControlPlane {
    /// Starts the thread. All ports are served when this returns.
    ///
    /// # Errors
    /// If the runtime, a listener, a signal handler or the thread cannot be set up.
    pub fn start(config: ControlPlaneConfig) -> Result<Self, ControlPlaneStartError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot("create its runtime"))?;
        let (stop, stopping) = watch::channel(false);
        let (shutdown, shutdown_seen) = watch::channel(ShutdownSignal::None);
        let metrics_address = config.metrics.local_addr();
        let metrics_address = metrics_address.map_err(cannot("read the metrics address"))?;
        let admin_address = match &config.admin {
            Some((listener, _)) => {
                Some(listener.local_addr().map_err(cannot("read the admin address"))?)
            }
            None => None,
        };
        let servers = prepare(&runtime, config, &stopping, shutdown)?;
        let (ended, stopped) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("control-plane".to_owned())
            .spawn(move || {
                runtime.block_on(serve(servers, stopping));
                // Does not wait for name resolution or other blocking work in the thread pool.
                runtime.shutdown_background();
                let _ = ended.send(());
            })
            .map_err(cannot("start its thread"))?;
        Ok(Self {
            stop,
            stopped,
            thread: Some(thread),
            shutdown: shutdown_seen,
            metrics_address,
            admin_address,
        })
    }

    /// Address of /metrics, /healthz and /readyz.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Address of the admin service.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Signals received so far. The futures of the receiver need no particular executor.
    pub fn shutdown(&self) -> watch::Receiver<ShutdownSignal> {
        self.shutdown.clone()
    }

    /// Stops the thread: no new connections, open connections finish their calls within
    /// [`limits::CONTROL_PLANE_STOP_GRACE`]. Last step of a shutdown, so that probes answer until the end.
    ///
    /// # Errors
    /// If the thread has not stopped within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<(), ControlPlaneStopTimeout> {
        let _ = self.stop.send(true);
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.stopped.recv_timeout(limit) {
            return Err(ControlPlaneStopTimeout(limit));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("control plane panicked");
        }
        Ok(())
    }
}

/// The futures of the control plane.
struct Servers {
    /// Servers that end by themselves at the stop.
    draining: Vec<ControlPlaneTask>,
    /// Tasks that are aborted at the stop.
    aborted: Vec<ControlPlaneTask>,
}

/// Creates the futures and performs every step that can fail.
fn prepare(
    runtime: &Runtime,
    config: ControlPlaneConfig,
    stopping: &watch::Receiver<bool>,
    shutdown: watch::Sender<ShutdownSignal>,
) -> Result<Servers, ControlPlaneStartError> {
    let _inside = runtime.enter();
    let scraper = scrape::Scraper::new(config.scrape, config.build);
    let router = probes::router(config.readiness.clone(), scraper);
    let metrics = to_tokio(config.metrics).map_err(cannot("listen on METRICS_PORT"))?;
    let mut draining: Vec<ControlPlaneTask> =
        vec![Box::pin(probes::serve(metrics, router, stopping.clone()))];
    if let Some((listener, backend)) = config.admin {
        let listener = to_tokio(listener).map_err(cannot("listen on ADMIN_PORT"))?;
        let AdminAccess { tls, tokens, refused } = config.admin_access;
        let access = access::AccessCheck::new(tokens, refused);
        let mut routes = admin::routes(backend, &config.readiness, access.clone());
        if let Some(backend) = config.audit {
            let audit = InterceptedService::new(audit::service(backend), access);
            routes = routes.add_service(audit);
        }
        draining.push(Box::pin(admin::serve(listener, tls, routes, stopping.clone())));
    }
    if let Some(export) = config.export {
        draining.push(Box::pin(span_export::run(export, stopping.clone())));
    }
    let mut aborted = config.tasks;
    if config.signals {
        let signals = signals::Signals::catch().map_err(cannot("catch signals"))?;
        aborted.push(Box::pin(signals.report(shutdown, config.reload)));
    }
    Ok(Servers { draining, aborted })
}

fn to_tokio(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Runs all futures until the stop, then waits for the draining ones. Each future is a separate task: a panic ends only
/// that task and is logged.
async fn serve(servers: Servers, stopping: watch::Receiver<bool>) {
    let mut aborted: JoinSet<()> = servers.aborted.into_iter().collect();
    let mut draining: JoinSet<()> = servers.draining.into_iter().collect();
    stop_requested(stopping).await;
    let drained = async { while draining.join_next().await.is_some() {} };
    if timeout(limits::CONTROL_PLANE_STOP_GRACE, drained).await.is_err() {
        tracing::debug!("control plane connections aborted at stop");
    }
    aborted.abort_all();
}

/// Completes when the control plane must stop, or its handle is dropped.
async fn stop_requested(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
