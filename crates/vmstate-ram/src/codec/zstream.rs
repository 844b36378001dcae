//! zstd.

use std::fmt;

use zstd::stream::raw::{DParameter, Decoder, Encoder, Operation};
use zstd::zstd_safe::OutBuffer;

use super::Inflate;

/// The largest window that a frame may ask for, as a power of two: 32 MiB, what level 20 uses. It bounds the memory
/// of a decoder.
const WINDOW_LOG: u32 = 25;

pub(crate) struct Inflater(Decoder<'static>);

impl Inflater {
    pub(crate) fn new() -> Result<Self, &'static str> {
        let mut decoder = Decoder::new().map_err(|_| "the decoder cannot be made")?;
        decoder
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .map_err(|_| "the decoder's window cannot be bounded")?;
        Ok(Self(decoder))
    }
}

impl Inflate for Inflater {
    fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), &'static str> {
        let status = self
            .0
            .run_on_buffers(input, out)
            .map_err(|_| "it is not valid zstd data")?;
        Ok((status.bytes_read, status.bytes_written))
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inflater").finish_non_exhaustive()
    }
}

pub(crate) struct Deflater {
    inner: Encoder<'static>,
    step: Box<[u8]>,
}

impl Deflater {
    pub(crate) fn new(level: i32) -> Result<Self, &'static str> {
        let inner = Encoder::new(level.clamp(0, 20)).map_err(|_| "the encoder cannot be made")?;
        Ok(Self {
            inner,
            step: vec![0; 16 << 10].into(),
        })
    }

    /// Compresses more of the frame.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        while !input.is_empty() {
            let status = self
                .inner
                .run_on_buffers(input, &mut self.step)
                .map_err(|_| "the compressor refused its input")?;
            input = input.get(status.bytes_read..).unwrap_or_default();
            out.extend_from_slice(self.step.get(..status.bytes_written).unwrap_or_default());
        }
        Ok(())
    }

    /// Makes everything so far readable for the other side.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        loop {
            let mut buffer = OutBuffer::around(&mut *self.step);
            let left = self
                .inner
                .flush(&mut buffer)
                .map_err(|_| "the compressor cannot flush")?;
            out.extend_from_slice(buffer.as_slice());
            if left == 0 {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}
