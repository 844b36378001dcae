//! The compression state of one channel.

use super::Method;
#[cfg(feature = "zlib")]
use crate::codec::deflate;
#[cfg(any(feature = "zlib", feature = "zstd"))]
use crate::codec::fill;
#[cfg(feature = "zstd")]
use crate::codec::zstream;
use crate::{PageSize, RamError, RamErrorKind};

/// Decompresses the payloads of one channel, in the channel's order.
///
/// Memory is bounded: the window of the method (zlib 32 KiB, zstd at most 32 MiB) and what the caller gives.
#[derive(Debug)]
pub struct Decompressor {
    method: Method,
    page_size: PageSize,
    state: InflateState,
}

#[derive(Debug)]
enum InflateState {
    None,
    #[cfg(feature = "zlib")]
    Zlib(deflate::Inflater),
    #[cfg(feature = "zstd")]
    Zstd(zstream::Inflater),
    #[cfg(feature = "zlib")]
    PerPage(deflate::Inflater),
}

impl Decompressor {
    /// Makes the state for a new channel.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MethodNotBuilt`] for `QATzip`, and for methods whose feature is off.
    pub fn new(method: Method, page_size: PageSize) -> Result<Self, RamError> {
        let state = match method {
            Method::None => InflateState::None,
            #[cfg(feature = "zlib")]
            Method::Zlib => InflateState::Zlib(deflate::Inflater::new(true)),
            #[cfg(feature = "zlib")]
            Method::Qpl => InflateState::PerPage(deflate::Inflater::new(false)),
            #[cfg(feature = "zlib")]
            Method::Uadk => InflateState::PerPage(deflate::Inflater::new(true)),
            #[cfg(feature = "zstd")]
            Method::Zstd => InflateState::Zstd(
                zstream::Inflater::new().map_err(|what| RamErrorKind::Inflate { method, what })?,
            ),
            _ => return Err(RamErrorKind::MethodNotBuilt { method }.into()),
        };
        Ok(Self {
            method,
            page_size,
            state,
        })
    }

    /// Decompresses a packet's payload into the pages that it stands for, one behind the other in `pages`.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::BufferLength`] unless `pages` is a whole number of pages; [`RamErrorKind::Inflate`] if the
    /// payload does not give exactly these pages, in which case the content of `pages` is not defined and the
    /// channel cannot go on.
    pub fn decompress(&mut self, payload: &[u8], pages: &mut [u8]) -> Result<(), RamError> {
        let page_len = self.page_size.as_usize();
        if !pages.len().is_multiple_of(page_len) {
            let (expected, found) = (pages.len().next_multiple_of(page_len), pages.len());
            return Err(RamErrorKind::BufferLength { expected, found }.into());
        }
        let outcome = match &mut self.state {
            InflateState::None if payload.len() == pages.len() => {
                pages.copy_from_slice(payload);
                Ok(())
            }
            InflateState::None => Err("it is not as long as the pages"),
            #[cfg(feature = "zlib")]
            InflateState::Zlib(stream) => fill(stream, payload, pages),
            #[cfg(feature = "zstd")]
            InflateState::Zstd(stream) => fill(stream, payload, pages),
            #[cfg(feature = "zlib")]
            InflateState::PerPage(one) => per_page(one, payload, pages, page_len),
        };
        outcome.map_err(|what| {
            RamErrorKind::Inflate {
                method: self.method,
                what,
            }
            .into()
        })
    }
}

/// N big-endian 32-bit lengths, then N pieces; a piece as long as a page is one.
#[cfg(feature = "zlib")]
fn per_page(
    one: &mut deflate::Inflater,
    payload: &[u8],
    pages: &mut [u8],
    page_len: usize,
) -> Result<(), &'static str> {
    let count = pages.chunks_exact(page_len).len();
    let Some((lengths, mut pieces)) = payload.split_at_checked(count.saturating_mul(4)) else {
        return Err("it is shorter than its table of lengths");
    };
    for (length, page) in lengths
        .as_chunks()
        .0
        .iter()
        .zip(pages.chunks_exact_mut(page_len))
    {
        let length = u32::from_be_bytes(*length) as usize;
        if length > page_len {
            return Err("a piece is longer than a page");
        }
        let Some((piece, rest)) = pieces.split_at_checked(length) else {
            return Err("it is shorter than its pieces");
        };
        if length == page_len {
            page.copy_from_slice(piece);
        } else {
            one.one(piece, page)?;
        }
        pieces = rest;
    }
    if pieces.is_empty() {
        Ok(())
    } else {
        Err("bytes are left behind its end")
    }
}

