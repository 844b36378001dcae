//! zlib and raw deflate.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Inflate, fill};

/// How much room the compressor gets at a time, in bytes.
const STEP: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Inflater {
    inner: Decompress,
    /// With zlib header and checksum, or raw.
    wrapped: bool,
    ended: bool,
}

impl Inflater {
    pub(crate) fn new(wrapped: bool) -> Self {
        Self {
            inner: Decompress::new(wrapped),
            wrapped,
            ended: false,
        }
    }

    /// Decompresses one complete stream that must fill `out` exactly.
    pub(crate) fn one(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        self.inner.reset(self.wrapped);
        self.ended = false;
        fill(self, input, out)?;
        if self.ended {
            Ok(())
        } else {
            Err("it is cut off")
        }
    }
}

impl Inflate for Inflater {
    fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), &'static str> {
        if self.ended {
            return Ok((0, 0));
        }
        let (read, written) = (self.inner.total_in(), self.inner.total_out());
        let status = self
            .inner
            .decompress(input, out, FlushDecompress::Sync)
            .map_err(|_| "it is not valid deflate data")?;
        self.ended = status == Status::StreamEnd;
        let count =
            |now: u64, before: u64| usize::try_from(now.saturating_sub(before)).unwrap_or(0);
        Ok((
            count(self.inner.total_in(), read),
            count(self.inner.total_out(), written),
        ))
    }
}

#[derive(Debug)]
pub(crate) struct Deflater {
    inner: Compress,
}

impl Deflater {
    pub(crate) fn new(level: u32, wrapped: bool) -> Self {
        Self {
            inner: Compress::new(Compression::new(level.min(9)), wrapped),
        }
    }

    /// Compresses more of the stream.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.drive(input, FlushCompress::None, out)
    }

    /// Makes everything so far readable for the other side.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.drive(&[], FlushCompress::Sync, out)
    }

    /// Compresses one complete stream.
    pub(crate) fn one(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.inner.reset();
        self.drive(input, FlushCompress::Finish, out)
    }

    fn drive(
        &mut self,
        mut input: &[u8],
        flush: FlushCompress,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        loop {
            out.reserve(STEP);
            let before = self.inner.total_in();
            let status = self
                .inner
                .compress_vec(input, out, flush)
                .map_err(|_| "the compressor refused its input")?;
            let read = usize::try_from(self.inner.total_in().saturating_sub(before)).unwrap_or(0);
            input = input.get(read..).unwrap_or_default();
            // Room is left: all that this flush asks for has been written.
            if status == Status::StreamEnd || input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}
