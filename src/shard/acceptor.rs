//! The accept loop of a shard: accepts connections and sends each to the shard that serves it.

use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;

use super::connection_balancer::ConnectionBalancer;
use super::driver::{ShardMailbox, ShardMessage};
use crate::limits;
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
}

impl Acceptor {
    /// Accepts until the future is dropped.
    pub(super) async fn accept(self: Rc<Self>) {
        loop {
            match self.listener.accept().await {
                Ok(socket) => self.assign(socket),
                Err(error) => {
                    tracing::warn!(error = %error, "accept failed");
                    inventory_runtime::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts the kernel's backlog, which the close would reset, and closes the listener.
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
            tracing::warn!("connection refused: every shard is full");
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
}
