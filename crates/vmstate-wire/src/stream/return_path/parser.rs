//! The incremental reader of the return path.

use std::fmt;

use thiserror::Error;

use super::super::take::{Need, Stop, Take, fail};
use super::super::types::{BlockName, StreamOffset};
use super::message::{BITMAP_END, MAX_MESSAGE, ReturnMessage, ReturnMessageId, check_length};

/// Largest bitmap by default: 1 GiB, enough for 32 TiB of RAM in pages of 4 KiB.
const DEFAULT_MAX_BITMAP: u64 = 1 << 30;

/// The return path was refused: what was wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("return path: {kind} (at byte {offset})")]
pub struct ReturnPathError {
    /// Position in the bytes that came from the destination.
    pub offset: StreamOffset,
    /// What was wrong.
    pub kind: ReturnPathErrorKind,
}

/// What was wrong with the return path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReturnPathErrorKind {
    /// A message type that does not exist.
    #[error("unknown message type {id}", id = id.0)]
    UnknownMessage {
        /// The type.
        id: ReturnMessageId,
    },
    /// A payload above the limit that holds for all messages.
    #[error("message {id} has {length} bytes of payload, at most {MAX_MESSAGE} are allowed")]
    TooLong {
        /// The type.
        id: ReturnMessageId,
        /// Length of the payload in bytes.
        length: u16,
    },
    /// A payload of the wrong length, or a block name that does not fill it.
    #[error("message {id} has {found} bytes of payload, expected {expected}")]
    Length {
        /// The type.
        id: ReturnMessageId,
        /// What would be right.
        expected: &'static str,
        /// Length of the payload in bytes.
        found: u16,
    },
    /// A `RESUME_ACK` with another value than 1.
    #[error("RESUME_ACK carries {found:#x}, expected 0x1")]
    ResumeValue {
        /// The value.
        found: u32,
    },
    /// A `REQ_PAGES` before any `REQ_PAGES_ID`.
    #[error("REQ_PAGES before a block has been named by REQ_PAGES_ID")]
    NoBlock,
    /// A bitmap of a size that is above the bound or not a multiple of 8.
    #[error("bitmap of block {block} has {size} bytes, expected a multiple of 8, at most {limit}")]
    BitmapSize {
        /// The block.
        block: BlockName,
        /// Announced size in bytes.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Something else than the mark behind a bitmap.
    #[error(
        "bitmap of block {block} ends with {found:#018x}, expected {expected:#018x}",
        expected = BITMAP_END
    )]
    BitmapMark {
        /// The block.
        block: BlockName,
        /// The be64 found.
        found: u64,
    },
    /// The input ended before SHUT.
    #[error("ends {place}")]
    UnexpectedEnd {
        /// What was being read.
        place: ReturnPlace,
    },
}

/// What was being read when the return path ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReturnPlace {
    /// Between two messages, before SHUT.
    BeforeShut,
    /// A message; its type, if that much had come.
    Message(Option<ReturnMessageId>),
    /// The bitmap of a block, its size or its end mark.
    Bitmap(BlockName),
}

impl fmt::Display for ReturnPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeShut => f.write_str("before SHUT"),
            Self::Message(None) => f.write_str("inside a message"),
            Self::Message(Some(id)) => write!(f, "inside the message {id}"),
            Self::Bitmap(block) => write!(f, "inside the bitmap of block {block}"),
        }
    }
}

/// What [`ReturnPathParser::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnStep<'a> {
    /// Nothing can be said before there are `min` bytes, counted from the first one not consumed.
    NeedMore {
        /// Bytes needed, in all.
        min: usize,
    },
    /// Something was read: drop `consumed` bytes from the front of the input.
    Event {
        /// How many bytes the event took.
        consumed: usize,
        /// What it was.
        event: ReturnEvent<'a>,
    },
    /// SHUT has been read: nothing may follow.
    End,
}

/// One piece of the return path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReturnEvent<'a> {
    /// A message.
    Message(ReturnMessage),
    /// After [`ReturnMessage::RecvBitmap`]: the bitmap begins.
    BitmapBegin {
        /// Its size in bytes, a multiple of 8.
        size: u64,
    },
    /// A piece of the bitmap, never empty.
    BitmapChunk(&'a [u8]),
    /// The bitmap is complete and its end mark was right.
    BitmapEnd,
}

/// Reads the return path, in the way of [`StreamParser`](super::super::StreamParser): without I/O
/// and without keeping input.
///
/// Wire: QEMU `migration/migration.c`, `vectors/streams/pc-11.1-postcopy.main.return.bin.zst`.
#[derive(Debug, Clone)]
pub struct ReturnPathParser {
    state: State,
    offset: StreamOffset,
    max_bitmap: u64,
    block_named: bool,
}

#[derive(Debug, Clone)]
enum State {
    Message,
    BitmapSize(BlockName),
    Bitmap { block: BlockName, remaining: u64 },
    End,
}

