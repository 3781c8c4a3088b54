//! A network between server and store that the test commands: per request it passes, throttles,
//! hangs, delays, loses the answer, or answers by itself; and it remembers what was asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    /// Forwarded and answered, this much later.
    PassAfter(Duration),
    /// Not forwarded before the rule is changed.
    HoldRequest,
    /// Forwarded; the answer is thrown away and the connection closed.
    LoseAnswer,
    /// Forwarded; the answer waits until the rule is changed.
    HoldAnswer,
    /// Not forwarded, not answered; ends when the server gives up.
    Hang,
    /// Not forwarded; answered with this status and error code of DynamoDB.
    Fault(u16, &'static str),
}

/// Words of the store that no client may ever read.
pub(crate) const RAW_TEXT: &str = "raw words of the store";

/// One request as the store was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

type Rule = Box<dyn FnMut(&Asked) -> Act + Send>;

struct State {
    rule: Mutex<(u64, Rule)>,
    asked: Mutex<Vec<Asked>>,
    over: AtomicBool,
}

impl State {
    fn wait_for_another_rule(&self, than: u64) {
        while lock(&self.rule).0 == than {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// See the module's head. Its threads end with it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            rule: Mutex::new((0, Box::new(|_| Act::Pass))),
            asked: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = serve(client, upstream, &state);
                });
            }
        });
        Self { address, state }
    }

    /// Decides from now on what becomes of each request.
    pub(crate) fn rule(&self, rule: impl FnMut(&Asked) -> Act + Send + 'static) {
        let mut now = lock(&self.state.rule);
        *now = (now.0 + 1, Box::new(rule));
    }

    /// The same for every write (TransactWriteItems); everything else passes.
    pub(crate) fn writes(&self, act: Act) {
        self.rule(move |asked| {
            if asked.is_write() {
                act.clone()
            } else {
                Act::Pass
            }
        });
    }

    pub(crate) fn pass(&self) {
        self.rule(|_| Act::Pass);
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    pub(crate) fn writes_asked(&self) -> Vec<Asked> {
        let asked = self.asked().into_iter();
        asked.filter(Asked::is_write).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.pass();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Asked {
    pub(crate) fn is_write(&self) -> bool {
        self.operation == "TransactWriteItems"
    }

    /// The token of a write.
    pub(crate) fn token(&self) -> &str {
        self.body["ClientRequestToken"].as_str().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut client: TcpStream, upstream: SocketAddr, state: &State) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let mut server = TcpStream::connect(upstream).ok()?;
    server.set_nodelay(true).ok()?;
    loop {
        let request = Message::read(&mut client)?;
        let asked = request.asked();
        lock(&state.asked).push(asked.clone());
        let (round, act) = {
            let mut rule = lock(&state.rule);
            (rule.0, rule.1(&asked))
        };
        let forward = |server: &mut TcpStream| {
            server.write_all(&request.bytes).ok()?;
            Message::read(server)
        };
        match act {
            Act::Pass => client.write_all(&forward(&mut server)?.bytes).ok()?,
            Act::PassAfter(span) => {
                std::thread::sleep(span);
                client.write_all(&forward(&mut server)?.bytes).ok()?;
            }
            Act::LoseAnswer => {
                forward(&mut server)?;
                return None;
            }
            Act::HoldRequest => {
                state.wait_for_another_rule(round);
                client.write_all(&forward(&mut server)?.bytes).ok()?;
            }
            Act::HoldAnswer => {
                let answer = forward(&mut server)?;
                state.wait_for_another_rule(round);
                client.write_all(&answer.bytes).ok()?;
            }
            Act::Hang => {
                let _ = client.read(&mut [0]);
                return None;
            }
            Act::Fault(status, code) => client.write_all(&fault(status, code)).ok()?,
        }
    }
}

fn fault(status: u16, code: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"{RAW_TEXT}"}}"#);
    let length = body.len();
    let kind = "application/x-amz-json-1.0";
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Head and body of one HTTP/1 message whose body has a content-length or is empty.
struct Message {
    bytes: Vec<u8>,
    head: usize,
}

impl Message {
    fn read(stream: &mut impl Read) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&chunk[..count]);
            let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            let message = Self {
                bytes: std::mem::take(&mut bytes),
                head,
            };
            let length = message.header("content-length").unwrap_or("0");
            let length: usize = length.parse().ok()?;
            if message.bytes.len() >= head + 4 + length {
                return Some(message);
            }
            bytes = message.bytes;
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.bytes[..self.head]).ok()?;
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn asked(&self) -> Asked {
        let target = self.header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        Asked {
            operation: operation.to_owned(),
            body: serde_json::from_slice(&self.bytes[self.head + 4..]).unwrap_or(Value::Null),
        }
    }
}
