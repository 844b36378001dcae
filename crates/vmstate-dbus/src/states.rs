//! The states of all helpers as described state: what formats that describe themselves carry beside QEMU's bytes.

use vmstate_derive::VmState;
use vmstate_wire::helpers::{BlobError, BlobReader, Element};

use crate::find::MAX_HELPERS;
use crate::session::Saved;

const MOST: u32 = 1000;
const _: () = assert!(MOST as usize == MAX_HELPERS);

/// One helper's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "helper", version = 0)]
pub struct HelperState {
    /// Who it is.
    #[vmstate(byte_array, max = 255)]
    pub id: Vec<u8>,
    /// What it saved; its own affair.
    #[vmstate(byte_array, max = 1048576)]
    pub state: Vec<u8>,
}

/// The states of all helpers, one entry for each.
///
/// In QEMU's encoding these are the bytes of the [blob](vmstate_wire::helpers), without its padding.
///
/// ```
/// use vmstate_dbus::{HelperState, HelperStates};
///
/// let mut states = HelperStates::default();
/// states.count = 1;
/// states.helpers.push(HelperState { id: b"net0".to_vec(), state: b"table".to_vec() });
/// let mut bytes = Vec::new();
/// vmstate_wire::codec::encode(&states, &mut bytes)?;
/// assert_eq!(bytes, b"\0\0\0\x01\0\0\0\x04net0\0\0\0\x05table");
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "dbus-vmstate/helpers", version = 0)]
pub struct HelperStates {
    /// How many.
    pub count: u32,
    /// In the order of their ids.
    #[vmstate(count = count, max = MOST)]
    pub helpers: Vec<HelperState>,
}

impl From<Vec<Element>> for HelperStates {
    fn from(elements: Vec<Element>) -> Self {
        let helpers: Vec<_> = elements
            .into_iter()
            .map(|Element { id, state }| HelperState { id, state })
            .collect();
        Self {
            // Not more than came in a blob.
            count: u32::try_from(helpers.len()).unwrap_or(u32::MAX),
            helpers,
        }
    }
}

impl From<&Saved> for HelperStates {
    fn from(saved: &Saved) -> Self {
        let elements = saved.states.iter().map(|(id, state)| Element {
            id: id.as_bytes().to_vec(),
            state: state.bytes().to_vec(),
        });
        elements.collect::<Vec<_>>().into()
    }
}

impl HelperStates {
    /// The states that `reader` takes, which checks them as it does a blob's.
    pub(crate) fn into_elements(self, mut reader: BlobReader) -> Result<Vec<Element>, BlobError> {
        reader.push(&self.count.to_be_bytes())?;
        for helper in &self.helpers {
            for bytes in [&helper.id, &helper.state] {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                reader.push(&length.to_be_bytes())?;
                reader.push(bytes)?;
            }
        }
        reader.finish()
    }
}

#[cfg(test)]
mod tests {
    use vmstate_desc::{Limits, VmState};
    use vmstate_wire::codec::{decode, encode};
    use vmstate_wire::helpers::{decode_blob, put_blob};

    use super::*;

    /// Two codecs that know nothing of each other agree.
    #[test]
    fn the_described_states_are_the_blob() {
        assert!(HelperStates::DESCRIPTION.check().is_ok());
        let mut blob = Vec::new();
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b""), (b"net0", b"\0table"), (b"\xff", &[7; 300])];
        put_blob(&mut blob, &pairs).unwrap();
        let states = HelperStates::from(decode_blob(&blob, 3).unwrap());
        let mut bytes = Vec::new();
        encode(&states, &mut bytes).unwrap();
        assert_eq!(bytes[..], blob[..bytes.len()]);
        let mut read = HelperStates::default();
        let used = decode(&mut read, 0, &blob, Limits::default());
        assert_eq!((used, read), (Ok(bytes.len()), states));
    }
}
