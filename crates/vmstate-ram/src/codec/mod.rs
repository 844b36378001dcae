//! Compression libraries behind one small shape.

#[cfg(feature = "zlib")]
pub(crate) mod deflate;
#[cfg(feature = "zstd")]
pub(crate) mod zstream;

/// A decompressor that can stop at any byte.
#[cfg(any(feature = "zlib", feature = "zstd"))]
pub(crate) trait Inflate {
    /// Goes on as far as input and room allow; returns how many bytes it read and wrote.
    fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), &'static str>;
}

/// Decompresses all of `input`, which must fill `out` exactly.
#[cfg(any(feature = "zlib", feature = "zstd"))]
pub(crate) fn fill(
    stage: &mut impl Inflate,
    input: &[u8],
    out: &mut [u8],
) -> Result<(), &'static str> {
    let (mut read, mut written) = (0_usize, 0_usize);
    // Room for one byte too many: to let a stage read flush marks behind the last byte, and to notice more output.
    let mut spill = [0];
    loop {
        let rest = input.get(read..).unwrap_or_default();
        let target = out.get_mut(written..).unwrap_or_default();
        let full = target.is_empty();
        let (taken, made) = stage.run(rest, if full { &mut spill } else { target })?;
        if full && made > 0 {
            return Err("it holds more bytes than announced");
        }
        if taken == 0 && made == 0 {
            break;
        }
        read = read.saturating_add(taken);
        written = written.saturating_add(made);
    }
    if written < out.len() {
        Err("it holds fewer bytes than announced")
    } else if read < input.len() {
        Err("bytes are left behind its end")
    } else {
        Ok(())
    }
}
