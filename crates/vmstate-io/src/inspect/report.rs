//! What an analysis finds out.

use super::bodies::is_memory;
use vmstate_ber::{BerError, BerErrorKind, Limits as BerLimits};
use vmstate_desc::DynState;
use vmstate_ram::multifd::Method;
use vmstate_ram::{BlockName, RamError};
use vmstate_schema::Origin;
use vmstate_wire::stream::{
    Command, Configuration, Limits as StreamLimits, StreamError, StreamErrorKind,
};
use vmstate_wire::vmdesc::{TrailerError, VmdescDialect};

/// An analysis: what was found, and what ended it early, if anything did.
#[derive(Debug)]
pub struct Analysis {
    /// What was found, as far as the walk came.
    pub report: Report,
    /// Why the walk ended before the stream did.
    pub failure: Option<InspectError>,
}

impl Analysis {
    /// Whether every byte is accounted for: no failure, no problem.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failure.is_none() && self.report.problems.is_empty()
    }
}

/// What a stream holds.
#[derive(Debug, Default)]
pub struct Report {
    /// The configuration section, if there is one.
    pub configuration: Option<Configuration>,
    /// Target page size in bytes: the trailer's, else the configuration's, else 4096.
    pub page_size: u64,
    /// One entry per START or FULL section, in stream order.
    pub sections: Vec<Section>,
    /// Guest RAM.
    pub ram: Ram,
    /// The commands, in stream order, packages included.
    pub commands: Vec<CommandAt>,
    /// The trailer, if there is one.
    pub trailer: Option<TrailerAt>,
    /// Further channels, in the order in which they were given.
    pub channels: Vec<Channel>,
    /// Bytes that belong to the stream.
    pub length: u64,
    /// It is VM state over BER: places are those of frames, and lengths those of frames with header and checksum.
    pub is_ber: bool,
    /// Where the descriptions of its devices come from. A QEMU stream has a trailer.
    pub origin: Origin,
    /// Odd, but accepted by stock QEMU.
    pub warnings: Vec<String>,
    /// What is wrong with the stream, although it could be walked to its end.
    pub problems: Vec<Problem>,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Byte offset in the stream, where it is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub text: String,
}

/// A section: one START with its PARTs and END, or one FULL.
#[derive(Debug)]
pub struct Section {
    /// The stream's number for it.
    pub section_id: u32,
    /// Id string.
    pub idstr: String,
    /// Instance id.
    pub instance_id: u32,
    /// Version of the content.
    pub version_id: u32,
    /// Whether it came in one piece or in several.
    pub kind: Kind,
    /// Offset of its first header in the stream.
    pub offset: u64,
    /// Offset of the payload of its first part.
    pub payload_offset: u64,
    /// Bytes of payload, without headers and footers; the sum of all parts.
    pub length: u64,
    /// Number of parts: 1 for a full section.
    pub parts: u64,
    /// The end was found by its footer, not by its description.
    pub inferred: bool,
    /// The content.
    pub content: Content,
}

/// Whether a section came in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// FULL.
    Full,
    /// START, PART …, END.
    Iterative,
}

impl Kind {
    /// `full` or `iterative`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Iterative => "iterative",
        }
    }
}

/// The content of a section.
#[derive(Debug)]
#[non_exhaustive]
pub enum Content {
    /// Decoded.
    Described(Box<DynState>),
    /// Decoded by a `-dump-vmstate` file, which knows neither signs nor types.
    Dumped(Box<DynState>),
    /// Bytes without a description.
    Opaque(Vec<u8>),
    /// Guest RAM: see [`Report::ram`].
    Ram,
    /// Dirty bitmaps of disks, chunk by chunk.
    DirtyBitmaps(Vec<BitmapChunk>),
    /// Not asked for.
    Left,
}

/// A chunk of the `dirty-bitmap` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitmapChunk {
    /// Alias of the node that has the bitmap.
    pub node: String,
    /// Alias of the bitmap.
    pub bitmap: String,
    /// What it says.
    pub body: BitmapChunkBody,
}

/// What a chunk says about its bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BitmapChunkBody {
    /// A bitmap begins.
    Start {
        /// Bytes of disk per bit.
        granularity: u32,
        /// The bitmap records writes.
        enabled: bool,
        /// The bitmap is stored with the disk image.
        persistent: bool,
    },
    /// Bits of the bitmap.
    Bits {
        /// The first sector that they stand for, in units of 512 bytes.
        first_sector: u64,
        /// How many sectors they stand for.
        sectors: u32,
        /// The bits, least significant first; `None` if all are 0.
        data: Option<Vec<u8>>,
    },
    /// The bitmap is complete.
    Complete,
}

/// Guest RAM.
#[derive(Debug, Default)]
pub struct Ram {
    /// The blocks, in the order of the setup record.
    pub blocks: Vec<Block>,
    /// How often a setup was started and records came, by kind, over all blocks.
    pub pages: Pages,
    /// Marks at which further channels are waited for.
    pub multifd_flushes: u64,
}

/// Page records by kind. A page may come several times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pages {
    /// Sent as they are.
    pub normal: u64,
    /// Sent as one byte.
    pub zero: u64,
    /// Sent as differences.
    pub xbzrle: u64,
    /// Sent compressed one by one.
    pub compressed: u64,
    /// Sent on multifd channels, as they are or compressed.
    pub multifd: u64,
    /// Named as zero on multifd channels.
    pub multifd_zero: u64,
    /// Present at their place in a mapped-ram file.
    pub mapped: u64,
    /// Sent on the preempt channel.
    pub preempt: u64,
}

