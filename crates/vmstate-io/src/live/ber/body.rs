//! A section, as its handler reads it.

use std::collections::VecDeque;

use vmstate_ber::frame::{Coding, Frame, Mark, RamPages, Select};
use vmstate_desc::{Limits, LoadState};
use vmstate_engine::{
    ChannelError, HandlerError, MAX_PEEK, PageItem, PageRun, PageSource, SectionReader,
};
use vmstate_ram::{BlockId, BlockTable, PageSize};
use vmstate_wire::codec::decode;
use vmstate_wire::stream::{SectionId, StreamOffset};

use super::decoder::{BerDecoder, Read, out_of_turn, runs_of};
use super::handler_error;

/// Bytes in one or more frames.
pub(super) struct DataBody<'a> {
    decoder: &'a mut BerDecoder,
    input: &'a mut dyn SectionReader,
    id: SectionId,
    bytes: Vec<u8>,
    used: usize,
    /// Another frame follows.
    more: bool,
    /// Why no more comes, where an error of the decoder would only have its text.
    pub(super) broken: Option<HandlerError>,
}

impl<'a> DataBody<'a> {
    pub(super) fn new(
        decoder: &'a mut BerDecoder,
        input: &'a mut dyn SectionReader,
        id: SectionId,
        bytes: Vec<u8>,
        more: bool,
    ) -> Self {
        Self {
            decoder,
            input,
            id,
            bytes,
            used: 0,
            more,
            broken: None,
        }
    }

    fn available(&self) -> usize {
        self.bytes.len().saturating_sub(self.used)
    }

    /// Reads the next frame of the section.
    fn read_more(&mut self) -> Result<(), HandlerError> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let mut buffer = Vec::new();
        match self.decoder.read(self.input, &mut buffer)? {
            Read::Frame(frame, offset) => match *frame {
                Frame::SectionData(data) if data.section_id == self.id.0 => {
                    self.bytes.extend_from_slice(data.data);
                    self.more = data.more;
                    Ok(())
                }
                Frame::Note(_) | Frame::Unknown { .. } => Ok(()),
                _ => Err(handler_error(out_of_turn(
                    "a section's bytes do not go on",
                    offset,
                ))),
            },
            _ => {
                let what = "a section's bytes do not go on";
                let offset = self.decoder.parser.offset();
                Err(handler_error(out_of_turn(what, offset)))
            }
        }
    }

    /// Reads all of it into a device, whose state the source has not described.
    pub(super) fn decode(
        &mut self,
        state: &mut dyn LoadState,
        version: u32,
        limits: Limits,
    ) -> Result<(), vmstate_desc::Error> {
        while self.more {
            if self.bytes.len() as u64 > limits.memory {
                let text = format!("more than {} bytes of state", limits.memory);
                return Err(vmstate_desc::Error::format(text));
            }
            if let Err(error) = self.read_more() {
                let text = error.to_string();
                self.broken = Some(error);
                return Err(vmstate_desc::Error::format(text));
            }
        }
        self.used = decode(state, version, &self.bytes, limits)?;
        Ok(())
    }

    /// The handler has read what it wanted, which must be all.
    pub(super) fn finish(self) -> Result<(), HandlerError> {
        if self.available() == 0 && !self.more {
            return Ok(());
        }
        let what = "bytes of a section are left over";
        let offset = self.decoder.parser.offset();
        Err(handler_error(out_of_turn(what, offset)))
    }
}

impl SectionReader for DataBody<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        if at_least > MAX_PEEK {
            let reason = format!("{at_least} bytes are too many to look at");
            return Err(ChannelError::failed(self.offset(), reason));
        }
        while self.available() < at_least && self.more {
            self.read_more().map_err(|error| match error {
                HandlerError::Channel(error) => error,
                other => ChannelError::failed(self.input.offset(), other),
            })?;
        }
        Ok(self.bytes.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.used = self.used.saturating_add(count).min(self.bytes.len());
    }

    fn offset(&self) -> StreamOffset {
        let read = self.decoder.parser.offset();
        StreamOffset(read.saturating_sub(self.available() as u64))
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        let mut at = offset;
        while left > 0 {
            let here = self.fill(1)?.len().min(left);
            if here == 0 {
                let reason = "the section is shorter than its pages";
                return Err(ChannelError::failed(self.offset(), reason));
            }
            let end = self.used.saturating_add(here);
            let bytes = self.bytes.get(self.used..end).unwrap_or_default();
            let copied = self.decoder.memory.copy_in(block, at, bytes);
            copied.map_err(|error| ChannelError::failed(self.offset(), error))?;
            self.consume(here);
            at = at.saturating_add(here as u64);
            left = left.saturating_sub(here);
        }
        Ok(())
    }
}

