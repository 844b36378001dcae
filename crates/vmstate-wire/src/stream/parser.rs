//! The incremental reader of a stream's framing.

mod step;

use super::error::{Place, StreamError, StreamErrorKind};
use super::event::Step;
use super::options::{ParserOptions, Presence};
use super::sections::SectionTable;
use super::take::{Need, Stop};
use super::types::{SectionHeader, SectionId, StreamOffset};

/// Reads the framing of a stream, without doing I/O and without keeping input.
///
/// The caller holds a piece of the stream that begins with the first byte not consumed yet, and
/// calls [`next`](Self::next) over and over:
///
/// - [`Step::NeedMore`] - make the piece longer, call again. At the end of the input, call
///   [`finish`](Self::finish).
/// - [`Step::Event`] - drop `consumed` bytes, look at the event, call again.
/// - [`Step::InBody`] - a section's body is next. Nothing on the wire says how long it is, so the
///   caller decodes it (or measures it, see [`infer_body_end`](super::infer_body_end)), drops its
///   bytes and calls [`body_done`](Self::body_done).
/// - [`Step::End`] - done.
///
/// Pieces may be of any size; the events are the same, except that chunks may be cut differently.
/// After an error the parser has not moved: it gives the same error again.
///
/// ```
/// use vmstate_wire::stream::{Event, ParserOptions, Step, StreamParser, write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream = Vec::new();
/// write::put_header(&mut stream);
/// write::put_eof(&mut stream);
///
/// let mut parser = StreamParser::new(ParserOptions::default());
/// let mut input = stream.as_slice();
/// loop {
///     match parser.next(input)? {
///         Step::Event { consumed, event } => {
///             println!("{event:?}");
///             input = &input[consumed..];
///         }
///         Step::NeedMore { .. } => {
///             parser.finish(input)?;
///             break;
///         }
///         Step::InBody => unreachable!("this stream has no sections"),
///         Step::End => break,
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Wire: QEMU `migration/savevm.c`, `vectors/streams`.
#[derive(Debug, Clone)]
pub struct StreamParser {
    options: ParserOptions,
    state: State,
    offset: StreamOffset,
    sections: SectionTable,
    /// As in the options, until detected.
    footers: Presence,
    /// Where the package ends that is being read.
    package_end: Option<StreamOffset>,
    /// The last event was `PackageBegin`.
    package_is_fresh: bool,
    /// This parser reads a package only, and ends with it.
    nested: bool,
    /// `POSTCOPY_LISTEN` or `POSTCOPY_RUN` has come: there will be no trailer.
    postcopy: bool,
    warned_of_id_zero: bool,
    previous: Option<SectionId>,
}

#[derive(Debug, Clone)]
enum State {
    FileHeader,
    Configuration,
    Element,
    Body { header: SectionHeader, length: u64 },
    Footer { header: SectionHeader, length: u64 },
    PackageTail,
    AfterEof,
    Trailer { length: u32, remaining: u32 },
    End,
}

impl StreamParser {
    /// A parser at the first byte of a stream.
    #[must_use]
    pub fn new(options: ParserOptions) -> Self {
        Self::starting(options, State::FileHeader, SectionTable::new())
    }

    /// Counts positions from `offset` on, for a stream that does not stand at the start of its file.
    #[must_use]
    pub fn at_offset(mut self, offset: StreamOffset) -> Self {
        self.offset = offset;
        self
    }

    /// A parser at an element, for what follows on a new connection after a postcopy recovery, where
    /// neither header nor configuration is sent again.
    #[must_use]
    pub fn resumed(options: ParserOptions, sections: SectionTable) -> Self {
        let mut parser = Self::starting(options, State::Element, sections);
        parser.postcopy = true;
        parser
    }

    /// A parser of the elements of a package of `length` bytes that begins at `offset`: no header
    /// and no end-of-stream mark; `POSTCOPY_RUN` or the last byte ends it.
    #[must_use]
    pub fn package(
        options: ParserOptions,
        sections: SectionTable,
        offset: StreamOffset,
        length: u32,
    ) -> Self {
        let mut parser = Self::starting(options, State::Element, sections);
        parser.offset = offset;
        parser.package_end = Some(offset.plus(u64::from(length)));
        parser.nested = true;
        parser
    }

    fn starting(options: ParserOptions, state: State, sections: SectionTable) -> Self {
        Self {
            options,
            state,
            offset: StreamOffset(0),
            sections,
            footers: options.footers,
            package_end: None,
            package_is_fresh: false,
            nested: false,
            postcopy: false,
            warned_of_id_zero: false,
            previous: None,
        }
    }

    /// The position of the first byte not consumed, bodies included.
    #[must_use]
    pub fn offset(&self) -> StreamOffset {
        self.offset
    }

    /// The sections defined so far.
    #[must_use]
    pub fn sections(&self) -> &SectionTable {
        &self.sections
    }

