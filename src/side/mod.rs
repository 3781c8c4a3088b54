//! The side thread: everything that is not a reservation.
//!
//! One thread, pinned to no core, with a tokio runtime of its own: probes and figures over HTTP
//! (`probes`), the admin server ([`admin`]) and its audits ([`audit`]), the cold gRPC services of the clients' port
//! (`cold`), signals (`signals`). Whatever goes wrong or gets stuck here costs no shard anything.
//!
//! Must not live here: reservations, what readiness depends on (the server tells [`Readiness`]).

pub mod admin;
pub mod audit;
mod cold;
mod connections;
mod export;
mod probes;
mod readiness;
mod scrape;
mod signals;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use cold::cold_routes;
pub use export::ExportSettings;
pub use readiness::{Readiness, State};
pub use scrape::Scrape;
pub use signals::Shutdown;

use crate::limits;
use crate::telemetry::registry::BuildInfo;
use admin::AdminBackend;
use audit::AuditBackend;

/// A future that runs on the side thread until it ends or the side thread stops.
pub type SideTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the side thread serves. Listeners are bound by the caller, so that a taken port ends the
/// start before anything runs.
pub struct SideSettings {
    /// METRICS_PORT: /metrics, /healthz, /readyz.
    pub metrics: TcpListener,
    /// ADMIN_PORT and what answers it; `None` for a server without.
    pub admin: Option<(TcpListener, Arc<dyn AdminBackend>)>,
    /// What answers audits on ADMIN_PORT, if they are served there.
    pub audit: Option<Arc<dyn AuditBackend>>,
    /// Where the shards' figures come from.
    pub scrape: Arc<dyn Scrape>,
    pub readiness: Readiness,
    pub build: BuildInfo,
    /// Spans and where they go, if anybody wants them.
    pub export: Option<ExportSettings>,
    /// Whether SIGTERM and SIGINT are caught and told through [`SideHandle::shutdown`].
    pub signals: bool,
    /// What else runs here, such as the cold services of the clients' port. Still running at the
    /// stop, they are dropped once the side's own connections have ended.
    pub tasks: Vec<SideTask>,
}

/// Why the side thread could not be started.
#[derive(Debug, Error)]
#[error("the side thread cannot {doing}: {source}")]
pub struct StartError {
    doing: &'static str,
    source: io::Error,
}

fn cannot(doing: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError { doing, source }
}

/// The side thread did not end in time; the process may end regardless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the side thread has not ended within {0:?}")]
pub struct Overdue(pub Duration);

/// The side thread's start.
pub struct Side;

impl Side {
    /// Starts the thread; it serves when this returns.
    ///
    /// # Errors
    /// When the runtime, a listener, a signal handler or the thread cannot be set up.
    pub fn start(settings: SideSettings) -> Result<SideHandle, StartError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot("make its runtime"))?;
        let (stop, stopping) = watch::channel(false);
        let (shutdown, shutdown_seen) = watch::channel(Shutdown::No);
        let metrics_address = settings.metrics.local_addr();
        let metrics_address = metrics_address.map_err(cannot("read the metrics address"))?;
        let admin_address = match &settings.admin {
            Some((listener, _)) => Some(
                listener
                    .local_addr()
                    .map_err(cannot("read the admin address"))?,
            ),
            None => None,
        };
        let servers = prepare(&runtime, settings, &stopping, shutdown)?;
        let (ended, end) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("side".to_owned())
            .spawn(move || {
                runtime.block_on(serve(servers, stopping));
                // Without waiting for a name look-up or whatever else blocks a pool thread.
                runtime.shutdown_background();
                let _ = ended.send(());
            })
            .map_err(cannot("start"))?;
        Ok(SideHandle {
            stop,
            end,
            thread: Some(thread),
            shutdown: shutdown_seen,
            metrics_address,
            admin_address,
        })
    }
}

/// The futures of the side thread.
struct Servers {
    /// Those that end by themselves when told to stop.
    own: Vec<SideTask>,
    /// Those that are dropped at the stop.
    others: Vec<SideTask>,
}

/// Turns the settings into futures, with everything that can fail done.
fn prepare(
    runtime: &Runtime,
    settings: SideSettings,
    stopping: &watch::Receiver<bool>,
    shutdown: watch::Sender<Shutdown>,
) -> Result<Servers, StartError> {
    let _inside = runtime.enter();
    let scraper = scrape::Scraper::new(settings.scrape, settings.build);
    let router = probes::router(settings.readiness.clone(), scraper);
    let metrics = adopt(settings.metrics).map_err(cannot("listen on METRICS_PORT"))?;
    let mut own: Vec<SideTask> = vec![Box::pin(probes::serve(metrics, router, stopping.clone()))];
    if let Some((listener, backend)) = settings.admin {
        let listener = adopt(listener).map_err(cannot("listen on ADMIN_PORT"))?;
        let mut routes = admin::routes(backend, &settings.readiness);
        if let Some(backend) = settings.audit {
            routes = routes.add_service(audit::service(backend));
        }
        own.push(Box::pin(admin::serve(listener, routes, stopping.clone())));
    }
    if let Some(export) = settings.export {
        let exporter = export::exporter(&export).map_err(|error| StartError {
            doing: "make the exporter of spans (see the variables OTEL_EXPORTER_OTLP_…)",
            source: io::Error::other(error),
        })?;
        own.push(Box::pin(export::run(exporter, export, stopping.clone())));
    }
    let mut others = settings.tasks;
    if settings.signals {
        let signals = signals::Signals::catch().map_err(cannot("catch signals"))?;
        others.push(Box::pin(signals.tell(shutdown)));
    }
    Ok(Servers { own, others })
}

fn adopt(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Runs everything until told to stop, then gives the side's own connections their grace. Each
/// future is a task of its own: a panic ends that one and is logged.
async fn serve(servers: Servers, stopping: watch::Receiver<bool>) {
    let mut others: JoinSet<()> = servers.others.into_iter().collect();
    let mut own: JoinSet<()> = servers.own.into_iter().collect();
    stopped(stopping).await;
    let ending = async { while own.join_next().await.is_some() {} };
    if timeout(limits::SIDE_STOP_GRACE, ending).await.is_err() {
        tracing::debug!("connections of the side thread cut at its stop");
    }
    others.abort_all();
}

/// Ready once the side thread is told to stop, or its handle is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The running side thread. Dropping it stops the thread without waiting for it.
#[derive(Debug)]
pub struct SideHandle {
    stop: watch::Sender<bool>,
    end: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
    shutdown: watch::Receiver<Shutdown>,
    metrics_address: SocketAddr,
    admin_address: Option<SocketAddr>,
}

impl SideHandle {
    /// Where /metrics, /healthz and /readyz are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Where the admin service is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// What the signals have asked for so far. Its futures need no particular executor.
    pub fn shutdown(&self) -> watch::Receiver<Shutdown> {
        self.shutdown.clone()
    }

    /// Stops the thread: no new connections, the open ones finish their calls within
    /// [`limits::SIDE_STOP_GRACE`]. Last in a shutdown, so that the probes answer to the end.
    ///
    /// # Errors
    /// When the thread has not ended within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<(), Overdue> {
        let _ = self.stop.send(true);
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.end.recv_timeout(limit) {
            return Err(Overdue(limit));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the side thread ended by a panic");
        }
        Ok(())
    }
}
