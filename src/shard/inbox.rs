//! The inbox of a shard: messages from other shards and from the control plane.
//!
//! Each shard has two channels. `messages` is bounded and rejects messages when full. `replies` needs no
//! bound of its own: every reply answers one operation that this shard forwarded and still counts as in
//! flight, at most `limits::OPERATIONS_IN_FLIGHT_MAX`.

use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::limits;
use crate::telemetry::recorder::ShardMetrics;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::counters::Counters;
use inventory_core::effect::RecordHint;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::Operation;
use inventory_core::query::{Query, QueryResult};
use inventory_core::transaction::{EventLayout, RecordView};
use inventory_grpc::SpanIds;
use inventory_runtime::AcceptedSocket;

/// The result of a query, or why there is none.
pub(super) type QueryOutcome = Result<QueryResult, Rejection>;

/// A message to a shard. `J` is a job of the control plane, see [`super::driver::ShardJob`].
pub(crate) enum InboxMessage<J> {
    /// An operation whose stripe or seats this shard owns. Answered by [`ForwardReply`].
    Forward(Box<ForwardedOperation>),
    /// A query about a seated event that this shard owns.
    Query {
        event: EventId,
        layout: EventLayout,
        query: Query,
        reply: oneshot::Sender<QueryOutcome>,
    },
    /// A connection that another shard accepted.
    Connection(AcceptedSocket),
    /// Takes the metrics recorded since the last scrape.
    Scrape(oneshot::Sender<ShardMetrics>),
    /// Reads the engine's counters, without resetting anything.
    Counters(oneshot::Sender<Counters>),
    /// A job of the control plane.
    Job(J),
    /// Stop accepting, drain the connections, end when all shards are idle.
    Drain,
    /// The grace period is over: end now.
    Abort,
}

/// An operation in transit to the shard that owns its stripe or seats.
pub(crate) struct ForwardedOperation {
    /// The shard that received the call.
    pub(crate) from: usize,
    pub(crate) layout: EventLayout,
    pub(crate) operation: Operation,
    pub(crate) hint: RecordHint,
    /// The span of the call, if it is sampled.
    pub(crate) span: Option<SpanIds>,
}

/// The answer to a forwarded operation.
pub(crate) struct ForwardReply {
    pub(crate) event: EventId,
    pub(crate) reservation: ReservationId,
    pub(crate) answer: Answer,
    pub(crate) record: Option<RecordView>,
    /// Capacity units (read, written) that the operation consumed, as far as they are known.
    pub(crate) capacity: (f64, f64),
}

/// The sending half of one shard's inbox.
pub(crate) struct Mailbox<J> {
    messages: mpsc::Sender<InboxMessage<J>>,
    replies: mpsc::UnboundedSender<ForwardReply>,
}

impl<J> Clone for Mailbox<J> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), replies: self.replies.clone() }
    }
}

/// The receiving half; belongs to the shard.
pub(crate) struct Inbox<J> {
    pub(crate) messages: mpsc::Receiver<InboxMessage<J>>,
    pub(crate) replies: mpsc::UnboundedReceiver<ForwardReply>,
}

/// One shard's inbox.
pub(crate) fn inbox<J>() -> (Mailbox<J>, Inbox<J>) {
    let (messages_in, messages) = mpsc::channel(limits::INBOX_MAX);
    let (replies_in, replies) = mpsc::unbounded_channel();
    let mailbox = Mailbox { messages: messages_in, replies: replies_in };
    (mailbox, Inbox { messages, replies })
}

impl<J> Mailbox<J> {
    /// # Errors
    /// Returns the message if the inbox is full or the shard has ended.
    pub(crate) fn send(&self, message: InboxMessage<J>) -> Result<(), InboxMessage<J>> {
        self.messages.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message)
            | mpsc::error::TrySendError::Closed(message) => message,
        })
    }

    /// Sends a reply; a shard that has ended needs none.
    pub(crate) fn reply(&self, reply: ForwardReply) {
        let _ = self.replies.send(reply);
    }
}
