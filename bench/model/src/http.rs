//! HTTP/1.1 in front of the model: keep-alive on one thread, and a control plane beside the API.
//!
//! `GET /model/report`, `POST /model/faults` (`{"faults": [...]}` replaces all of them), `POST /model/reset`
//! (`{"tables": true}` also drops the tables).
//!
//! Not here: anything about DynamoDB except the header that names an operation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::ModelTime;
use crate::control::{ModelJob, RequestAction, ServerControl, StoreRequest};
use crate::faults::FaultRule;
use crate::limits;
use crate::model::{ModelReply, StoreModel, Ticket};
use crate::timer::TimerFd;

const TARGET: &str = "x-amz-target";
const PREFIX: &str = "DynamoDB_20120810.";

/// Time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Ends the connection without a response.
#[derive(Debug, Error)]
#[error("connection closed by a fault")]
pub(crate) struct ConnectionClosed;

/// Serves connections. Clones share the model.
#[derive(Clone)]
pub(crate) struct ModelHandler(Rc<ServedModel>);

struct ServedModel {
    model: RefCell<StoreModel>,
    control: Arc<ServerControl>,
    timer: TimerFd,
    began: Instant,
    waiting: RefCell<HashMap<Ticket, oneshot::Sender<ModelReply>>>,
    /// A reply may be due before the timer fires.
    earlier: Notify,
    /// When the timer fires.
    timer_due: Cell<Option<ModelTime>>,
    connections: Cell<usize>,
    requests: Cell<u64>,
}

impl ServedModel {
    fn now(&self) -> ModelTime {
        ModelTime::try_from(self.began.elapsed().as_micros()).unwrap_or(ModelTime::MAX)
    }

    /// Sends the replies that are due.
    fn deliver(&self) {
        let due = self.model.borrow_mut().due(self.now());
        let mut waiting = self.waiting.borrow_mut();
        for (ticket, reply) in due {
            if let Some(client) = waiting.remove(&ticket) {
                // The client may have disconnected.
                let _ = client.send(reply);
            }
        }
    }

    async fn call(&self, operation: &str, body: &[u8]) -> Result<ModelReply, ConnectionClosed> {
        let (client, reply) = oneshot::channel();
        let ticket = self.model.borrow_mut().arrive(self.now(), operation, body);
        self.waiting.borrow_mut().insert(ticket, client);
        let next = self.model.borrow().next_due();
        match (next, self.timer_due.get()) {
            (Some(next), _) if next <= self.now() => self.deliver(),
            (Some(next), Some(timer_due)) if next >= timer_due => {}
            _ => self.earlier.notify_one(),
        }
        reply.await.map_err(|_| ConnectionClosed)
    }
}

impl ModelHandler {
    /// # Errors
    /// If the timer cannot be created.
    pub(crate) fn new(model: StoreModel, control: Arc<ServerControl>) -> io::Result<Self> {
        Ok(Self(Rc::new(ServedModel {
            model: RefCell::new(model),
            control,
            timer: TimerFd::new()?,
            began: Instant::now(),
            waiting: RefCell::new(HashMap::new()),
            earlier: Notify::new(),
            timer_due: Cell::new(None),
            connections: Cell::new(0),
            requests: Cell::new(0),
        })))
    }

    /// Accepts connections and serves each on a task of the current `LocalSet`.
    pub(crate) async fn accept(&self, listener: &TcpListener) {
        loop {
            // Aborted connections and a lack of file descriptors are transient.
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let shared = &self.0;
            if shared.connections.get() >= limits::CONNECTIONS_MAX {
                continue;
            }
            let _ = socket.set_nodelay(true);
            shared.connections.set(shared.connections.get() + 1);
            let handler = self.clone();
            tokio::task::spawn_local(async move {
                let mut reachable = handler.0.control.watch_reachable();
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(socket), handler.clone());
                tokio::select! {
                    // First: requests sent after `set_reachable(false)` must not be served.
                    biased;
                    _ = reachable.wait_for(|reachable| !reachable) => {}
                    // However a connection ends, only its client is concerned.
                    _ = serving => {}
                }
                let connections = &handler.0.connections;
                connections.set(connections.get() - 1);
            });
        }
    }

    /// Runs jobs on the model until their sender is dropped.
    pub(crate) async fn run_jobs(&self, mut jobs: mpsc::UnboundedReceiver<ModelJob>) {
        while let Some(job) = jobs.recv().await {
            let now = self.0.now();
            job(&mut self.0.model.borrow_mut(), now);
        }
    }

    /// Delivers replies when they are due. Returns only if the timer fails.
    pub(crate) async fn drive(&self) -> io::Error {
        let shared = &self.0;
        loop {
            shared.deliver();
            let next = shared.model.borrow().next_due();
            shared.timer_due.set(next);
            match next {
                None => shared.earlier.notified().await,
                Some(next) => {
                    let wait = next.saturating_sub(shared.now());
                    if wait > 0 {
                        tokio::select! {
                            fired = shared.timer.wait(wait) => if let Err(error) = fired {
                                return error;
                            },
                            () = shared.earlier.notified() => {}
                        }
                    }
                }
            }
        }
    }
}