/// Where the content of pages comes from.
enum Source {
    /// The channel.
    Channel,
    /// A frame that was read as a whole.
    Frame(Vec<u8>, usize),
}

/// Guest RAM in frames of its own.
pub(super) struct RamBody<'a> {
    decoder: &'a mut BerDecoder,
    input: &'a mut dyn SectionReader,
    id: SectionId,
    blocks: Option<Box<BlockTable>>,
    page_size: PageSize,
    /// What the present frame still has.
    items: VecDeque<PageItem>,
    /// Bytes of content of what was given last.
    left: u64,
    source: Source,
    buffer: Vec<u8>,
    closed: bool,
    /// Pages come without the borders of sections, until the channel ends.
    urgent: bool,
}

impl<'a> RamBody<'a> {
    pub(super) fn new(
        decoder: &'a mut BerDecoder,
        input: &'a mut dyn SectionReader,
        id: SectionId,
        blocks: Option<Box<BlockTable>>,
        page_size: Option<PageSize>,
    ) -> Self {
        Self {
            decoder,
            input,
            id,
            blocks,
            page_size: page_size.unwrap_or(PageSize::KIB4),
            items: VecDeque::new(),
            left: 0,
            source: Source::Channel,
            buffer: Vec::new(),
            closed: false,
            urgent: false,
        }
    }

    /// What comes on the channel of requested pages.
    pub(super) fn urgent(decoder: &'a mut BerDecoder, input: &'a mut dyn SectionReader) -> Self {
        let page_size = Some(decoder.memory.page_size());
        Self {
            urgent: true,
            ..Self::new(decoder, input, SectionId(0), None, page_size)
        }
    }

    /// The handler has read what it wanted, which must be all.
    pub(super) fn finish(self) -> Result<(), HandlerError> {
        if self.closed {
            return Ok(());
        }
        let what = "pages are left over";
        let offset = self.decoder.parser.offset();
        Err(handler_error(out_of_turn(what, offset)))
    }

    /// Counts content that is taken.
    fn take(&mut self, length: u64) -> Result<(), ChannelError> {
        let Some(left) = self.left.checked_sub(length) else {
            let reason = "more content of pages is taken than there is";
            return Err(ChannelError::failed(self.offset(), reason));
        };
        self.left = left;
        Ok(())
    }

    /// Takes the pages of a frame that was read up to its content.
    fn open(
        &mut self,
        block: u32,
        runs: &[(u64, u64)],
        length: u64,
        offset: u64,
    ) -> Result<(), HandlerError> {
        let pages = runs
            .iter()
            .try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
        let bytes = pages.and_then(|pages| pages.checked_mul(self.page_size.bytes()));
        if bytes != Some(length) {
            let what = "the content of pages has another length than the pages";
            return Err(handler_error(out_of_turn(what, offset)));
        }
        for (first, count) in runs {
            self.items
                .push_back(PageItem::Raw(run(block, *first, *count)));
        }
        Ok(())
    }

    /// Takes the pages of a frame that was read as a whole.
    fn whole(&mut self, pages: &RamPages<'_>, offset: u64) -> Result<(), HandlerError> {
        let data = pages.data.unwrap_or_default();
        let block = pages.block;
        match pages.coding {
            Coding::Zero | Coding::Fill => {
                let value = match pages.coding {
                    Coding::Fill => data.first().copied().unwrap_or(0),
                    _ => 0,
                };
                let runs = match pages.select {
                    Select::Count(count) => vec![(pages.first, count)],
                    _ => runs_of(pages.first, pages.select.pages()),
                };
                for (first, count) in runs {
                    self.items
                        .push_back(PageItem::Fill(run(block, first, count), value));
                }
                Ok(())
            }
            Coding::Raw => {
                let zeros = pages.zeros.unwrap_or_default();
                let zeros: u64 = zeros.iter().map(|bits| u64::from(bits.count_ones())).sum();
                let count = pages.select.count().saturating_sub(zeros);
                let length = data.len() as u64;
                // From here on there are no more runs than pages with content.
                if count.checked_mul(self.page_size.bytes()) != Some(length) {
                    let what = "the content of pages has another length than the pages";
                    return Err(handler_error(out_of_turn(what, offset)));
                }
                let of = |zero: bool| {
                    let all = (0_u64..).zip(pages.select.pages());
                    let some = all.filter(move |(index, _)| pages.is_zero(*index) == zero);
                    runs_of(pages.first, some.map(|(_, page)| page))
                };
                for (first, count) in of(true) {
                    self.items
                        .push_back(PageItem::Fill(run(block, first, count), 0));
                }
                self.source = Source::Frame(data.to_vec(), 0);
                self.open(block, &of(false), length, offset)
            }
            Coding::Xbzrle | Coding::Zstd | Coding::Zlib => {
                let what = "pages in a coding that was not agreed upon";
                Err(handler_error(out_of_turn(what, offset)))
            }
        }
    }

