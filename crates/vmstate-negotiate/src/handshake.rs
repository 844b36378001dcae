//! A negotiation with its bytes: from the envelope up to the verdict.

use vmstate_ber::Limits;
use vmstate_ber::frame::{Frame, FrameKind, Hello};
use vmstate_ber::stream::{Parser, Step, Writer};
use vmstate_ber::types::TypeTable;

use crate::error::{NegotiateError, NegotiateErrorKind};
use crate::negotiation::{Agreement, Negotiation, Progress, REFUSED, Reply, Terms};
use crate::report::Report;

/// One end of a negotiation: bytes in, bytes out.
///
/// The driver sends what [`output`](Self::output) gives, hands what comes to [`input`](Self::input), over and over, until there is an
/// [`Outcome`]; and sends once more. What follows the verdict is the same stream: [`into_parts`](Self::into_parts) gives reader and writer.
#[derive(Debug)]
pub struct Handshake {
    negotiation: Negotiation,
    parser: Parser,
    writer: Option<Writer>,
    out: Vec<u8>,
    is_source: bool,
}

/// What [`Handshake::input`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that are not needed any more.
    pub consumed: usize,
    /// Bytes that the next call needs, counted from the first one that has not been consumed. Never more than what belongs to the
    /// negotiation.
    pub need: usize,
    /// There is an answer.
    pub outcome: Option<Outcome>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The migration goes on in the same stream.
    Agreed(Agreement),
    /// It does not. The source's stream has been ended.
    Refused(Report),
}

/// What goes on behind a verdict.
#[derive(Debug)]
pub struct Parts {
    /// The reader of the peer's stream, behind its last frame.
    pub parser: Parser,
    /// The writer of this end's stream; a source's has the types of the machine. Without digests.
    pub writer: Writer,
    /// Types that the peer has defined.
    pub types: TypeTable,
}

impl Handshake {
    /// The end that the guest leaves; it speaks first.
    #[must_use]
    pub fn source(terms: Terms) -> Self {
        let (mut negotiation, hello) = Negotiation::source(terms);
        let mut out = Vec::new();
        let mut writer = Writer::without_digest(&hello, &mut out);
        *writer.types_mut() = negotiation.take_types();
        Self {
            negotiation,
            parser: Parser::new(Limits::default()).without_digest(),
            writer: Some(writer),
            out,
            is_source: true,
        }
    }

    /// The end that the guest goes to.
    #[must_use]
    pub fn destination(terms: Terms) -> Self {
        Self {
            negotiation: Negotiation::destination(terms),
            parser: Parser::new(Limits::default()).without_digest(),
            writer: None,
            out: Vec::new(),
            is_source: false,
        }
    }

    /// The end that the guest goes to, where somebody has read the source's `hello` already: `parser` stands behind it. There may be an
    /// answer at once.
    ///
    /// # Errors
    /// As [`Handshake::input`].
    pub fn answering(
        terms: Terms,
        parser: Parser,
        hello: Hello,
    ) -> Result<(Self, Option<Outcome>), NegotiateError> {
        let mut handshake = Self {
            parser: parser.without_digest(),
            ..Self::destination(terms)
        };
        let offset = handshake.parser.offset();
        let reply = handshake
            .negotiation
            .receive(Frame::Hello(hello), 0, offset)?;
        let outcome = handshake.reply(reply);
        Ok((handshake, outcome))
    }

    /// What is to be sent now; nothing the next time.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Takes what has come of the peer's stream, from the first byte that has not been consumed: at most one frame of it.
    ///
    /// # Errors
    /// [`NegotiateError`]; the connection is of no use any more.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Taken, NegotiateError> {
        let taken = |consumed, need, outcome| Taken {
            consumed,
            need,
            outcome,
        };
        match self.parser.next(bytes)? {
            Step::NeedMore { min } => Ok(taken(0, min, None)),
            Step::Consumed { consumed } => Ok(taken(consumed, 1, None)),
            Step::Frame {
                consumed,
                offset,
                frame,
            } => {
                let reply = self.negotiation.receive(*frame, consumed as u64, offset)?;
                let outcome = self.reply(reply);
                Ok(taken(consumed, 1, outcome))
            }
            Step::End => Err(NegotiateErrorKind::OutOfTurn {
                found: FrameKind(0),
                expected: "a frame",
            }
            .into()),
        }
    }

    /// Does what a frame asks for.
    fn reply(&mut self, reply: Reply) -> Option<Outcome> {
        if let (true, Some(writer)) = (reply.types, &mut self.writer) {
            writer.new_types(&mut self.out);
        }
        for frame in &reply.frames {
            self.send(frame);
        }
        match reply.progress {
            Progress::Wait => None,
            Progress::Agreed(agreement) => Some(Outcome::Agreed(agreement)),
            Progress::Refused(report) => {
                self.end(&report);
                Some(Outcome::Refused(report))
            }
        }
    }

    /// A destination's stream begins with its answer.
    fn send(&mut self, frame: &Frame<'static>) {
        match (&mut self.writer, frame) {
            (None, Frame::Hello(hello)) => {
                let writer = Writer::without_digest(hello, &mut self.out);
                self.writer = Some(writer);
            }
            (Some(writer), frame) => writer.frame(frame, &mut self.out),
            // The first frame is Hello.
            (None, _) => {}
        }
    }

    /// Ends the stream of a source that was refused.
    fn end(&mut self, report: &Report) {
        if self.is_source
            && let Some(writer) = &mut self.writer
        {
            let finding = report.findings.first().cloned();
            writer.end_with(REFUSED, finding, &mut self.out);
        }
    }

    /// Tells that the peer sends no more, after `rest`.
    ///
    /// # Errors
    /// Always: the answer is missing.
    pub fn closed(&self, rest: &[u8]) -> Result<(), NegotiateError> {
        self.parser.finish(rest)?;
        Ok(())
    }

    /// What goes on behind the verdict; `None` before this end has said anything.
    #[must_use]
    pub fn into_parts(self) -> Option<Parts> {
        Some(Parts {
            parser: self.parser,
            writer: self.writer?,
            types: self.negotiation.into_types(),
        })
    }
}
