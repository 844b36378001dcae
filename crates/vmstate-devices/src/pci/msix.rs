//! MSI-X: message-signalled interrupts.

use vmstate_derive::VmState;
use vmstate_desc::{Error, LoadField, SaveField};

/// Bytes of a table entry.
const ENTRY: usize = 16;

/// One entry of the table: what is written where to raise the interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MsixVector {
    /// Guest-physical address.
    pub address: u64,
    /// What is written there.
    pub data: u32,
    /// Bit 0: masked.
    pub control: u32,
}

impl MsixVector {
    /// Whether the interrupt is masked.
    #[must_use]
    pub const fn is_masked(&self) -> bool {
        self.control & 1 != 0
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let (address, rest) = bytes.split_at_mut(8);
        let (data, control) = rest.split_at_mut(4);
        address.copy_from_slice(&self.address.to_le_bytes());
        data.copy_from_slice(&self.data.to_le_bytes());
        control.copy_from_slice(&self.control.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; ENTRY]) -> Self {
        let [a, b, c, d] = [0, 4, 8, 12].map(|at| {
            let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
            word.map_or(0, |word| u32::from_le_bytes(*word))
        });
        Self {
            address: u64::from(b) << 32 | u64::from(a),
            data: c,
            control: d,
        }
    }
}

/// Table and pending bits of a device with MSI-X, `msix`.
///
/// How many vectors there are is configured: make one with [`Msix::new`] before loading.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "msix")]
pub struct Msix {
    /// The table.
    #[vmstate(name = "msix", custom(name = "msix state", save = Self::save, load = Self::load))]
    pub vectors: Vec<MsixVector>,
    /// A bit per vector: raised while masked. Least significant bits first.
    #[vmstate(skip = "travels with the table")]
    pub pending: Vec<u8>,
}

impl Msix {
    /// As many vectors as that, all zero.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors);
        Self {
            vectors: vec![MsixVector::default(); vectors],
            pending: vec![0; vectors.div_ceil(8)],
        }
    }

    /// Whether this vector's interrupt was raised while it was masked.
    #[must_use]
    pub fn is_pending(&self, vector: usize) -> bool {
        self.pending
            .get(vector / 8)
            .is_some_and(|bits| bits >> (vector % 8) & 1 != 0)
    }

    /// Table and pending bits, within a custom codec.
    pub(crate) fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        for vector in &self.vectors {
            sink.raw(&vector.to_bytes())?;
        }
        sink.raw(&self.pending)
    }

    /// Table and pending bits, within a custom codec.
    pub(crate) fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        for (index, vector) in self.vectors.iter_mut().enumerate() {
            let mut bytes = [0; ENTRY];
            source
                .raw(&mut bytes)
                .map_err(|e| e.in_element(index as u64))?;
            *vector = MsixVector::from_bytes(bytes);
        }
        self.pending.resize(self.vectors.len().div_ceil(8), 0);
        source
            .raw(&mut self.pending)
            .map_err(|e| e.in_field("pending"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_little_endian() {
        let vector = MsixVector {
            address: 0x0102_0304_0506_0708,
            data: 0x090a_0b0c,
            control: 1,
        };
        let bytes = vector.to_bytes();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1, 12, 11, 10, 9, 1, 0, 0, 0]);
        assert_eq!(MsixVector::from_bytes(bytes), vector);
        assert!(vector.is_masked());
    }
}
