//! The way back: frames of the destination, which carry what a QEMU return path would.

use vmstate_ber::frame::{Blob, Frame, Reply, Status};
use vmstate_ber::stream::{Parser, Step, Writer};
use vmstate_ber::{BerError, BerErrorKind};
use vmstate_ram::{DirtyBitmap, WordOrder};
use vmstate_wire::stream::{
    BlockName, ReturnMessage, ReturnMessageId, ReturnPathErrorKind, put_message,
};

use super::decoder::out_of_turn;
use super::{MAIN, OTHER, is_channel, of_channel};

/// Writes the messages of a destination.
#[derive(Debug)]
pub(in crate::live) struct ReplyWriter {
    writer: Writer,
    /// Bitmaps that have been sent.
    bitmaps: u32,
}

/// Bytes of a bitmap in one frame, at most.
const PIECE: usize = 3072;

impl ReplyWriter {
    /// Behind what `writer` has written.
    pub(in crate::live) const fn new(writer: Writer) -> Self {
        let bitmaps = 0;
        Self { writer, bitmaps }
    }

    /// At the beginning of a channel that replaces the main one of the migration `session`.
    pub(in crate::live) fn again(session: [u8; 16], out: &mut Vec<u8>) -> Self {
        Self::new(of_channel(session, MAIN, out))
    }

    /// The number of the migration.
    pub(in crate::live) const fn session(&self) -> [u8; 16] {
        self.writer.session()
    }

    /// Appends which pages of a block have arrived.
    pub(in crate::live) fn bitmap(
        &mut self,
        block: BlockName,
        received: &DirtyBitmap,
        out: &mut Vec<u8>,
    ) {
        self.put(&ReturnMessage::RecvBitmap { block }, out);
        let mut bytes = Vec::new();
        received.put_bytes(WordOrder::Little, &mut bytes);
        let mut offset = 0_u64;
        for data in bytes.chunks(PIECE) {
            let blob = self.bitmaps;
            let piece = Blob { blob, offset, data };
            self.writer.frame(&Frame::Blob(piece), out);
            offset = offset.saturating_add(data.len() as u64);
        }
        self.bitmaps = self.bitmaps.saturating_add(1);
    }

