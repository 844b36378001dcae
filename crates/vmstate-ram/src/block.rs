//! RAM blocks: names, ids and the table that the setup record fills.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use crate::mapped_ram::MappedRamHeader;
use crate::{PageSize, RamError, RamErrorKind};

/// The name of a RAM block: 1 to 255 bytes without NUL, usually ASCII such as `pc.ram`.
///
/// On the wire a name is a length byte and the bytes; in a multifd packet it stands NUL padded in 256 bytes.
/// Wire: QEMU 7.2..11.1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName(Box<[u8]>);

impl BlockName {
    /// Makes a name from its bytes.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::BlockName`] if it is empty, longer than 255 bytes or contains a NUL.
    pub fn new(bytes: &[u8]) -> Result<Self, RamError> {
        if bytes.is_empty() || bytes.len() > 255 || bytes.contains(&0) {
            return Err(RamErrorKind::BlockName {
                length: bytes.len(),
            }
            .into());
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends the wire form: one length byte, then the bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        // `new` bounds the length, so the conversion keeps it.
        out.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.0);
    }
}

impl Borrow<[u8]> for BlockName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The place of a block in the [`BlockTable`], counted from 0 in the order of the setup record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

impl BlockId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// One entry of the setup record.
///
/// | size | order | meaning | present |
/// |---|---|---|---|
/// | 1 + n | | block name | always |
/// | 8 | be | used length in bytes | always |
/// | 8 | be | page size of the backing in bytes | capability `postcopy-ram`, for unusual blocks |
/// | 8 | be | guest physical address | capability `x-ignore-shared` |
/// | 28 | be | mapped-ram header | capability `mapped-ram` |
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBlock {
    /// Name, unique in the table.
    pub name: BlockName,
    /// Bytes in use: a multiple of the target page size, not 0.
    pub used_length: u64,
    /// Page size of the memory behind the block, in bytes, where the setup record carries it.
    pub page_size: Option<u64>,
    /// Guest physical address, where the setup record carries it; meaningful for ignored blocks only.
    pub address: Option<u64>,
    /// Where the block's pages and bitmap stand in a mapped-ram file.
    pub mapped: Option<MappedRamHeader>,
    /// Whether no page of this block travels (`x-ignore-shared`, CPR). Not on the wire, except that a mapped-ram
    /// file marks such a block with a header whose offsets are both 0.
    pub ignored: bool,
}

impl RamBlock {
    /// Makes a block without extras.
    #[must_use]
    pub fn new(name: BlockName, used_length: u64) -> Self {
        Self {
            name,
            used_length,
            page_size: None,
            address: None,
            mapped: None,
            ignored: false,
        }
    }
}

/// The blocks of one migration, in the order of the setup record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockTable {
    blocks: Vec<RamBlock>,
    by_name: BTreeMap<BlockName, BlockId>,
    total: u64,
}

impl BlockTable {
    /// Makes a table with no blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block at the end.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::DuplicateBlock`] if the name is there already, [`RamErrorKind::UsedLength`] if the used length
    /// is 0 or not a multiple of `page_size`, [`RamErrorKind::TotalOverflow`] if all lengths together exceed 64 bits.
    pub fn push(&mut self, block: RamBlock, page_size: PageSize) -> Result<BlockId, RamError> {
        if block.used_length == 0 || !page_size.is_aligned(block.used_length) {
            let kind = RamErrorKind::UsedLength {
                found: block.used_length,
                page_size,
            };
            return Err(RamError::from(kind).in_block(&block.name));
        }
        if self.by_name.contains_key(&block.name) {
            return Err(RamErrorKind::DuplicateBlock { name: block.name }.into());
        }
        let (Some(total), Ok(id)) = (
            self.total.checked_add(block.used_length),
            u32::try_from(self.blocks.len()),
        ) else {
            return Err(RamErrorKind::TotalOverflow.into());
        };
        self.total = total;
        self.by_name.insert(block.name.clone(), BlockId(id));
        self.blocks.push(block);
        Ok(BlockId(id))
    }

    /// The block with this id.
    #[must_use]
    pub fn get(&self, id: BlockId) -> Option<&RamBlock> {
        self.blocks.get(id.index())
    }

    pub(crate) fn get_mut(&mut self, id: BlockId) -> Option<&mut RamBlock> {
        self.blocks.get_mut(id.index())
    }

