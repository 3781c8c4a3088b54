//! Accepting connections and finding each its shard.

use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;

use super::connection_balancer::ConnectionBalancer;
use super::inbox::{Mailbox, ShardMessage};
use crate::limits;
use inventory_runtime::{AcceptedSocket, Listener};

/// Pause after an accept that failed, so that running out of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A shard's door: its listener, and where connections go from it.
pub struct Acceptor {
    pub listener: Listener,
    pub shard: usize,
    pub balancer: ConnectionBalancer,
    pub peers: Vec<Mailbox>,
    /// Takes the connections that stay here, each with its place in `loads` reserved.
    pub serve: Rc<dyn Fn(AcceptedSocket)>,
}

impl Acceptor {
    /// Accepts for ever; cancelled by dropping.
    pub async fn accept(self: Rc<Self>) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => self.place(accepted),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    inventory_runtime::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes what the kernel has queued, for closing the listener would reset it, and closes.
    pub fn close(self: Rc<Self>) {
        for _ in 0..limits::CONNECTIONS_PER_SHARD_MAX {
            match self.listener.accept().now_or_never() {
                Some(Ok(accepted)) => self.place(accepted),
                Some(Err(_)) | None => return,
            }
        }
    }

    fn place(&self, accepted: AcceptedSocket) {
        let Some(target) = self.balancer.reserve(self.shard) else {
            tracing::warn!("connection closed: every shard has its most connections");
            return;
        };
        if target == self.shard {
            (self.serve)(accepted);
            return;
        }
        let posted = match self.peers.get(target) {
            Some(peer) => peer.send(ShardMessage::Connection(accepted)),
            None => Err(ShardMessage::Connection(accepted)),
        };
        if let Err(ShardMessage::Connection(accepted)) = posted {
            self.balancer.transfer(target, self.shard);
            (self.serve)(accepted);
        }
    }
}