impl Pages {
    /// The kinds with their names in output.
    #[must_use]
    pub const fn by_name(&self) -> [(&'static str, u64); 8] {
        [
            ("normal", self.normal),
            ("zero", self.zero),
            ("xbzrle", self.xbzrle),
            ("compressed", self.compressed),
            ("multifd", self.multifd),
            ("multifd_zero", self.multifd_zero),
            ("mapped", self.mapped),
            ("preempt", self.preempt),
        ]
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.normal += other.normal;
        self.zero += other.zero;
        self.xbzrle += other.xbzrle;
        self.compressed += other.compressed;
        self.multifd += other.multifd;
        self.multifd_zero += other.multifd_zero;
        self.mapped += other.mapped;
        self.preempt += other.preempt;
    }
}

/// A RAM block.
#[derive(Debug)]
pub struct Block {
    /// Name.
    pub name: BlockName,
    /// Bytes in use.
    pub used_length: u64,
    /// Page size of the memory behind it, where the stream says it.
    pub page_size: Option<u64>,
    /// Its pages do not travel.
    pub ignored: bool,
    /// Page records.
    pub pages: Pages,
    /// SHA-256 of the final content, if asked for.
    pub sha256: Option<[u8; 32]>,
    /// Pages that are not zero in the end, if the digest was asked for.
    pub nonzero_pages: Option<u64>,
}

/// A command and its place.
#[derive(Debug)]
pub struct CommandAt {
    /// Offset of its type byte.
    pub offset: u64,
    /// The command.
    pub command: Command,
    /// Whether it stands in a package.
    pub packaged: bool,
}

/// The trailer and its place.
#[derive(Debug, Clone, Copy)]
pub struct TrailerAt {
    /// Offset of its type byte.
    pub offset: u64,
    /// Bytes of text.
    pub length: u64,
    /// The generation that wrote it, as far as it shows.
    pub dialect: VmdescDialect,
    /// Number of devices that it describes.
    pub devices: usize,
}

/// A further channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// `multifd` or `preempt`.
    pub kind: &'static str,
    /// Number that the channel gives itself, for multifd.
    pub id: Option<u8>,
    /// Packets with pages, for multifd.
    pub packets: u64,
    /// Synchronisation points, for multifd.
    pub syncs: u64,
    /// Compression of the pages.
    pub compression: Option<Method>,
    /// Bytes.
    pub length: u64,
}

/// Why an analysis ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Reading failed.
    #[error("cannot read the stream: {0}")]
    Io(#[from] std::io::Error),
    /// Writing a rewritten stream failed.
    #[error("cannot write the stream: {0}")]
    Write(#[source] std::io::Error),
    /// The framing is wrong.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// A record of guest RAM is wrong.
    #[error("section {section}: {error}")]
    Ram {
        /// Section, or channel.
        section: String,
        /// What is wrong.
        error: RamError,
    },
    /// A device's content is wrong.
    #[error("{0}")]
    Device(#[from] vmstate_desc::Error),
    /// The trailer is wrong.
    #[error("{error} (byte {offset:#x})")]
    Trailer {
        /// What is wrong.
        error: TrailerError,
        /// Offset of its type byte.
        offset: u64,
    },
    /// The input is over too early.
    #[error("stream ends inside {inside} (byte {offset:#x})")]
    Truncated {
        /// What was being read.
        inside: String,
        /// Where the input ends.
        offset: u64,
    },
    /// More memory would be needed than allowed.
    #[error(
        "{what} would need more than the limit of {limit} bytes (byte {offset:#x}); raise the limit if the stream is trusted"
    )]
    Limit {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
        /// Where.
        offset: u64,
    },
    /// VM state over BER is wrong.
    #[error("{0}")]
    Ber(#[from] BerError),
    /// VM state over BER has what a machine's stream has no place for.
    #[error("{what} (byte {offset:#x})")]
    NoPlace {
        /// What.
        what: String,
        /// Where.
        offset: u64,
    },
    /// What two ends of ours began as QEMU's stream goes on in VM state over BER, of which it is not a part.
    #[error("both ends went on in VM state over BER, from byte {offset:#x} on")]
    Upgraded {
        /// The first byte of that.
        offset: u64,
    },
    /// A further channel is none.
    #[error("channel file {number}: {what}")]
    Channel {
        /// Position among the further files, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
}

impl InspectError {
    /// Whether a limit of this end was reached, not one of the stream's own.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        match self {
            Self::Limit { .. } => true,
            Self::Stream(error) => match error.kind() {
                // A length that no reader takes speaks of damage.
                StreamErrorKind::TrailerTooLong { length, .. } => {
                    *length <= StreamLimits::default().trailer
                }
                _ => false,
            },
            Self::Device(error) => is_memory(error),
            Self::Ber(error) => match error.kind() {
                BerErrorKind::State(error) => is_memory(error),
                kind => is_share(kind),
            },
            Self::Trailer { error, .. } => error.is_limit(),
            Self::Ram { error, .. } => {
                matches!(error.kind(), vmstate_ram::RamErrorKind::MemoryLimit { .. })
            }
            _ => false,
        }
    }
}

/// Whether it is a bound that was made lower for want of memory. What exceeds the bounds of a reader that has enough speaks of
/// damage.
fn is_share(kind: &BerErrorKind) -> bool {
    let BerErrorKind::Limit { what, found, .. } = kind else {
        return false;
    };
    let most = BerLimits::default();
    let most = match *what {
        "bytes of a frame with state" => most.state,
        "bytes of a frame of the handshake" => most.handshake,
        "types" => most.types as u64,
        "fields of all types" => most.all_fields as u64,
        "bytes of all types" => most.types_content,
        "bytes of one section in several frames" => u64::MAX,
        _ => return false,
    };
    *found <= most
}
