//! A proxy before a real store, for what the DynamoDB model does not simulate: connections that close while idle, TLS,
//! canned answers, the exact bytes of a request. It counts connections and requests.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the proxy does with one request.
#[derive(Clone, Debug)]
pub(crate) enum ProxyAction {
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
    actions: Mutex<VecDeque<ProxyAction>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    last: Mutex<Vec<u8>>,
    closed: AtomicUsize,
}

/// A proxy before a real store. It counts connections and requests.
pub(crate) struct StoreProxy {
    pub(crate) address: SocketAddr,
    state: Arc<ProxyState>,
}

impl StoreProxy {
    /// Forwards to `upstream`, with TLS to the client if `tls` is given. The threads end with the process.
    pub(crate) fn start(upstream: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream, tls)
    }

    /// [`StoreProxy::start`] on this address: a store that was away.
    pub(crate) fn start_at(
        address: SocketAddr,
        upstream: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                client.set_nodelay(true).unwrap();
                let (state, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || {
                    match tls {
                        None => serve(client, upstream, &state),
                        Some(config) => {
                            let session = ServerConnection::new(config).unwrap();
                            serve(StreamOwned::new(session, client), upstream, &state);
                        }
                    }
                    state.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, state }
    }

    /// Queues an action for the next request without one. Requests without an action are forwarded.
    pub(crate) fn next(&self, action: ProxyAction) {
        self.state.actions.lock().unwrap().push_back(action);
    }

    /// Number of connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Number of requests received.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Head and body of the newest request.
    pub(crate) fn last_request(&self) -> String {
        String::from_utf8(self.state.last.lock().unwrap().clone()).unwrap()
    }

    /// Number of connections that either side has closed.
    pub(crate) fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }
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
                read_message(server).expect("no answer from the engine")
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
