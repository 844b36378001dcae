//! The incremental parser of the `ram` section's payload.

mod records;
mod setup;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::records::{Records, Stop};

use crate::cursor::{Cursor, Halt};
use crate::error::shown;
use crate::record::{Event, RamSection, Record, Step};
use crate::{BlockId, BlockTable, Dialect, PageRef, RamError, RamErrorKind, RamFlags};

/// Parses the payload of `ram` sections, idstr `ram`, instance 0, version 4, from input in pieces of any size.
///
/// The driver finds the sections (it reads their headers and footers) and feeds payloads:
///
/// 1. [`begin_section`](Self::begin_section) when a section header has been read;
/// 2. [`step`](Self::step) with the bytes behind it, again and again, until [`Event::EndOfSection`].
///
/// Two faster ways share the same state and may be mixed with `step`: [`records`](Self::records) iterates over all
/// whole page records of a buffer without leaving the loop, and [`step_header`](Self::step_header) gives only the
/// words, so that a driver can read pages straight into guest memory, or seek over them.
///
/// State outlives sections: the block table and the block that `CONTINUE` refers to. A parser belongs to one
/// channel; [`preempt_channel`](Self::preempt_channel) makes that of the postcopy preempt channel.
///
/// On an error nothing is consumed and the state is unchanged, so the same call gives the same error.
///
/// Wire: QEMU 7.2..11.1, `docs/devel/migration`.
#[derive(Debug, Clone)]
pub struct RamParser {
    dialect: Dialect,
    blocks: Arc<BlockTable>,
    /// The block of the last page record.
    current: Option<Current>,
    state: State,
    /// The records that may come, as far as the dialect and the phase of the migration tell.
    allowed: RamFlags,
    /// Why others may not, for messages.
    phase: &'static str,
    /// Offset of the next byte, in bytes from the beginning of the stream.
    position: u64,
}

/// The block that CONTINUE refers to, with what the hot loop needs of it.
#[derive(Debug, Clone, Copy)]
struct Current {
    id: BlockId,
    /// Page offsets must be below: the used length; 0 for an ignored block.
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No START yet.
    Fresh,
    /// Between two sections.
    Idle,
    /// At the first word of START.
    Setup,
    /// In the block list.
    List { total: u64 },
    /// At a record.
    Records,
    /// A page's payload is in the driver's hands.
    Payload,
}

const IN_A_SECTION: &str = "in this phase of the migration";
const IN_MAPPED_RAM: &str = "in a mapped-ram file";
const IN_POSTCOPY: &str = "in postcopy";

