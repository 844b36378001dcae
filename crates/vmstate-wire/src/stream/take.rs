//! Taking integers and names off the front of a piece of input that may be too short.

use super::error::StreamErrorKind;

/// A piece of input is too short: at least this many bytes are needed, counted from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need(pub(super) usize);

/// Why a piece of input could not be parsed.
#[derive(Debug)]
pub(super) enum Stop<K = StreamErrorKind> {
    /// It is too short.
    Need(Need),
    /// It is wrong, at this distance from its start.
    Fail(usize, Box<K>),
}

impl<K> From<Need> for Stop<K> {
    fn from(need: Need) -> Self {
        Self::Need(need)
    }
}

/// A cursor over a piece of input.
#[derive(Debug, Clone)]
pub(super) struct Take<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Take<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Need> {
        let end = self.at.saturating_add(count);
        let taken = self.input.get(self.at..end).ok_or(Need(end))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Need> {
        let end = self.at.saturating_add(N);
        let taken = self
            .input
            .get(self.at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Need(end))?;
        self.at = end;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Need> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16_be(&mut self) -> Result<u16, Need> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32_be(&mut self) -> Result<u32, Need> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64_be(&mut self) -> Result<u64, Need> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], Need> {
        self.array()
    }

    /// A length byte and that many bytes.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Need> {
        let length = usize::from(self.u8()?);
        self.bytes(length)
    }
}

/// A refusal at `at` bytes from the start of the input.
pub(super) fn fail<T, K>(at: usize, kind: K) -> Result<T, Stop<K>> {
    Err(Stop::Fail(at, Box::new(kind)))
}
