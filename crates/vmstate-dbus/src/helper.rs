//! What a helper process implements.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vmstate_desc::{Limits, VmState};
use vmstate_wire::codec;
use vmstate_wire::helpers::MAX_STATE;

/// Why a helper does not save or load. Whoever migrates sees the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelperError(String);

impl HelperError {
    /// An error with this text: lower case, no full stop, values included.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for HelperError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A process, or a part of one, whose state travels with a machine.
///
/// The three methods are called from one thread, one after the other. A panic in one of them is an error for the caller and no more.
///
/// A helper with a described state needs no implementation: see [`Described`].
pub trait Helper: Send + Sync + 'static {
    /// Who this is, the same on both hosts: 1 to 255 bytes, unique among all helpers of the machine. A comma would keep it from
    /// being listed. Always the same.
    fn id(&self) -> String;

    /// Gives the state: 1 byte to 1 MiB. The helper goes on afterwards, for the migration may fail, and the guest goes on here.
    ///
    /// Whoever migrates waits with its guest stopped: what takes more than milliseconds is felt there.
    ///
    /// # Errors
    /// Why there is none: the migration fails, and the guest goes on here.
    fn save(&self) -> Result<Vec<u8>, HelperError>;

    /// Takes the state over, before the guest runs.
    ///
    /// # Errors
    /// What is wrong with it: the migration fails, and the guest goes on where it was.
    fn load(&self, state: &[u8]) -> Result<(), HelperError>;
}

impl<H: Helper + ?Sized> Helper for Arc<H> {
    fn id(&self) -> String {
        (**self).id()
    }

    fn save(&self) -> Result<Vec<u8>, HelperError> {
        (**self).save()
    }

    fn load(&self, state: &[u8]) -> Result<(), HelperError> {
        (**self).load(state)
    }
}

/// A helper whose state is described: `T` derives `VmState`, and the helper's own threads share it.
///
/// What travels is the version of the description, big-endian in four bytes, and the fields in QEMU's encoding. A newer helper loads
/// what an older one has saved, by the rules of its description.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use vmstate_dbus::{Described, Helper};
/// use vmstate_derive::VmState;
///
/// #[derive(Debug, Default, PartialEq, VmState)]
/// #[vmstate(name = "lease", version = 2, minimum_version = 1)]
/// struct Lease {
///     address: u32,
///     #[vmstate(since = 2)]
///     seconds: u32,
/// }
///
/// let lease = Arc::new(Mutex::new(Lease { address: 0x0a00_020f, seconds: 3600 }));
/// let helper = Described::new("dhcp0", Arc::clone(&lease));
/// let state = helper.save()?;
/// assert_eq!(state, [0, 0, 0, 2, 10, 0, 2, 15, 0, 0, 14, 16]);
///
/// *lease.lock().unwrap() = Lease::default();
/// helper.load(&state)?;
/// assert_eq!(lease.lock().unwrap().seconds, 3600);
/// # Ok::<(), vmstate_dbus::HelperError>(())
/// ```
#[derive(Debug)]
pub struct Described<T> {
    id: String,
    state: Arc<Mutex<T>>,
}

impl<T> Described<T> {
    /// A helper of this name with this state.
    pub fn new(id: impl Into<String>, state: Arc<Mutex<T>>) -> Self {
        Self {
            id: id.into(),
            state,
        }
    }
}

/// Bytes of the version in front of a described state.
const VERSION: usize = 4;

impl<T: VmState + Send + 'static> Helper for Described<T> {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn save(&self) -> Result<Vec<u8>, HelperError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = T::DESCRIPTION.version_id.to_be_bytes().to_vec();
        codec::encode(&*state, &mut bytes)?;
        Ok(bytes)
    }

    fn load(&self, state: &[u8]) -> Result<(), HelperError> {
        let Some((version, fields)) = state.split_first_chunk::<VERSION>() else {
            let length = state.len();
            return Err(HelperError::new(format!(
                "a state of {length} bytes has no version"
            )));
        };
        let limits = Limits {
            memory: 16 * MAX_STATE as u64,
            ..Limits::default()
        };
        let mut target = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let version = u32::from_be_bytes(*version);
        let used = codec::decode(&mut *target, version, fields, limits)?;
        if used == fields.len() {
            Ok(())
        } else {
            let left = fields.len() - used;
            Err(HelperError::new(format!(
                "{left} bytes are left behind the last field"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use vmstate_derive::VmState;

    use super::*;

    #[derive(Debug, Default, VmState)]
    #[vmstate(name = "count", version = 1, minimum_version = 1)]
    struct Count {
        value: u16,
    }

    #[test]
    fn a_described_state_is_taken_whole_or_refused() {
        let state = Arc::new(Mutex::new(Count { value: 7 }));
        let helper = Described::new("count", Arc::clone(&state));
        assert_eq!(helper.save().unwrap(), [0, 0, 0, 1, 0, 7]);
        helper.load(&[0, 0, 0, 1, 1, 0]).unwrap();
        assert_eq!(state.lock().unwrap().value, 256);
        let refused = |bytes: &[u8]| helper.load(bytes).unwrap_err().to_string();
        assert_eq!(refused(&[0, 0]), "a state of 2 bytes has no version");
        assert!(refused(&[0, 0, 0, 2, 0, 0]).contains("version 2"));
        assert!(refused(&[0, 0, 0, 1, 0]).contains("ends inside"));
        assert_eq!(
            refused(&[0, 0, 0, 1, 0, 0, 0]),
            "1 bytes are left behind the last field"
        );
    }
}
