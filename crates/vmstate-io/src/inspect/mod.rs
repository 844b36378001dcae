//! Walking a whole stream: every section, every field of every device, every page record, to the last byte.
//!
//! Devices are decoded through the stream's own trailer. In a file it is found from the end beforehand; in a pipe it comes last,
//! so sections are first delimited by their footers, kept, and decoded when the trailer has come. Sections that nothing
//! describes are listed with inferred boundaries.
//!
//! Memory does not grow with the stream: page records are counted and passed over, device state is bounded by
//! [`Options::memory`], and of RAM that is asked for digests only what cannot be read again is kept.

mod ber;
mod bodies;
mod channels;
mod conclude;
mod device;
mod mapped_again;
mod placed;
mod ram;
mod report;
mod rewrite;
mod sink;
mod walk;

pub use report::{
    Analysis, BitmapChunk, BitmapChunkBody, Block, Channel, CommandAt, Content, InspectError, Kind,
    Pages, Problem, Ram, Report, Section, TrailerAt,
};
pub use rewrite::Summary;
pub(crate) use rewrite::{malformed, put_event};
pub(crate) use sink::Sink;

use vmstate_wire::dump::Dump;
use vmstate_wire::stream::{Limits as StreamLimits, TrailerSearch, find_trailer_within};

use crate::input::Input;

/// Default of [`Options::memory`]: 64 MiB.
pub const DEFAULT_MEMORY: u64 = 64 << 20;

/// Default of [`Options::digest_length`]: 4 TiB.
pub const DEFAULT_DIGEST_LENGTH: u64 = 4 << 40;

/// What to look at, and how much memory to take.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of memory for device state, its description included, beyond the RAM that digests are asked for.
    pub memory: u64,
    /// Compute the SHA-256 of each RAM block's final content. Takes eight bytes for each page that stands in a mapped file as it
    /// is, and memory for all others that are not zero: compressed ones, differences, those of pipes.
    pub digest: bool,
    /// Bytes of memory for digests: for pages that are kept, and as many for the places of those in files.
    pub ram_memory: u64,
    /// Bytes of guest RAM, zero pages included, of which digests are computed. A few bytes of a stream can claim any length,
    /// and hashing takes a second for one or two GiB.
    pub digest_length: u64,
    /// Encode every device again and compare bytes and trailer; report every device of the trailer without a section.
    pub verify: bool,
    /// Keep the decoded content of the sections for which this says yes, by id string.
    pub keep: Keep,
    /// Bytes before the stream: what the `offset=` of a `file:` URI leaves alone, or the header of a save image.
    pub start: u64,
    /// Descriptions for sections that no trailer describes: a `-dump-vmstate` file of the release that wrote the stream.
    pub describe: Option<std::sync::Arc<Dump>>,
    /// Target page size in bytes, if the stream does not say it or says it too late.
    pub page_size: Option<u64>,
}

/// Which sections' contents to keep.
#[derive(Debug, Clone, Default)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// Those whose id string matches this pattern with `*` and `?`.
    Matching(String),
}

impl Keep {
    /// Whether the section with this id string is kept.
    #[must_use]
    pub fn wants(&self, idstr: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Matching(pattern) => matches_glob(pattern.as_bytes(), idstr.as_bytes()),
        }
    }
}

impl Options {
    /// Bounds for the stream's parser: a trailer may take a quarter of the memory, its parsed form one half.
    fn stream_limits(&self) -> StreamLimits {
        let limits = StreamLimits::default();
        let quarter = u32::try_from(self.memory / 4).unwrap_or(u32::MAX);
        StreamLimits {
            trailer: limits.trailer.min(quarter),
            ..limits
        }
    }

    /// Bytes of memory that one device may take of `left`: encoding it again takes up to twice its own.
    const fn share(&self, left: u64) -> u64 {
        if self.verify { left / 3 } else { left }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            digest: false,
            ram_memory: u64::MAX,
            digest_length: DEFAULT_DIGEST_LENGTH,
            verify: false,
            keep: Keep::All,
            start: 0,
            describe: None,
            page_size: None,
        }
    }
}

