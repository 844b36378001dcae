//! The way back: frames of the destination, which carry what a QEMU return path would.

use vmstate_ber::frame::{Frame, Reply, Status};
use vmstate_ber::stream::{Parser, Step, Writer};
use vmstate_ber::{BerError, BerErrorKind};
use vmstate_linux::Scatter;
use vmstate_wire::stream::{
    ReturnMessage, ReturnMessageId, ReturnPathErrorKind, StreamOffset, put_message,
};

use super::decoder::out_of_turn;
use super::handshake::HandshakeError;
use crate::live::link::Link;

/// Writes the messages of a destination.
#[derive(Debug)]
pub(in crate::live) struct ReplyWriter(Writer);

impl ReplyWriter {
    /// Behind what `writer` has written.
    pub(super) const fn new(writer: Writer) -> Self {
        Self(writer)
    }

    /// Appends a message; behind SHUT, the end of the stream.
    pub(in crate::live) fn put(&mut self, message: &ReturnMessage, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        put_message(&mut bytes, message);
        // Number and length.
        let data = bytes.get(4..).unwrap_or_default();
        let message_id = message.id().0;
        self.0.frame(
            &Frame::Reply(Reply {
                message: message_id,
                data,
            }),
            out,
        );
        if let ReturnMessage::Shut(value) = message {
            let status = match value {
                0 => Status::Complete,
                _ => Status::Failed,
            };
            self.0.end(status, out);
        }
    }
}

/// Something that a destination must not say.
#[derive(Debug, thiserror::Error)]
pub(in crate::live) enum ReplyError {
    /// Not a frame, or not one for the way back.
    #[error(transparent)]
    Ber(#[from] BerError),
    /// Not a message.
    #[error("{0} (byte {1:#x})")]
    Message(ReturnPathErrorKind, u64),
}

/// Bytes of a frame of the way back, at most, once the migration has begun.
const MOST: usize = 4096;

/// Reads the frames of a destination.
#[derive(Debug)]
pub(in crate::live) struct Replies {
    parser: Parser,
    buffer: Vec<u8>,
}

impl Replies {
    /// At the first byte of the way back.
    pub(super) fn new(parser: Parser) -> Self {
        Self {
            parser: parser.without_digest(),
            buffer: Vec::new(),
        }
    }

    /// Reads one frame of the handshake.
    pub(super) fn frame<R>(
        &mut self,
        link: &Link,
        take: impl FnOnce(Frame<'_>, u64) -> Result<R, HandshakeError>,
    ) -> Result<R, HandshakeError> {
        loop {
            let want = match self.parser.next(&self.buffer)? {
                Step::NeedMore { min } => min,
                Step::Consumed { consumed } => {
                    self.buffer.drain(..consumed);
                    continue;
                }
                Step::Frame {
                    consumed,
                    offset,
                    frame,
                } => {
                    let result = take(*frame, offset);
                    self.buffer.drain(..consumed);
                    return result;
                }
                Step::End => return Err(HandshakeError::Silent),
            };
            self.read(link, want.saturating_sub(self.buffer.len()))?;
        }
    }

    /// Reads once, up to `most` bytes, at least one.
    fn read(&mut self, link: &Link, most: usize) -> Result<(), HandshakeError> {
        let have = self.buffer.len();
        let offset = StreamOffset(self.parser.offset().saturating_add(have as u64));
        self.buffer.resize(have.saturating_add(most.max(1)), 0);
        let mut list = Scatter::new();
        list.buffer(self.buffer.get_mut(have..).unwrap_or_default());
        let read = link.read(&mut list, offset);
        self.buffer
            .truncate(have.saturating_add(read.as_ref().copied().unwrap_or(0)));
        match read? {
            0 => Err(HandshakeError::Silent),
            _ => Ok(()),
        }
    }

    /// Bytes that have come and not been read as a frame.
    pub(in crate::live) fn waiting(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Position of the first byte that has not been read.
    pub(in crate::live) const fn offset(&self) -> u64 {
        self.parser.offset()
    }

    /// The next message at the front of `input`, with how many bytes it took: `None` if more must come.
    pub(in crate::live) fn next(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(usize, Option<ReturnMessage>)>, ReplyError> {
        match self.parser.next(input)? {
            Step::NeedMore { min } if min > MOST => {
                let (found, limit) = (min as u64, MOST as u64);
                let what = "bytes of a frame on the way back";
                Err(BerErrorKind::Limit { what, found, limit }
                    .at(self.parser.offset())
                    .into())
            }
            Step::NeedMore { .. } | Step::End => Ok(None),
            Step::Consumed { consumed } => Ok(Some((consumed, None))),
            Step::Frame {
                consumed,
                offset,
                frame,
            } => match *frame {
                Frame::Reply(reply) => {
                    let id = ReturnMessageId(reply.message);
                    let message = ReturnMessage::decode(id, reply.data);
                    let message = message.map_err(|kind| ReplyError::Message(kind, offset))?;
                    Ok(Some((consumed, Some(message))))
                }
                Frame::Note(_) | Frame::Unknown { .. } | Frame::End(_) => {
                    Ok(Some((consumed, None)))
                }
                _ => Err(out_of_turn("a frame that a destination does not send", offset).into()),
            },
        }
    }
}
