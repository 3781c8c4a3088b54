//! SIGTERM and SIGINT.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What the signals so far ask of the process; `by` names the signal that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    No,
    /// The first signal: drain and end within the grace time.
    Graceful {
        by: &'static str,
    },
    /// The second: end now. The store's conditions keep every promise regardless.
    Immediate {
        by: &'static str,
    },
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which would end the process.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Tells the first and the second signal, and is silent about more.
    pub(super) async fn tell(mut self, shutdown: watch::Sender<Shutdown>) {
        let by = self.next().await;
        tracing::info!(
            signal = by,
            "shutting down; a second signal ends the process at once"
        );
        shutdown.send_replace(Shutdown::Graceful { by });
        let by = self.next().await;
        tracing::warn!(signal = by, "second signal: ending at once");
        shutdown.send_replace(Shutdown::Immediate { by });
        // The receivers keep seeing the last state rather than a closed channel.
        std::future::pending::<()>().await;
    }

    async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