/// Compresses the payloads of one channel, in the channel's order.
#[derive(Debug)]
pub struct Compressor {
    method: Method,
    page_size: PageSize,
    state: DeflateState,
}

#[derive(Debug)]
enum DeflateState {
    None,
    #[cfg(feature = "zlib")]
    Zlib(deflate::Deflater),
    #[cfg(feature = "zstd")]
    Zstd(zstream::Deflater),
    #[cfg(feature = "zlib")]
    PerPage(deflate::Deflater),
}

impl Compressor {
    /// Makes the state for a new channel. Levels: zlib 0 to 9, zstd 0 to 20, QEMU's default 1; a level above the
    /// range means its end. The other methods have none.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MethodNotBuilt`] for `QATzip`, and for methods whose feature is off.
    pub fn new(method: Method, level: u8, page_size: PageSize) -> Result<Self, RamError> {
        let state = match method {
            Method::None => DeflateState::None,
            #[cfg(feature = "zlib")]
            Method::Zlib => DeflateState::Zlib(deflate::Deflater::new(level.into(), true)),
            #[cfg(feature = "zlib")]
            Method::Qpl => DeflateState::PerPage(deflate::Deflater::new(1, false)),
            #[cfg(feature = "zlib")]
            Method::Uadk => DeflateState::PerPage(deflate::Deflater::new(1, true)),
            #[cfg(feature = "zstd")]
            Method::Zstd => DeflateState::Zstd(
                zstream::Deflater::new(level.into())
                    .map_err(|what| RamErrorKind::Deflate { method, what })?,
            ),
            _ => return Err(RamErrorKind::MethodNotBuilt { method }.into()),
        };
        let _ = level;
        Ok(Self {
            method,
            page_size,
            state,
        })
    }

    /// Appends the payload for these pages. They must not change meanwhile.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::BufferLength`] if a page has another size; [`RamErrorKind::Deflate`] if the library fails.
    /// After an error the channel cannot go on.
    pub fn compress(&mut self, pages: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RamError> {
        let expected = self.page_size.as_usize();
        if let Some(page) = pages.iter().find(|page| page.len() != expected) {
            return Err(RamErrorKind::BufferLength {
                expected,
                found: page.len(),
            }
            .into());
        }
        let outcome = match &mut self.state {
            DeflateState::None => {
                pages.iter().for_each(|page| out.extend_from_slice(page));
                Ok(())
            }
            #[cfg(feature = "zlib")]
            DeflateState::Zlib(stream) => pages
                .iter()
                .try_for_each(|page| stream.push(page, out))
                .and_then(|()| stream.flush(out)),
            #[cfg(feature = "zstd")]
            DeflateState::Zstd(stream) => pages
                .iter()
                .try_for_each(|page| stream.push(page, out))
                .and_then(|()| stream.flush(out)),
            #[cfg(feature = "zlib")]
            DeflateState::PerPage(one) => pieces(one, pages, out),
        };
        outcome.map_err(|what| {
            RamErrorKind::Deflate {
                method: self.method,
                what,
            }
            .into()
        })
    }
}

#[cfg(feature = "zlib")]
fn pieces(
    one: &mut deflate::Deflater,
    pages: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let (mut lengths, mut body) = (Vec::new(), Vec::new());
    for page in pages {
        let start = body.len();
        one.one(page, &mut body)?;
        if body.len().saturating_sub(start) >= page.len() {
            body.truncate(start);
            body.extend_from_slice(page);
        }
        let length = u32::try_from(body.len().saturating_sub(start)).unwrap_or(u32::MAX);
        lengths.extend_from_slice(&length.to_be_bytes());
    }
    out.append(&mut lengths);
    out.append(&mut body);
    Ok(())
}

#[cfg(test)]
mod tests;
