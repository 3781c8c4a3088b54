//! The model behind a socket, in this process: [`ModelServer`].
//!
//! ```no_run
//! use inventory_store_model::{FaultKind, ModelServer, ModelSettings, RequestAction};
//!
//! let server = ModelServer::start(ModelSettings::default())?;
//! println!("AWS_ENDPOINT_URL_DYNAMODB={}", server.endpoint());
//! // Faults by probability ...
//! server.set_faults(vec![FaultKind::LostAnswer.with_probability(0.1).on("TransactWriteItems")])?;
//! // ... or a decision for each request.
//! server.set_rule(|request| match request.operation {
//!     "TransactWriteItems" => RequestAction::HoldResponse,
//!     _ => RequestAction::Execute,
//! });
//! server.clear_rule(); // releases what is held
//! server.set_reachable(false); // closes all connections and refuses new ones
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One thread serves all connections; it owns the model, and [`ModelServer::run`] executes closures on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use inventory_process::report;
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc as async_mpsc, watch};

use crate::ModelTime;
use crate::control::{ModelJob, RequestAction, ServerControl, StoreRequest};
use crate::faults::FaultRule;
use crate::http;
use crate::limits;
use crate::model::{ModelSettings, StoreModel};

/// A running server of the store model. Dropping the server closes all connections and ends its thread.
pub struct ModelServer {
    address: SocketAddr,
    control: Arc<ServerControl>,
    jobs: async_mpsc::UnboundedSender<ModelJob>,
    thread: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a model on a free port of the loopback interface.
    ///
    /// # Errors
    /// If no thread, port or timer is available.
    pub fn start(settings: ModelSettings) -> io::Result<Self> {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), settings)
    }

    /// Starts a model on `address`; port 0 selects a free one.
    ///
    /// # Errors
    /// If the address is in use, or no thread or timer is available.
    pub fn bind(address: SocketAddr, settings: ModelSettings) -> io::Result<Self> {
        let control = Arc::new(ServerControl::new());
        let (jobs, queued_jobs) = async_mpsc::unbounded_channel();
        let (started, result) = mpsc::channel();
        let shared = control.clone();
        let thread = std::thread::Builder::new()
            .name("store-model".to_owned())
            .spawn(move || run_thread(address, settings, shared, queued_jobs, &started))?;
        let address =
            result.recv().map_err(|_| io::Error::other("the model's thread ended at start"))??;
        Ok(Self { address, control, jobs, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`, for `AWS_ENDPOINT_URL_DYNAMODB`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs `job` on the server's thread with the model and its time, and returns the result.
    ///
    /// # Panics
    /// If the server's thread panicked.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut StoreModel, ModelTime) -> T + Send + 'static,
    ) -> T {
        let (done, result) = mpsc::channel();
        let job: ModelJob = Box::new(move |model, now| {
            // The receiver waits below.
            let _ = done.send(job(model, now));
        });
        let sent = self.jobs.send(job).is_ok();
        let result = result.recv().ok().filter(|_| sent);
        result.expect("the model's thread ended")
    }

    /// Executes a request at once, without latency, faults and rules, and returns status and body: for the
    /// setup and inspection of a test.
    pub fn execute(&self, operation: &str, body: Json) -> (u16, Json) {
        let operation = operation.to_owned();
        self.run(move |model, now| model.execute(now, &operation, &body))
    }

    /// Replaces the probabilistic faults.
    ///
    /// # Errors
    /// As [`StoreModel::set_faults`].
    pub fn set_faults(&self, faults: Vec<FaultRule>) -> Result<(), String> {
        self.run(move |model, _| model.set_faults(faults))
    }

    /// Counters since the start, as `GET /model/report` returns them.
    pub fn report(&self) -> Json {
        self.run(StoreModel::report)
    }

    /// Calls `rule` for each request that arrives from now on. It runs on the server's thread and must not
    /// block.
    pub fn set_rule(&self, rule: impl FnMut(&StoreRequest<'_>) -> RequestAction + Send + 'static) {
        self.control.replace_rule(Some(Box::new(rule)));
    }

    /// Executes every request from now on, and those that a rule holds.
    pub fn clear_rule(&self) {
        self.control.replace_rule(None);
    }

    /// `false` closes all connections and refuses new ones; `true` accepts again on the same address.
    /// Connections in the backlog of the listener are reset.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.control.reachable.send_replace(is_reachable);
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.control.stopped.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by the thread.
            let _ = thread.join();
        }
    }
}

fn run_thread(
    address: SocketAddr,
    settings: ModelSettings,
    control: Arc<ServerControl>,
    jobs: async_mpsc::UnboundedReceiver<ModelJob>,
    started: &mpsc::Sender<io::Result<SocketAddr>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let mut stopped = control.stopped.subscribe();
    let serving = async move {
        let prepared = ReservedPort::new(address).and_then(|port| {
            let handler = http::ModelHandler::new(StoreModel::new(settings), control.clone())?;
            Ok((port.listen()?, port, handler))
        });
        let (listener, port, handler) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(port.address));
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = handler.run_jobs(jobs) => {}
            () = accept(listener, &port, &handler, control.watch_reachable()) => {}
            error = handler.drive() => report(format_args!("store-model: timer: {error}")),
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, serving);
}

/// A port that stays bound, so that no other process gets it while the server is unreachable: one socket
/// never listens, and each listener shares the port with it.
struct ReservedPort {
    address: SocketAddr,
    _reservation: TcpSocket,
}

impl ReservedPort {
    fn new(address: SocketAddr) -> io::Result<Self> {
        // Without SO_REUSEPORT first: an address in use is an error.
        let probe = std::net::TcpListener::bind(address)?;
        let address = probe.local_addr()?;
        drop(probe);
        let reservation = reusable_socket(address)?;
        Ok(Self { address, _reservation: reservation })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        reusable_socket(self.address)?.listen(limits::BACKLOG)
    }
}

fn reusable_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts while the server is reachable.
async fn accept(
    mut listener: TcpListener,
    port: &ReservedPort,
    handler: &http::ModelHandler,
    mut reachable: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = reachable.wait_for(|reachable| !reachable) => {}
            () = handler.accept(&listener) => {}
        }
        drop(listener);
        if reachable.wait_for(|reachable| *reachable).await.is_err() {
            return;
        }
        listener = match port.listen() {
            Ok(listener) => listener,
            Err(error) => {
                let address = port.address;
                report(format_args!("store-model: cannot listen on {address}: {error}"));
                return;
            }
        };
    }
}
