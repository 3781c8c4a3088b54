//! SIGTERM and SIGINT.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Shutdown mode requested by the signals so far; `by` is the name of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownSignal {
    None,
    /// First signal: drain and exit within SHUTDOWN_GRACE.
    Drain {
        by: &'static str,
    },
    /// Second signal: exit at once. The conditions in the store keep all guarantees.
    Abort {
        by: &'static str,
    },
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Replaces the default handlers, which would end the process.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Reports the first and the second signal; ignores further ones.
    pub(super) async fn report(mut self, shutdown: watch::Sender<ShutdownSignal>) {
        let by = self.next().await;
        tracing::info!(signal = by, "draining; a second signal aborts");
        shutdown.send_replace(ShutdownSignal::Drain { by });
        let by = self.next().await;
        tracing::warn!(signal = by, "aborting on second signal");
        shutdown.send_replace(ShutdownSignal::Abort { by });
        // Keeps the channel open, so that receivers see the last state.
        std::future::pending::<()>().await;
    }

    async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