impl RamParser {
    /// Makes a parser for the main channel of one migration.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        let (allowed, phase) = if dialect.mapped_ram {
            (RamFlags::EOS, IN_MAPPED_RAM)
        } else {
            let mut allowed = RamFlags::PAGE | RamFlags::ZERO | RamFlags::XBZRLE | RamFlags::EOS;
            allowed.set(RamFlags::COMPRESS_PAGE, dialect.compressed_pages);
            allowed.set(RamFlags::MULTIFD_FLUSH, dialect.multifd_flush);
            (allowed, IN_A_SECTION)
        };
        Self {
            dialect,
            blocks: Arc::default(),
            current: None,
            state: State::Fresh,
            allowed,
            phase,
            position: 0,
        }
    }

    /// Makes the parser of the postcopy preempt channel: the same blocks, a `CONTINUE` memory of its own, and page
    /// records without sections around them. An `EOS` (sent at the end for machine types up to 7.2) is an
    /// [`Event::EndOfSection`]; newer sources just close the channel.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::OutOfTurn`] before the block list is complete.
    pub fn preempt_channel(&self) -> Result<Self, RamError> {
        if matches!(self.state, State::Fresh | State::Setup | State::List { .. }) {
            return Err(out_of_turn(
                "preempt channel before the block list is complete",
            ));
        }
        let mut parser = Self {
            current: None,
            state: State::Records,
            position: 0,
            ..self.clone()
        };
        parser.enter_postcopy();
        Ok(parser)
    }

    /// From now on only the records of postcopy are allowed: `PAGE`, `ZERO` and `EOS`.
    pub fn enter_postcopy(&mut self) {
        self.allowed = RamFlags::PAGE | RamFlags::ZERO | RamFlags::EOS;
        self.phase = IN_POSTCOPY;
    }

    /// The channel has broken, anywhere. A new one begins with a section, and its first page names its block.
    ///
    /// Nothing happens before the block list is complete: then there is nothing to go on with.
    pub fn interrupted(&mut self) {
        if matches!(self.state, State::Records | State::Payload) {
            self.state = State::Idle;
        }
        self.current = None;
    }

    /// The blocks that have been listed so far. Cheap to clone and to hand to other channels.
    #[must_use]
    pub fn blocks(&self) -> &Arc<BlockTable> {
        &self.blocks
    }

    /// The dialect.
    #[must_use]
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Offset of the next byte, counted as in [`begin_section`](Self::begin_section).
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Declares a block as one whose pages do not travel (`x-ignore-shared`, CPR). The wire does not say which these
    /// are. Later page records for it are refused.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`] if the block is not in the table.
    pub fn ignore_block(&mut self, id: BlockId) -> Result<(), RamError> {
        let Some(block) = Arc::make_mut(&mut self.blocks).get_mut(id) else {
            return Err(RamErrorKind::UnknownBlockId { id: id.0 }.into());
        };
        block.ignored = true;
        if let Some(current) = &mut self.current
            && current.id == id
        {
            current.limit = 0;
        }
        Ok(())
    }

    /// Begins the payload of a section, at this offset of the stream.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::SectionOrder`] for PART and END before START and for a second START;
    /// [`RamErrorKind::OutOfTurn`] while the payload before has not ended.
    pub fn begin_section(
        &mut self,
        section: RamSection,
        stream_offset: u64,
    ) -> Result<(), RamError> {
        let order = |when| {
            RamError::from(RamErrorKind::SectionOrder {
                section: section.name(),
                when,
            })
        };
        self.state = match (self.state, section) {
            (State::Fresh, RamSection::Start) => State::Setup,
            (State::Idle, RamSection::Part | RamSection::End) => State::Records,
            (State::Fresh, _) => return Err(order("before any START").at(stream_offset)),
            (State::Idle, RamSection::Start) => return Err(order("came before").at(stream_offset)),
            _ => return Err(out_of_turn("a section begins inside another").at(stream_offset)),
        };
        self.position = stream_offset;
        Ok(())
    }

    /// Understands what stands at the front of `input`. A normal page comes as [`Record::Page`], when all of it is
    /// there.
    ///
    /// # Errors
    ///
    /// Any kind of [`RamErrorKind`] that concerns blocks and records; [`RamErrorKind::OutOfTurn`] outside a section
    /// or while a page's payload is with the driver.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<Event<'a>>, RamError> {
        self.advance(input, true)
    }

    /// Like [`step`](Self::step), but a normal page comes as [`Event::PageHeader`]. The driver then takes one target
    /// page of payload by itself, and says so with [`payload_done`](Self::payload_done).
    ///
    /// # Errors
    ///
    /// As for `step`.
    pub fn step_header<'a>(&mut self, input: &'a [u8]) -> Result<Step<Event<'a>>, RamError> {
        self.advance(input, false)
    }

    /// How many bytes of payload the driver has to take before the next step: 0 or one target page.
    #[must_use]
    pub fn payload_due(&self) -> usize {
        if self.state == State::Payload {
            self.dialect.page_size.as_usize()
        } else {
            0
        }
    }

    /// The driver has read the page announced by [`Event::PageHeader`], or moved over it.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::OutOfTurn`] if no payload is due.
    pub fn payload_done(&mut self) -> Result<(), RamError> {
        if self.state != State::Payload {
            return Err(out_of_turn("no payload is due").at(self.position));
        }
        self.state = State::Records;
        self.position = self.position.saturating_add(self.dialect.page_size.bytes());
        Ok(())
    }

    /// Iterates over the whole page records at the front of `input`; the fast way for many pages.
    ///
    /// The iterator ends at the first record that is not a page or not complete. Then
    /// [`Records::consumed`] says how far it came and [`Records::stop`] why.
    pub fn records<'p, 'a>(&'p mut self, input: &'a [u8]) -> Records<'p, 'a> {
        Records::new(self, input)
    }

    /// The error for input that ends where `needed` bytes were necessary and `have` were there.
    #[must_use]
    pub fn truncated(&self, needed: usize, have: usize) -> RamError {
        RamError::from(RamErrorKind::Truncated { needed, have }).at(self.position)
    }

    fn advance<'a>(&mut self, input: &'a [u8], whole: bool) -> Result<Step<Event<'a>>, RamError> {
        let mut cursor = Cursor::new(input);
        let outcome = match self.state {
            State::Setup => self.setup_word(&mut cursor),
            State::List { total } => self.list(&mut cursor, total),
            State::Records => self.record(&mut cursor, whole),
            State::Payload => Err(Halt::Error(
                out_of_turn("a page's payload is due").at(self.position),
            )),
            State::Fresh | State::Idle => Err(Halt::Error(
                out_of_turn("no section has begun").at(self.position),
            )),
        };
        match outcome {
            Ok(event) => {
                self.pass(cursor.consumed());
                if let Event::Block { gap, .. } = event {
                    self.position = self.position.saturating_add(gap);
                }
                Ok(Step::Event {
                    consumed: cursor.consumed(),
                    event,
                })
            }
            Err(Halt::Need(at_least)) => Ok(Step::NeedMore { at_least }),
            Err(Halt::Error(error)) => Err(error),
        }
    }

    /// Parses one record and, if it is accepted, moves the state on.
    fn record<'a>(&mut self, cursor: &mut Cursor<'a>, whole: bool) -> Result<Event<'a>, Halt> {
        let word = cursor.u64_be()?;
        let (offset, flags) = self.split(word).map_err(|kind| self.refuse(0, kind))?;
        let kind = flags.difference(RamFlags::CONTINUE);
        if kind == RamFlags::EOS {
            self.state = State::Idle;
            return Ok(Event::EndOfSection);
        }
        if kind == RamFlags::MULTIFD_FLUSH {
            return Ok(Event::MultifdFlush);
        }
        let (page, current) = self.page_ref(cursor, offset, flags)?;
        let event = match kind {
            RamFlags::PAGE if whole => Event::Record(Record::Page {
                page,
                data: cursor.take(self.dialect.page_size.as_usize())?,
            }),
            RamFlags::PAGE => {
                self.state = State::Payload;
                Event::PageHeader(page)
            }
            RamFlags::ZERO => {
                let at = cursor.consumed();
                let fill = cursor.u8()?;
                if fill != 0 && !self.dialect.any_fill_byte {
                    return Err(self.refuse_in(
                        current.id,
                        at,
                        RamErrorKind::FillByte { found: fill },
                    ));
                }
                Event::Record(Record::Zero { page, fill })
            }
            RamFlags::XBZRLE => Event::Record(Record::Xbzrle {
                page,
                delta: self.xbzrle_body(cursor, current.id)?,
            }),
            _ => Event::Record(Record::Compressed {
                page,
                data: self.compressed_body(cursor, current.id)?,
            }),
        };
        self.current = Some(current);
        Ok(event)
    }

    /// Takes a record word apart: exactly one record, one that may come here.
    fn split(&self, word: u64) -> Result<(u64, RamFlags), RamErrorKind> {
        let mask = self.dialect.page_size.flag_mask();
        let (offset, bits) = (word & !mask, word & mask);
        let Some(flags) = RamFlags::from_bits(bits) else {
            return Err(RamErrorKind::UnknownFlags {
                word,
                unknown: bits & !RamFlags::all().bits(),
            });
        };
        let record = flags.difference(RamFlags::CONTINUE);
        if record.bits().count_ones() != 1 {
            return Err(RamErrorKind::NotOneRecord { word, flags });
        }
        if record == RamFlags::FULL {
            return Err(RamErrorKind::Obsolete { flags: record });
        }
        if record == RamFlags::HOOK {
            return Err(RamErrorKind::Rdma { flags: record });
        }
        if !self.allowed.contains(record) {
            return Err(RamErrorKind::NotAllowed {
                flags: record,
                when: self.phase,
            });
        }
        if !RamFlags::PAGE_RECORDS.contains(record) && (offset != 0 || record != flags) {
            return Err(RamErrorKind::BareWord {
                word,
                flags: record,
            });
        }
        Ok((offset, flags))
    }

    /// Finds and checks the page that a record names.
    fn page_ref(
        &self,
        cursor: &mut Cursor<'_>,
        offset: u64,
        flags: RamFlags,
    ) -> Result<(PageRef, Current), Halt> {
        let named = !flags.contains(RamFlags::CONTINUE);
        let current = if named {
            let at = cursor.consumed();
            let name = cursor.name()?;
            let id = self
                .blocks
                .find(name)
                .ok_or_else(|| self.refuse(at, RamErrorKind::UnknownBlock { name: shown(name) }))?;
            let limit = self
                .blocks
                .get(id)
                .map_or(0, |b| if b.ignored { 0 } else { b.used_length });
            Current { id, limit }
        } else {
            self.current
                .ok_or_else(|| self.refuse(0, RamErrorKind::NothingToContinue))?
        };
        if offset >= current.limit {
            self.blocks
                .check_page(current.id, offset, self.dialect.page_size)
                .map_err(|error| error.at(self.position))?;
        }
        Ok((
            PageRef {
                block: current.id,
                offset,
                named,
            },
            current,
        ))
    }

    /// `u8 1, be16 n, n bytes`.
    fn xbzrle_body<'a>(&self, cursor: &mut Cursor<'a>, id: BlockId) -> Result<&'a [u8], Halt> {
        let at = cursor.consumed();
        let mark = cursor.u8()?;
        if mark != 1 {
            return Err(self.refuse_in(id, at, RamErrorKind::XbzrleMark { found: mark }));
        }
        let length = cursor.u16_be()?;
        let limit = self.dialect.page_size.bytes();
        if u64::from(length) > limit {
            let kind = RamErrorKind::XbzrleLength {
                found: length.into(),
                limit,
            };
            return Err(self.refuse_in(id, at.saturating_add(1), kind));
        }
        cursor.take(length.into())
    }

    /// `be32 n, n bytes`.
    fn compressed_body<'a>(&self, cursor: &mut Cursor<'a>, id: BlockId) -> Result<&'a [u8], Halt> {
        let at = cursor.consumed();
        let length = cursor.u32_be()?;
        let limit = compressed_limit(self.dialect.page_size.bytes());
        match usize::try_from(length) {
            Ok(count) if count > 0 && u64::from(length) <= limit => cursor.take(count),
            _ => Err(self.refuse_in(
                id,
                at,
                RamErrorKind::CompressedLength {
                    found: length.into(),
                    limit,
                },
            )),
        }
    }

    /// Moves the position over consumed bytes.
    #[inline]
    fn pass(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
    }

    /// An error at so many bytes behind the position.
    #[cold]
    fn refuse(&self, at: usize, kind: RamErrorKind) -> Halt {
        Halt::Error(RamError::from(kind).at(self.position.saturating_add(at as u64)))
    }

    #[cold]
    fn refuse_in(&self, id: BlockId, at: usize, kind: RamErrorKind) -> Halt {
        let error = RamError::from(kind).at(self.position.saturating_add(at as u64));
        Halt::Error(match self.blocks.get(id) {
            Some(block) => error.in_block(&block.name),
            None => error,
        })
    }
}

/// The longest zlib stream of one page: what zlib itself gives as its bound for incompressible input.
pub(crate) const fn compressed_limit(page_size: u64) -> u64 {
    page_size
        .saturating_add(page_size >> 12)
        .saturating_add(page_size >> 14)
        .saturating_add(13)
}

#[cold]
fn out_of_turn(what: &'static str) -> RamError {
    RamErrorKind::OutOfTurn { what }.into()
}
