//! The incremental reader.

use sha2::{Digest as _, Sha256};

use super::{END_OF_CONTENTS, MAGIC};
use crate::der::{Header, Tlv, header};
use crate::error::{BerError, BerErrorKind};
use crate::frame::{Frame, FrameKind, Role, frame_tag};
use crate::limits::Limits;

/// Reads a stream, without doing I/O and without keeping input.
///
/// The caller holds a piece of the stream that begins with the first byte not consumed yet, and calls [`next`](Self::next)
/// over and over. Frames come whole. The parser checks what concerns the stream as a whole: order of the first and the last frame,
/// counters, digest.
///
/// ```
/// use vmstate_ber::stream::{Parser, Step, Writer};
/// use vmstate_ber::frame::{Hello, Status};
///
/// let mut bytes = Vec::new();
/// let mut writer = Writer::new(&Hello::of_file("example 1", Vec::new()), &mut bytes);
/// writer.end(Status::Complete, &mut bytes);
///
/// let mut parser = Parser::default();
/// let mut input = bytes.as_slice();
/// let mut frames = 0;
/// loop {
///     match parser.next(input)? {
///         Step::Frame { consumed, frame, .. } => {
///             println!("{frame:?}");
///             frames += 1;
///             input = &input[consumed..];
///         }
///         Step::Consumed { consumed } => input = &input[consumed..],
///         Step::NeedMore { .. } => {
///             parser.finish(input)?;
///             break;
///         }
///         Step::End => break,
///     }
/// }
/// assert_eq!(frames, 2);
/// # Ok::<(), vmstate_ber::BerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Parser {
    limits: Limits,
    pub(super) state: State,
    /// Where the stream begins.
    begin: u64,
    offset: u64,
    frames: u64,
    /// `None`: digests are not looked at.
    digest: Option<Sha256>,
    is_file: bool,
    session: [u8; 16],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Magic,
    Hello,
    Frames,
    EndOfContents,
    End,
}

/// What [`Parser::next`] found.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing can be said before there are at least `min` bytes of input, counted from the first one that has not been consumed.
    /// Never much more than there is: memory grows with what comes, not with what is claimed.
    NeedMore {
        /// Bytes needed, in all.
        min: usize,
    },
    /// A part of the envelope.
    Consumed {
        /// How many bytes it took.
        consumed: usize,
    },
    /// A frame.
    Frame {
        /// How many bytes it took.
        consumed: usize,
        /// Where it begins in the stream.
        offset: u64,
        /// What it says.
        frame: Box<Frame<'a>>,
    },
    /// The stream is complete. Bytes that follow do not belong to it.
    End,
}

/// Bytes that are asked for at first.
const FIRST: usize = 64 << 10;

