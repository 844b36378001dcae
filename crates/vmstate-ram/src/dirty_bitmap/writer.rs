//! Writing chunks.

use super::{Body, Chunk, ChunkFlags, LONGEST_BITS, PADDING, StartFlags};
use crate::{RamError, RamErrorKind};

/// Writes the payload of `dirty-bitmap` sections as QEMU does. It remembers the aliases across sections and leaves
/// them out where they do not change.
///
/// Methods that fail leave buffer and memory unchanged.
///
/// ```
/// use vmstate_ram::dirty_bitmap::{ChunkWriter, StartFlags};
///
/// let mut writer = ChunkWriter::new();
/// let mut out = Vec::new();
/// writer.start(b"d0", b"b1", 4096, StartFlags::empty(), &mut out)?;
/// writer.start(b"d0", b"b0", 65536, StartFlags::ENABLED, &mut out)?;
/// writer.end_of_section(&mut out);
/// assert_eq!(out, b"\x1c\x02d0\x02b1\0\0\x10\0\0\x14\x02b0\0\x01\0\0\x01\x01");
/// # Ok::<(), vmstate_ram::RamError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ChunkWriter {
    node: Box<[u8]>,
    bitmap: Box<[u8]>,
}

impl ChunkWriter {
    /// Makes a writer that remembers no alias.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a start chunk. `granularity` is in bytes of disk per bit.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::ChunkAlias`] for an alias that is empty or longer than 255 bytes,
    /// [`RamErrorKind::ChunkGranularity`].
    pub fn start(
        &mut self,
        node: &[u8],
        bitmap: &[u8],
        granularity: u32,
        flags: StartFlags,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        self.put(node, bitmap, Body::Start { granularity, flags }, out)
    }

    /// Appends bits. Pads them with zeros to 32 bytes; if all are 0, only that is sent.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::ChunkAlias`]; [`RamErrorKind::ChunkBits`] for more than 10 KiB.
    pub fn bits(
        &mut self,
        node: &[u8],
        bitmap: &[u8],
        first_sector: u64,
        sectors: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        if data.len() as u64 > LONGEST_BITS {
            return Err(too_long(data));
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(PADDING), 0);
        let data = if crate::is_zero_page(data) {
            None
        } else {
            Some(padded.as_slice())
        };
        self.put(
            node,
            bitmap,
            Body::Bits {
                first_sector,
                sectors,
                data,
            },
            out,
        )
    }

    /// Appends the chunk that says that a bitmap is complete.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::ChunkAlias`].
    pub fn complete(
        &mut self,
        node: &[u8],
        bitmap: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        self.put(node, bitmap, Body::Complete, out)
    }

    /// Appends the end of the section.
    pub fn end_of_section(&self, out: &mut Vec<u8>) {
        out.push(ChunkFlags::EOS.bits());
    }

    /// Appends a chunk as it was parsed: with the aliases exactly if it had them, and its bits as they are.
    ///
    /// # Errors
    ///
    /// As the method for that chunk.
    pub fn chunk(chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Result<(), RamError> {
        check(chunk)?;
        let mut flags = match chunk.body {
            Body::Start { .. } => ChunkFlags::START,
            Body::Bits { data: Some(_), .. } => ChunkFlags::BITS,
            Body::Bits { data: None, .. } => ChunkFlags::BITS | ChunkFlags::ZEROES,
            Body::Complete => ChunkFlags::COMPLETE,
        };
        flags.set(ChunkFlags::DEVICE_NAME, chunk.node_named);
        flags.set(ChunkFlags::BITMAP_NAME, chunk.bitmap_named);
        out.push(flags.bits());
        for (named, alias) in [
            (chunk.node_named, chunk.node),
            (chunk.bitmap_named, chunk.bitmap),
        ] {
            if named {
                // `check` bounds the length.
                out.push(u8::try_from(alias.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(alias);
            }
        }
        match chunk.body {
            Body::Start { granularity, flags } => {
                out.extend_from_slice(&granularity.to_be_bytes());
                out.push(flags.bits());
            }
            Body::Bits {
                first_sector,
                sectors,
                data,
            } => {
                out.extend_from_slice(&first_sector.to_be_bytes());
                out.extend_from_slice(&sectors.to_be_bytes());
                if let Some(data) = data {
                    out.extend_from_slice(&(data.len() as u64).to_be_bytes());
                    out.extend_from_slice(data);
                }
            }
            Body::Complete => {}
        }
        Ok(())
    }

    /// Appends a chunk and remembers its aliases.
    pub(super) fn put(
        &mut self,
        node: &[u8],
        bitmap: &[u8],
        body: Body<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        let node_named = node != &*self.node;
        let bitmap_named = bitmap != &*self.bitmap;
        Self::chunk(
            &Chunk {
                node,
                bitmap,
                node_named,
                bitmap_named,
                body,
            },
            out,
        )?;
        (self.node, self.bitmap) = (node.into(), bitmap.into());
        Ok(())
    }
}

fn check(chunk: &Chunk<'_>) -> Result<(), RamError> {
    for (what, alias) in [("node", chunk.node), ("bitmap", chunk.bitmap)] {
        if alias.is_empty() || alias.len() > 255 {
            return Err(RamErrorKind::ChunkAlias { what }.into());
        }
    }
    match chunk.body {
        Body::Start { granularity, .. } if !granularity.is_power_of_two() || granularity < 512 => {
            Err(RamErrorKind::ChunkGranularity { found: granularity }.into())
        }
        Body::Bits {
            data: Some(data), ..
        } if data.len() as u64 > LONGEST_BITS => Err(too_long(data)),
        _ => Ok(()),
    }
}

fn too_long(data: &[u8]) -> RamError {
    RamErrorKind::ChunkBits {
        found: data.len() as u64,
        limit: LONGEST_BITS,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_bits_and_shortens_zeroes() {
        let mut writer = ChunkWriter::new();
        let mut out = Vec::new();
        writer.bits(b"n", b"b", 8, 2, &[1], &mut out).unwrap();
        assert_eq!(out[..5], *b"\x4c\x01n\x01b");
        assert_eq!(
            out[5..25],
            [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 32]
        );
        assert_eq!((out[25], out.len()), (1, 25 + 32));
        out.clear();
        writer.bits(b"n", b"b", 8, 2, &[0; 3], &mut out).unwrap();
        writer.complete(b"n", b"b", &mut out).unwrap();
        assert_eq!(out, [0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 2, 0x20]);
    }

    #[test]
    fn a_refusal_appends_nothing_and_remembers_nothing() {
        let mut writer = ChunkWriter::new();
        let mut out = Vec::new();
        assert!(
            writer
                .start(b"", b"b", 512, StartFlags::empty(), &mut out)
                .is_err()
        );
        assert!(
            writer
                .start(b"n", &[b'x'; 256], 512, StartFlags::empty(), &mut out)
                .is_err()
        );
        assert!(
            writer
                .start(b"n", b"b", 256, StartFlags::empty(), &mut out)
                .is_err()
        );
        assert!(
            writer
                .bits(b"n", b"b", 0, 0, &[1; 10_241], &mut out)
                .is_err()
        );
        assert!(out.is_empty());
        writer.complete(b"n", b"b", &mut out).unwrap();
        assert_eq!(out, b"\x2c\x01n\x01b");
    }
}
