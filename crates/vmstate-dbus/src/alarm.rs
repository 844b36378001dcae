//! Futures with a deadline. D-Bus's own timeouts are per call; a migration has one for all of them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Wakes whoever waits when the time is over. Its thread ends with it.
pub(crate) struct Alarm {
    deadline: Instant,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waker: Option<Waker>,
    dismissed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.dismissed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Some(waker) = state.waker.take() {
                    drop(state);
                    waker.wake();
                }
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Alarm {
    /// Rings after `time`.
    pub(crate) fn after(time: Duration) -> io::Result<Self> {
        let deadline = Instant::now()
            .checked_add(time)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("dbus deadline".to_owned())
            .spawn(move || watched.watch(deadline))?;
        Ok(Self {
            deadline,
            shared,
            thread: Some(thread),
        })
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Ready when the time is over. One task at a time waits.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.shared.lock().waker = Some(cx.waker().clone());
        // Looked at behind that, so that a ring in between is not lost.
        if self.is_over() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// What `future` gives; `None` if that takes too long.
    pub(crate) async fn bound<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut results = self.all([future], |_| false).await;
        results.pop().flatten()
    }

    /// What all of `futures` give, at the same time; `None` for those that take too long. Ends early with the first of which `enough`
    /// is true.
    pub(crate) async fn all<F: Future>(
        &self,
        futures: impl IntoIterator<Item = F>,
        enough: impl Fn(&F::Output) -> bool,
    ) -> Vec<Option<F::Output>> {
        let mut slots: Vec<_> = futures
            .into_iter()
            .map(|future| Slot::Pending(Box::pin(future)))
            .collect();
        std::future::poll_fn(|cx| {
            let mut pending = false;
            for slot in &mut slots {
                if let Slot::Pending(future) = slot {
                    match future.as_mut().poll(cx) {
                        Poll::Pending => pending = true,
                        Poll::Ready(output) => {
                            let stop = enough(&output);
                            *slot = Slot::Done(output);
                            if stop {
                                return Poll::Ready(());
                            }
                        }
                    }
                }
            }
            if pending {
                self.poll(cx)
            } else {
                Poll::Ready(())
            }
        })
        .await;
        slots.into_iter().map(Slot::output).collect()
    }
}

/// Wakes whoever waits when somebody rings.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<(bool, Option<Waker>)>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            drop(state);
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What `future` gives; `None` if the bell rings before.
    pub(crate) async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(cx).map(|()| None),
        })
        .await
    }
}

enum Slot<F: Future> {
    Pending(Pin<Box<F>>),
    Done(F::Output),
}

// The future is behind a pointer, and the output is never pinned.
impl<F: Future> Unpin for Slot<F> {}

impl<F: Future> Slot<F> {
    fn output(self) -> Option<F::Output> {
        match self {
            Self::Pending(_) => None,
            Self::Done(output) => Some(output),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.lock().dismissed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to return.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn what_is_ready_is_given_at_once() {
        let alarm = Alarm::after(Duration::from_secs(60)).unwrap();
        assert_eq!(zbus::block_on(alarm.bound(ready(7))), Some(7));
        let all = alarm.all([ready(1), ready(2)], |_| false);
        assert_eq!(zbus::block_on(all), [Some(1), Some(2)]);
        let first = alarm.all([ready(1), ready(2)], |one| *one == 1);
        assert_eq!(zbus::block_on(first), [Some(1), None]);
    }

    #[test]
    fn what_never_comes_is_left_behind() {
        let begin = Instant::now();
        let alarm = Alarm::after(Duration::from_millis(30)).unwrap();
        let futures: [Pin<Box<dyn Future<Output = u8>>>; 2] =
            [Box::pin(pending()), Box::pin(ready(2))];
        let all = zbus::block_on(alarm.all(futures, |_| false));
        assert_eq!(all, [None, Some(2)]);
        assert!(begin.elapsed() >= Duration::from_millis(30));
        // A deadline that has passed is one.
        assert_eq!(zbus::block_on(alarm.bound(pending::<u8>())), None);
    }
}
