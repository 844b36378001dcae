//! The setup record: the list of RAM blocks.

use std::sync::Arc;

use super::{RamParser, State};
use crate::cursor::{Cursor, Halt};
use crate::mapped_ram::{MappedBlock, MappedRamHeader};
use crate::record::Event;
use crate::{BlockName, PageSizeExtra, RamBlock, RamError, RamErrorKind, RamFlags};

impl RamParser {
    /// The first word of START: `total | MEM_SIZE`.
    pub(super) fn setup_word<'a>(&mut self, cursor: &mut Cursor<'_>) -> Result<Event<'a>, Halt> {
        let word = cursor.u64_be()?;
        let mask = self.dialect.page_size.flag_mask();
        let flags = RamFlags::from_bits_retain(word & mask);
        if flags != RamFlags::MEM_SIZE {
            return Err(self.refuse(0, RamErrorKind::NoBlockList { flags }));
        }
        let total = word & !mask;
        self.state = State::List { total };
        Ok(Event::BlockListStart { total })
    }

    /// One entry of the list, or its end.
    pub(super) fn list<'a>(
        &mut self,
        cursor: &mut Cursor<'_>,
        total: u64,
    ) -> Result<Event<'a>, Halt> {
        let listed = self.blocks.total();
        if listed == total {
            self.state = State::Records;
            return Ok(Event::BlockListEnd);
        }
        if self.blocks.len() >= self.dialect.max_blocks {
            let limit = self.dialect.max_blocks;
            return Err(self.refuse(0, RamErrorKind::TooManyBlocks { limit }));
        }
        let name = BlockName::new(cursor.name()?).map_err(|error| error.at(self.position))?;
        let at = cursor.consumed();
        let mut block = RamBlock::new(name, cursor.u64_be()?);
        let found = listed.saturating_add(block.used_length);
        if found > total {
            return Err(self.refuse(at, RamErrorKind::TotalExceeded { total, found }));
        }
        let gap = self
            .extras(cursor, &mut block, found == total)
            .map_err(|halt| match halt {
                Halt::Error(error) => Halt::Error(error.in_block(&block.name)),
                need @ Halt::Need(_) => need,
            })?;
        let id = Arc::make_mut(&mut self.blocks)
            .push(block, self.dialect.page_size)
            .map_err(|error| error.at(self.position))?;
        Ok(Event::Block { block: id, gap })
    }

    /// What follows name and length. Returns the size of the gap behind the entry.
    fn extras(
        &self,
        cursor: &mut Cursor<'_>,
        block: &mut RamBlock,
        last: bool,
    ) -> Result<u64, Halt> {
        block.page_size = self.page_size_extra(cursor, &block.name, last)?;
        if self.dialect.ignore_shared {
            block.address = Some(cursor.u64_be()?);
        }
        if !self.dialect.mapped_ram {
            return Ok(0);
        }
        let at = cursor.consumed();
        let header = MappedRamHeader::decode(cursor.array()?);
        block.mapped = Some(header);
        block.ignored = header.is_ignored();
        if block.ignored {
            return Ok(0);
        }
        let floor = [self.position, cursor.consumed() as u64]
            .iter()
            .fold(self.dialect.stream_base, |sum, part| {
                sum.saturating_add(*part)
            });
        let place = MappedBlock::new(
            &header,
            block.used_length,
            self.dialect.page_size,
            floor,
            self.dialect.file_length,
        )
        .map_err(|error| error.at(self.position.saturating_add(at as u64)))?;
        Ok(place.end().saturating_sub(floor))
    }

    fn page_size_extra(
        &self,
        cursor: &mut Cursor<'_>,
        name: &BlockName,
        last: bool,
    ) -> Result<Option<u64>, Halt> {
        let at = cursor.consumed();
        match &self.dialect.page_size_extra {
            PageSizeExtra::Never => Ok(None),
            PageSizeExtra::Expect(sizes) => {
                let Some(&expected) = sizes.get(name) else {
                    return Ok(None);
                };
                let found = cursor.u64_be()?;
                if found != expected {
                    return Err(self.refuse(at, RamErrorKind::BlockPageSize { expected, found }));
                }
                Ok(Some(found))
            }
            PageSizeExtra::Infer => {
                if self.dialect.ignore_shared
                    || self.dialect.mapped_ram
                    || !self.is_page_size(cursor, last)?
                {
                    return Ok(None);
                }
                let found = cursor.u64_be()?;
                if !found.is_power_of_two() || found < self.dialect.page_size.bytes() {
                    return Err(self.refuse(at, RamErrorKind::BadBlockPageSize { found }));
                }
                Ok(Some(found))
            }
        }
    }

    /// Whether a page size stands next, rather than a further entry or, behind the last entry, a record.
    fn is_page_size(&self, cursor: &Cursor<'_>, last: bool) -> Result<bool, Halt> {
        if last {
            let word = u64::from_be_bytes(*cursor.peek()?);
            Ok(word & self.dialect.page_size.flag_mask() == 0)
        } else {
            let [first] = *cursor.peek()?;
            Ok(first == 0)
        }
    }
}

impl From<RamErrorKind> for Halt {
    fn from(kind: RamErrorKind) -> Self {
        Self::Error(RamError::from(kind))
    }
}
