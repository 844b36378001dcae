//! A section around what its handler writes: bytes in pieces, or guest RAM.

use vmstate_ber::frame::{Frame, Mark, Part, RamBlock, RamBlocks, RamMark, SectionData};
use vmstate_ber::stream::Writer;
use vmstate_ber::{BerError, BerErrorKind, PIECE};
use vmstate_engine::{ChannelError, ChannelWriter, HandlerError, PageSink, SectionWriter};
use vmstate_ram::{BlockId, BlockTable, PageSize};
use vmstate_wire::stream::{SectionHeader, SectionKind, StreamOffset};

use super::encoder::BerEncoder;
use super::pages::{PageFrame, Pages};
use super::{RAM, handler_error};

/// Bytes of a section that become frames.
pub(super) struct Bytes<'h> {
    section_id: u32,
    part: Part,
    owner: Option<(&'h str, u32, u32)>,
    waiting: Vec<u8>,
}

impl<'h> Bytes<'h> {
    /// None yet.
    pub(super) fn new(header: &'h SectionHeader) -> Result<Self, BerError> {
        let part = match header.kind {
            SectionKind::Start => Part::Start,
            SectionKind::Part => Part::Part,
            SectionKind::End => Part::End,
            SectionKind::Full => Part::Full,
        };
        let owner = match (part.names_owner(), header.idstr.as_str()) {
            (false, _) => None,
            (true, Some(name)) => Some((name, header.instance_id.0, header.version_id.0)),
            (true, None) => {
                let what = "the name of a section is not UTF-8";
                return Err(BerErrorKind::OutOfTurn { what }.at(0));
            }
        };
        Ok(Self {
            section_id: header.section_id.0,
            part,
            owner,
            waiting: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    fn frame(&self, data: &[u8], more: bool, writer: &mut Writer, out: &mut Vec<u8>) {
        writer.frame(
            &Frame::SectionData(SectionData {
                section_id: self.section_id,
                part: self.part,
                owner: self.owner,
                more,
                data,
            }),
            out,
        );
    }

    /// Appends frames that are full. At least one byte stays, since the last frame has to be told from the others.
    fn full(&mut self, writer: &mut Writer, out: &mut Vec<u8>) {
        let mut rest = &*self.waiting;
        while let Some((piece, more)) = rest
            .split_at_checked(PIECE)
            .filter(|(_, more)| !more.is_empty())
        {
            self.frame(piece, true, writer, out);
            rest = more;
        }
        let written = self.waiting.len() - rest.len();
        self.waiting.drain(..written);
    }

    /// Appends the rest.
    pub(super) fn close(mut self, writer: &mut Writer, out: &mut Vec<u8>) {
        self.full(writer, out);
        self.frame(&self.waiting, false, writer, out);
    }
}

/// What a handler writes into.
pub(super) struct OpenSection<'a> {
    encoder: &'a mut BerEncoder,
    header: &'a SectionHeader,
    out: &'a mut dyn ChannelWriter,
    bytes: Option<Bytes<'a>>,
    /// The section is guest RAM.
    ram: Option<Pages>,
    buffer: Vec<u8>,
}

impl<'a> OpenSection<'a> {
    pub(super) fn new(
        encoder: &'a mut BerEncoder,
        header: &'a SectionHeader,
        out: &'a mut dyn ChannelWriter,
    ) -> Self {
        Self {
            encoder,
            header,
            out,
            bytes: None,
            ram: None,
            buffer: Vec::new(),
        }
    }

    fn failed(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ChannelError {
        ChannelError::failed(self.out.position(), error)
    }

    /// Writes the buffer.
    fn put(&mut self) -> Result<(), ChannelError> {
        if !self.buffer.is_empty() {
            self.out.bytes(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn mark(&mut self, mark: Mark) -> Result<(), ChannelError> {
        let section_id = self.header.section_id.0;
        let frame = Frame::RamMark(RamMark { section_id, mark });
        self.encoder.writer.frame(&frame, &mut self.buffer);
        self.put()
    }

    /// Begins a part of guest RAM, unless it has begun. The list of blocks is its own beginning.
    fn begin_ram(&mut self) -> Result<(), ChannelError> {
        if self.ram.as_ref().is_some_and(Pages::has_begun) {
            return Ok(());
        }
        match self.header.kind {
            SectionKind::Part => self.mark(Mark::Part)?,
            SectionKind::End => self.mark(Mark::End)?,
            SectionKind::Start | SectionKind::Full => {}
        }
        if let Some(ram) = &mut self.ram {
            ram.begin();
        }
        Ok(())
    }

    /// Writes a frame of pages.
    fn page_frame(&mut self, frame: &PageFrame) -> Result<(), ChannelError> {
        let size = self.encoder.memory.page_size().bytes();
        let block = BlockId(frame.block);
        let writer = &mut self.encoder.writer;
        if frame.zero || !writer.has_digest() {
            return put_pages(writer, self.out, frame, size);
        }
        let length = frame.count().saturating_mul(size);
        // What is hashed must be what is written.
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut at = 0;
        for (first, count) in &frame.runs {
            let length = usize::try_from(count.saturating_mul(size)).unwrap_or(0);
            let end = at + length;
            let copied = self.encoder.memory.copy_out(
                block,
                first.saturating_mul(size),
                data.get_mut(at..end).unwrap_or_default(),
            );
            copied.map_err(|error| ChannelError::failed(self.out.position(), error))?;
            at = end;
        }
        frame.with(
            &mut |pages| writer.frame(&Frame::RamPages(pages), &mut self.buffer),
            Some(&data),
        );
        self.put()
    }

    fn page_frames(&mut self, frames: Vec<PageFrame>) -> Result<(), ChannelError> {
        for frame in frames {
            self.page_frame(&frame)?;
        }
        Ok(())
    }

    /// The handler has written everything.
    pub(super) fn close(mut self) -> Result<(), HandlerError> {
        if self.ram.is_some() {
            self.begin_ram()?;
            let frames = self.ram.as_mut().map(Pages::finish).unwrap_or_default();
            self.page_frames(frames)?;
            return Ok(self.mark(Mark::Close)?);
        }
        let bytes = match self.bytes.take() {
            Some(bytes) => bytes,
            None => Bytes::new(self.header).map_err(handler_error)?,
        };
        bytes.close(&mut self.encoder.writer, &mut self.buffer);
        Ok(self.put()?)
    }
}

impl SectionWriter for OpenSection<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        if self.ram.is_some() {
            return Err(self.failed("bytes in a section of guest RAM"));
        }
        let mut waiting = match self.bytes.take() {
            Some(waiting) => waiting,
            None => Bytes::new(self.header).map_err(|error| self.failed(error))?,
        };
        waiting.add(bytes);
        waiting.full(&mut self.encoder.writer, &mut self.buffer);
        self.bytes = Some(waiting);
        self.put()
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let (mut at, mut left) = (offset, length);
        let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(PIECE)];
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let now = piece.get_mut(..size).unwrap_or_default();
            let copied = self.encoder.memory.copy_out(block, at, now);
            copied.map_err(|error| ChannelError::failed(self.out.position(), error))?;
            let now = piece.get(..size).unwrap_or_default();
            self.bytes(now)?;
            at = at.saturating_add(size as u64);
            left = left.saturating_sub(size as u64);
        }
        Ok(())
    }

    fn rate_exceeded(&self) -> bool {
        self.out.rate_exceeded()
    }

    fn position(&self) -> StreamOffset {
        let waiting = self.bytes.as_ref().map_or(0, |bytes| bytes.waiting.len());
        self.out.position().plus(waiting as u64)
    }

    fn ram(&mut self) -> Option<&mut dyn PageSink> {
        let (name, instance, version) = RAM;
        let header = self.header;
        let is_ram = header.idstr.as_str() == Some(name)
            && header.instance_id.0 == instance
            && header.version_id.0 == version
            && header.kind != SectionKind::Full;
        if !is_ram || self.bytes.is_some() {
            return None;
        }
        if self.ram.is_none() {
            let size = self.encoder.memory.page_size().bytes();
            self.ram = Some(match self.encoder.postcopy {
                true => Pages::in_order(size),
                false => Pages::new(size),
            });
        }
        Some(self)
    }
}

impl PageSink for OpenSection<'_> {
    fn blocks(&mut self, blocks: &BlockTable, page_size: PageSize) -> Result<(), ChannelError> {
        let mut list = Vec::new();
        for (id, block) in blocks.iter() {
            let Ok(name) = str::from_utf8(block.name.as_bytes()) else {
                let reason = format!("the name of RAM block {} is not UTF-8", block.name);
                return Err(self.failed(reason));
            };
            list.push(RamBlock {
                id: id.0,
                idstr: name.to_owned(),
                length: block.used_length,
                page_size: block.page_size,
                addr: block.address,
            });
        }
        let frame = RamBlocks {
            section_id: self.header.section_id.0,
            total: blocks.total(),
            blocks: list,
            page_bits: page_size.bits(),
        };
        self.encoder
            .writer
            .frame(&Frame::RamBlocks(frame), &mut self.buffer);
        self.put()
    }

    fn pages(
        &mut self,
        block: BlockId,
        first: u64,
        raw: u64,
        zero: u64,
    ) -> Result<(), ChannelError> {
        self.begin_ram()?;
        let Some(ram) = &mut self.ram else {
            return Ok(());
        };
        let frames = ram.add(block.0, first, raw, zero);
        self.page_frames(frames)
    }
}

/// Writes a frame of pages, whose content is taken from where it is.
fn put_pages(
    writer: &mut Writer,
    out: &mut dyn ChannelWriter,
    frame: &PageFrame,
    size: u64,
) -> Result<(), ChannelError> {
    let mut bytes = Vec::new();
    if frame.zero {
        frame.with(
            &mut |pages| writer.frame(&Frame::RamPages(pages), &mut bytes),
            None,
        );
        return out.bytes(&bytes);
    }
    let length = frame.count().saturating_mul(size);
    frame.with(&mut |pages| writer.pages(&pages, length, &mut bytes), None);
    out.bytes(&bytes)?;
    for (first, count) in &frame.runs {
        let (offset, length) = (first.saturating_mul(size), count.saturating_mul(size));
        out.pages(BlockId(frame.block), offset, length)?;
    }
    Ok(())
}

/// The channel of requested pages: frames of pages without the borders of sections.
pub(in crate::live) struct PageChannel<'a> {
    writer: &'a mut Writer,
    out: &'a mut dyn ChannelWriter,
    pages: Pages,
    page_size: u64,
}

