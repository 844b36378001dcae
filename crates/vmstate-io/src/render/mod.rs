//! Showing what an analysis found: as text for people, as JSON for programs.
//!
//! Both are written while they are made, and neither takes memory that grows with the stream. The JSON is documented in
//! `docs/inspect-json.md`, and stays as it is described there.

pub mod json;
mod layout;
mod names;
mod out;
pub mod text;

pub use layout::wire_size;
pub(crate) use names::Members;
pub use out::JsonOut;

use vmstate_ber::BerErrorKind;
use vmstate_wire::stream::StreamErrorKind;

use crate::inspect::{Analysis, InspectError, Keep, Pages, Report, Section};

/// What to show of an analysis.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Name of the stream, for people.
    pub name: String,
    /// Which sections to show, by id string.
    pub sections: Keep,
    /// Per RAM block: page records by kind.
    pub pages: bool,
    /// Where each field stands in the stream.
    pub offsets: bool,
    /// Long arrays and buffers in full.
    pub all: bool,
    /// Colours of a terminal.
    pub colour: bool,
}

impl View {
    /// The same, without what a stream has no answer to: where fields stand is known of QEMU's encoding alone.
    fn suited(&self, report: &Report) -> Self {
        Self {
            offsets: self.offsets && !report.is_ber,
            ..self.clone()
        }
    }
}

/// How the bytes of a stream divide up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Payload of sections that were decoded.
    pub described: u64,
    /// Number of those sections.
    pub described_sections: u64,
    /// Payload of guest RAM and of dirty bitmaps.
    pub pages: u64,
    /// Payload of sections that nothing describes.
    pub opaque: u64,
    /// Number of those sections.
    pub opaque_sections: u64,
    /// The trailer with its header.
    pub trailer: u64,
    /// All the rest: headers, footers, configuration, commands, end mark.
    pub framing: u64,
}

impl Accounts {
    /// The accounts of a stream.
    #[must_use]
    pub fn of(analysis: &Analysis) -> Self {
        let report = &analysis.report;
        let mut accounts = Self::default();
        for section in &report.sections {
            if is_pages(section) {
                accounts.pages += section.length;
            } else if section.inferred {
                accounts.opaque += section.length;
                accounts.opaque_sections += 1;
            } else {
                accounts.described += section.length;
                accounts.described_sections += 1;
            }
        }
        if let Some(trailer) = report.trailer {
            accounts.trailer = trailer.length + 5;
        }
        let known = accounts.described + accounts.pages + accounts.opaque + accounts.trailer;
        accounts.framing = report.length.saturating_sub(known);
        accounts
    }
}

fn is_pages(section: &Section) -> bool {
    section.instance_id == 0 && matches!(&*section.idstr, "ram" | "dirty-bitmap")
}

/// Number of page records of all kinds.
pub(crate) fn total(pages: &Pages) -> u64 {
    pages.by_name().iter().map(|(_, n)| n).sum()
}

/// Number of page records that say that a page is zero.
pub(crate) fn zeros(pages: &Pages) -> u64 {
    pages.zero + pages.multifd_zero
}

/// What an operator can do about a failure, if that is known.
#[must_use]
pub fn advice(failure: &InspectError) -> Option<&'static str> {
    Some(match failure {
        InspectError::Ram { .. } if failure.is_limit() => {
            "digests need memory for pages that do not stand in a file as they are: raise --memory, or leave digests out"
        }
        _ if failure.is_limit() => "give more memory with --memory SIZE, for instance --memory 1G",
        InspectError::Truncated { .. } => TRUNCATED,
        InspectError::Stream(e) => match e.kind() {
            StreamErrorKind::UnexpectedEnd { .. } => TRUNCATED,
            StreamErrorKind::BadMagic { found, .. } if found >> 16 == BER => {
                "this looks like VM state over BER, of which version 1 is read; if it stands behind other bytes, give their number with --start N"
            }
            StreamErrorKind::BadMagic { .. } => {
                "a stream begins with QEVM; if it stands behind other bytes, give their number with --start N"
            }
            StreamErrorKind::ObsoleteVersion | StreamErrorKind::UnsupportedVersion { .. } => {
                "record the stream again with QEMU 0.12 or later"
            }
            _ => CORRUPT,
        },
        InspectError::Device(e)
            if matches!(e.kind(), vmstate_desc::ErrorKind::UnexpectedEnd { .. }) =>
        {
            TRUNCATED
        }
        InspectError::Ram { error, .. } => match error.kind() {
            vmstate_ram::RamErrorKind::Unaligned { .. }
            | vmstate_ram::RamErrorKind::UnknownFlags { .. }
            | vmstate_ram::RamErrorKind::UsedLength { .. } => {
                "if the target's pages are not of 4096 bytes, say so with --page-size N"
            }
            _ => CORRUPT,
        },
        InspectError::Channel { .. } => {
            "give the main stream first, and behind it one file for each further channel"
        }
        InspectError::Device(_) | InspectError::Trailer { .. } => CORRUPT,
        InspectError::Ber(e) => match e.kind() {
            BerErrorKind::Missing(_) | BerErrorKind::Truncated { .. } => TRUNCATED,
            _ => CORRUPT_BER,
        },
        _ => return None,
    })
}

/// The first two bytes of VM state over BER: an envelope without a length.
const BER: u32 = 0x6080;

const TRUNCATED: &str = "the recording is incomplete: check that the source reached the status \"completed\" \
                         and that the whole file was copied";
const CORRUPT_BER: &str = "the bytes are not what a writer of VM state over BER sends: compare the file with its origin (sha256sum), or record it again";
const CORRUPT: &str = "the bytes are not what QEMU writes: compare the file with its origin (sha256sum), or record it again";