    /// The section whose body is being read.
    #[must_use]
    pub fn current_section(&self) -> Option<&SectionHeader> {
        match &self.state {
            State::Body { header, .. } => Some(header),
            _ => None,
        }
    }

    /// Whether sections end with a footer: [`Presence::Detect`] until the first one has shown it.
    #[must_use]
    pub fn footers(&self) -> Presence {
        self.footers
    }

    /// Whether the stream has switched to postcopy, as far as this parser has seen.
    #[must_use]
    pub fn is_postcopy(&self) -> bool {
        self.postcopy
    }

    /// Bytes left of the package that is being read.
    #[must_use]
    pub fn package_remaining(&self) -> Option<u64> {
        self.package_end
            .map(|end| end.0.saturating_sub(self.offset.0))
    }

    /// Reads the next piece from `input`, which begins at [`offset`](Self::offset).
    ///
    /// # Errors
    ///
    /// [`StreamError`] for whatever is not a stream, or not one of the dialect or within the bounds
    /// of the options.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, StreamError> {
        self.package_is_fresh = false;
        let input = self.within_package(input);
        match self.step(input) {
            Ok(step) => {
                if let Step::Event { consumed, .. } = &step {
                    self.offset = self.offset.plus(as_u64(*consumed));
                }
                Ok(step)
            }
            Err(Stop::Fail(at, kind)) => Err(StreamError::new(*kind, self.offset.plus(as_u64(at)))),
            Err(Stop::Need(Need(min))) => match self.package_end {
                Some(end) if self.offset.plus(as_u64(min)) > end => {
                    let place = self.place(input);
                    let kind = StreamErrorKind::PackageOverrun { end, place };
                    Err(StreamError::new(kind, self.offset))
                }
                _ => Ok(Step::NeedMore { min }),
            },
        }
    }

    /// Tells that `count` bytes of the current body have been read, and that there are more.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::NotInBody`]; [`StreamErrorKind::PackageOverrun`] if the body goes on
    /// beyond the end of its package.
    pub fn body_consumed(&mut self, count: u64) -> Result<(), StreamError> {
        let State::Body { header, length } = &mut self.state else {
            return Err(StreamError::new(StreamErrorKind::NotInBody, self.offset));
        };
        let offset = self.offset.plus(count);
        if let Some(end) = self.package_end.filter(|end| offset > *end) {
            let place = Place::Body(header.name());
            let kind = StreamErrorKind::PackageOverrun { end, place };
            return Err(StreamError::new(kind, self.offset));
        }
        self.offset = offset;
        *length = length.saturating_add(count);
        Ok(())
    }

    /// Tells that the last `count` bytes of the current body have been read. What follows is the
    /// footer.
    ///
    /// # Errors
    ///
    /// As [`body_consumed`](Self::body_consumed).
    pub fn body_done(&mut self, count: u64) -> Result<(), StreamError> {
        self.body_consumed(count)?;
        if let State::Body { header, length } = &self.state {
            self.state = State::Footer {
                header: header.clone(),
                length: *length,
            };
        }
        Ok(())
    }

    /// Right after [`Event::PackageBegin`](super::Event::PackageBegin): the caller takes the whole
    /// package off the input and reads it on its own, with the parser returned here. This parser
    /// goes on behind the package.
    ///
    /// A stock destination does it that way: it holds the package in memory, and another thread
    /// reads on while the package is being loaded.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::NotAtPackage`].
    pub fn take_package(&mut self) -> Result<Self, StreamError> {
        let Some(end) = self.package_end.filter(|_| self.package_is_fresh) else {
            return Err(StreamError::new(StreamErrorKind::NotAtPackage, self.offset));
        };
        let mut inner = self.clone();
        inner.nested = true;
        inner.package_is_fresh = false;
        self.package_is_fresh = false;
        self.package_end = None;
        self.offset = end;
        Ok(inner)
    }

    /// Takes over what the parser of a package has learnt: sections, postcopy.
    pub fn learn(&mut self, package: &Self) {
        self.sections.learn(&package.sections);
        self.postcopy |= package.postcopy;
        if self.footers == Presence::Detect {
            self.footers = package.footers;
        }
    }

    /// Tells that the input is over. `rest` is what has not been consumed, for which
    /// [`next`](Self::next) has asked for more.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::UnexpectedEnd`], naming what was being read and with the position of the
    /// end, unless the stream is complete.
    pub fn finish(&self, rest: &[u8]) -> Result<(), StreamError> {
        let complete = match self.state {
            State::End => true,
            State::AfterEof => {
                rest.is_empty() && (self.options.trailer != Presence::Required || self.postcopy)
            }
            _ => false,
        };
        if complete {
            return Ok(());
        }
        let place = self.place(rest);
        Err(StreamError::new(
            StreamErrorKind::UnexpectedEnd { place },
            self.offset.plus(as_u64(rest.len())),
        ))
    }

    fn within_package<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        self.package_remaining()
            .and_then(|remaining| input.get(..usize::try_from(remaining).ok()?))
            .unwrap_or(input)
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