    /// Appends a message; behind SHUT, the end of the stream.
    pub(in crate::live) fn put(&mut self, message: &ReturnMessage, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        put_message(&mut bytes, message);
        // Number and length.
        let data = bytes.get(4..).unwrap_or_default();
        let message_id = message.id().0;
        self.writer.frame(
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
            self.writer.end(status, out);
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

/// What a destination says.
#[derive(Debug)]
pub(in crate::live) enum Said<'a> {
    /// A message.
    Message(ReturnMessage),
    /// Bytes of the bitmap that the last message has announced, and where they belong.
    Piece(u64, &'a [u8]),
}

/// Reads the frames of a destination.
#[derive(Debug)]
pub(in crate::live) struct Replies {
    parser: Parser,
    session: [u8; 16],
    /// A `Hello` comes first.
    again: bool,
    /// Bitmaps that have been announced.
    bitmaps: u32,
}

impl Replies {
    /// Behind what `parser` has read.
    pub(in crate::live) const fn new(parser: Parser) -> Self {
        Self {
            session: parser.session(),
            parser,
            again: false,
            bitmaps: 0,
        }
    }

    /// At the beginning of a channel that replaces the main one of the migration `session`.
    pub(in crate::live) fn again(session: [u8; 16]) -> Self {
        Self {
            parser: Parser::default().without_digest(),
            session,
            again: true,
            bitmaps: 0,
        }
    }

    /// The number of the migration.
    pub(in crate::live) const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// Position of the first byte that has not been read.
    pub(in crate::live) const fn offset(&self) -> u64 {
        self.parser.offset()
    }

    /// What comes next at the front of `input`, with how many bytes it took: `None` if more must come.
    pub(in crate::live) fn next<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(usize, Option<Said<'a>>)>, ReplyError> {
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
                    if let ReturnMessage::RecvBitmap { .. } = message {
                        self.bitmaps = self.bitmaps.saturating_add(1);
                    }
                    Ok(Some((consumed, Some(Said::Message(message)))))
                }
                Frame::Blob(blob) if blob.blob.checked_add(1) == Some(self.bitmaps) => {
                    Ok(Some((consumed, Some(Said::Piece(blob.offset, blob.data)))))
                }
                Frame::Hello(hello) if self.again => match is_channel(&hello, self.session, MAIN) {
                    true => Ok(Some((consumed, None))),
                    false => Err(out_of_turn(OTHER, offset).into()),
                },
                Frame::Note(_) | Frame::Unknown { .. } | Frame::End(_) => {
                    Ok(Some((consumed, None)))
                }
                _ => Err(out_of_turn("a frame that a destination does not send", offset).into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use vmstate_ber::frame::{Hello, Role};

    use super::*;

    const SESSION: [u8; 16] = *b"one migration, 1";

    fn block() -> BlockName {
        BlockName::new("board.ram").expect("a name")
    }

    /// What is said, in short.
    fn heard(replies: &mut Replies, bytes: &[u8]) -> Result<Vec<String>, String> {
        let (mut rest, mut all) = (bytes, Vec::new());
        while let Some((taken, said)) = replies.next(rest).map_err(|error| error.to_string())? {
            rest = &rest[taken..];
            match said {
                Some(Said::Message(message)) => all.push(format!("{message:?}")),
                Some(Said::Piece(offset, bytes)) => {
                    all.push(format!("{} at {offset}", bytes.len()));
                }
                None => {}
            }
        }
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
        Ok(all)
    }

    #[test]
    fn a_bitmap_comes_in_pieces() {
        let mut bytes = Vec::new();
        let mut writer = ReplyWriter::again(SESSION, &mut bytes);
        let mut received = DirtyBitmap::new(60_000);
        received.set_range(7..50_000);
        writer.bitmap(block(), &received, &mut bytes);
        writer.bitmap(block(), &DirtyBitmap::new(0), &mut bytes);
        writer.put(&ReturnMessage::ResumeAck(1), &mut bytes);
        writer.put(&ReturnMessage::Shut(0), &mut bytes);
        let all = heard(&mut Replies::again(SESSION), &bytes).expect("a good stream");
        let name = format!("{:?}", ReturnMessage::RecvBitmap { block: block() });
        let expected = [
            &name,
            "3072 at 0",
            "3072 at 3072",
            "1360 at 6144",
            &name,
            "ResumeAck(1)",
            "Shut(0)",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_a_destination_does_not_say_is_refused() {
        let begun = || {
            let mut bytes = Vec::new();
            let writer = ReplyWriter::again(SESSION, &mut bytes);
            (writer, bytes)
        };
        let blob = |blob| {
            let mut bytes = Vec::new();
            let (offset, data) = (0, &[1, 2, 3][..]);
            Frame::Blob(Blob { blob, offset, data }).encode(&mut bytes);
            bytes
        };
        let refused = |bytes: &[u8], text: &str| {
            let error = heard(&mut Replies::again(SESSION), bytes).expect_err(text);
            assert!(error.contains(text), "{error}");
        };
        let (_, bytes) = begun();
        refused(&[bytes, blob(0)].concat(), "does not send");
        for (number, text) in [(1, "does not send"), (u32::MAX, "does not send")] {
            let (mut writer, mut bytes) = begun();
            writer.put(&ReturnMessage::RecvBitmap { block: block() }, &mut bytes);
            refused(&[bytes, blob(number)].concat(), text);
        }
        // Of another migration, of another channel, of one that begins.
        for (session, number) in [([0; 16], MAIN), (SESSION, 1)] {
            let mut bytes = Vec::new();
            of_channel(session, number, &mut bytes);
            refused(&bytes, OTHER);
        }
        let hello = Hello {
            role: Role::Destination,
            session: SESSION,
            ..Hello::of_file("x", Vec::new())
        };
        let mut bytes = Vec::new();
        let _ = Writer::without_digest(&hello, &mut bytes);
        refused(&bytes, OTHER);
        // More than anything on the way back needs.
        let (_, mut bytes) = begun();
        let (blob, offset, data) = (0, 0, &[0; 8192][..]);
        Frame::Blob(Blob { blob, offset, data }).encode(&mut bytes);
        refused(&bytes[..100], "on the way back");
    }
}
