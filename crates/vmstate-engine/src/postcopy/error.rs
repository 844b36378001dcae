//! What goes wrong with postcopy at the destination.

use vmstate_ram::BlockName;
use vmstate_wire::stream::{BlockName as WireName, PostcopyAdvise};

use crate::memory::MemoryError;

/// The source wants something of postcopy that cannot be, or has not done its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostcopyError {
    /// The capability is on at the source only.
    #[error(
        "the source may switch to postcopy, and capability postcopy-ram is off here: switch it on at both sides, or at none"
    )]
    Off,
    /// There is no way back to the source on this channel.
    #[error("postcopy needs a connection over which pages can be asked for, such as tcp: or unix:")]
    OneWay,
    /// Only dirty bitmaps shall go on after the guest has been started.
    #[error("postcopy of dirty bitmaps without RAM is not supported")]
    WithoutRam,
    /// A command that does not come now.
    #[error("{command} {when}")]
    Order {
        /// Its name.
        command: &'static str,
        /// What is the case.
        when: String,
    },
    /// The memory of the two machines is made of different pages.
    #[error(
        "the source's pages have {:#x} bytes, of {:#x} for the target; here they have {:#x}, of {:#x}",
        found.page_sizes, found.target_page_size, local.page_sizes, local.target_page_size
    )]
    PageSizes {
        /// What came: the sizes, all in one number by OR.
        found: PostcopyAdvise,
        /// What is here.
        local: PostcopyAdvise,
    },
    /// A RAM block that this machine does not have.
    #[error("unknown RAM block {0}")]
    UnknownBlock(WireName),
    /// A range to drop that is not made of whole pages inside of the block.
    #[error("{length:#x} bytes at {start:#x} are no pages of RAM block {block}")]
    Range {
        /// The block.
        block: BlockName,
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
    },
    /// A page that is made of several target pages came in a mixture.
    #[error("target page {offset:#x} of RAM block {block} comes between parts of another page")]
    Mixture {
        /// The block.
        block: BlockName,
        /// Its offset in bytes.
        offset: u64,
    },
    /// The source says that it has sent everything, and has not.
    #[error(
        "the source has ended without {pages} pages of RAM block {block}, the first at {first:#x}"
    )]
    Unfinished {
        /// The block.
        block: BlockName,
        /// Target pages that are missing.
        pages: u64,
        /// Offset of the first in bytes.
        first: u64,
    },
    /// The host refused.
    #[error(transparent)]
    Host(#[from] MemoryError),
}
