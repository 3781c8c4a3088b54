//! The accept loop of a shard: accepts connections and sends each to the shard that serves it.

use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;

use super::connection_balancer::ConnectionBalancer;
use super::driver::{ShardMailbox, ShardMessage};
use crate::limits;
use crate::telemetry::log_interval::LogInterval;
use inventory_grpc::Drain;
use inventory_runtime::{AcceptedSocket, Listener};

/// Pause after a failed accept, so that a lack of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A shard's listener, and where its connections go.
pub(super) struct Acceptor {
    pub(super) listener: Listener,
    pub(super) shard: usize,
    pub(super) balancer: ConnectionBalancer,
    pub(super) peers: Vec<ShardMailbox>,
    /// Serves a connection of this shard, which `balancer` has counted already.
    pub(super) serve: Rc<dyn Fn(AcceptedSocket)>,
    /// The connections of this shard.
    pub(super) open: Rc<Drain>,
    pub(super) failures: LogInterval,
    pub(super) evictions: LogInterval,
}

impl Acceptor {
    /// Accepts until the future is dropped.
    pub(super) async fn accept(self: Rc<Self>) {
        for accepted in 1_usize.. {
            match self.listener.accept().await {
                Ok(socket) => self.assign(socket),
                Err(error) => {
                    if let Some(suppressed) = self.failures.due() {
                        tracing::warn!(error = %error, suppressed, "accept failed");
                    }
                    inventory_runtime::sleep(ACCEPT_PAUSE).await;
                }
            }
            // Clients that connect faster than the shard accepts keep this task ready.
            if accepted.is_multiple_of(limits::ACCEPTS_PER_POLL_MAX) {
                inventory_runtime::after_io().await;
            }
        }
    }

    /// Accepts the connections in the kernel's backlog, which closing would reset, then closes the listener.
    pub(super) fn close(self: Rc<Self>) {
        for _ in 0..limits::CONNECTIONS_PER_SHARD_MAX {
            match self.listener.accept().now_or_never() {
                Some(Ok(socket)) => self.assign(socket),
                Some(Err(_)) | None => return,
            }
        }
    }

    fn assign(&self, socket: AcceptedSocket) {
        let Some(target) = self.balancer.reserve(self.shard) else {
            self.replace_idlest(socket);
            return;
        };
        if target == self.shard {
            (self.serve)(socket);
            return;
        }
        let sent = match self.peers.get(target) {
            Some(peer) => peer.send(ShardMessage::Connection(socket)),
            None => Err(ShardMessage::Connection(socket)),
        };
        if let Err(ShardMessage::Connection(socket)) = sent {
            self.balancer.transfer(target, self.shard);
            (self.serve)(socket);
        }
    }

    /// Every shard is full: the idlest connection of this shard gives way. Connections that clients leave open must not
    /// keep others out.
    fn replace_idlest(&self, socket: AcceptedSocket) {
        let is_evicted = self.open.evict_idlest();
        if let Some(suppressed) = self.evictions.due() {
            let action = if is_evicted { "idlest connection closed" } else { "new one refused" };
            tracing::warn!(action, suppressed, "every shard has its maximum of connections");
        }
        if is_evicted {
            self.balancer.reserve_beyond(self.shard);
            (self.serve)(socket);
        }
    }
}
