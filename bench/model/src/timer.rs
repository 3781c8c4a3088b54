//! Linux's timerfd: exact to some microseconds, where the runtime's timer rounds up to a millisecond, a third
//! of a read's latency.

use std::io;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use crate::ModelTime;

pub(crate) struct TimerFd(AsyncFd<rustix::fd::OwnedFd>);

impl TimerFd {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the AsyncFd owns the descriptor from here on, and an OwnedFd refers to the same open
        // descriptor until it is dropped, which happens only after deregistration.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered?))
    }

    /// Completes `delay` microseconds from now, or earlier if an earlier wait was abandoned.
    pub(crate) async fn wait(&self, delay: ModelTime) -> io::Result<()> {
        let nanos = |micros: ModelTime| i64::try_from(micros * 1_000).unwrap_or(0);
        let value = Timespec {
            tv_sec: i64::try_from(delay / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: nanos(delay % 1_000_000),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        let mut ready = self.0.readable().await?;
        let mut expirations = [0; 8];
        match rustix::io::read(&self.0, &mut expirations) {
            // AGAIN: the timer was set again after it had fired; the next expiry is reported.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear_ready();
        Ok(())
    }
}