    /// The id of the block with this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<BlockId> {
        self.by_name.get(name).copied()
    }

    /// The blocks with their ids, in order.
    #[must_use = "iterators do nothing unless consumed"]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (BlockId, &RamBlock)> {
        // `push` bounds the count to 32 bits.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "push bounds the number of blocks to 32 bits"
        )]
        self.blocks
            .iter()
            .enumerate()
            .map(|(index, block)| (BlockId(index as u32), block))
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The sum of all used lengths in bytes, ignored blocks included.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Checks that a page lies inside a block whose pages travel.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`], [`RamErrorKind::IgnoredBlock`], [`RamErrorKind::Unaligned`] or
    /// [`RamErrorKind::OutsideBlock`].
    pub fn check_page(
        &self,
        id: BlockId,
        offset: u64,
        page_size: PageSize,
    ) -> Result<&RamBlock, RamError> {
        let Some(block) = self.get(id) else {
            return Err(RamErrorKind::UnknownBlockId { id: id.0 }.into());
        };
        let kind = if block.ignored {
            RamErrorKind::IgnoredBlock
        } else if !page_size.is_aligned(offset) {
            RamErrorKind::Unaligned { offset, page_size }
        } else if offset >= block.used_length {
            // Both are multiples of the page size, so a page that starts inside also ends inside.
            RamErrorKind::OutsideBlock {
                offset,
                used_length: block.used_length,
            }
        } else {
            return Ok(block);
        };
        Err(RamError::from(kind).in_block(&block.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, length: u64) -> RamBlock {
        RamBlock::new(BlockName::new(name.as_bytes()).unwrap(), length)
    }

    #[test]
    fn names_are_bounded() {
        for (bytes, good) in [
            (&b""[..], false),
            (b"x", true),
            (&[b'x'; 255], true),
            (&[b'x'; 256], false),
            (b"a\0b", false),
        ] {
            assert_eq!(BlockName::new(bytes).is_ok(), good, "{bytes:?}");
        }
        assert_eq!(BlockName::new(b"pc.ram").unwrap().to_string(), "pc.ram");
        assert_eq!(BlockName::new(b"\xff\n").unwrap().to_string(), "\\xff\\n");
    }

    #[test]
    fn table_finds_what_was_pushed() {
        let mut table = BlockTable::new();
        let a = table.push(block("a", 0x2000), PageSize::KIB4).unwrap();
        let b = table.push(block("b", 0x1000), PageSize::KIB4).unwrap();
        assert_eq!(
            (table.find(b"a"), table.find(b"b"), table.find(b"c")),
            (Some(a), Some(b), None)
        );
        assert_eq!(
            (table.total(), table.len(), table.is_empty()),
            (0x3000, 2, false)
        );
        assert_eq!(
            table
                .iter()
                .map(|(id, block)| (id, block.used_length))
                .collect::<Vec<_>>(),
            [(a, 0x2000), (b, 0x1000)]
        );
    }

    #[test]
    fn table_refuses_bad_blocks() {
        let mut table = BlockTable::new();
        table.push(block("a", 0x1000), PageSize::KIB4).unwrap();
        let mut refuse = |block| {
            table
                .push(block, PageSize::KIB4)
                .unwrap_err()
                .kind()
                .clone()
        };
        assert!(matches!(
            refuse(block("a", 0x1000)),
            RamErrorKind::DuplicateBlock { .. }
        ));
        assert!(matches!(
            refuse(block("b", 0)),
            RamErrorKind::UsedLength { found: 0, .. }
        ));
        assert!(matches!(
            refuse(block("b", 0x1800)),
            RamErrorKind::UsedLength { found: 0x1800, .. }
        ));
        assert!(matches!(
            refuse(block("b", u64::MAX - 0xfff)),
            RamErrorKind::TotalOverflow
        ));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn pages_are_checked_against_their_block() {
        let mut table = BlockTable::new();
        let a = table.push(block("a", 0x2000), PageSize::KIB4).unwrap();
        let b = table
            .push(
                RamBlock {
                    ignored: true,
                    ..block("b", 0x2000)
                },
                PageSize::KIB4,
            )
            .unwrap();
        let check = |id, offset| {
            table
                .check_page(id, offset, PageSize::KIB4)
                .map(drop)
                .map_err(|e| e.kind().clone())
        };
        assert_eq!(check(a, 0x1000), Ok(()));
        assert_eq!(
            check(a, 0x2000),
            Err(RamErrorKind::OutsideBlock {
                offset: 0x2000,
                used_length: 0x2000
            })
        );
        assert_eq!(
            check(a, 0x800),
            Err(RamErrorKind::Unaligned {
                offset: 0x800,
                page_size: PageSize::KIB4
            })
        );
        assert_eq!(check(b, 0), Err(RamErrorKind::IgnoredBlock));
        assert_eq!(
            check(BlockId(2), 0),
            Err(RamErrorKind::UnknownBlockId { id: 2 })
        );
    }
}
