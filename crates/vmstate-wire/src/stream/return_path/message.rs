//! Messages of the return path, and writing them.

use std::fmt;

use super::super::types::BlockName;
use super::super::write::put_counted;
use super::parser::ReturnPathErrorKind;

/// Longest payload of a message that a stock source accepts, in bytes.
pub const MAX_MESSAGE: u16 = 512;

/// The be64 behind a bitmap.
pub const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;

/// The type of a message; be16 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReturnMessageId(pub u16);

macro_rules! message_ids {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        impl ReturnMessageId {
            $($(#[$meta])* pub const $name: Self = Self($value);)*

            /// The name of the message, if the type is known.
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

message_ids! {
    /// The destination is done, well or badly.
    SHUT = 1;
    /// Answers a PING.
    PONG = 2;
    /// Asks for pages of a named block.
    REQ_PAGES_ID = 3;
    /// Asks for pages of the block named last.
    REQ_PAGES = 4;
    /// Announces a block's received bitmap.
    RECV_BITMAP = 5;
    /// Answers `POSTCOPY_RESUME`.
    RESUME_ACK = 6;
    /// Approves the switchover; since QEMU 8.1.
    SWITCHOVER_ACK = 7;
}

impl fmt::Display for ReturnMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A message from the destination to the source.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 2 | big-endian | type |
/// | 2 | 2 | big-endian | n, length of the payload, at most 512 |
/// | 4 | n | | payload |
///
/// Wire: QEMU `migration/migration.c`, `vectors/streams/pc-11.1-postcopy.main.return.bin.zst`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnMessage {
    /// The last message: 0 if the load has succeeded. be32.
    Shut(u32),
    /// The value of a PING that has been processed. be32.
    Pong(u32),
    /// Asks for pages of a block and names it: be64 start, be32 length, counted name.
    ReqPagesId {
        /// First byte within the block; a multiple of the block's page size.
        start: u64,
        /// Length in bytes.
        length: u32,
        /// The block.
        block: BlockName,
    },
    /// Asks for pages of the block of the last [`ReturnMessage::ReqPagesId`]: be64 start, be32
    /// length.
    ReqPages {
        /// First byte within the block; a multiple of the block's page size.
        start: u64,
        /// Length in bytes.
        length: u32,
    },
    /// Announces the received bitmap of a block: its counted name. The bitmap follows outside of
    /// the message; see [`put_bitmap`].
    RecvBitmap {
        /// The block.
        block: BlockName,
    },
    /// Answers `POSTCOPY_RESUME`; the value must be 1. be32.
    ResumeAck(u32),
    /// Approves the switchover. No payload.
    SwitchoverAck,
}

impl ReturnMessage {
    /// The message's type.
    #[must_use]
    pub fn id(&self) -> ReturnMessageId {
        match self {
            Self::Shut(_) => ReturnMessageId::SHUT,
            Self::Pong(_) => ReturnMessageId::PONG,
            Self::ReqPagesId { .. } => ReturnMessageId::REQ_PAGES_ID,
            Self::ReqPages { .. } => ReturnMessageId::REQ_PAGES,
            Self::RecvBitmap { .. } => ReturnMessageId::RECV_BITMAP,
            Self::ResumeAck(_) => ReturnMessageId::RESUME_ACK,
            Self::SwitchoverAck => ReturnMessageId::SWITCHOVER_ACK,
        }
    }

    /// Decodes the payload of a message of type `id`.
    ///
    /// # Errors
    ///
    /// [`ReturnPathErrorKind::UnknownMessage`], [`ReturnPathErrorKind::TooLong`],
    /// [`ReturnPathErrorKind::Length`], [`ReturnPathErrorKind::ResumeValue`].
    pub fn decode(id: ReturnMessageId, payload: &[u8]) -> Result<Self, ReturnPathErrorKind> {
        let found = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        check_length(id, found)?;
        let wrong_length = || length_error(id, found);
        let word = || payload.first_chunk().copied().map(u32::from_be_bytes);
        Ok(match id {
            ReturnMessageId::SHUT => Self::Shut(word().ok_or_else(wrong_length)?),
            ReturnMessageId::PONG => Self::Pong(word().ok_or_else(wrong_length)?),
            ReturnMessageId::RESUME_ACK => match word().ok_or_else(wrong_length)? {
                1 => Self::ResumeAck(1),
                found => return Err(ReturnPathErrorKind::ResumeValue { found }),
            },
            ReturnMessageId::REQ_PAGES_ID => {
                let (start, length, name) = page_range(payload).ok_or_else(wrong_length)?;
                let block = counted_block(name).ok_or_else(wrong_length)?;
                Self::ReqPagesId {
                    start,
                    length,
                    block,
                }
            }
            ReturnMessageId::REQ_PAGES => {
                let (start, length, _) = page_range(payload).ok_or_else(wrong_length)?;
                Self::ReqPages { start, length }
            }
            ReturnMessageId::RECV_BITMAP => Self::RecvBitmap {
                block: counted_block(payload).ok_or_else(wrong_length)?,
            },
            ReturnMessageId::SWITCHOVER_ACK => Self::SwitchoverAck,
            _ => return Err(ReturnPathErrorKind::UnknownMessage { id }),
        })
    }
}

/// Appends a message with its frame; see [`ReturnMessage`]. After [`ReturnMessage::RecvBitmap`] the
/// bitmap must follow, see [`put_bitmap`].
pub fn put_message(out: &mut Vec<u8>, message: &ReturnMessage) {
    let mut payload = Vec::new();
    match message {
        ReturnMessage::Shut(value)
        | ReturnMessage::Pong(value)
        | ReturnMessage::ResumeAck(value) => payload.extend_from_slice(&value.to_be_bytes()),
        ReturnMessage::ReqPagesId {
            start,
            length,
            block,
        } => {
            payload.extend_from_slice(&start.to_be_bytes());
            payload.extend_from_slice(&length.to_be_bytes());
            put_counted(&mut payload, block.as_bytes());
        }
        ReturnMessage::ReqPages { start, length } => {
            payload.extend_from_slice(&start.to_be_bytes());
            payload.extend_from_slice(&length.to_be_bytes());
        }
        ReturnMessage::RecvBitmap { block } => put_counted(&mut payload, block.as_bytes()),
        ReturnMessage::SwitchoverAck => {}
    }
    out.extend_from_slice(&message.id().0.to_be_bytes());
    // The longest payload is 12 bytes and a counted name, 268 in all.
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&payload);
}

/// Appends what follows the message `RECV_BITMAP`.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 8 | big-endian | S, size of the bitmap in bytes, a multiple of 8 |
/// | 8 | S | | bitmap: target page i is bit i mod 8 of byte i div 8; 1 = received |
/// | 8+S | 8 | big-endian | 0x0123456789abcdef |
///
/// A `bitmap` that is not a multiple of 8 bytes long is padded with zeros.
pub fn put_bitmap(out: &mut Vec<u8>, bitmap: &[u8]) {
    let size = bitmap.len().next_multiple_of(8);
    let pad = size.saturating_sub(bitmap.len());
    out.extend_from_slice(&u64::try_from(size).unwrap_or(u64::MAX).to_be_bytes());
    out.extend_from_slice(bitmap);
    out.extend(std::iter::repeat_n(0, pad));
    out.extend_from_slice(&BITMAP_END.to_be_bytes());
}

/// Checks type and payload length, before the payload has come.
pub(super) fn check_length(id: ReturnMessageId, found: u16) -> Result<(), ReturnPathErrorKind> {
    let right = match id {
        ReturnMessageId::SHUT | ReturnMessageId::PONG | ReturnMessageId::RESUME_ACK => found == 4,
        ReturnMessageId::REQ_PAGES_ID => (14..=268).contains(&found),
        ReturnMessageId::REQ_PAGES => found == 12,
        ReturnMessageId::RECV_BITMAP => (2..=256).contains(&found),
        ReturnMessageId::SWITCHOVER_ACK => found == 0,
        _ => return Err(ReturnPathErrorKind::UnknownMessage { id }),
    };
    if found > MAX_MESSAGE {
        Err(ReturnPathErrorKind::TooLong { id, length: found })
    } else if right {
        Ok(())
    } else {
        Err(length_error(id, found))
    }
}

fn length_error(id: ReturnMessageId, found: u16) -> ReturnPathErrorKind {
    let expected = match id {
        ReturnMessageId::REQ_PAGES_ID => "12 and a block name that fills the rest",
        ReturnMessageId::REQ_PAGES => "12",
        ReturnMessageId::RECV_BITMAP => "a block name that fills the payload",
        ReturnMessageId::SWITCHOVER_ACK => "none",
        _ => "4",
    };
    ReturnPathErrorKind::Length {
        id,
        expected,
        found,
    }
}

fn page_range(payload: &[u8]) -> Option<(u64, u32, &[u8])> {
    let (start, rest) = payload.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    Some((
        u64::from_be_bytes(*start),
        u32::from_be_bytes(*length),
        rest,
    ))
}

/// A counted name that fills `bytes` exactly.
fn counted_block(bytes: &[u8]) -> Option<BlockName> {
    let (length, name) = bytes.split_first()?;
    (name.len() == usize::from(*length))
        .then(|| BlockName::new(name).ok())
        .flatten()
}
