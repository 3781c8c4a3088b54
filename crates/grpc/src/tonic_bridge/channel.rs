//! The two ends of the bridge, the frames that cross it, and the limit on concurrent calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts as RequestHead;
use http::response::Parts as ResponseHead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::limits::{BRIDGED_CALLS_MAX, BRIDGED_FRAMES_BUFFERED, RETRY_AFTER};
use crate::status::{Code, Status, reason};

/// The services that the bridge carries.
const BRIDGED_SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The shards' end of the bridge: cheap to clone, one clone per shard.
#[derive(Clone)]
pub struct TonicBridge {
    calls: mpsc::Sender<BridgedCall>,
    permits: Arc<Semaphore>,
}

/// The control plane's end of the bridge, for [`serve`](super::serve).
pub struct BridgeReceiver(pub(super) mpsc::Receiver<BridgedCall>);

/// One call on its way to the control plane.
pub(super) struct BridgedCall {
    pub(super) head: RequestHead,
    pub(super) request_frames: mpsc::Receiver<RequestFrame>,
    pub(super) response_frames: mpsc::Sender<ResponseFrame>,
    pub(super) timeout: Duration,
    /// Released when the call ends.
    pub(super) permit: OwnedSemaphorePermit,
}

/// From the client. A channel that closes without [`RequestFrame::End`] means that the request was reset.
pub(super) enum RequestFrame {
    Data(Bytes),
    End,
}

/// To the client. A channel that closes before an end means that the service panicked.
pub(super) enum ResponseFrame {
    /// `last` if the response has only headers.
    Head {
        head: Box<ResponseHead>,
        last: bool,
    },
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end, without trailers.
    End,
}

/// The shard's ends of the two channels of one call. Dropping them ends the call's task.
pub(super) struct CallChannels {
    pub(super) request_frames: mpsc::Sender<RequestFrame>,
    pub(super) response_frames: mpsc::Receiver<ResponseFrame>,
}

/// Makes a bridge. At most [`BRIDGED_CALLS_MAX`] of its calls are in flight in the whole process.
pub fn channel() -> (TonicBridge, BridgeReceiver) {
    let (calls, receiver) = mpsc::channel(BRIDGED_CALLS_MAX);
    let bridge = TonicBridge { calls, permits: Arc::new(Semaphore::new(BRIDGED_CALLS_MAX)) };
    (bridge, BridgeReceiver(receiver))
}

impl TonicBridge {
    /// The bridged service that a path names.
    pub(crate) fn service_of(&self, path: &str) -> Option<&'static str> {
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        BRIDGED_SERVICES.into_iter().find(|bridged| *bridged == service)
    }

    pub(crate) fn has_service(&self, service: &str) -> bool {
        BRIDGED_SERVICES.contains(&service)
    }

    /// Sends a call to the control plane, without waiting.
    pub(super) fn open(
        &self,
        head: RequestHead,
        timeout: Duration,
    ) -> Result<CallChannels, Status> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Status::new(
                Code::ResourceExhausted,
                reason::AUXILIARY_CALLS_EXCEEDED,
                format!("{BRIDGED_CALLS_MAX} reflection calls are already in flight"),
            )
            .with_retry_after(RETRY_AFTER));
        };
        let (upload, upload_end) = mpsc::channel(BRIDGED_FRAMES_BUFFERED);
        let (download_end, download) = mpsc::channel(BRIDGED_FRAMES_BUFFERED);
        let call = BridgedCall {
            head,
            request_frames: upload_end,
            response_frames: download_end,
            timeout,
            permit,
        };
        // The channel has a slot per permit, so `try_send` fails only if the channel is closed.
        self.calls.try_send(call).map_err(|_| {
            Status::new(
                Code::Unavailable,
                reason::AUXILIARY_SERVICES_UNAVAILABLE,
                "reflection is not available",
            )
        })?;
        Ok(CallChannels { request_frames: upload, response_frames: download })
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
    fn only_reflection_is_bridged() {
        let (bridge, _receiver) = channel();
        let path = format!("/{}/ServerReflectionInfo", BRIDGED_SERVICES[0]);
        assert_eq!(bridge.service_of(&path), Some(BRIDGED_SERVICES[0]));
        assert_eq!(bridge.service_of("/grpc.reflection.v1.ServerReflection"), None);
        assert_eq!(bridge.service_of("/grpc.reflection.v1.ServerReflectionX/Y"), None);
        assert_eq!(bridge.service_of("/grpc.health.v1.Health/Check"), None);
        assert_eq!(bridge.service_of("/inventory.v1.Inventory/CommitReservation"), None);
    }

    #[test]
    fn calls_beyond_the_limit_are_rejected_until_a_permit_is_free() {
        let (bridge, mut receiver) = channel();
        let held: Vec<_> = (0..BRIDGED_CALLS_MAX)
            .map(|_| bridge.open(head(), Duration::MAX).ok().unwrap())
            .collect();
        let rejected = bridge.open(head(), Duration::MAX).err().unwrap();
        assert_eq!(rejected.code(), Code::ResourceExhausted);
        assert_eq!(rejected.reason(), reason::AUXILIARY_CALLS_EXCEEDED);
        drop(receiver.0.try_recv().unwrap());
        assert!(bridge.open(head(), Duration::MAX).is_ok());
        drop(held);
    }

    #[test]
    fn without_a_receiver_the_services_are_unavailable() {
        let (bridge, receiver) = channel();
        drop(receiver);
        let rejected = bridge.open(head(), Duration::MAX).err().unwrap();
        assert_eq!(rejected.code(), Code::Unavailable);
    }
}
