//! The process: wiring the rooms together, start and stop in order.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | start, serve, stop |
//! | `ports.rs` | binding, so that a taken port ends the start |
//! | `bridge.rs` | the side thread's way to the shards |
//! | `dev.rs` | the embedded engine, tables and sample event of `dev` |
//! | `banner.rs` | what a person sees at start |
//!
//! Start: ports, store, shards, side thread, readiness. Stop: readiness off, shards drain, side thread.
//! Whatever cannot work ends the start with what is wrong, the facts and the cure.

mod banner;
mod bridge;
pub mod dev;
pub mod ports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use self::bridge::Bridge;
use crate::config::Config;
use crate::preflight::{Explanation, Facts};
use crate::preflight::{explain_port_error, explain_ring_error, explain_store_error};
use crate::shard::balance::Loads;
use crate::shard::inbox::{Inbox, Mailbox, Work, inbox};
use crate::shard::{self, Ended, Seat, SeatError, ShardThread};
use crate::side::{Readiness, Shutdown, Side, SideHandle, SideSettings};
use crate::store::{ConnectError, CredentialSource, Store, StoreSettings, TableNames};
use crate::telemetry::registry::BuildInfo;
use crate::wire::{self, WireSettings};
use crate::{limits, runtime};

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub admin: Option<SocketAddr>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    pub took: Duration,
    /// What was left when the grace was over.
    pub left: Ended,
    /// A shard's thread had panicked.
    pub panicked: bool,
}

/// A running server.
pub struct Server {
    shards: Vec<ShardThread>,
    mailboxes: Vec<Mailbox>,
    side: SideHandle,
    readiness: Readiness,
    addresses: Addresses,
    grace: Duration,
}

/// Production: DynamoDB, and nothing else.
///
/// # Errors
/// Whatever keeps the server from starting.
pub fn run_serve(config: Config) -> Result<(), Explanation> {
    let store = production_store(&config);
    let server = Server::start(&config, store, true)?;
    banner::serving(&config, server.addresses());
    server.run_until_signal();
    Ok(())
}

/// The store that `serve` and the commands use: endpoint and credentials as the AWS SDK finds them.
pub fn production_store(config: &Config) -> StoreSettings {
    StoreSettings {
        region: config.store.region.clone(),
        endpoint: None,
        credentials: CredentialSource::Environment,
        ca_bundle: None,
        tables: table_names(config),
        attempt_timeout: config.store.attempt_timeout,
    }
}

fn table_names(config: &Config) -> TableNames {
    let tables = &config.store.tables;
    TableNames {
        inventory: tables.inventory.clone(),
        seats: tables.seats.clone(),
        idempotency: tables.idempotency.clone(),
    }
}

impl Server {
    /// Starts everything; the server serves and is ready when this returns.
    ///
    /// # Errors
    /// What is wrong, the facts, the cure. Nothing is left running.
    pub fn start(
        config: &Config,
        store: StoreSettings,
        signals: bool,
    ) -> Result<Self, Explanation> {
        let count = config.shard_cpus.len();
        let grpc = ports::bind_shared(config.grpc_port, count)
            .map_err(|e| explain_port_error(&e, "GRPC_PORT", port_of(config.grpc_port)))?;
        let metrics = ports::bind_any(config.metrics_port)
            .map_err(|e| explain_port_error(&e, "METRICS_PORT", port_of(config.metrics_port)))?;
        let admin = config
            .admin
            .map(|address| {
                ports::bind(address).map_err(|e| explain_port_error(&e, "ADMIN_PORT", address))
            })
            .transpose()?;
        check_store(&store)?;

        let grpc_address = local_address(&grpc[0])?;
        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<Inbox>) = (0..count).map(|_| inbox()).unzip();
        let readiness = Readiness::new();
        let (cold, cold_calls) = wire::cold::gate();
        let bridge = Arc::new(Bridge::new(mailboxes.clone()));
        let routes = crate::side::cold::cold_routes(&readiness);
        let side = Side::start(SideSettings {
            metrics,
            admin: admin.map(|listener| (listener, bridge.clone() as _)),
            scrape: bridge,
            readiness: readiness.clone(),
            build: BuildInfo {
                service: config.service_name.clone(),
                version: config.service_version.clone(),
            },
            signals,
            tasks: vec![Box::pin(wire::cold::serve(cold_calls, routes))],
        })
        .map_err(|error| plain(error.to_string()))?;