impl<'a> PageChannel<'a> {
    /// Behind what `writer` has written. Pages have so many bytes.
    pub(in crate::live) fn new(
        writer: &'a mut Writer,
        out: &'a mut dyn ChannelWriter,
        page_size: u64,
    ) -> Self {
        Self {
            writer,
            out,
            pages: Pages::in_order(page_size),
            page_size,
        }
    }

    fn put(&mut self, frames: &[PageFrame]) -> Result<(), ChannelError> {
        frames
            .iter()
            .try_for_each(|frame| put_pages(self.writer, self.out, frame, self.page_size))
    }

    fn refused(&self) -> ChannelError {
        let reason = "something else than pages on the channel of requested pages";
        ChannelError::failed(self.out.position(), reason)
    }
}

impl SectionWriter for PageChannel<'_> {
    fn bytes(&mut self, _bytes: &[u8]) -> Result<(), ChannelError> {
        Err(self.refused())
    }

    fn pages(&mut self, _block: BlockId, _offset: u64, _length: u64) -> Result<(), ChannelError> {
        Err(self.refused())
    }

    fn rate_exceeded(&self) -> bool {
        self.out.rate_exceeded()
    }

    fn position(&self) -> StreamOffset {
        self.out.position()
    }

    fn ram(&mut self) -> Option<&mut dyn PageSink> {
        Some(self)
    }
}

impl PageSink for PageChannel<'_> {
    fn blocks(&mut self, _blocks: &BlockTable, _page_size: PageSize) -> Result<(), ChannelError> {
        Err(self.refused())
    }

    fn pages(
        &mut self,
        block: BlockId,
        first: u64,
        raw: u64,
        zero: u64,
    ) -> Result<(), ChannelError> {
        let frames = self.pages.add(block.0, first, raw, zero);
        self.put(&frames)
    }
}

impl ChannelWriter for PageChannel<'_> {
    fn flush(&mut self) -> Result<(), ChannelError> {
        let frames = self.pages.finish();
        self.put(&frames)?;
        self.out.flush()
    }
}
