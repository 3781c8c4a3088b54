//! Starting an executor on the calling thread: pinned for a shard, unpinned for commands and tests.

use std::future::Future;
use std::io;
use std::time::Duration;

use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};

use crate::limits::{IO_POLL_INTERVAL, RING_BUFFER_BYTES, RING_DEPTH, WAKE_UP_PERIOD};
use crate::timer_queue::TimerQueueReset;

/// Registers the process with the kernel's memory barrier before any other thread exists, and disables
/// transparent huge pages. Call first in `main`.
///
/// A buffer that a ring registers pins its whole page. On transparent huge pages that is 2 MiB instead
/// of 64 KiB, three times per shard (VmPin of two shards: 12 MiB instead of 384 KiB), beyond a
/// locked-memory limit of 8 MiB. It also lowers an idle server's memory from 57 to 20 MiB.
pub fn early_init() {
    let (on, unused) = (1_u64, 0_u64);
    // SAFETY: PR_SET_THP_DISABLE takes four integers and no pointer. A kernel that does not know the
    // option refuses it and changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) };
    glommio::early_init();
}

/// Runs `future` to its end on an unpinned executor on the calling thread: for commands that need the
/// store once, and for tests.
///
/// # Errors
/// If the ring cannot be created; the server's `preflight` explains why.
pub fn run_unpinned<T>(future: impl Future<Output = T>) -> io::Result<T> {
    run(builder(Placement::Unbound), future)
}

/// [`run_unpinned`] with rings as large as a shard's: checks that such rings can be created.
///
/// # Errors
/// As [`run_unpinned`].
pub fn run_with_shard_rings<T>(future: impl Future<Output = T>) -> io::Result<T> {
    run(builder(Placement::Unbound).ring_depth(RING_DEPTH), future)
}

/// Runs `future` to its end on an executor pinned to `cpu`, on the calling thread.
///
/// `spin` is how long an idle executor polls before it sleeps; zero means not at all.
///
/// # Errors
/// If the ring cannot be created or the process may not use the CPU.
pub fn run_pinned<T>(cpu: usize, spin: Duration, future: impl Future<Output = T>) -> io::Result<T> {
    let mut builder = builder(Placement::Fixed(cpu)).ring_depth(RING_DEPTH);
    if !spin.is_zero() {
        builder = builder.spin_before_park(spin);
    }
    run(builder, future)
}

fn builder(placement: Placement) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement)
        .io_memory(RING_BUFFER_BYTES)
        .preempt_timer(IO_POLL_INTERVAL)
}

fn run<T>(builder: LocalExecutorBuilder, future: impl Future<Output = T>) -> io::Result<T> {
    let executor = builder.make().map_err(io::Error::from)?;
    let _reset = TimerQueueReset;
    Ok(executor.run(async {
        let _waking = crate::spawn(wake_up());
        future.await
    }))
}

/// Wakes the executor up regularly, by a timer that no other task uses: it may have gone to sleep although tasks are ready.
async fn wake_up() {
    loop {
        Timer::new(WAKE_UP_PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::rc::Rc;
    use std::task::Poll;
    use std::time::Instant;

    use super::*;

    /// A task that is always ready, as the connection of a client that sends faster than it is read.
    async fn stay_ready(is_over: Rc<Cell<bool>>) {
        std::future::poll_fn(|cx| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            cx.waker().wake_by_ref();
            if is_over.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// How often this thread has gone to sleep.
    fn sleeps() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn an_executor_without_work_wakes_up_regularly() {
        let sleeps = run_unpinned(async {
            let before = sleeps();
            // No timer of this executor.
            crate::spawn_blocking(|| std::thread::sleep(10 * WAKE_UP_PERIOD)).await;
            sleeps() - before
        });
        // Without the regular wake-up: one or two.
        assert!(sleeps.unwrap() >= 5);
    }

    #[test]
    fn tasks_that_are_always_ready_do_not_delay_timers() {
        const WAITS: u32 = 20;
        let took = run_unpinned(async {
            let is_over = Rc::<Cell<bool>>::default();
            let busy: Vec<_> =
                (0..2).map(|_| crate::spawn(stay_ready(Rc::clone(&is_over)))).collect();
            let start = Instant::now();
            for _ in 0..WAITS {
                crate::sleep(Duration::from_millis(1)).await;
            }
            let took = start.elapsed();
            is_over.set(true);
            for task in busy {
                task.cancel().await;
            }
            took
        });
        // With glommio's default each wait takes 100 ms.
        assert!(took.unwrap() < WAITS * Duration::from_millis(50));
    }
}
