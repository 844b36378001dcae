//! Guest RAM in frames.

use std::sync::Arc;

use vmstate_ber::frame::{Coding, Frame, Mark, RamBlock, RamBlocks, RamMark, RamPages, Select};
use vmstate_ram::{BlockTable, PageSize, RamWriter, Record};
use vmstate_wire::stream::SectionKind;

use super::sections::Body;
use super::{BerSink, RAM_VERSION};
use crate::inspect::{InspectError, malformed};

/// How guest RAM is written.
pub(super) enum Ram {
    /// The list of blocks is being read.
    Listing { section_id: u32, total: u64 },
    /// Pages are written as frames.
    Frames {
        section_id: u32,
        current: Option<u32>,
    },
    /// The section's bytes are written again.
    Bytes(Box<RamWriter>),
    /// None has come.
    None,
}

impl BerSink<'_> {
    pub(super) fn mark(&mut self, mark: Mark) -> Result<(), InspectError> {
        self.flush_pages()?;
        let (Ram::Frames { section_id, .. } | Ram::Listing { section_id, .. }) = self.ram else {
            return Ok(());
        };
        self.frame(&Frame::RamMark(RamMark { section_id, mark }))
    }

    pub(super) fn flush_pages(&mut self) -> Result<(), InspectError> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let frame = self.pages.frame();
        let data = frame.data.map_or(0, <[u8]>::len) as u64;
        self.writer.frame(&Frame::RamPages(frame), &mut self.buffer);
        self.summary.page_framing += (self.buffer.len() as u64).saturating_sub(data);
        self.pages.clear();
        self.flush().map_err(InspectError::Write)
    }

    /// A page on its own.
    pub(super) fn single(&mut self, frame: RamPages<'_>) -> Result<(), InspectError> {
        self.flush_pages()?;
        self.frame(&Frame::RamPages(frame))
    }

    pub(super) fn record(
        &mut self,
        record: &Record<'_>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        let page = record.page();
        let (block, number) = (page.block.0, page.offset >> page_size.bits());
        let Ram::Frames { current, .. } = &mut self.ram else {
            return Ok(());
        };
        let named = page.named && *current == Some(block);
        *current = Some(block);
        let content = match *record {
            Record::Page { data, .. } => Some(data),
            Record::Zero { fill: 0, .. } => None,
            Record::Zero { fill, .. } => {
                return self.single(of_one(block, number, named, Coding::Fill, &[fill]));
            }
            Record::Xbzrle { delta, .. } => {
                return self.single(of_one(block, number, named, Coding::Xbzrle, delta));
            }
            Record::Compressed { data, .. } => {
                return self.single(of_one(block, number, named, Coding::Zlib, data));
            }
        };
        if named || !self.pages.takes(block, number, content) {
            self.flush_pages()?;
        }
        self.pages.add(block, number, content, named);
        Ok(())
    }

    /// The list of blocks is complete: it becomes a frame if it can.
    pub(super) fn blocks(
        &mut self,
        section_id: u32,
        total: u64,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        let list = blocks.iter().map(|(id, block)| {
            let idstr = str::from_utf8(block.name.as_bytes()).ok()?.to_owned();
            block.mapped.is_none().then_some(RamBlock {
                id: id.0,
                idstr,
                length: block.used_length,
                page_size: block.page_size,
                addr: block.address,
            })
        });
        let known = self.header.as_ref().is_some_and(|header| {
            header.version_id.0 == RAM_VERSION && header.kind == SectionKind::Start
        });
        match list.collect::<Option<Vec<_>>>().filter(|_| known) {
            Some(list) => {
                self.body = Body::Ram;
                self.ram = Ram::Frames {
                    section_id,
                    current: None,
                };
                self.frame(&Frame::RamBlocks(RamBlocks {
                    section_id,
                    total,
                    blocks: list,
                    page_bits: page_size.bits(),
                }))
            }
            None => self.list_as_bytes(total, blocks, page_size),
        }
    }

    /// The list of blocks up to now becomes bytes, and so does everything else of guest RAM.
    pub(super) fn list_as_bytes(
        &mut self,
        total: u64,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        let mut writer = RamWriter::new(page_size, Arc::clone(blocks));
        let mut bytes = Vec::new();
        let start = vmstate_ram::Event::BlockListStart { total };
        let ids = blocks.iter().map(|(block, _)| block);
        let events = ids.map(|block| vmstate_ram::Event::Block { block, gap: 0 });
        for event in std::iter::once(start).chain(events) {
            writer
                .event(&event, &mut bytes)
                .map_err(|e| malformed(&e))?;
        }
        self.ram = Ram::Bytes(Box::new(writer));
        self.piece(&bytes)
    }

    /// Takes a record of guest RAM.
    pub(super) fn ram_event(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        use vmstate_ram::Event as RamEvent;
        if let Ram::Bytes(writer) = &mut self.ram {
            writer.set_blocks(Arc::clone(blocks));
            let mut bytes = Vec::new();
            writer.event(event, &mut bytes).map_err(|e| malformed(&e))?;
            return self.piece(&bytes);
        }
        if let (Ram::Frames { .. }, Body::Empty, Some(header)) =
            (&self.ram, &self.body, &self.header)
        {
            let mark = match header.kind {
                SectionKind::End => Mark::End,
                _ => Mark::Part,
            };
            self.body = Body::Ram;
            self.mark(mark)?;
        }
        match event {
            RamEvent::BlockListStart { total } => {
                let section_id = self.header.as_ref().map_or(0, |h| h.section_id.0);
                self.ram = Ram::Listing {
                    section_id,
                    total: *total,
                };
                self.body = Body::Ram;
                Ok(())
            }
            RamEvent::Block { block, .. } => match self.ram {
                Ram::Listing { total, .. }
                    if blocks.get(*block).is_some_and(|b| b.mapped.is_some()) =>
                {
                    self.list_as_bytes(total, blocks, page_size)
                }
                _ => Ok(()),
            },
            RamEvent::BlockListEnd => match self.ram {
                Ram::Listing { section_id, total } => {
                    self.blocks(section_id, total, blocks, page_size)
                }
                _ => Ok(()),
            },
            RamEvent::Record(record) => self.record(record, page_size),
            RamEvent::MultifdFlush => self.mark(Mark::Flush),
            RamEvent::EndOfSection | RamEvent::PageHeader(_) => Ok(()),
        }
    }
}

/// A page on its own.
fn of_one(block: u32, first: u64, named: bool, coding: Coding, data: &[u8]) -> RamPages<'_> {
    RamPages {
        block,
        first,
        select: Select::Count(1),
        coding,
        data: Some(data),
        zeros: None,
        named,
        checksum: false,
    }
}
