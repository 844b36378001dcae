//! Guest RAM in frames.

use std::sync::Arc;

use vmstate_ber::frame::{Coding, Mark, RamBlocks, RamMark, RamPages, Select};
use vmstate_ram::{BlockId, BlockName, BlockTable, PageRef, PageSize, RamBlock, RamError, Record};
use vmstate_wire::stream::{Event, SectionHeader, SectionKind};

use super::{BerSource, header_of, no_place, out_of_turn};
use crate::convert::report::ConvertError;
use crate::convert::to_ber::RAM_VERSION;
use crate::inspect::Sink;

/// Guest RAM, as far as it has come.
pub(super) struct Ram {
    section_id: u32,
    blocks: Arc<BlockTable>,
    page_size: PageSize,
    /// Block of the page before.
    current: Option<BlockId>,
    /// A section is open.
    open: bool,
}

fn ram_error(offset: u64) -> impl Fn(RamError) -> ConvertError {
    move |error| no_place(format!("guest RAM: {error}"), offset)
}

impl BerSource {
    pub(super) fn ram_blocks(
        &mut self,
        frame: &RamBlocks,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let error = ram_error(offset);
        if self.ram.is_some() {
            return Err(out_of_turn("the blocks of guest RAM come twice", offset));
        }
        let page_size = PageSize::from_bits(frame.page_bits).map_err(&error)?;
        let mut table = BlockTable::new();
        for block in &frame.blocks {
            let name = BlockName::new(block.idstr.as_bytes()).map_err(&error)?;
            let mut listed = RamBlock::new(name, block.length);
            listed.page_size = block.page_size;
            listed.address = block.addr;
            let id = table.push(listed, page_size).map_err(&error)?;
            if id.0 != block.id {
                return Err(no_place(
                    "blocks of guest RAM are not numbered in order",
                    offset,
                ));
            }
        }
        if table.total() != frame.total {
            return Err(no_place(
                format!(
                    "blocks of {} bytes in all, which are said to have {}",
                    table.total(),
                    frame.total
                ),
                offset,
            ));
        }
        let blocks = Arc::new(table);
        let header = ram_header(SectionKind::Start, frame.section_id, offset)?;
        sink.event(&Event::Section(header), None)?;
        let start = vmstate_ram::Event::BlockListStart { total: frame.total };
        let ids = blocks.iter().map(|(block, _)| block);
        let events = ids.map(|block| vmstate_ram::Event::Block { block, gap: 0 });
        let end = vmstate_ram::Event::BlockListEnd;
        for event in std::iter::once(start).chain(events).chain([end]) {
            sink.ram(&event, &blocks, page_size)?;
        }
        self.ram = Some(Ram {
            section_id: frame.section_id,
            blocks,
            page_size,
            current: None,
            open: true,
        });
        Ok(())
    }

    pub(super) fn ram_mark(
        &mut self,
        frame: RamMark,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let Some(ram) = self
            .ram
            .as_mut()
            .filter(|ram| ram.section_id == frame.section_id)
        else {
            return Err(out_of_turn("guest RAM before its blocks", offset));
        };
        let begins = matches!(frame.mark, Mark::Part | Mark::End);
        if ram.open == begins {
            return Err(out_of_turn(
                "parts of guest RAM do not alternate with their ends",
                offset,
            ));
        }
        let kind = if frame.mark == Mark::End {
            SectionKind::End
        } else {
            SectionKind::Part
        };
        let header = ram_header(kind, frame.section_id, offset)?;
        match frame.mark {
            Mark::Part | Mark::End => {
                ram.open = true;
                sink.event(&Event::Section(header), None)?;
            }
            Mark::Flush => {
                sink.ram(
                    &vmstate_ram::Event::MultifdFlush,
                    &ram.blocks,
                    ram.page_size,
                )?;
            }
            Mark::Close => {
                ram.open = false;
                sink.ram(
                    &vmstate_ram::Event::EndOfSection,
                    &ram.blocks,
                    ram.page_size,
                )?;
                self.closed(&header, sink)?;
            }
        }
        Ok(())
    }

    pub(super) fn ram_pages(
        &mut self,
        frame: &RamPages<'_>,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let Some(ram) = self.ram.as_mut().filter(|ram| ram.open) else {
            return Err(out_of_turn(
                "pages outside of any part of guest RAM",
                offset,
            ));
        };
        let block = BlockId(frame.block);
        let size = ram.page_size;
        let mut content = frame.data.unwrap_or_default();
        if let (Coding::Zero | Coding::Fill, Select::Count(count)) = (frame.coding, frame.select) {
            let place = |number: u64| number.saturating_mul(size.bytes());
            let last = frame.first.saturating_add(count.saturating_sub(1));
            for number in [frame.first, last] {
                ram.blocks
                    .check_page(block, place(number), size)
                    .map_err(ram_error(offset))?;
            }
            let first = PageRef {
                block,
                offset: place(frame.first),
                named: ram.current != Some(block) || frame.named,
            };
            ram.current = Some(block);
            let fill = content.first().copied().unwrap_or(0);
            sink.ram_filled(first, count, fill, &ram.blocks, size)?;
            return Ok(());
        }
        for (index, page) in (0_u64..).zip(frame.select.pages()) {
            let number = frame.first.saturating_add(page);
            let place = number.saturating_mul(size.bytes());
            ram.blocks
                .check_page(block, place, size)
                .map_err(ram_error(offset))?;
            let page = PageRef {
                block,
                offset: place,
                named: ram.current != Some(block) || (index == 0 && frame.named),
            };
            ram.current = Some(block);
            let record = match frame.coding {
                Coding::Raw | Coding::Zero if frame.is_zero(index) => {
                    Record::Zero { page, fill: 0 }
                }
                Coding::Raw => {
                    let Some((data, rest)) = content.split_at_checked(size.as_usize()) else {
                        return Err(no_place("fewer pages than are announced", offset));
                    };
                    content = rest;
                    Record::Page { page, data }
                }
                Coding::Fill => Record::Zero {
                    page,
                    fill: content.first().copied().unwrap_or(0),
                },
                Coding::Xbzrle => Record::Xbzrle {
                    page,
                    delta: content,
                },
                Coding::Zlib => Record::Compressed {
                    page,
                    data: content,
                },
                _ => {
                    return Err(no_place(
                        "pages in a coding that a QEMU stream has not",
                        offset,
                    ));
                }
            };
            sink.ram(&vmstate_ram::Event::Record(record), &ram.blocks, size)?;
        }
        if frame.coding == Coding::Raw && !content.is_empty() {
            return Err(no_place("more pages than are announced", offset));
        }
        Ok(())
    }
}

fn ram_header(
    kind: SectionKind,
    section_id: u32,
    offset: u64,
) -> Result<SectionHeader, ConvertError> {
    header_of(kind, section_id, ("ram", 0, RAM_VERSION), offset)
}
