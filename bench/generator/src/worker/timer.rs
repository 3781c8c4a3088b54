//! A timer with nanosecond resolution (timerfd); timers of tokio have a resolution of one millisecond.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

pub(crate) struct PreciseTimer {
    fd: AsyncFd<OwnedFd>,
    /// Time it is set to, on the clock of the caller; 0: expired, or never set.
    target: u64,
}

impl PreciseTimer {
    /// Needs a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the OwnedFd moves into the AsyncFd, which owns it until it is dropped; nothing takes it out
        // or closes it, so the registered descriptor stays the same file.
        let fd = unsafe { AsyncFd::register(fd) };
        Ok(Self { fd: fd.map_err(io::Error::from)?, target: 0 })
    }

    /// Wakes `cx` at `target`. `target` and `now` are nanoseconds on the clock of the caller.
    pub(crate) fn arm(&mut self, cx: &mut Context<'_>, target: u64, now: u64) -> io::Result<()> {
        // Clear the readiness of an expired timer, and register the waker for the next expiry.
        while let Poll::Ready(guard) = self.fd.poll_read_ready(cx) {
            guard?.clear_ready();
            self.target = 0;
        }
        if self.target == target {
            return Ok(());
        }
        // Zero would disarm the timer.
        let wait = Duration::from_nanos(target.saturating_sub(now).max(1));
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        // Setting the timer also clears an expiry that was not read.
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &value)?;
        self.target = target;
        Ok(())
    }
}
