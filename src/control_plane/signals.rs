//! SIGTERM, SIGINT and SIGHUP; SIGUSR1 and SIGUSR2, which end no server.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::limits;

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
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// Replaces the default handlers, which would end the process.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Reports the first and the second signal; ignores further ones. The same signal again within
    /// [`limits::REPEATED_SIGNAL_WINDOW`] is no second one.
    pub(super) async fn report(
        mut self,
        shutdown: watch::Sender<ShutdownSignal>,
        reload: Option<Arc<Notify>>,
    ) {
        // On a terminal SIGHUP means that the terminal was closed. Other senders of SIGHUP want a program to read its
        // configuration or to open its log files again.
        let by = self.next(io::stdin().is_terminal(), reload.as_deref()).await;
        tracing::info!(signal = by, "draining; a second signal aborts");
        shutdown.send_replace(ShutdownSignal::Drain { by });
        let (first, at) = (by, Instant::now());
        // A closed terminal sends SIGHUP more than once, and some senders signal a process and then its group.
        let by = loop {
            let by = self.next(false, reload.as_deref()).await;
            if by != first || at.elapsed() >= limits::REPEATED_SIGNAL_WINDOW {
                break by;
            }
        };
        tracing::warn!(signal = by, "aborting on second signal");
        shutdown.send_replace(ShutdownSignal::Abort { by });
        // Keeps the channel open, so that receivers see the last state.
        std::future::pending::<()>().await;
    }

    async fn next(&mut self, hangup_counts: bool, reload: Option<&Notify>) -> &'static str {
        loop {
            let ignored = select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    if hangup_counts {
                        return "SIGHUP";
                    }
                    if let Some(reload) = reload {
                        reload.notify_waiters();
                        continue;
                    }
                    "SIGHUP"
                }
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
            };
            let hint = "settings are read at the start only; SIGTERM drains the server";
            tracing::warn!(signal = ignored, hint, "signal ignored");
        }
    }
}
