//! The way back: frames of the destination, which carry what a QEMU return path would.

use vmstate_ber::frame::{Frame, Reply, Status};
use vmstate_ber::stream::{Parser, Step, Writer};
use vmstate_ber::{BerError, BerErrorKind};
use vmstate_wire::stream::{ReturnMessage, ReturnMessageId, ReturnPathErrorKind, put_message};

use super::decoder::out_of_turn;

/// Writes the messages of a destination.
#[derive(Debug)]
pub(in crate::live) struct ReplyWriter(Writer);

impl ReplyWriter {
    /// Behind what `writer` has written.
    pub(in crate::live) const fn new(writer: Writer) -> Self {
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
}

impl Replies {
    /// Behind what `parser` has read.
    pub(in crate::live) const fn new(parser: Parser) -> Self {
        Self { parser }
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