        let loads = Loads::new(count);
        let seats = grpc
            .into_iter()
            .zip(inboxes)
            .enumerate()
            .map(|(shard, (listener, inbox))| Seat {
                shard,
                shards: count,
                cpu: config.shard_cpus[shard],
                spin_before_park: config.spin_before_park,
                listener,
                inbox,
                peers: mailboxes.clone(),
                loads: loads.clone(),
                store: store.clone(),
                wire: wire_settings(config),
                cold: cold.clone(),
                qty_max: config.max_qty,
                answers_cached: config.answers_cached,
                answers_cached_for: config.answers_cached_for,
            })
            .collect();
        let addresses = Addresses {
            grpc: grpc_address,
            metrics: side.metrics_address(),
            admin: side.admin_address(),
        };
        let shards = start_shards(seats, &mailboxes)?;
        readiness.ready();
        tracing::info!(
            grpc = %addresses.grpc,
            metrics = %addresses.metrics,
            shards = count,
            version = env!("CARGO_PKG_VERSION"),
            "serving"
        );
        Ok(Self {
            shards,
            mailboxes,
            side,
            readiness,
            addresses,
            grace: config.shutdown_grace,
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until SIGTERM or SIGINT, then stops. A second signal ends the grace at once.
    pub fn run_until_signal(self) -> Stopped {
        let mut shutdown = self.side.shutdown();
        let asked = futures::executor::block_on(async {
            shutdown
                .wait_for(|state| *state != Shutdown::No)
                .await
                .is_ok()
        });
        if !asked {
            tracing::error!("the side thread has ended; stopping");
        }
        self.stop()
    }

    /// Stops in order: readiness off, no new connections, GOAWAY, calls and lanes settle. What has
    /// not settled when the grace is over is counted and left.
    pub fn stop(self) -> Stopped {
        let began = Instant::now();
        let deadline = began + self.grace;
        tracing::info!(grace_ms = self.grace.as_millis() as u64, "stopping");
        self.readiness.drain("the server is stopping");
        for mailbox in &self.mailboxes {
            let _ = mailbox.post(Work::Drain);
        }
        let shutdown = self.side.shutdown();
        let mut aborted = false;
        while !self.shards.iter().all(ShardThread::is_finished) {
            let hurry = *shutdown.borrow() == Shutdown::Now;
            if !aborted && (hurry || Instant::now() >= deadline) {
                aborted = true;
                for mailbox in &self.mailboxes {
                    let _ = mailbox.post(Work::Abort);
                }
            }
            std::thread::sleep(STOP_POLL);
        }
        let mut stopped = Stopped::default();
        for shard in self.shards {
            let number = shard.shard;
            match shard.join() {
                Some(ended) => {
                    stopped.left.connections += ended.connections;
                    stopped.left.operations += ended.operations;
                }
                None => {
                    tracing::error!(shard = number, "a shard had panicked");
                    stopped.panicked = true;
                }
            }
        }
        if let Err(overdue) = self.side.stop(limits::SIDE_STOP_GRACE * 2) {
            tracing::warn!(error = %overdue, "stopping without the side thread");
        }
        stopped.took = began.elapsed();
        if stopped.left != Ended::default() {
            tracing::warn!(
                connections = stopped.left.connections,
                operations = stopped.left.operations,
                "the grace was over before everything had settled"
            );
        }
        tracing::info!(took_ms = stopped.took.as_millis() as u64, "stopped");
        crate::telemetry::log::flush();
        stopped
    }
}

/// How often a stop looks whether the shards have ended.
const STOP_POLL: Duration = Duration::from_millis(2);

/// The store answers, takes transactions, and has the tables.
fn check_store(settings: &StoreSettings) -> Result<(), Explanation> {
    let facts = Facts::read();
    let probed = runtime::run_here(async {
        let store = Store::connect(settings.clone(), std::rc::Rc::new(crate::store::NoObserver)).await?;
        store.probe().await?;
        Ok::<_, ConnectError>(crate::store::tables::check(&store).await)
    });
    match probed {
        Err(error) => Err(explain_ring_error(&error, &facts, 1)),
        Ok(Err(error)) => Err(explain_store_error(&error)),
        Ok(Ok(differences)) => tables_stand(differences),
    }
}

fn start_shards(seats: Vec<Seat>, mailboxes: &[Mailbox]) -> Result<Vec<ShardThread>, Explanation> {
    let count = seats.len();
    let (started, starts) = mpsc::channel();
    let mut shards = Vec::with_capacity(count);
    for seat in seats {
        let shard = shard::start(seat, started.clone())
            .map_err(|error| plain(format!("a shard's thread cannot be started: {error}")))?;
        shards.push(shard);
    }
    drop(started);
    let mut wrong = None;
    // Ends by itself: every shard says one word, or its sender is dropped.
    for (shard, start) in starts.iter().take(count) {
        match start {
            Ok(()) => {}
            Err(SeatError::Ring(error)) => {
                wrong = Some(explain_ring_error(&error, &Facts::read(), count));
            }
            Err(SeatError::Store(error)) => wrong = Some(explain_store_error(&error)),
        }
        let _ = shard;
    }
    match wrong {
        None => Ok(shards),
        Some(explanation) => {
            for mailbox in mailboxes {
                let _ = mailbox.post(Work::Abort);
            }
            for shard in shards {
                shard.join();
            }
            Err(explanation)
        }
    }
}

fn wire_settings(config: &Config) -> WireSettings {
    WireSettings {
        call_timeout: config.call_timeout,
        streams_per_connection: config.streams_per_connection,
        keep_alive_period: config.keep_alive_period,
        connection_age: config.connection_age,
        ..WireSettings::default()
    }
}

fn port_of(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

fn local_address(listener: &std::net::TcpListener) -> Result<SocketAddr, Explanation> {
    listener
        .local_addr()
        .map_err(|error| plain(format!("the gRPC port has no address: {error}")))
}

fn plain(wrong: String) -> Explanation {
    Explanation {
        wrong,
        facts: None,
        cures: Vec::new(),
    }
}
