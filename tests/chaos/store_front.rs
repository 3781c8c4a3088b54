//! What stands between one server and the store: an HTTP proxy that cuts connections, swallows, delays and truncates
//! answers, or plays a store that is away. And a relay between the clients and one server that cuts their connections.
//!
//! An answer is swallowed, delayed or truncated after the store has executed the request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::HttpMessage;

/// What the front does with requests and answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FrontMode {
    Pass,
    /// Closes connections before anything is read.
    Refuse,
    /// Reads requests; neither forwards nor answers.
    Hang,
    /// Closes the connection instead of answering, with this probability.
    Swallow(f64),
    /// Delays each answer, by at most this.
    Delay(Duration),
    /// Cuts an answer in half, with this probability.
    Truncate(f64),
}

struct FrontState {
    upstream: Arc<Mutex<SocketAddr>>,
    mode: Mutex<FrontMode>,
    draws: Mutex<SmallRng>,
    /// Counts cuts. A connection ends at the next one.
    cuts: watch::Sender<u64>,
    /// Answers and connections that a fault has hit.
    affected: AtomicU64,
}

/// The proxy before the store, for one server.
pub(crate) struct StoreFront {
    pub(crate) address: SocketAddr,
    state: Arc<FrontState>,
    accepting: JoinHandle<()>,
}

impl StoreFront {
    /// Forwards to `upstream`, which may change.
    pub(crate) async fn start(upstream: Arc<Mutex<SocketAddr>>, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(FrontState {
            upstream,
            mode: Mutex::new(FrontMode::Pass),
            draws: Mutex::new(SmallRng::seed_from_u64(seed)),
            cuts: watch::Sender::new(0),
            affected: AtomicU64::new(0),
        });
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, mut cuts) = (shared.clone(), shared.cuts.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cuts.changed() => { state.affected.fetch_add(1, Ordering::Relaxed); }
                        _ = state.serve(client) => {}
                    }
                });
            }
        });
        Self { address, state, accepting }
    }

    pub(crate) fn set_mode(&self, mode: FrontMode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// Closes all connections to the server and to the store.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Answers and connections hit so far.
    pub(crate) fn affected(&self) -> u64 {
        self.state.affected.load(Ordering::Relaxed)
    }
}

impl Drop for StoreFront {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl FrontState {
    fn mode(&self) -> FrontMode {
        *self.mode.lock().unwrap()
    }

    fn draw(&self, probability: f64) -> bool {
        let is_drawn = self.draws.lock().unwrap().random_bool(probability);
        self.affected.fetch_add(u64::from(is_drawn), Ordering::Relaxed);
        is_drawn
    }

    /// Serves one connection until either side closes it.
    async fn serve(&self, mut client: TcpStream) -> Option<()> {
        client.set_nodelay(true).ok()?;
        let mut store = None;
        loop {
            if self.mode() == FrontMode::Refuse {
                self.affected.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            let request = HttpMessage::read(&mut client).await?;
            match self.mode() {
                FrontMode::Refuse => return None,
                FrontMode::Hang => {
                    self.affected.fetch_add(1, Ordering::Relaxed);
                    // Returns when the server gives up.
                    let _ = client.read(&mut [0]).await;
                    return None;
                }
                _ => {}
            }
            let answer = self.forward(&mut store, &request).await?;
            // The mode of the time at which the answer arrives: requests in flight are hit too.
            match self.mode() {
                FrontMode::Swallow(probability) if self.draw(probability) => return None,
                FrontMode::Truncate(probability) if self.draw(probability) => {
                    if self.draws.lock().unwrap().random() {
                        client.write_all(answer.cut_off()).await.ok()?;
                        return None;
                    }
                    client.write_all(&answer.with_half_body()).await.ok()?;
                }
                mode => {
                    if let FrontMode::Delay(longest) = mode {
                        self.affected.fetch_add(1, Ordering::Relaxed);
                        let share: f64 = self.draws.lock().unwrap().random();
                        tokio::time::sleep(longest.mul_f64(share)).await;
                    }
                    client.write_all(&answer.bytes).await.ok()?;
                }
            }
        }
    }

    async fn forward(
        &self,
        store: &mut Option<TcpStream>,
        request: &HttpMessage,
    ) -> Option<HttpMessage> {
        if store.is_none() {
            let upstream = *self.upstream.lock().unwrap();
            let connected = TcpStream::connect(upstream).await.ok()?;
            connected.set_nodelay(true).ok()?;
            *store = Some(connected);
        }
        let stream = store.as_mut()?;
        stream.write_all(&request.bytes).await.ok()?;
        HttpMessage::read(stream).await
    }
}

/// Bytes between clients and one server. Its address stays when the server is restarted.
pub(crate) struct ClientRelay {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl ClientRelay {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = watch::Sender::new(0);
        let all_cuts = cuts.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cuts = all_cuts.subscribe();
                tokio::spawn(async move {
                    let relay = async {
                        let mut server = TcpStream::connect(upstream).await?;
                        client.set_nodelay(true)?;
                        server.set_nodelay(true)?;
                        copy_bidirectional(&mut client, &mut server).await
                    };
                    tokio::select! {
                        _ = cuts.changed() => {}
                        _ = relay => {}
                    }
                });
            }
        });
        Self { address, cuts, accepting }
    }

    /// Closes all connections, to the clients and to the server.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for ClientRelay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