    /// Reads the next frame.
    fn read_frame(&mut self) -> Result<(), HandlerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.source = Source::Channel;
        if self.urgent && self.input.fill(1)?.is_empty() {
            // Its end is that of the migration, or of the connection.
            self.closed = true;
            return Ok(());
        }
        let begins = self.urgent && self.decoder.expected.is_some();
        let result = match self.decoder.read(self.input, &mut buffer)? {
            Read::Pages(pages) => self.open(pages.block, &pages.runs, pages.length, pages.offset),
            Read::Envelope if begins => Ok(()),
            Read::Frame(frame, offset) => match *frame {
                Frame::Hello(hello) if begins => {
                    let begun = self.decoder.begins(&hello, offset);
                    begun.map_err(handler_error)
                }
                Frame::RamPages(pages) => self.whole(&pages, offset),
                Frame::RamMark(mark) if mark.section_id == self.id.0 && !self.urgent => {
                    match mark.mark {
                        Mark::Close => {
                            self.closed = true;
                            Ok(())
                        }
                        // There are no other channels to wait for.
                        Mark::Flush => Ok(()),
                        Mark::Part | Mark::End => Err(handler_error(out_of_turn(
                            "a part of guest RAM inside of another",
                            offset,
                        ))),
                    }
                }
                Frame::Note(_) | Frame::Checkpoint(_) | Frame::Unknown { .. } => Ok(()),
                _ => Err(handler_error(out_of_turn(
                    "a part of guest RAM does not end",
                    offset,
                ))),
            },
            Read::Envelope | Read::End => {
                let what = "a part of guest RAM does not end";
                let offset = self.decoder.parser.offset();
                Err(handler_error(out_of_turn(what, offset)))
            }
        };
        self.buffer = buffer;
        result
    }
}

fn run(block: u32, first: u64, count: u64) -> PageRun {
    PageRun {
        block: BlockId(block),
        first,
        count,
    }
}

impl PageSource for RamBody<'_> {
    fn content(&mut self, out: &mut [u8]) -> Result<(), ChannelError> {
        self.take(out.len() as u64)?;
        match &mut self.source {
            Source::Channel => self.input.read_exact(out),
            Source::Frame(bytes, used) => {
                let end = used.saturating_add(out.len());
                // What is left has been counted when the frame was read.
                if let Some(content) = bytes.get(*used..end) {
                    out.copy_from_slice(content);
                }
                *used = end;
                Ok(())
            }
        }
    }

    fn next(&mut self) -> Result<Option<PageItem>, HandlerError> {
        if self.left > 0 {
            return Err(HandlerError::refused("the content of pages was not taken"));
        }
        if let Some(blocks) = self.blocks.take() {
            return Ok(Some(PageItem::Blocks {
                blocks: *blocks,
                page_size: self.page_size,
            }));
        }
        while self.items.is_empty() && !self.closed {
            self.read_frame()?;
        }
        let item = self.items.pop_front();
        if let Some(PageItem::Raw(run)) = &item {
            self.left = run.count.saturating_mul(self.page_size.bytes());
        }
        Ok(item)
    }
}

impl SectionReader for RamBody<'_> {
    fn fill(&mut self, _at_least: usize) -> Result<&[u8], ChannelError> {
        let reason = "guest RAM is not read as bytes";
        Err(ChannelError::failed(self.offset(), reason))
    }

    fn consume(&mut self, _count: usize) {}

    fn offset(&self) -> StreamOffset {
        self.input.offset()
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        self.take(length)?;
        let at = self.input.offset();
        match &mut self.source {
            Source::Channel => self.input.read_into_guest(block, offset, length),
            Source::Frame(bytes, used) => {
                let end = used.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
                let content = bytes.get(*used..end).unwrap_or_default();
                *used = end;
                let copied = self.decoder.memory.copy_in(block, offset, content);
                copied.map_err(|error| ChannelError::failed(at, error))
            }
        }
    }

    fn ram(&mut self) -> Option<&mut dyn PageSource> {
        Some(self)
    }
}