type HttpResponse = Response<Full<Bytes>>;

impl Service<Request<Incoming>> for ModelHandler {
    type Response = HttpResponse;
    type Error = ConnectionClosed;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, ConnectionClosed>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { respond(&shared, request).await })
    }
}

async fn respond(
    shared: &ServedModel,
    request: Request<Incoming>,
) -> Result<HttpResponse, ConnectionClosed> {
    let (head, body) = request.into_parts();
    let max = match head.uri.path() {
        "/" => limits::BODY_BYTES_MAX,
        _ => limits::CONTROL_BYTES_MAX,
    };
    let Ok(body) = Limited::new(body, max).collect().await else {
        let text = format!("the body is incomplete or exceeds {max} bytes");
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, text));
    };
    let body = body.to_bytes();
    if head.uri.path() != "/" || head.method != Method::POST {
        return Ok(control(shared, &head.method, head.uri.path(), &body));
    }
    let target = head.headers.get(TARGET).and_then(|value| value.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix(PREFIX)).unwrap_or("");
    let request = StoreRequest { operation, body: &body };
    let (action, mut next_rule) = shared.control.decide(&request);
    match &action {
        RequestAction::Execute | RequestAction::HoldResponse | RequestAction::DropResponse => {}
        RequestAction::ExecuteAfter(delay) => tokio::time::sleep(*delay).await,
        RequestAction::HoldRequest => next_rule.changed().await.map_err(|_| ConnectionClosed)?,
        RequestAction::Hang => pending().await,
        RequestAction::DropRequest => return Err(ConnectionClosed),
        RequestAction::Respond { status, body } => {
            return Ok(shared.response(*status, body.clone().into_bytes()));
        }
    }
    let reply = shared.call(operation, &body).await?;
    match action {
        RequestAction::HoldResponse => next_rule.changed().await.map_err(|_| ConnectionClosed)?,
        RequestAction::DropResponse => return Err(ConnectionClosed),
        _ => {}
    }
    match reply {
        ModelReply::Response { status, body } => Ok(shared.response(status, body)),
        ModelReply::Closed => Err(ConnectionClosed),
    }
}

impl ServedModel {
    fn response(&self, status: u16, body: Vec<u8>) -> HttpResponse {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
        let number = self.requests.get() + 1;
        self.requests.set(number);
        if let Ok(id) = HeaderValue::from_str(&format!("MODEL{number:021}")) {
            headers.insert("x-amzn-requestid", id);
        }
        response
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsBody {
    faults: Vec<FaultRule>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    #[serde(default)]
    tables: bool,
}

fn control(shared: &ServedModel, method: &Method, path: &str, body: &[u8]) -> HttpResponse {
    let mut model = shared.model.borrow_mut();
    match (method, path) {
        (&Method::GET, "/model/report") => json(&model.report(shared.now())),
        (&Method::POST, "/model/faults") => {
            let read = serde_json::from_slice(body).map_err(|why| why.to_string());
            match read.and_then(|FaultsBody { faults }| model.set_faults(faults)) {
                Ok(()) => json(&serde_json::json!({ "ok": true })),
                Err(why) => plain(StatusCode::BAD_REQUEST, format!("faults: {why}")),
            }
        }
        (&Method::POST, "/model/reset") => {
            let read = match body.is_empty() {
                true => Ok(ResetBody::default()),
                false => serde_json::from_slice(body),
            };
            match read {
                Ok(ResetBody { tables }) => {
                    model.reset(shared.now(), tables);
                    json(&serde_json::json!({ "ok": true }))
                }
                Err(why) => plain(StatusCode::BAD_REQUEST, format!("reset: {why}")),
            }
        }
        (method, path) => plain(
            StatusCode::NOT_FOUND,
            format!(
                "{method} {path}: not found; must be POST / with x-amz-target, GET /model/report, POST /model/faults \
                 or POST /model/reset"
            ),
        ),
    }
}

fn json(value: &serde_json::Value) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value:#}\n"))));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, mut text: String) -> HttpResponse {
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
