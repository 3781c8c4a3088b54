//! The model on a port: HTTP/1.1 with keep-alive on one thread, and a small control plane beside the
//! API.
//!
//! `GET /model/report`, `POST /model/faults` (`{"faults": [...]}` exchanges them all), `POST
//! /model/reset` (`{"tables": true}` drops the tables too).
//!
//! Must not live here: anything about DynamoDB but the header that names an operation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::Deserialize;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use crate::Micros;
use crate::faults::Fault;
use crate::limits;
use crate::model::{Model, Reply, Ticket};

const TARGET: &str = "x-amz-target";
const PREFIX: &str = "DynamoDB_20120810.";

/// How long a client may take over the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection ends here, on purpose.
#[derive(Debug, Error)]
#[error("cut by a fault")]
struct Cut;

struct Shared {
    model: RefCell<Model>,
    began: Instant,
    waiting: RefCell<HashMap<Ticket, oneshot::Sender<Reply>>>,
    /// Something may be due before what the timer is set to.
    sooner: Notify,
    /// What the timer is set to.
    set_to: Cell<Option<Micros>>,
    connections: Cell<usize>,
    requests: Cell<u64>,
}

impl Shared {
    fn now(&self) -> Micros {
        Micros::try_from(self.began.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Hands out what is due.
    fn deliver(&self) {
        let due = self.model.borrow_mut().due(self.now());
        let mut waiting = self.waiting.borrow_mut();
        for (ticket, reply) in due {
            if let Some(client) = waiting.remove(&ticket) {
                // A client that went away does not want it any more.
                let _ = client.send(reply);
            }
        }
    }

    async fn call(&self, operation: &str, body: &[u8]) -> Result<Reply, Cut> {
        let (client, reply) = oneshot::channel();
        let ticket = self.model.borrow_mut().arrive(self.now(), operation, body);
        self.waiting.borrow_mut().insert(ticket, client);
        let next = self.model.borrow().next_due();
        match (next, self.set_to.get()) {
            (Some(next), _) if next <= self.now() => self.deliver(),
            (Some(next), Some(set_to)) if next >= set_to => {}
            _ => self.sooner.notify_one(),
        }
        reply.await.map_err(|_| Cut)
    }
}

/// Serves until `stop` is ready. Runs on a current-thread runtime inside a
/// [`LocalSet`](tokio::task::LocalSet).
///
/// # Errors
/// When the timer cannot be made; a connection that breaks ends alone.
pub async fn serve(
    listener: TcpListener,
    model: Model,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let shared = Rc::new(Shared {
        model: RefCell::new(model),
        began: Instant::now(),
        waiting: RefCell::new(HashMap::new()),
        sooner: Notify::new(),
        set_to: Cell::new(None),
        connections: Cell::new(0),
        requests: Cell::new(0),
    });
    let timer = Timer::new()?;
    tokio::select! {
        () = stop => Ok(()),
        () = accept(listener, shared.clone()) => Ok(()),
        error = drive(timer, &shared) => error,
    }
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    loop {
        // Refused ones, and a lack of descriptors, pass.
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if shared.connections.get() >= limits::CONNECTIONS_MAX {
            continue;
        }
        let _ = socket.set_nodelay(true);
        shared.connections.set(shared.connections.get() + 1);
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let handler = Handler(shared.clone());
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(socket), handler);
            // Its end, whatever the reason, is its client's affair.
            let _ = serving.await;
            shared.connections.set(shared.connections.get() - 1);
        });
    }
}

/// Wakes when something is due.
async fn drive(timer: Timer, shared: &Shared) -> io::Result<()> {
    loop {
        shared.deliver();
        let next = shared.model.borrow().next_due();
        shared.set_to.set(next);
        match next {
            None => shared.sooner.notified().await,
            Some(next) => {
                let wait = next.saturating_sub(shared.now());
                if wait > 0 {
                    timer.set(wait)?;
                    tokio::select! {
                        fired = timer.fired() => fired?,
                        () = shared.sooner.notified() => {}
                    }
                }
            }
        }
    }
}

/// Linux's own timer: exact to some microseconds, where the runtime's rounds up to a millisecond.
struct Timer(AsyncFd<rustix::fd::OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on, and an OwnedFd names the same
        // open descriptor until it is dropped, which happens only after it was deregistered.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered?))
    }

    fn set(&self, wait: Micros) -> io::Result<()> {
        let nanos = |micros: Micros| i64::try_from(micros * 1_000).unwrap_or(0);
        let value = Timespec {
            tv_sec: i64::try_from(wait / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: nanos(wait % 1_000_000),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    async fn fired(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => {}
            // Set anew in between: nothing to read, and the next time is told again.
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear_ready();
        Ok(())
    }
}

struct Handler(Rc<Shared>);

type Answer = Response<Full<Bytes>>;

impl Service<Request<Incoming>> for Handler {
    type Response = Answer;
    type Error = Cut;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Cut>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { answer(&shared, request).await })
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let max = match head.uri.path() {
        "/" => limits::BODY_BYTES_MAX,
        _ => limits::CONTROL_BYTES_MAX,
    };
    let Ok(body) = Limited::new(body, max).collect().await else {
        let text = format!("the body is broken, or longer than {max} bytes");
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, text));
    };
    let body = body.to_bytes();
    if head.uri.path() != "/" || head.method != Method::POST {
        return Ok(control(shared, &head.method, head.uri.path(), &body));
    }
    let target = head
        .headers
        .get(TARGET)
        .and_then(|value| value.to_str().ok());
    let operation = target
        .and_then(|target| target.strip_prefix(PREFIX))
        .unwrap_or("");
    let reply = shared.call(operation, &body).await?;
    let Reply::Answer { status, body } = reply else {
        return Err(Cut);
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-amz-json-1.0"),
    );
    let number = shared.requests.get() + 1;
    shared.requests.set(number);
    if let Ok(id) = HeaderValue::from_str(&format!("MODEL{number:021}")) {
        headers.insert("x-amzn-requestid", id);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    faults: Vec<Fault>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    #[serde(default)]
    tables: bool,
}

fn control(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Answer {
    let mut model = shared.model.borrow_mut();
    match (method, path) {
        (&Method::GET, "/model/report") => json(&model.report(shared.now())),
        (&Method::POST, "/model/faults") => {
            let read = serde_json::from_slice(body).map_err(|why| why.to_string());
            match read.and_then(|Faults { faults }| model.set_faults(faults)) {
                Ok(()) => json(&serde_json::json!({ "ok": true })),
                Err(why) => plain(StatusCode::BAD_REQUEST, format!("faults: {why}")),
            }
        }
        (&Method::POST, "/model/reset") => {
            let read = match body.is_empty() {
                true => Ok(Reset::default()),
                false => serde_json::from_slice(body),
            };
            match read {
                Ok(Reset { tables }) => {
                    model.reset(shared.now(), tables);
                    json(&serde_json::json!({ "ok": true }))
                }
                Err(why) => plain(StatusCode::BAD_REQUEST, format!("reset: {why}")),
            }
        }
        (method, path) => plain(
            StatusCode::NOT_FOUND,
            format!(
                "{method} {path}: want POST / with x-amz-target, GET /model/report, POST /model/faults or \
                 POST /model/reset"
            ),
        ),
    }
}

fn json(value: &serde_json::Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value:#}\n"))));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, mut text: String) -> Answer {
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
