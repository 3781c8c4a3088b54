//! Traffic of hostile clients: what each one sends, and the thread that sends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use inventory_client::{ClientTls, HttpVersion, connect_stream};
use inventory_testkit::http2::{
    CHECK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, encode, frame,
    header_block,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::{is_pinned, util_linux};
use crate::client::check;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const CONTINUATION: u8 = 9;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// Frames of one chunk of a flood.
const FRAMES_PER_CHUNK: u32 = 100;

/// Pause between the bytes of a slow client: longer than the server takes for a call, far shorter than its timeouts.
const DRIP_PAUSE: Duration = Duration::from_millis(20);

/// What a hostile client does on each of its connections.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) connections: usize,
    /// Whether the client reads what the server sends.
    reads: bool,
    /// Sent first: without TLS after the preface and SETTINGS.
    opening: fn() -> Vec<u8>,
    then: Traffic,
    /// Whether the server must end these connections, or must keep them.
    pub(super) is_ended: Option<bool>,
}

enum Traffic {
    /// The bytes of each chunk by its number, as fast as the server reads them.
    Flood(fn(u32) -> Vec<u8>),
    /// As `Flood`, one byte at a time with pauses.
    Drip(fn(u32) -> Vec<u8>),
    /// Nothing: the connection stays open.
    Hold,
    /// Complete TLS handshakes, one connection after the other.
    TlsHandshakes,
    /// The first message of a TLS handshake; the connection is closed when the server, which has computed its answer, sends it.
    TlsAbandoned,
    /// Half of the first message of a TLS handshake, or all of it by turns; then nothing.
    TlsHalfOpen,
}

impl Attack {
    /// Whether the server of this attack has TLS.
    pub(super) fn is_on_tls(&self) -> bool {
        matches!(self.then, Traffic::TlsHandshakes | Traffic::TlsAbandoned | Traffic::TlsHalfOpen)
    }
}

/// The attacks of the suite.
pub(super) const ATTACKS: [Attack; 16] = [
    Attack {
        name: "rapid reset",
        connections: 1,
        reads: true,
        opening: Vec::new,
        then: Traffic::Flood(cancelled_calls),
        is_ended: Some(true),
    },
    Attack {
        name: "CONTINUATION without end",
        connections: 1,
        reads: true,
        opening: || frame(HEADERS, 0, 1, &header_block(CHECK, &[])),
        then: Traffic::Flood(|_| repeat(&frame(CONTINUATION, 0, 1, b"\0\x01a\x01b"))),
        is_ended: Some(true),
    },
    Attack {
        name: "PING flood",
        connections: 2,
        reads: true,
        opening: Vec::new,
        then: Traffic::Flood(|_| repeat(&frame(PING, 0, 0, b"eight by"))),
        is_ended: None,
    },
    Attack {
        name: "PING flood, answers not read",
        connections: 2,
        reads: false,
        opening: Vec::new,
        then: Traffic::Flood(|_| repeat(&frame(PING, 0, 0, b"eight by"))),
        is_ended: None,
    },
    Attack {
        name: "SETTINGS flood",
        connections: 2,
        reads: true,
        opening: Vec::new,
        then: Traffic::Flood(|_| repeat(&frame(SETTINGS, 0, 0, &[]))),
        is_ended: None,
    },
    Attack {
        name: "header compression bomb",
        connections: 1,
        reads: true,
        opening: Vec::new,
        then: Traffic::Flood(compression_bomb),
        is_ended: None,
    },
    Attack {
        name: "empty DATA frames",
        connections: 1,
        reads: true,
        opening: || frame(HEADERS, END_HEADERS, 1, &header_block(CHECK, &[])),
        then: Traffic::Flood(|_| repeat(&frame(DATA, 0, 1, &[]))),
        is_ended: Some(true),
    },
    Attack {
        name: "slow headers",
        connections: 100,
        reads: true,
        opening: Vec::new,
        then: Traffic::Drip(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &header_block(CHECK, &[]))),
        is_ended: None,
    },
    Attack {
        name: "closed windows",
        connections: 20,
        reads: true,
        // SETTINGS_INITIAL_WINDOW_SIZE 0: no answer may be sent.
        opening: || [frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0"), calls(0, 500)].concat(),
        then: Traffic::Hold,
        is_ended: Some(false),
    },
    Attack {
        name: "answers not read",
        connections: 4,
        reads: false,
        opening: Vec::new,
        then: Traffic::Flood(|n| calls(n * FRAMES_PER_CHUNK, FRAMES_PER_CHUNK)),
        is_ended: None,
    },
    Attack {
        name: "garbage",
        connections: 4,
        reads: true,
        opening: Vec::new,
        then: Traffic::Flood(garbage),
        is_ended: Some(true),
    },
    Attack {
        name: "2,000 idle connections",
        connections: 2_000,
        reads: true,
        opening: Vec::new,
        then: Traffic::Hold,
        is_ended: Some(false),
    },
    Attack {
        name: "300 Watch streams",
        connections: 1,
        reads: true,
        opening: watches,
        then: Traffic::Hold,
        is_ended: Some(false),
    },
    Attack {
        name: "TLS handshakes",
        connections: 16,
        reads: true,
        opening: Vec::new,
        then: Traffic::TlsHandshakes,
        is_ended: None,
    },
    Attack {
        name: "TLS handshakes, abandoned",
        connections: 64,
        reads: true,
        opening: Vec::new,
        then: Traffic::TlsAbandoned,
        is_ended: None,
    },
    Attack {
        name: "half-open TLS",
        // More than two shards keep: the server closes the oldest ones, and the client opens new ones.
        connections: 2_400,
        reads: true,
        opening: Vec::new,
        then: Traffic::TlsHalfOpen,
        is_ended: None,
    },
];

