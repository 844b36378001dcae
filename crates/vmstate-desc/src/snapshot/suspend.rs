//! The first phase of a restore, kept until the second.
//!
//! What is prepared for the content of a lock borrows from the lock's guard, and both have to be kept together. A value that
//! borrows from itself is what the compiler makes of an `async` block that waits: the guard and what borrows from it are its
//! local variables, the wait stands between the phases, and nothing needs to be unsafe.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::InvalidError;

/// Awaited once by a restore, between its phases.
pub async fn checked() {
    let mut waited = false;
    poll_fn(|_| {
        if waited {
            Poll::Ready(())
        } else {
            waited = true;
            Poll::Pending
        }
    })
    .await;
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `restore` up to [`checked`]; what is returned runs the rest.
///
/// # Errors
/// Those of the first phase.
pub fn suspend<F>(restore: F) -> Result<impl FnOnce(), InvalidError>
where
    F: Future<Output = Result<(), InvalidError>>,
{
    let mut restore = Box::pin(restore);
    let waiting = match poll(restore.as_mut()) {
        Poll::Ready(result) => {
            result?;
            None
        }
        Poll::Pending => Some(restore),
    };
    Ok(move || {
        if let Some(mut restore) = waiting {
            let done = poll(restore.as_mut());
            debug_assert!(
                matches!(done, Poll::Ready(Ok(()))),
                "waits once, then cannot fail"
            );
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    #[expect(clippy::await_holding_refcell_ref, reason = "that is the point")]
    fn the_second_phase_runs_when_it_is_called() {
        let cell = &RefCell::new(1);
        let restore = |value| {
            suspend(async move {
                let mut guard = cell
                    .try_borrow_mut()
                    .map_err(|_| InvalidError::new("busy"))?;
                checked().await;
                *guard = value;
                Ok(())
            })
        };
        let commit = restore(2).unwrap();
        assert!(cell.try_borrow().is_err(), "the guard is kept");
        assert!(restore(3).is_err());
        commit();
        assert_eq!(*cell.borrow(), 2);
        drop(restore(4).unwrap());
        assert_eq!(*cell.borrow(), 2, "dropped, not run");
    }
}
