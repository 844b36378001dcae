//! Reading from the front of a slice that may be too short.

use crate::RamError;

/// Why a parse did not finish.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The input must be at least this long, counted from its beginning.
    Need(usize),
    /// The bytes are refused.
    Error(RamError),
}

impl From<RamError> for Halt {
    fn from(error: RamError) -> Self {
        Self::Error(error)
    }
}

/// A slice and how much of it has been read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    consumed: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            consumed: 0,
        }
    }

    /// Bytes read so far.
    pub(crate) fn consumed(&self) -> usize {
        self.consumed
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Halt> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.need(count))?;
        self.rest = rest;
        self.consumed = self.consumed.saturating_add(count);
        Ok(taken)
    }

    /// The next bytes without reading them.
    pub(crate) fn peek<const N: usize>(&self) -> Result<&'a [u8; N], Halt> {
        self.rest.first_chunk().ok_or_else(|| self.need(N))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Halt> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.need(N))?;
        self.rest = rest;
        self.consumed = self.consumed.saturating_add(N);
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Halt> {
        let [byte] = *self.array()?;
        Ok(byte)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, Halt> {
        Ok(u16::from_be_bytes(*self.array()?))
    }

    pub(crate) fn u32_be(&mut self) -> Result<u32, Halt> {
        Ok(u32::from_be_bytes(*self.array()?))
    }

    pub(crate) fn u64_be(&mut self) -> Result<u64, Halt> {
        Ok(u64::from_be_bytes(*self.array()?))
    }

    /// A length byte and that many bytes.
    pub(crate) fn name(&mut self) -> Result<&'a [u8], Halt> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    #[cold]
    fn need(&self, count: usize) -> Halt {
        Halt::Need(self.consumed.saturating_add(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_counted_from_the_beginning() {
        let mut cursor = Cursor::new(&[0, 1, 3, b'a', b'b']);
        assert_eq!(cursor.u16_be().unwrap(), 1);
        assert!(matches!(cursor.name(), Err(Halt::Need(6))));
        let mut cursor = Cursor::new(&[0, 1]);
        assert!(matches!(cursor.peek::<8>(), Err(Halt::Need(8))));
        assert!(matches!(cursor.u32_be(), Err(Halt::Need(4))));
        assert_eq!(cursor.consumed(), 0);
    }
}