fn repeat(bytes: &[u8]) -> Vec<u8> {
    bytes.repeat(FRAMES_PER_CHUNK as usize)
}

/// Frames of complete calls on the streams from number `first` on.
fn calls(first: u32, count: u32) -> Vec<u8> {
    let (block, message) = (header_block(CHECK, &[]), encode(&check("evt_hostile", 1)));
    let call = |n: u32| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, &message)]
    };
    (first..first + count).flat_map(call).flatten().collect()
}

fn cancelled_calls(chunk: u32) -> Vec<u8> {
    let block = header_block(CHECK, &[]);
    let call = |n: u32| {
        let stream = 2 * (chunk * FRAMES_PER_CHUNK + n) + 1;
        [frame(HEADERS, END_HEADERS, stream, &block), frame(RST_STREAM, 0, stream, &CANCEL)]
    };
    (0..FRAMES_PER_CHUNK).flat_map(call).flatten().collect()
}

/// A header of almost 4 KiB goes into the compression table and is named 8,000 times: 12 KB stand for 31 MB.
fn compression_bomb(chunk: u32) -> Vec<u8> {
    const VALUE_BYTES: u16 = 3_900;
    let mut block = header_block(CHECK, &[]);
    // A literal that is added to the table (RFC 7541, 6.2.1); its length is an integer of a 7-bit prefix (5.1).
    block.extend(b"\x40\x01x\x7f");
    let rest = VALUE_BYTES - 127;
    block.extend([u8::try_from(rest % 128).unwrap() | 128, u8::try_from(rest / 128).unwrap()]);
    block.extend(vec![b'v'; usize::from(VALUE_BYTES)]);
    // Entry 62 is the newest one.
    block.extend([0x80 | 62].repeat(8_000));
    frame(HEADERS, END_HEADERS | END_STREAM, 2 * chunk + 1, &block)
}

/// Bytes that look random and are the same in every run.
fn garbage(chunk: u32) -> Vec<u8> {
    let mut state = u64::from(chunk) + 1;
    let next = || {
        // Knuth's MMIX generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(1_024).collect()
}

fn watches() -> Vec<u8> {
    let block = header_block(WATCH, &[]);
    let watch = |n: u32| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, &[0; 5])]
    };
    (0..300).flat_map(watch).flatten().collect()
}

/// What the attackers did so far.
#[derive(Default)]
pub(super) struct AttackStats {
    pub(super) opened: AtomicUsize,
    /// Connections that the server ended.
    pub(super) ended: AtomicUsize,
    pub(super) bytes: AtomicU64,
}

/// Where an attack goes.
#[derive(Clone)]
pub(super) struct AttackTarget {
    pub(super) address: String,
    pub(super) tls: Option<AttackTls>,
}

/// What a client that attacks TLS has.
#[derive(Clone)]
pub(super) struct AttackTls {
    pub(super) client: ClientTls,
    /// The first message of a handshake.
    pub(super) hello: Vec<u8>,
}

