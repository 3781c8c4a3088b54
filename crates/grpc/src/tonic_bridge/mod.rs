//! The way to the cold services (health, reflection): stock tonic, on the side thread's runtime.
//!
//! They share the port with the hot contract but not its cost rules: they need a tokio runtime
//! (reflection spawns), so each call's body frames travel through bounded channels between the
//! shard and the side thread. Nothing of tokio's runtime comes to the shard; its channels need only
//! wakers.
//!
//! The shard's half is [`pipe`], the side thread's half is [`serve`].

pub(super) mod relay;
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts as RequestHead;
use http::response::Parts as ResponseHead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use server::serve;

use super::status::{Code, Status, reason};
use crate::limits::{AUXILIARY_CALLS_MAX, AUXILIARY_FRAMES_BUFFERED, RETRY_AFTER};

/// The services behind the gate.
pub const AUXILIARY_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The shards' end: cheap to clone, one clone per shard.
#[derive(Clone)]
pub struct TonicBridge {
    calls: mpsc::Sender<BridgedCall>,
    permits: Arc<Semaphore>,
}

/// The side thread's end, for [`serve`].
pub struct BridgeReceiver(mpsc::Receiver<BridgedCall>);

/// One call on its way to the side thread.
struct BridgedCall {
    head: RequestHead,
    request_frames: mpsc::Receiver<RequestFrame>,
    response_frames: mpsc::Sender<ResponseFrame>,
    timeout: Option<Duration>,
    /// Given back when the call ends.
    _permit: OwnedSemaphorePermit,
}

/// From the client. A channel that closes without [`Upload::End`] means that the call was broken
/// off.
enum RequestFrame {
    Data(Bytes),
    End,
}

/// To the client. A channel that closes before an end means that the service failed.
enum ResponseFrame {
    /// `last` when the headers are all there is.
    Head {
        head: Box<ResponseHead>,
        last: bool,
    },
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end, without.
    End,
}

/// The two channels of one call, as the shard holds them. Dropping them ends the call's task.
struct CallChannels {
    request_frames: mpsc::Sender<RequestFrame>,
    response_frames: mpsc::Receiver<ResponseFrame>,
}

/// Both ends of the way to the cold services. At most [`COLD_CALLS_MAX`] calls are under way in the
/// whole process.
pub fn channel() -> (TonicBridge, BridgeReceiver) {
    let (calls, receiver) = mpsc::channel(AUXILIARY_CALLS_MAX);
    let gate = TonicBridge {
        calls,
        permits: Arc::new(Semaphore::new(AUXILIARY_CALLS_MAX)),
    };
    (gate, BridgeReceiver(receiver))
}

impl TonicBridge {
    /// The cold service that a path names.
    pub(super) fn service_of(&self, path: &str) -> Option<&'static str> {
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        AUXILIARY_SERVICES.into_iter().find(|cold| *cold == service)
    }

    pub(super) fn has_service(&self, service: &str) -> bool {
        AUXILIARY_SERVICES.contains(&service)
    }

    /// Hands a call to the side thread, without waiting.
    fn open(&self, head: RequestHead, timeout: Option<Duration>) -> Result<CallChannels, Status> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Status::new(
                Code::ResourceExhausted,
                reason::COLD_CALLS_EXCEEDED,
                format!("{AUXILIARY_CALLS_MAX} health and reflection calls are under way already"),
            )
            .with_retry_after(RETRY_AFTER));
        };
        let (upload, upload_end) = mpsc::channel(AUXILIARY_FRAMES_BUFFERED);
        let (download_end, download) = mpsc::channel(AUXILIARY_FRAMES_BUFFERED);
        let call = BridgedCall {
            head,
            request_frames: upload_end,
            response_frames: download_end,
            timeout,
            _permit: permit,
        };
        // There is a place for every permit, so only a closed channel can refuse.
        self.calls.try_send(call).map_err(|_| {
            Status::new(
                Code::Unavailable,
                reason::COLD_SERVICES_DOWN,
                "health and reflection are not running",
            )
        })?;
        Ok(CallChannels {
            request_frames: upload,
            response_frames: download,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn head() -> RequestHead {
        http::Request::new(()).into_parts().0
    }

    #[test]
    fn only_the_cold_services_paths_are_taken() {
        let (gate, _receiver) = channel();
        assert_eq!(
            gate.service_of("/grpc.health.v1.Health/Check"),
            Some(AUXILIARY_SERVICES[0])
        );
        assert_eq!(gate.service_of("/grpc.health.v1.Health"), None);
        assert_eq!(gate.service_of("/grpc.health.v1.HealthX/Check"), None);
        assert_eq!(
            gate.service_of("/inventory.v1.Inventory/CommitReservation"),
            None
        );
    }

    #[test]
    fn past_the_limit_a_call_is_refused_and_a_free_place_is_taken_again() {
        let (gate, mut receiver) = channel();
        let held: Vec<_> = (0..AUXILIARY_CALLS_MAX)
            .map(|_| gate.open(head(), None).ok().unwrap())
            .collect();
        let refused = gate.open(head(), None).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.reason(), reason::COLD_CALLS_EXCEEDED);
        drop(receiver.0.try_recv().unwrap());
        assert!(gate.open(head(), None).is_ok());
        drop(held);
    }

    #[test]
    fn without_a_side_thread_the_services_are_unavailable() {
        let (gate, receiver) = channel();
        drop(receiver);
        let refused = gate.open(head(), None).err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable);
    }
}
