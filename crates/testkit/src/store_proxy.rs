//! A proxy before a real store, for what the DynamoDB model does not simulate: connections that close while idle, TLS,
//! canned answers, the exact bytes of a request. It counts connections and requests.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the proxy does with one request.
#[derive(Clone, Debug)]
pub enum ProxyAction {
    /// Forwards request and answer.
    Pass,
    /// Forwards the request, discards the answer and closes the connection.
    LoseAnswer,
    /// Forwards request and answer, then closes the connection.
    PassAndClose,
    /// Neither forwards nor answers; the connection stays open.
    Stall,
    /// Answers with this status and JSON body, without forwarding.
    Answer(u16, String),
}

#[derive(Default)]
struct ProxyState {
    /// Connections are refused.
    is_away: AtomicBool,
    /// Seconds by which the dates of answers are ahead.
    ahead: AtomicI64,
    /// The open connections, without TLS.
    clients: Mutex<Vec<TcpStream>>,
    actions: Mutex<VecDeque<ProxyAction>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    last: Mutex<Vec<u8>>,
    closed: AtomicUsize,
}

/// A proxy before a real store. It counts connections and requests.
pub struct StoreProxy {
    pub address: SocketAddr,
    upstream: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<ProxyState>,
}

impl StoreProxy {
    /// Forwards to `upstream`, with TLS to the client if `tls` is given. The threads end with the process.
    pub fn start(upstream: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream, tls)
    }

    /// [`StoreProxy::start`] on this address: a store that was away.
    pub fn start_at(
        address: SocketAddr,
        upstream: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState::default());
        accept(listener, upstream, tls.clone(), state.clone());
        Self { address, upstream, tls, state }
    }

    /// Refuses connections from now on, and closes those that are open.
    pub fn go_away(&self) {
        self.state.is_away.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then closes the listener.
        while TcpStream::connect(self.address).is_ok() {}
        for client in self.state.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again, on the same address.
    pub fn come_back(&self) {
        self.state.is_away.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(self.address).unwrap();
        accept(listener, self.upstream, self.tls.clone(), self.state.clone());
    }

    /// Shifts the dates of all answers by `seconds`.
    pub fn shift_dates(&self, seconds: i64) {
        self.state.ahead.store(seconds, Ordering::SeqCst);
    }

    /// Queues an action for the next request without one. Requests without an action are forwarded.
    pub fn next(&self, action: ProxyAction) {
        self.state.actions.lock().unwrap().push_back(action);
    }

    /// Number of connections accepted.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Number of requests received.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Head and body of the newest request.
    pub fn last_request(&self) -> String {
        String::from_utf8(self.state.last.lock().unwrap().clone()).unwrap()
    }

    /// Number of connections that either side has closed.
    pub fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }
}

fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<ProxyState>,
) {
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if state.is_away.load(Ordering::SeqCst) {
                return;
            }
            state.connections.fetch_add(1, Ordering::SeqCst);
            client.set_nodelay(true).unwrap();
            let connection = client.try_clone().unwrap();
            state.clients.lock().unwrap().extend(client.try_clone());
            let (state, tls) = (state.clone(), tls.clone());
            std::thread::spawn(move || {
                match tls {
                    None => serve(client, upstream, &state),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(session, client), upstream, &state);
                    }
                }
                // The clones of the socket keep the connection open.
                let _ = connection.shutdown(Shutdown::Both);
                state.closed.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
}

/// The answer with its date shifted by `seconds`.
fn shift_date(answer: Vec<u8>, seconds: i64) -> Vec<u8> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let mut head = String::new();
    for line in std::str::from_utf8(&answer[..end]).unwrap().lines() {
        if !line.to_ascii_lowercase().starts_with("date:") {
            head += line;
            head += "\r\n";
        }
    }
    let now = std::time::SystemTime::now();
    let span = std::time::Duration::from_secs(seconds.unsigned_abs());
    let date = if seconds < 0 { now - span } else { now + span };
    head += &format!("date: {}\r\n", httpdate::fmt_http_date(date));
    [head.as_bytes(), &answer[end + 2..]].concat()
}

fn serve(mut client: impl Read + Write, upstream: SocketAddr, state: &ProxyState) {
    let mut server = None;
    while let Some(request) = read_message(&mut client) {
        state.requests.fetch_add(1, Ordering::SeqCst);
        state.last.lock().unwrap().clone_from(&request);
        let action = state.actions.lock().unwrap().pop_front().unwrap_or(ProxyAction::Pass);
        let answer = match &action {
            ProxyAction::Stall => {
                // Returns when the client closes the connection.
                let _ = client.read(&mut [0]);
                return;
            }
            ProxyAction::Answer(status, body) => {
                let length = body.len();
                format!("HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
            }
            ProxyAction::Pass | ProxyAction::LoseAnswer | ProxyAction::PassAndClose => {
                let server = server.get_or_insert_with(|| TcpStream::connect(upstream).unwrap());
                server.write_all(&request).unwrap();
                let answer = read_message(server).expect("no answer from the engine");
                match state.ahead.load(Ordering::SeqCst) {
                    0 => answer,
                    seconds => shift_date(answer, seconds),
                }
            }
        };
        if matches!(action, ProxyAction::LoseAnswer) || client.write_all(&answer).is_err() {
            return;
        }
        let _ = client.flush();
        if matches!(action, ProxyAction::PassAndClose) {
            return;
        }
    }
}

/// Head and body of one HTTP/1 message with a content-length, or without a body.
fn read_message(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        message.extend_from_slice(&chunk[..count]);
        let Some(end) = message.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&message[..end]).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().unwrap())
        });
        if message.len() >= end + 4 + length.unwrap_or(0) {
            return Some(message);
        }
    }
}