impl Default for ReturnPathParser {
    fn default() -> Self {
        Self {
            state: State::Message,
            offset: StreamOffset(0),
            max_bitmap: DEFAULT_MAX_BITMAP,
            block_named: false,
        }
    }
}

impl ReturnPathParser {
    /// A parser at the first byte of a return path.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds bitmaps to `bytes` each. The default is 1 GiB.
    #[must_use]
    pub fn with_max_bitmap(mut self, bytes: u64) -> Self {
        self.max_bitmap = bytes;
        self
    }

    /// The position of the first byte not consumed.
    #[must_use]
    pub fn offset(&self) -> StreamOffset {
        self.offset
    }

    /// Reads the next piece from `input`, which begins at [`offset`](Self::offset).
    ///
    /// # Errors
    ///
    /// [`ReturnPathError`] for whatever a stock source would refuse.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<ReturnStep<'a>, ReturnPathError> {
        let mut take = Take::new(input);
        match self.step(&mut take, input) {
            Ok(Some(event)) => {
                let consumed = take.at();
                self.offset = self.after(consumed);
                Ok(ReturnStep::Event { consumed, event })
            }
            Ok(None) => Ok(ReturnStep::End),
            Err(Stop::Need(Need(min))) => Ok(ReturnStep::NeedMore { min }),
            Err(Stop::Fail(at, kind)) => Err(ReturnPathError {
                offset: self.after(at),
                kind: *kind,
            }),
        }
    }

    /// Tells that the input is over. `rest` is what has not been consumed.
    ///
    /// # Errors
    ///
    /// [`ReturnPathErrorKind::UnexpectedEnd`] unless SHUT has been read.
    pub fn finish(&self, rest: &[u8]) -> Result<(), ReturnPathError> {
        let place = match &self.state {
            State::End => return Ok(()),
            State::Message if rest.is_empty() => ReturnPlace::BeforeShut,
            State::Message => {
                let id = Take::new(rest).u16_be().ok();
                ReturnPlace::Message(id.map(ReturnMessageId))
            }
            State::BitmapSize(block) | State::Bitmap { block, .. } => {
                ReturnPlace::Bitmap(block.clone())
            }
        };
        Err(ReturnPathError {
            offset: self.after(rest.len()),
            kind: ReturnPathErrorKind::UnexpectedEnd { place },
        })
    }

    fn after(&self, count: usize) -> StreamOffset {
        self.offset.plus(u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn step<'a>(
        &mut self,
        take: &mut Take<'a>,
        input: &'a [u8],
    ) -> Result<Option<ReturnEvent<'a>>, Refusal> {
        match &mut self.state {
            State::End => Ok(None),
            State::Message => self.message(take).map(ReturnEvent::Message).map(Some),
            State::BitmapSize(block) => {
                let size = take.u64_be()?;
                let limit = self.max_bitmap;
                if size > limit || !size.is_multiple_of(8) {
                    let block = block.clone();
                    let kind = ReturnPathErrorKind::BitmapSize { block, size, limit };
                    return fail(0, kind);
                }
                self.state = State::Bitmap {
                    block: block.clone(),
                    remaining: size,
                };
                Ok(Some(ReturnEvent::BitmapBegin { size }))
            }
            State::Bitmap {
                block,
                remaining: 0,
            } => {
                let found = take.u64_be()?;
                if found != BITMAP_END {
                    let block = block.clone();
                    let kind = ReturnPathErrorKind::BitmapMark { block, found };
                    return fail(0, kind);
                }
                self.state = State::Message;
                Ok(Some(ReturnEvent::BitmapEnd))
            }
            State::Bitmap { remaining, .. } => {
                let left = usize::try_from(*remaining).unwrap_or(usize::MAX);
                let chunk = take.bytes(input.len().min(left).max(1))?;
                let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                *remaining = remaining.saturating_sub(length);
                Ok(Some(ReturnEvent::BitmapChunk(chunk)))
            }
        }
    }

    fn message(&mut self, take: &mut Take<'_>) -> Result<ReturnMessage, Refusal> {
        let id = ReturnMessageId(take.u16_be()?);
        let length = take.u16_be()?;
        if let Err(kind) = check_length(id, length) {
            let unknown = matches!(kind, ReturnPathErrorKind::UnknownMessage { .. });
            return fail(if unknown { 0 } else { 2 }, kind);
        }
        let at = take.at();
        let payload = take.bytes(usize::from(length))?;
        let message = match ReturnMessage::decode(id, payload) {
            Ok(message) => message,
            Err(kind) => return fail(at, kind),
        };
        match &message {
            ReturnMessage::Shut(_) => self.state = State::End,
            ReturnMessage::RecvBitmap { block } => {
                self.state = State::BitmapSize(block.clone());
            }
            ReturnMessage::ReqPagesId { .. } => self.block_named = true,
            ReturnMessage::ReqPages { .. } if !self.block_named => {
                return fail(0, ReturnPathErrorKind::NoBlock);
            }
            _ => {}
        }
        Ok(message)
    }
}

type Refusal = Stop<ReturnPathErrorKind>;