/// Walks a stream to its end, or to the first thing that makes going on impossible. `channels` are further files of the same
/// migration: multifd channels, and the postcopy preempt channel.
///
/// A stream of VM state over BER is found out by its first bytes. Places and lengths are then those of frames, and all that a frame
/// or the last one says about the others is checked: checksums, counters, digests.
pub fn analyze(
    input: &mut dyn Input,
    channels: &mut [Box<dyn Input + '_>],
    options: &Options,
) -> Analysis {
    let failed = |error: InspectError| Analysis {
        report: Report::default(),
        failure: Some(error),
    };
    match pass_over(input, options).and_then(|()| Ok(is_ber(input)?)) {
        Ok(true) => return ber::analyze(input, options),
        Ok(false) => {}
        Err(error) => return failed(error),
    }
    let text = match trailer_of(input, options) {
        Ok(text) => text,
        Err(error) => return failed(error.into()),
    };
    let begun = walk::walk(input, channels, text, options, None);
    match (&begun.failure, is_ber(input)) {
        (Some(InspectError::Upgraded { offset }), Ok(true)) => {
            let start = *offset;
            go_on(
                begun.report,
                ber::analyze(
                    input,
                    &Options {
                        start,
                        ..options.clone()
                    },
                ),
            )
        }
        _ => begun,
    }
}

/// What two ends of ours have said in VM state over BER, behind what they began as QEMU's stream.
fn go_on(begun: Report, mut analysis: Analysis) -> Analysis {
    let report = &mut analysis.report;
    report.commands.splice(..0, begun.commands);
    report.length = report.length.saturating_add(begun.length);
    analysis
}

/// Walks a stream as [`analyze`] does, and writes it again from what was decoded: devices from their values, page records
/// from their content, the trailer from the descriptions. Compressed pages and differences are written back as they came.
///
/// The trailer must be known beforehand: devices of a stream from a pipe are copied, not encoded.
///
/// # Errors
/// As [`Analysis::failure`], and [`InspectError::Write`]. What was written until then is a beginning of a stream.
pub fn rewrite(
    input: &mut dyn Input,
    out: &mut dyn std::io::Write,
    options: &Options,
) -> Result<Summary, InspectError> {
    let mut rewriter = rewrite::Rewriter::new(out);
    match follow(input, options, &mut rewriter)?.failure {
        Some(failure) => Err(failure),
        None => Ok(rewriter.summary),
    }
}

/// Passes over what stands before the stream, unless that has been done.
///
/// # Errors
/// Less stands there.
pub(crate) fn pass_over(input: &mut dyn Input, options: &Options) -> Result<(), InspectError> {
    let left = options.start.saturating_sub(input.position());
    let skipped = input.consume(left)?;
    if skipped < left {
        return Err(InspectError::Truncated {
            inside: "what stands before the stream".to_owned(),
            offset: input.position(),
        });
    }
    Ok(())
}

/// Whether VM state over BER stands here.
fn is_ber(input: &mut dyn Input) -> std::io::Result<bool> {
    let magic = vmstate_ber::stream::MAGIC.len();
    input.peek(magic).map(vmstate_ber::stream::is_stream)
}

/// Walks a QEMU stream as [`analyze`] does, and gives everything to `sink`.
pub(crate) fn follow(
    input: &mut dyn Input,
    options: &Options,
    sink: &mut dyn Sink,
) -> std::io::Result<Analysis> {
    let text = trailer_of(input, options)?;
    Ok(walk::walk(input, &mut [], text, options, Some(sink)))
}

/// The trailer at the end of an input that can be read at any place: its offset and text.
fn trailer_of(input: &mut dyn Input, options: &Options) -> std::io::Result<Option<(u64, Vec<u8>)>> {
    let Some(length) = input.len() else {
        return Ok(None);
    };
    let limit = options.stream_limits().trailer;
    // The text is printable, what stands before it is not: look back for that in steps that stay in the processor's cache.
    let mut step = vec![0; TAIL_STEP];
    let mut start = length;
    loop {
        if start == 0 || length - start > u64::from(limit) {
            return Ok(None);
        }
        let size = usize::try_from(start).unwrap_or(TAIL_STEP).min(TAIL_STEP);
        start -= size as u64;
        let bytes = step.get_mut(..size).unwrap_or_default();
        input.read_at(start, bytes)?;
        let printable = |all, byte: &u8| all & matches!(byte, 0x20..=0x7e);
        if !bytes.iter().fold(true, printable) {
            break;
        }
    }
    // The mark and length in front of the text may stand before this step.
    let start = start.saturating_sub(BEFORE_TRAILER);
    let mut tail = vec![0; usize::try_from(length - start).unwrap_or(0)];
    let n = input.read_at(start, &mut tail)?;
    tail.truncate(n);
    let TrailerSearch::Found(found) = find_trailer_within(&tail, length, limit) else {
        return Ok(None);
    };
    let text = usize::try_from(found.text.0 - start).unwrap_or(0);
    tail.drain(..text.min(n));
    Ok(Some((found.offset.0, tail)))
}

/// Bytes that are looked at together in search of a trailer.
const TAIL_STEP: usize = 16 << 10;
/// At least as many bytes as stand between the last byte of a stream's sections and the text.
const BEFORE_TRAILER: u64 = 16;

/// Whether `text` matches `pattern`, in which `*` stands for anything and `?` for one byte.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`, which then takes one byte more.
    let mut retry = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            (Some(b'?'), Some(_)) => {
                p += 1;
                t += 1;
            }
            (Some(a), Some(b)) if a == b => {
                p += 1;
                t += 1;
            }
            (None, None) => return true,
            _ => match retry {
                Some((after, taken)) if taken < text.len() => {
                    retry = Some((after, taken + 1));
                    p = after;
                    t = taken + 1;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let m = |p: &str, t: &str| matches_glob(p.as_bytes(), t.as_bytes());
        assert!(m("*", "") && m("*", "0000:00:03.0/nvme") && m("cpu", "cpu"));
        assert!(m("*/nvme", "0000:00:03.0/nvme") && m("cpu*", "cpu_common"));
        assert!(m("a*b*c", "aXbYbZc") && m("?pu", "cpu") && m("**", "x"));
        assert!(!m("cpu", "cpu_common") && !m("?", "") && !m("a*b", "aXc") && !m("", "x"));
    }
}
