//! Descriptors that a monitor's clients pass, by the names that they give them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// The most names at a time.
const MOST: usize = 256;

/// Named descriptors of a machine: a client of its monitor sends one over the Unix socket (`SCM_RIGHTS`) and names it with `getfd`;
/// `fd:NAME` takes it out again. Clones share the names.
///
/// ```
/// use vmstate_io::live::Descriptors;
///
/// let descriptors = Descriptors::default();
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// descriptors.receive(theirs.into());
/// descriptors.name("migration")?;
/// assert!(descriptors.take("migration").is_some());
/// assert!(descriptors.take("migration").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Descriptors(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Without a name yet. A client's commands run on the thread that receives for it, and on no other.
    received: HashMap<ThreadId, OwnedFd>,
    named: BTreeMap<String, OwnedFd>,
}

/// Why a descriptor cannot be named or closed. The texts are QEMU's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// `fd:` with a digit behind it is an inherited descriptor's number.
    #[error("Parameter 'fdname' expects a name not starting with a digit")]
    Digit,
    /// The client has sent none.
    #[error("No file descriptor supplied via SCM_RIGHTS")]
    NotSupplied,
    /// There is none of this name.
    #[error("File descriptor named '{0}' not found")]
    NotFound(String),
    /// There is no room for another name.
    #[error("There are {MOST} named file descriptors already")]
    TooMany,
}

impl Descriptors {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that panics is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a descriptor until this thread names it. One that waits already is closed.
    pub fn receive(&self, descriptor: OwnedFd) {
        let old = self
            .table()
            .received
            .insert(thread::current().id(), descriptor);
        drop(old);
    }

    /// Closes what this thread has received and not named: its client is gone.
    pub fn forget(&self) {
        let old = self.table().received.remove(&thread::current().id());
        drop(old);
    }

    /// Names what this thread has received last: the command `getfd`. A descriptor that had the name is closed.
    ///
    /// # Errors
    /// [`DescriptorError`]; what was received is closed if the name is none.
    pub fn name(&self, name: &str) -> Result<(), DescriptorError> {
        let mut table = self.table();
        let received = table.received.remove(&thread::current().id());
        let received = received.ok_or(DescriptorError::NotSupplied)?;
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(DescriptorError::Digit);
        }
        if table.named.len() >= MOST && !table.named.contains_key(name) {
            return Err(DescriptorError::TooMany);
        }
        table.named.insert(name.to_owned(), received);
        Ok(())
    }

    /// Closes the descriptor of this name: the command `closefd`.
    ///
    /// # Errors
    /// [`DescriptorError::NotFound`].
    pub fn close(&self, name: &str) -> Result<(), DescriptorError> {
        match self.take(name) {
            Some(_) => Ok(()),
            None => Err(DescriptorError::NotFound(name.to_owned())),
        }
    }

    /// Whether there is a descriptor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.table().named.contains_key(name)
    }

    /// Takes the descriptor of this name, which is free then.
    #[must_use]
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.table().named.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn names_are_taken_once_and_replaced() {
        let descriptors = Descriptors::default();
        assert_eq!(descriptors.name("a"), Err(DescriptorError::NotSupplied));
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            descriptors.receive(theirs.into());
            assert_eq!(descriptors.name("a"), Ok(()));
            ends.push(ours);
        }
        // The two that lost the name are closed.
        for end in &mut ends[..2] {
            assert_eq!(end.read(&mut [0]).unwrap(), 0);
        }
        assert!(descriptors.take("a").is_some());
        let missing = DescriptorError::NotFound("a".to_owned());
        assert_eq!(descriptors.close("a"), Err(missing));
    }

    #[test]
    fn a_number_is_no_name_and_a_stranger_names_nothing() {
        let descriptors = Descriptors::default();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        descriptors.receive(theirs.into());
        assert_eq!(descriptors.name("7up"), Err(DescriptorError::Digit));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        descriptors.receive(theirs.into());
        thread::scope(|scope| {
            let other = scope.spawn(|| descriptors.name("b"));
            assert_eq!(other.join().unwrap(), Err(DescriptorError::NotSupplied));
        });
        descriptors.forget();
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn names_are_bounded() {
        let descriptors = Descriptors::default();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        for number in 0..=MOST {
            descriptors.receive(theirs.try_clone().unwrap().into());
            let expected = if number < MOST {
                Ok(())
            } else {
                Err(DescriptorError::TooMany)
            };
            assert_eq!(descriptors.name(&format!("n{number}")), expected);
        }
        descriptors.receive(theirs.into());
        assert_eq!(descriptors.name("n0"), Ok(()));
    }
}
