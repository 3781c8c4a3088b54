//! Wakers that say who was woken: a number in a list, each at most once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Who has rung since the last look, and how to wake who looks.
#[derive(Default)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rung: Vec<Arc<Bell>>,
    /// `None` while the looker is awake anyway.
    looker: Option<Waker>,
}

/// One caller's bell. As a [`Waker`] it can be rung from anywhere.
pub(crate) struct Bell {
    number: u32,
    rung: AtomicBool,
    desk: Arc<Desk>,
}

impl Desk {
    /// A new bell with this number.
    pub(crate) fn bell(self: &Arc<Self>, number: u32) -> Waker {
        Waker::from(Arc::new(Bell {
            number,
            rung: AtomicBool::new(false),
            desk: Arc::clone(self),
        }))
    }

    /// Moves the numbers that have rung into `to`, which is emptied before.
    pub(crate) fn take(&self, to: &mut Vec<u32>) {
        to.clear();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in inner.rung.drain(..) {
            // From here on it may ring again: whoever rings after this is polled after this.
            bell.rung.store(false, Ordering::Release);
            to.push(bell.number);
        }
    }

    /// The looker is awake: who rings need not wake it.
    pub(crate) fn awake(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.looker = None;
    }

    /// The looker goes to sleep. False: somebody has rung, look again.
    pub(crate) fn sleep(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.looker = Some(waker.clone());
        inner.rung.is_empty()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let looker = {
            let mut inner = self
                .desk
                .inner
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            inner.rung.push(Arc::clone(self));
            inner.looker.take()
        };
        if let Some(looker) = looker {
            looker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_listed_once_and_can_ring_again_after_the_look() {
        let desk = Arc::new(Desk::default());
        let (one, two) = (desk.bell(1), desk.bell(2));
        let mut rung = Vec::new();
        one.wake_by_ref();
        one.wake_by_ref();
        two.wake_by_ref();
        desk.take(&mut rung);
        assert_eq!(rung, [1, 2]);
        one.wake_by_ref();
        desk.take(&mut rung);
        assert_eq!(rung, [1]);
        desk.take(&mut rung);
        assert!(rung.is_empty());
    }

    #[test]
    fn who_sleeps_is_woken_and_who_has_work_does_not_sleep() {
        let (desk, home) = (Arc::new(Desk::default()), Arc::new(Desk::default()));
        let bell = desk.bell(1);
        let mut rung = Vec::new();
        assert!(desk.sleep(&home.bell(9)));
        bell.wake_by_ref();
        home.take(&mut rung);
        assert_eq!(rung, [9]);
        assert!(!desk.sleep(&home.bell(9)));
    }
}
