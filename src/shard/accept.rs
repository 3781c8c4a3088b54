//! Accepting connections and finding each its shard.

use std::rc::Rc;
use std::time::Duration;

use super::balance::Loads;
use super::inbox::{Mailbox, Work};
use crate::runtime::{self, Accepted, Listener};

/// Pause after an accept that failed, so that running out of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts for ever; cancelled by dropping. `serve` takes the connections that stay here, each with
/// its place in `loads` already reserved.
pub async fn accept_loop(
    listener: Listener,
    shard: usize,
    loads: Loads,
    peers: Vec<Mailbox>,
    serve: Rc<dyn Fn(Accepted)>,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(shard, error = %error, "cannot accept a connection");
                runtime::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(target) = loads.place(shard) else {
            tracing::warn!(
                shard,
                "connection closed: every shard has its most connections"
            );
            drop(accepted);
            continue;
        };
        if target == shard {
            serve(accepted);
            continue;
        }
        let Some(peer) = peers.get(target) else {
            loads.transfer(target, shard);
            serve(accepted);
            continue;
        };
        if let Err(Work::Connection(accepted)) = peer.post(Work::Connection(accepted)) {
            loads.transfer(target, shard);
            serve(accepted);
        }
    }
}
