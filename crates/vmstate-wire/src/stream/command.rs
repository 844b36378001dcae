//! Commands: messages to the destination's engine within the stream.

use std::fmt;

use super::error::StreamErrorKind;
use super::types::BlockName;

/// The number of a command; be16 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u16);

macro_rules! command_ids {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        impl CommandId {
            $($(#[$meta])* pub const $name: Self = Self($value);)*

            /// The name of the command, if the number is known.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

command_ids! {
    /// Asks for the return path.
    OPEN_RETURN_PATH = 1;
    /// Asks for a PONG.
    PING = 2;
    /// Announces that postcopy may follow.
    POSTCOPY_ADVISE = 3;
    /// Starts the destination's page service.
    POSTCOPY_LISTEN = 4;
    /// Starts the guest at the destination.
    POSTCOPY_RUN = 5;
    /// Drops ranges of RAM.
    POSTCOPY_RAM_DISCARD = 6;
    /// Announces a package.
    PACKAGED = 7;
    /// Announces COLO; reserved and refused since QEMU 11.0.
    ENABLE_COLO = 8;
    /// Goes on after a broken postcopy.
    POSTCOPY_RESUME = 9;
    /// Asks for a block's received bitmap.
    RECV_BITMAP = 10;
    /// Marks that the source has stopped the guest; since QEMU 10.0.
    SWITCHOVER_START = 11;
    /// From here on the stream is VM state over BER. Not QEMU's: a source of ours sends it to a destination of ours that has said
    /// that it knows it, and to nobody else.
    UPGRADE = 0x5642;
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What a source says about page sizes when postcopy may follow; 16 bytes.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 8 | big-endian | bitwise OR of the page sizes of all RAM blocks, bytes |
/// | 8 | 8 | big-endian | target page size, bytes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostcopyAdvise {
    /// Bitwise OR of the page sizes of all RAM blocks, in bytes.
    pub page_sizes: u64,
    /// The target page size in bytes.
    pub target_page_size: u64,
}

/// A range of a RAM block that the destination shall drop; 16 bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscardRange {
    /// First byte of the range, within the block.
    pub start: u64,
    /// Length of the range in bytes.
    pub length: u64,
}

/// A command with its payload.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x08 |
/// | 1 | 2 | big-endian | number of the command |
/// | 3 | 2 | big-endian | n, length of the payload |
/// | 5 | n | | payload |
///
/// Wire: QEMU `migration/savevm.c`, `vectors/streams/pc-11.1-postcopy.main.bin.zst`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Asks the destination to open the return path. No payload.
    OpenReturnPath,
    /// Asks for a PONG with the same value: be32.
    Ping(u32),
    /// Announces that postcopy may follow: empty with dirty bitmaps alone, else 16 bytes.
    PostcopyAdvise(Option<PostcopyAdvise>),
    /// Starts the destination's page service. No payload.
    PostcopyListen,
    /// Starts the guest at the destination. No payload.
    PostcopyRun,
    /// Drops ranges of a RAM block.
    ///
    /// | offset | size | order | meaning |
    /// |---|---|---|---|
    /// | 0 | 1 | | version, 0 |
    /// | 1 | 1 + n | | block name, see [`BlockName`] |
    /// | 2+n | 1 | | 0 |
    /// | 3+n | 16·k | big-endian | k ≥ 1 ranges: start, length |
    RamDiscard {
        /// The block.
        block: BlockName,
        /// At least one range. Stock sources send at most 12 at a time.
        ranges: Vec<DiscardRange>,
    },
    /// Announces a package of this many bytes, which follows outside of the command: be32.
    Packaged {
        /// Length of the package in bytes.
        length: u32,
    },
    /// Announces COLO. No payload. Refused by QEMU since 11.0.
    EnableColo,
    /// Goes on after a broken postcopy. No payload.
    PostcopyResume,
    /// Asks for the received bitmap of a block: its counted name, 1 + n bytes.
    RecvBitmap {
        /// The block.
        block: BlockName,
    },
    /// Marks that the source has stopped the guest. No payload. Since QEMU 10.0.
    SwitchoverStart,
    /// From here on the stream is VM state over BER. No payload. Not QEMU's.
    Upgrade,
}

impl Command {
    /// The command's number.
    #[must_use]
    pub fn id(&self) -> CommandId {
        match self {
            Self::OpenReturnPath => CommandId::OPEN_RETURN_PATH,
            Self::Ping(_) => CommandId::PING,
            Self::PostcopyAdvise(_) => CommandId::POSTCOPY_ADVISE,
            Self::PostcopyListen => CommandId::POSTCOPY_LISTEN,
            Self::PostcopyRun => CommandId::POSTCOPY_RUN,
            Self::RamDiscard { .. } => CommandId::POSTCOPY_RAM_DISCARD,
            Self::Packaged { .. } => CommandId::PACKAGED,
            Self::EnableColo => CommandId::ENABLE_COLO,
            Self::PostcopyResume => CommandId::POSTCOPY_RESUME,
            Self::RecvBitmap { .. } => CommandId::RECV_BITMAP,
            Self::SwitchoverStart => CommandId::SWITCHOVER_START,
            Self::Upgrade => CommandId::UPGRADE,
        }
    }

    /// Decodes the payload of command `id`.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::UnknownCommand`], [`StreamErrorKind::CommandLength`],
    /// [`StreamErrorKind::CommandField`], [`StreamErrorKind::CommandBlockName`].
    pub fn decode(id: CommandId, payload: &[u8]) -> Result<Self, StreamErrorKind> {
        let found = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        check_length(id, found)?;
        let wrong_length = || length_error(id, found);
        Ok(match id {
            CommandId::OPEN_RETURN_PATH => Self::OpenReturnPath,
            CommandId::PING => Self::Ping(u32_be(payload).ok_or_else(wrong_length)?),
            CommandId::POSTCOPY_ADVISE => {
                Self::PostcopyAdvise(pairs(payload).next().map(|(page_sizes, target_page_size)| {
                    PostcopyAdvise {
                        page_sizes,
                        target_page_size,
                    }
                }))
            }
            CommandId::POSTCOPY_LISTEN => Self::PostcopyListen,
            CommandId::POSTCOPY_RUN => Self::PostcopyRun,
            CommandId::POSTCOPY_RAM_DISCARD => decode_discard(payload, found)?,
            CommandId::PACKAGED => Self::Packaged {
                length: u32_be(payload).ok_or_else(wrong_length)?,
            },
            CommandId::ENABLE_COLO => Self::EnableColo,
            CommandId::POSTCOPY_RESUME => Self::PostcopyResume,
            CommandId::RECV_BITMAP => {
                let (block, rest) = counted_block(id, payload)?;
                if !rest.is_empty() {
                    return Err(wrong_length());
                }
                Self::RecvBitmap { block }
            }
            CommandId::SWITCHOVER_START => Self::SwitchoverStart,
            CommandId::UPGRADE => Self::Upgrade,
            _ => return Err(StreamErrorKind::UnknownCommand { id }),
        })
    }

    /// Appends the payload (not the frame) to `out`.
    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping(value) | Self::Packaged { length: value } => {
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::PostcopyAdvise(Some(advise)) => {
                out.extend_from_slice(&advise.page_sizes.to_be_bytes());
                out.extend_from_slice(&advise.target_page_size.to_be_bytes());
            }
            Self::RamDiscard { block, ranges } => {
                out.push(0);
                super::write::put_counted(out, block.as_bytes());
                out.push(0);
                for range in ranges {
                    out.extend_from_slice(&range.start.to_be_bytes());
                    out.extend_from_slice(&range.length.to_be_bytes());
                }
            }
            Self::RecvBitmap { block } => super::write::put_counted(out, block.as_bytes()),
            Self::OpenReturnPath
            | Self::PostcopyAdvise(None)
            | Self::PostcopyListen
            | Self::PostcopyRun
            | Self::EnableColo
            | Self::PostcopyResume
            | Self::SwitchoverStart
            | Self::Upgrade => {}
        }
    }
}

/// Checks number and payload length, before the payload has come.
pub(super) fn check_length(id: CommandId, found: u16) -> Result<(), StreamErrorKind> {
    let right = match id {
        CommandId::OPEN_RETURN_PATH
        | CommandId::POSTCOPY_LISTEN
        | CommandId::POSTCOPY_RUN
        | CommandId::ENABLE_COLO
        | CommandId::POSTCOPY_RESUME
        | CommandId::SWITCHOVER_START
        | CommandId::UPGRADE => found == 0,
        CommandId::PING | CommandId::PACKAGED => found == 4,
        CommandId::POSTCOPY_ADVISE => matches!(found, 0 | 16),
        CommandId::POSTCOPY_RAM_DISCARD => found >= 20,
        CommandId::RECV_BITMAP => (2..=256).contains(&found),
        _ => return Err(StreamErrorKind::UnknownCommand { id }),
    };
    if right {
        Ok(())
    } else {
        Err(length_error(id, found))
    }
}

fn length_error(command: CommandId, found: u16) -> StreamErrorKind {
    let expected = match command {
        CommandId::PING | CommandId::PACKAGED => "4",
        CommandId::POSTCOPY_ADVISE => "0 or 16",
        CommandId::POSTCOPY_RAM_DISCARD => "a version, a block name and at least one range",
        CommandId::RECV_BITMAP => "a block name and nothing else",
        _ => "none",
    };
    StreamErrorKind::CommandLength {
        command,
        expected,
        found,
    }
}

fn decode_discard(payload: &[u8], found: u16) -> Result<Command, StreamErrorKind> {
    let command = CommandId::POSTCOPY_RAM_DISCARD;
    let wrong_length = || length_error(command, found);
    let (&version, rest) = payload.split_first().ok_or_else(wrong_length)?;
    if version != 0 {
        return Err(StreamErrorKind::CommandField {
            command,
            field: "version",
            found: version,
        });
    }
    let (block, rest) = counted_block(command, rest)?;
    let (&terminator, rest) = rest.split_first().ok_or_else(wrong_length)?;
    if terminator != 0 {
        return Err(StreamErrorKind::CommandField {
            command,
            field: "byte after the block name",
            found: terminator,
        });
    }
    if rest.is_empty() || !rest.len().is_multiple_of(16) {
        return Err(wrong_length());
    }
    let ranges = pairs(rest)
        .map(|(start, length)| DiscardRange { start, length })
        .collect();
    Ok(Command::RamDiscard { block, ranges })
}

fn counted_block(
    command: CommandId,
    payload: &[u8],
) -> Result<(BlockName, &[u8]), StreamErrorKind> {
    let (length, rest) = payload.split_first().map_or((0, payload), |(n, r)| (*n, r));
    rest.split_at_checked(usize::from(length))
        .and_then(|(name, rest)| Some((BlockName::new(name).ok()?, rest)))
        .ok_or(StreamErrorKind::CommandBlockName {
            command,
            found: length,
        })
}

fn u32_be(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().copied().map(u32::from_be_bytes)
}

/// Pairs of be64.
fn pairs(payload: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    payload.as_chunks::<16>().0.iter().map(|bytes| {
        let both = u128::from_be_bytes(*bytes);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "takes the two halves apart"
        )]
        let halves = ((both >> 64) as u64, both as u64);
        halves
    })
}