impl Default for Parser {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Parser {
    /// A parser at the first byte of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Magic,
            begin: 0,
            offset: 0,
            frames: 0,
            digest: Some(Sha256::new()),
            is_file: false,
            session: [0; 16],
        }
    }

    /// The same parser, which does not compute the digest of what it reads.
    #[must_use]
    pub fn without_digest(mut self) -> Self {
        self.digest = None;
        self
    }

    /// The same parser, at the first byte of a stream that begins at `offset` of its file: places are told from the first byte of that.
    #[must_use]
    pub const fn at_offset(mut self, offset: u64) -> Self {
        self.begin = offset;
        self.offset = offset;
        self
    }

    /// Computes no digest from here on: the stream turns out to have none.
    pub fn forget_digest(&mut self) {
        self.digest = None;
    }

    /// Position of the first byte that has not been consumed.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Frames so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The number of the migration that the stream belongs to, once `Hello` has said it.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// This end's limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads the next piece from `input`, which begins at [`offset`](Self::offset).
    ///
    /// # Errors
    /// Whatever is not a stream or exceeds a limit, with frame and byte offset. The parser has not moved then.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, BerError> {
        match self.state {
            State::Magic => {
                if input.iter().zip(MAGIC).any(|(a, b)| *a != b) {
                    let found = input.get(..MAGIC.len()).unwrap_or(input).to_vec();
                    return Err(BerErrorKind::Magic { found }.at(self.offset));
                }
                let Some(bytes) = input.get(..MAGIC.len()) else {
                    return Ok(Step::NeedMore { min: MAGIC.len() });
                };
                self.state = State::Hello;
                self.advance(bytes);
                Ok(Step::Consumed {
                    consumed: MAGIC.len(),
                })
            }
            State::Hello | State::Frames => self.frame(input),
            State::EndOfContents => {
                let Some(bytes) = input.first_chunk::<2>() else {
                    return Ok(Step::NeedMore { min: 2 });
                };
                if *bytes != END_OF_CONTENTS {
                    return Err(BerErrorKind::OutOfTurn {
                        what: "the last frame is not followed by the end of contents",
                    }
                    .at(self.offset));
                }
                self.state = State::End;
                self.advance(bytes);
                Ok(Step::Consumed { consumed: 2 })
            }
            State::End => Ok(Step::End),
        }
    }

    pub(super) const fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// A frame of so many bytes has been read by other ways.
    pub(super) fn pass(&mut self, bytes: u64) {
        self.offset = self.offset.saturating_add(bytes);
        self.frames = self.frames.saturating_add(1);
    }

    /// Takes `content`, which stands here and consists of whole frames, for somebody else: gives a parser at its beginning, and goes on
    /// behind it. In a stream whose digest is not computed.
    ///
    /// # Errors
    /// Bytes that are not frames, a frame that is not whole, or the end of the stream among them. The parser has not moved then.
    pub fn package(&mut self, content: &[u8]) -> Result<Self, BerError> {
        let inner = self.clone();
        let mut behind = self.clone();
        let mut rest = content;
        while !rest.is_empty() {
            let head = behind.head(rest)?;
            let ends = head.as_ref().is_some_and(|head| head.tag == frame_tag::END);
            let end = head.map(|head| head.size.saturating_add(head.length));
            let Some(next) = end.and_then(|end| rest.get(end..)).filter(|_| !ends) else {
                let what = "a package does not consist of whole frames";
                return Err(BerErrorKind::OutOfTurn { what }.at(behind.offset));
            };
            behind.pass(rest.len().saturating_sub(next.len()) as u64);
            rest = next;
        }
        *self = behind;
        Ok(inner)
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }

    /// The first octets of a frame, which may stand here.
    pub(super) fn head(&self, input: &[u8]) -> Result<Option<Header>, BerError> {
        if input.starts_with(&END_OF_CONTENTS) {
            let what = "the end of contents comes before the last frame";
            return Err(BerErrorKind::OutOfTurn { what }.at(self.offset));
        }
        let head = header(input).map_err(|kind| {
            let error = kind.at(self.offset);
            match input.first() {
                Some(tag) => error.in_frame(FrameKind(*tag), self.offset),
                None => error,
            }
        })?;
        if let Some(head) = &head {
            self.check(head)
                .map_err(|error| error.in_frame(FrameKind(head.tag), self.offset))?;
        }
        Ok(head)
    }

    fn frame<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, BerError> {
        let Some(head) = self.head(input)? else {
            let min = input.len().saturating_add(1).max(2);
            return Ok(Step::NeedMore { min });
        };
        let kind = FrameKind(head.tag);
        let end = head.size.saturating_add(head.length);
        let (Some(whole), Some(content)) = (input.get(..end), input.get(head.size..end)) else {
            let min = end.min(input.len().saturating_mul(2).max(FIRST));
            return Ok(Step::NeedMore { min });
        };
        let offset = self.offset;
        let tlv = Tlv {
            tag: head.tag,
            content,
            whole,
            offset,
        };
        let frame = Frame::decode(&tlv, &self.limits)?;
        let frames = self.frames.saturating_add(1);
        self.check_whole(&frame, frames)
            .map_err(|error| error.in_frame(kind, offset))?;
        self.frames = frames;
        self.state = if matches!(frame, Frame::End(_)) {
            State::EndOfContents
        } else {
            State::Frames
        };
        if let Frame::Hello(hello) = &frame {
            self.is_file = hello.role == Role::File;
            self.session = hello.session;
        }
        self.advance(whole);
        Ok(Step::Frame {
            consumed: end,
            offset,
            frame: Box::new(frame),
        })
    }

    /// Whether a frame may stand here, as far as its first octets tell.
    fn check(&self, head: &Header) -> Result<(), BerError> {
        let is_hello = head.tag == frame_tag::HELLO;
        if is_hello != (self.state == State::Hello) {
            let what = "the first frame, and no other, is Hello";
            return Err(BerErrorKind::OutOfTurn { what }.at(self.offset));
        }
        let Some(limit) = FrameKind(head.tag).limit(&self.limits) else {
            return Err(BerErrorKind::Critical { found: head.tag }.at(self.offset));
        };
        let found = head.length as u64;
        if found > limit {
            let what = match head.tag {
                frame_tag::HELLO | frame_tag::VERDICT => "bytes of a frame of the handshake",
                frame_tag::MACHINE | frame_tag::DEVICE | frame_tag::RAM_BLOCKS => {
                    "bytes of a frame with state"
                }
                _ => "bytes of a frame",
            };
            return Err(BerErrorKind::Limit { what, found, limit }.at(self.offset));
        }
        Ok(())
    }

    /// What a frame says about the stream as a whole.
    fn check_whole(&self, frame: &Frame<'_>, frames: u64) -> Result<(), BerError> {
        let (counted, octets, digest) = match frame {
            Frame::End(end) => (end.frames, end.octets, end.digest),
            Frame::Checkpoint(point) => (point.frames, point.octets, point.digest),
            _ => return Ok(()),
        };
        let before = self.offset.saturating_sub(self.begin);
        let numbers = [("frames", counted, frames), ("octets", octets, before)];
        for (what, expected, found) in numbers {
            if expected != found {
                return Err(BerErrorKind::EndMismatch {
                    what,
                    expected,
                    found,
                }
                .at(self.offset));
            }
        }
        match (digest, &self.digest) {
            (Some(expected), Some(digest)) => {
                let found: [u8; 32] = digest.clone().finalize().into();
                if expected != found {
                    return Err(BerErrorKind::Digest.at(self.offset));
                }
            }
            (None, _) if self.is_file && matches!(frame, Frame::End(_)) => {
                return Err(BerErrorKind::Missing("the digest of a file").at(self.offset));
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells that the input is over. `rest` is what has not been consumed.
    ///
    /// # Errors
    /// Unless the stream is complete: the place where it is cut off.
    pub fn finish(&self, rest: &[u8]) -> Result<(), BerError> {
        if self.state == State::End {
            return Ok(());
        }
        let what = match self.state {
            State::Magic | State::Hello => "the beginning of a stream",
            _ if rest.len() > 1 => "the rest of a frame",
            State::Frames => "the last frame",
            _ => "the end of contents",
        };
        let end = self.offset.saturating_add(rest.len() as u64);
        let error = BerErrorKind::Missing(what).at(end);
        Err(match rest.first() {
            Some(tag) if self.state == State::Frames => {
                error.in_frame(FrameKind(*tag), self.offset)
            }
            _ => error,
        })
    }
}