/// A running attack, in a thread of its own: its work is not part of the measured latency.
pub(super) struct RunningAttack {
    pub(super) stats: Arc<AttackStats>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl RunningAttack {
    pub(super) fn start(attack: &'static Attack, target: AttackTarget) -> Self {
        let stats = Arc::new(AttackStats::default());
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&stats);
        let thread = std::thread::spawn(move || {
            if is_pinned() {
                let thread = std::fs::read_link("/proc/thread-self").unwrap();
                let thread = thread.file_name().unwrap().to_str().unwrap().to_owned();
                util_linux("chrt", &["--idle", "--pid", "0", &thread]);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let connections = (0..attack.connections).map(|_| {
                    tokio::spawn(keep_attacking(
                        attack,
                        target.clone(),
                        Arc::clone(&shared),
                        stopped.clone(),
                    ))
                });
                for connection in connections.collect::<Vec<_>>() {
                    connection.await.unwrap();
                }
            });
        });
        Self { stats, stop, thread }
    }

    /// Ends all connections.
    pub(super) fn stop(self) -> Arc<AttackStats> {
        self.stop.send(true).unwrap();
        self.thread.join().unwrap();
        self.stats
    }
}

/// Opens a connection after the other until the attack is stopped.
async fn keep_attacking(
    attack: &'static Attack,
    target: AttackTarget,
    stats: Arc<AttackStats>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = attack_once(attack, &target, &stats) => {
                stats.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One connection; returns when the server ends it.
async fn attack_once(attack: &Attack, target: &AttackTarget, stats: &AttackStats) {
    if let Some(tls) = &target.tls {
        return attack_tls_once(attack, &target.address, tls, stats).await;
    }
    let Ok(stream) = TcpStream::connect(&target.address).await else {
        return tokio::task::yield_now().await;
    };
    stats.opened.fetch_add(1, Ordering::Relaxed);
    let (reading, writing) = stream.into_split();
    tokio::select! {
        () = read_to_end(reading, attack.reads) => {}
        _ = write(writing, attack, stats) => {}
    }
}

async fn read_to_end(mut reading: OwnedReadHalf, reads: bool) {
    let mut buffer = [0; 16 * 1024];
    if !reads {
        return std::future::pending().await;
    }
    while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

async fn write(
    mut to: OwnedWriteHalf,
    attack: &Attack,
    stats: &AttackStats,
) -> std::io::Result<()> {
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &(attack.opening)()].concat();
    let mut send = async |bytes: &[u8]| {
        to.write_all(bytes).await?;
        stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // The other connections of this thread run, too.
        tokio::task::yield_now().await;
        Ok::<(), std::io::Error>(())
    };
    match &attack.then {
        Traffic::Flood(chunk) => {
            send(&opening).await?;
            for n in 0.. {
                send(&chunk(n)).await?;
            }
            Ok(())
        }
        Traffic::Drip(chunk) => {
            let later = (0..).flat_map(chunk);
            for byte in opening.into_iter().chain(later) {
                send(&[byte]).await?;
                tokio::time::sleep(DRIP_PAUSE).await;
            }
            Ok(())
        }
        Traffic::Hold => {
            send(&opening).await?;
            std::future::pending().await
        }
        Traffic::TlsHandshakes | Traffic::TlsAbandoned | Traffic::TlsHalfOpen => Ok(()),
    }
}

/// One connection to a port with TLS; returns when either side ends it.
async fn attack_tls_once(attack: &Attack, address: &str, tls: &AttackTls, stats: &AttackStats) {
    let number = stats.opened.fetch_add(1, Ordering::Relaxed);
    if matches!(attack.then, Traffic::TlsHandshakes) {
        let url = format!("https://{address}").parse().unwrap();
        let connected = connect_stream(&url, Some(&tls.client), HttpVersion::Http2).await;
        stats.bytes.fetch_add(tls.hello.len() as u64, Ordering::Relaxed);
        drop(connected);
        return;
    }
    let sent = match attack.then {
        Traffic::TlsHalfOpen if number.is_multiple_of(2) => &tls.hello[..tls.hello.len() / 2],
        _ => &tls.hello[..],
    };
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return tokio::task::yield_now().await;
    };
    if stream.write_all(sent).await.is_err() {
        return;
    }
    stats.bytes.fetch_add(sent.len() as u64, Ordering::Relaxed);
    let mut buffer = [0; 16 * 1024];
    let first = stream.read(&mut buffer).await;
    if matches!(attack.then, Traffic::TlsHalfOpen) && first.is_ok_and(|count| count > 0) {
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}
