//! A store's misbehaving network: a relay in front of an HTTP/1 endpoint that loses answers, closes
//! connections, stalls, answers by itself, and speaks TLS if told to.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What becomes of one request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Forwarded, answered.
    Pass,
    /// Forwarded; the answer is thrown away and the connection closed.
    LoseAnswer,
    /// Forwarded, answered; then the connection is closed.
    PassAndClose,
    /// Never answered; the connection stays open.
    Stall,
    /// Not forwarded; answered with this status and JSON body.
    Answer(u16, String),
}

/// Counts what happened; [`Act::Pass`] for every request without an act of its own.
#[derive(Default)]
struct State {
    acts: Mutex<VecDeque<Act>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    last: Mutex<Vec<u8>>,
    closed: AtomicUsize,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// Relays to `upstream`, behind TLS if `tls` is given. Its threads end with the process.
    pub(crate) fn start(upstream: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
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

    /// Queues an act for the next request that has none.
    pub(crate) fn next(&self, act: Act) {
        self.state.acts.lock().unwrap().push_back(act);
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Head and body of the newest request.
    pub(crate) fn last_request(&self) -> String {
        String::from_utf8(self.state.last.lock().unwrap().clone()).unwrap()
    }

    /// Connections that have ended, from either side.
    pub(crate) fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }
}

/// A port on which nothing listens, and which nobody else is given while the process lives.
pub(crate) fn dead_address() -> SocketAddr {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Bound and never listening: connecting is refused.
    std::mem::forget(socket);
    address
}

fn serve(mut client: impl Read + Write, upstream: SocketAddr, state: &State) {
    let mut server = None;
    while let Some(request) = read_message(&mut client) {
        state.requests.fetch_add(1, Ordering::SeqCst);
        state.last.lock().unwrap().clone_from(&request);
        let act = state.acts.lock().unwrap().pop_front().unwrap_or(Act::Pass);
        let answer = match &act {
            Act::Stall => {
                // Until the client gives up.
                let _ = client.read(&mut [0]);
                return;
            }
            Act::Answer(status, body) => {
                let length = body.len();
                format!("HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
            }
            Act::Pass | Act::LoseAnswer | Act::PassAndClose => {
                let server = server.get_or_insert_with(|| TcpStream::connect(upstream).unwrap());
                server.write_all(&request).unwrap();
                read_message(server).expect("the engine answers")
            }
        };
        if matches!(act, Act::LoseAnswer) || client.write_all(&answer).is_err() {
            return;
        }
        let _ = client.flush();
        if matches!(act, Act::PassAndClose) {
            return;
        }
    }
}

/// Head and body of one message whose body has a content-length or is empty.
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
