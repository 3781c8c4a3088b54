//! What crosses between shards, and from the side thread to a shard.
//!
//! Two channels per shard. *Work* is bounded and refused when full. *Replies* has no bound of its
//! own because it needs none: every reply answers one operation that this very shard forwarded and
//! still counts as pending, of which there are at most `limits::OPERATIONS_IN_FLIGHT_MAX`.

use std::rc::Rc;

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use tokio::sync::mpsc;

use super::driver::{Driver, QueryOutcome};
use crate::limits;
use crate::telemetry::recorder::ShardMetrics;
use inventory_core::answer::Answer;
use inventory_core::counters::Counters;
use inventory_core::effect::RecordHint;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::Operation;
use inventory_core::query::Query;
use inventory_core::transaction::{EventLayout, RecordView};
use inventory_grpc::SpanIds;
use inventory_runtime::AcceptedSocket;

/// Runs on the shard to its end, whether or not anybody still waits for what it sends back. A panic
/// in it is logged and ends nothing else.
pub type ShardJob = Box<dyn FnOnce(Rc<Driver>) -> LocalBoxFuture<'static, ()> + Send>;

/// A message to a shard that may be refused.
pub enum ShardMessage {
    /// An operation whose stripe this shard owns. Answered by [`Reply`].
    Forward(Box<ForwardedOperation>),
    /// A query about a seated event that this shard owns.
    Query {
        event: EventId,
        layout: EventLayout,
        query: Query,
        told: oneshot::Sender<QueryOutcome>,
    },
    /// A connection that another shard accepted.
    Connection(AcceptedSocket),
    /// The interval's measurements, please.
    Scrape(oneshot::Sender<ShardMetrics>),
    /// The lanes' totals so far; takes nothing away.
    Counters(oneshot::Sender<Counters>),
    /// What the side thread wants done on the shard.
    Job(ShardJob),
    /// No new connections; ask the open ones to leave; end when everything has settled.
    Drain,
    /// The grace is over: end now.
    Abort,
}

/// An operation on its way to the shard that owns what it is about.
pub struct ForwardedOperation {
    /// The shard it came from.
    pub from: usize,
    pub layout: EventLayout,
    pub operation: Operation,
    pub hint: RecordHint,
    /// Of the sampled call that it comes from.
    pub span: Option<SpanIds>,
}

/// The answer to a forwarded operation.
pub struct ForwardReply {
    pub event: EventId,
    pub reservation: ReservationId,
    pub answer: Answer,
    pub record: Option<RecordView>,
    /// Capacity units (read, written) that it took, as far as is known.
    pub capacity: (f64, f64),
}

/// The sending half of one shard's inbox.
#[derive(Clone)]
pub struct Mailbox {
    messages: mpsc::Sender<ShardMessage>,
    replies: mpsc::UnboundedSender<ForwardReply>,
}

/// The receiving half; belongs to the shard.
pub struct Inbox {
    pub messages: mpsc::Receiver<ShardMessage>,
    pub replies: mpsc::UnboundedReceiver<ForwardReply>,
}

/// One shard's inbox.
pub fn inbox() -> (Mailbox, Inbox) {
    let (work_in, work) = mpsc::channel(limits::INBOX_MAX);
    let (replies_in, replies) = mpsc::unbounded_channel();
    let mailbox = Mailbox {
        messages: work_in,
        replies: replies_in,
    };
    (
        mailbox,
        Inbox {
            messages: work,
            replies,
        },
    )
}

impl Mailbox {
    /// # Errors
    /// Gives the message back when the inbox is full or the shard has ended.
    pub fn send(&self, work: ShardMessage) -> Result<(), ShardMessage> {
        self.messages
            .try_send(work)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(work) | mpsc::error::TrySendError::Closed(work) => {
                    work
                }
            })
    }

    /// A shard that has ended needs no reply.
    pub fn reply(&self, reply: ForwardReply) {
        let _ = self.replies.send(reply);
    }
}
