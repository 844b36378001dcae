//! The VMM's big lock, as a value that proves who holds it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The VMM's big lock, held.
///
/// QEMU calls that lock BQL. A handler that runs under it gets a `&Bql`; one that must not, gets none and so cannot
/// call what needs it. The value owns the guard of whatever lock the VMM has: dropping it releases the lock. It
/// stays in its thread, as the guard does.
///
/// ```
/// use std::sync::Mutex;
/// use vmstate_engine::Bql;
///
/// struct Vmm { big_lock: Mutex<()> }
/// fn only_under_the_lock(_: &Bql<'_>) {}
///
/// let vmm = Vmm { big_lock: Mutex::new(()) };
/// let bql = Bql::lock(&vmm.big_lock);
/// only_under_the_lock(&bql);
/// assert!(vmm.big_lock.try_lock().is_err());
/// drop(bql);
/// assert!(vmm.big_lock.try_lock().is_ok());
/// ```
pub struct Bql<'a> {
    /// Held for the sake of its drop.
    _guard: Box<dyn Guard + 'a>,
}

trait Guard {}

impl<T> Guard for T {}

impl<'a> Bql<'a> {
    /// Takes the lock. A poisoned one counts as taken: what a thread did before it panicked is for the devices to
    /// judge.
    #[must_use]
    pub fn lock<T: ?Sized>(lock: &'a Mutex<T>) -> Self {
        Self::holding(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that the lock is held because `guard` is. For locks of other types; a VMM with a single thread may pass
    /// `()`.
    #[must_use]
    pub fn holding<G: 'a>(guard: G) -> Self {
        Self {
            _guard: Box::new(guard),
        }
    }
}

impl<'a, T: ?Sized> From<MutexGuard<'a, T>> for Bql<'a> {
    fn from(guard: MutexGuard<'a, T>) -> Self {
        Self::holding(guard)
    }
}

impl fmt::Debug for Bql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bql")
    }
}
