//! Frames of guest RAM.

use super::{Members, frame_tag, put_checksum};
use crate::der::{
    DerReader, close, header, open, put_bool, put_enumerated, put_header, put_octets, put_text,
    put_tlv, put_uint, tag,
};
use crate::error::{BerError, BerErrorKind};
use crate::frame::finish_members;

use tag::primitive;

/// The blocks of guest RAM, in the order of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBlocks {
    /// The stream's number for the section of guest RAM.
    pub section_id: u32,
    /// Bytes of all blocks together.
    pub total: u64,
    /// The blocks.
    pub blocks: Vec<RamBlock>,
    /// Binary logarithm of the target page size, the unit of pages.
    pub page_bits: u32,
}

/// Of pages of 4 KiB.
const DEFAULT_PAGE_BITS: u32 = 12;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBlock {
    /// Number by which frames with pages name it.
    pub id: u32,
    /// Name.
    pub idstr: String,
    /// Bytes in use.
    pub length: u64,
    /// Page size of the memory behind it, in bytes, where the source says it.
    pub page_size: Option<u64>,
    /// Guest physical address, where the source says it.
    pub addr: Option<u64>,
}

/// Most blocks of a stream.
const MAX_BLOCKS: usize = 16_384;

impl RamBlocks {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::RAM_BLOCKS);
        put_uint(out, tag::INTEGER, self.section_id.into());
        put_uint(out, tag::INTEGER, self.total);
        let list = open(out, tag::SEQUENCE);
        for block in &self.blocks {
            let at = open(out, tag::SEQUENCE);
            put_uint(out, tag::INTEGER, block.id.into());
            put_text(out, &block.idstr);
            put_uint(out, tag::INTEGER, block.length);
            for (number, value) in [(0, block.page_size), (1, block.addr)] {
                if let Some(value) = value {
                    put_uint(out, primitive(number), value);
                }
            }
            close(out, at);
        }
        close(out, list);
        if self.page_bits != DEFAULT_PAGE_BITS {
            put_uint(out, primitive(0), self.page_bits.into());
        }
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        let r = &mut m.reader;
        let section_id = r.uint32("number of a section")?;
        let total = r.uint("bytes of guest RAM", u64::MAX)?;
        let mut list = r.nested(tag::SEQUENCE, "blocks of guest RAM")?;
        let mut blocks = Vec::new();
        while !list.is_empty() {
            if blocks.len() >= MAX_BLOCKS {
                return Err(BerErrorKind::Limit {
                    what: "blocks of guest RAM",
                    found: (blocks.len() as u64).saturating_add(1),
                    limit: MAX_BLOCKS as u64,
                }
                .at(list.offset()));
            }
            let mut block = list.nested(tag::SEQUENCE, "a block")?;
            let id = block.uint32("number of a block")?;
            let idstr = block.name("name of a block")?.to_owned();
            let length = block.uint("bytes of a block", u64::MAX)?;
            let mut extra = |number| match block.optional(primitive(number))? {
                Some(tlv) => tlv.uint("member of a block", u64::MAX).map(Some),
                None => Ok(None),
            };
            let (page_size, addr) = (extra(0)?, extra(1)?);
            finish_members(&mut block)?;
            blocks.push(RamBlock {
                id,
                idstr,
                length,
                page_size,
                addr,
            });
        }
        let page_bits = match m.reader.optional(primitive(0))? {
            Some(tlv) => match tlv.uint("bits of a page", 63)? {
                12 => {
                    let what = "a member is written although it has its default";
                    return Err(BerErrorKind::NotCanonical(what).at(tlv.offset));
                }
                bits => u32::try_from(bits).unwrap_or(0),
            },
            None => DEFAULT_PAGE_BITS,
        };
        m.checksum()?;
        m.finish()?;
        Ok(Self {
            section_id,
            total,
            blocks,
            page_bits,
        })
    }
}

/// A place between pages: where QEMU's sections of guest RAM begin and end, and where further channels are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamMark {
    /// The stream's number for the section of guest RAM.
    pub section_id: u32,
    /// What is here.
    pub mark: Mark,
}

/// What a [`RamMark`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A part begins.
    Part,
    /// The last part begins.
    End,
    /// What went over further channels until here must be in memory.
    Flush,
    /// The part is over; the setup is, where none has begun.
    Close,
}

impl RamMark {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::RAM_MARK);
        put_uint(out, tag::INTEGER, self.section_id.into());
        put_enumerated(
            out,
            match self.mark {
                Mark::Part => 1,
                Mark::End => 2,
                Mark::Flush => 3,
                Mark::Close => 4,
            },
        );
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        let section_id = m.reader.uint32("number of a section")?;
        let at = m.reader.offset();
        let mark = match m.reader.enumerated("mark")? {
            1 => Mark::Part,
            2 => Mark::End,
            3 => Mark::Flush,
            4 => Mark::Close,
            found => {
                let found = found.into();
                return Err(BerErrorKind::Choice {
                    what: "mark",
                    found,
                }
                .at(at));
            }
        };
        m.finish()?;
        Ok(Self { section_id, mark })
    }
}

/// Pages of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamPages<'a> {
    /// Number of the block.
    pub block: u32,
    /// Number of the first page inside of the block, in units of target pages.
    pub first: u64,
    /// Which pages from there on.
    pub select: Select<'a>,
    /// How their content is written.
    pub coding: Coding,
    /// The content.
    pub data: Option<&'a [u8]>,
    /// Which of the selected pages are zero and not in the content: bit i of the bitmap, least significant first, is the
    /// i-th of them.
    pub zeros: Option<&'a [u8]>,
    /// The source's stream names the block, though the page before is in it too.
    pub named: bool,
    /// Whether a checksum is written.
    pub checksum: bool,
}

/// Which pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select<'a> {
    /// So many adjacent ones: at most [`MAX_ZERO_PAGES`] of [`Coding::Zero`], at most [`MAX_PAGES`] otherwise.
    Count(u64),
    /// Those whose bits are set: bit i, least significant first, is the i-th page. At most 512 octets, the last one not 0.
    Bitmap(&'a [u8]),
}

/// Most pages of one frame, as many as a bitmap can name.
pub const MAX_PAGES: u64 = 4096;
/// Most pages of one frame that are all zero, which takes no content.
pub const MAX_ZERO_PAGES: u64 = 1 << 20;

/// Most octets of a bitmap in a frame of pages.
pub(super) const MAX_BITMAP: usize = 512;

/// How the content of pages is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is, one page behind the other.
    Raw,
    /// Nothing: all zero.
    Zero,
    /// One octet, which all are filled with.
    Fill,
    /// A difference to the page as it is; one page.
    Xbzrle,
    /// Compressed with zstd.
    Zstd,
    /// Compressed with zlib; one page.
    Zlib,
}

impl Coding {
    const ALL: [Self; 6] = [
        Self::Raw,
        Self::Zero,
        Self::Fill,
        Self::Xbzrle,
        Self::Zstd,
        Self::Zlib,
    ];

    fn number(self) -> u8 {
        let position = Self::ALL.iter().position(|coding| *coding == self);
        position.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    }
}

impl Select<'_> {
    /// How many pages.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            Self::Bitmap(bits) => bits.iter().map(|byte| u64::from(byte.count_ones())).sum(),
        }
    }

    /// The pages, counted from the first one.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        let (count, bits): (u64, &[u8]) = match self {
            Self::Count(count) => (*count, &[]),
            Self::Bitmap(bits) => (0, bits),
        };
        (0..count).chain(set_bits(bits))
    }
}

/// The numbers of the bits that are set, least significant first.
pub(crate) fn set_bits(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    (0_u64..).zip(bytes).flat_map(|(number, byte)| {
        (0..8_u64)
            .filter(move |bit| (byte >> bit) & 1 != 0)
            .map(move |bit| number.saturating_mul(8).saturating_add(bit))
    })
}

impl<'a> RamPages<'a> {
    /// Whether page number `index` of the selected ones is zero and not in the content.
    #[must_use]
    pub fn is_zero(&self, index: u64) -> bool {
        let Some(zeros) = self.zeros else {
            return self.coding == Coding::Zero;
        };
        let byte = usize::try_from(index / 8).ok().and_then(|at| zeros.get(at));
        byte.is_some_and(|byte| (byte >> (index % 8)) & 1 != 0)
    }

    /// Members up to the content.
    fn encode_head(&self, out: &mut Vec<u8>) {
        put_uint(out, tag::INTEGER, self.block.into());
        put_uint(out, tag::INTEGER, self.first);
        match self.select {
            Select::Count(count) => put_uint(out, tag::INTEGER, count),
            Select::Bitmap(bits) => put_octets(out, bits),
        }
        put_enumerated(out, self.coding.number());
    }

    /// Appends a frame up to its content, which is the last member and has `length` bytes. Nothing behind the coding is
    /// looked at.
    pub(crate) fn encode_open(&self, length: u64, out: &mut Vec<u8>) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut head = Vec::with_capacity(32);
        self.encode_head(&mut head);
        put_header(&mut head, primitive(0), length);
        put_header(out, frame_tag::RAM_PAGES, head.len().saturating_add(length));
        out.extend_from_slice(&head);
    }

    /// Reads the members of a frame of raw pages up to its content, if that is the last one: the frame without its content, how many
    /// of `front` were read, and the length of the content. `front` are the first of `total` bytes of members, at `offset`.
    pub(crate) fn decode_open(
        front: &'a [u8],
        total: usize,
        offset: u64,
    ) -> Option<(Self, usize, usize)> {
        let mut r = DerReader::new(front, offset);
        let (block, first, select, coding) = Self::decode_head(&mut r).ok()?;
        let data = header(r.rest()).ok().flatten()?;
        let used = front
            .len()
            .checked_sub(r.rest().len())?
            .checked_add(data.size)?;
        let last = used.checked_add(data.length)? == total;
        if coding != Coding::Raw || data.tag != primitive(0) || !last {
            return None;
        }
        let pages = Self {
            block,
            first,
            select,
            coding,
            data: Some(&[]),
            zeros: None,
            named: false,
            checksum: false,
        };
        pages.check(offset).ok()?;
        Some((pages, used, data.length))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::RAM_PAGES);
        self.encode_head(out);
        if let Some(data) = self.data {
            put_tlv(out, primitive(0), data);
        }
        if let Some(zeros) = self.zeros {
            put_tlv(out, primitive(1), zeros);
        }
        if self.named {
            put_bool(out, primitive(2), true);
        }
        if self.checksum {
            put_checksum(out, start);
        }
        close(out, start);
    }

    fn decode_head(r: &mut DerReader<'a>) -> Result<(u32, u64, Select<'a>, Coding), BerError> {
        let block = r.uint32("number of a block")?;
        let first = r.uint("number of a page", u64::MAX)?;
        let at = r.offset();
        let select = match r.optional(tag::OCTETS)? {
            Some(tlv) if tlv.content.len() > MAX_BITMAP => {
                return Err(BerErrorKind::Limit {
                    what: "octets of a bitmap",
                    found: tlv.content.len() as u64,
                    limit: MAX_BITMAP as u64,
                }
                .at(at));
            }
            Some(tlv) if tlv.content.last().is_none_or(|byte| *byte == 0) => {
                return Err(
                    BerErrorKind::NotCanonical("a bitmap ends with an octet without bits").at(at),
                );
            }
            Some(tlv) => Select::Bitmap(tlv.content),
            None => Select::Count(r.uint("number of pages", u64::MAX)?),
        };
        let code = r.offset();
        let number = r.enumerated("coding of pages")?;
        let Some(coding) = Coding::ALL.get(usize::from(number)).copied() else {
            let (what, found) = ("coding of pages", number.into());
            return Err(BerErrorKind::Choice { what, found }.at(code));
        };
        Ok((block, first, select, coding))
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let r = &mut m.reader;
        let at = r.offset();
        let (block, first, select, coding) = Self::decode_head(r)?;
        let data = r.optional(primitive(0))?.map(|tlv| tlv.content);
        let zeros = r.optional(primitive(1))?.map(|tlv| tlv.content);
        let named = match r.optional(primitive(2))? {
            Some(tlv) => tlv.present()?,
            None => false,
        };
        let checksum = m.optional_checksum()?;
        m.finish()?;
        let pages = Self {
            block,
            first,
            select,
            coding,
            data,
            zeros,
            named,
            checksum,
        };
        pages.check(at)?;
        Ok(pages)
    }

    /// What can be checked without knowing the page size.
    fn check(&self, offset: u64) -> Result<(), BerError> {
        let count = self.select.count();
        let limit = match self.coding {
            Coding::Zero => MAX_ZERO_PAGES,
            _ => MAX_PAGES,
        };
        if count > limit {
            return Err(BerErrorKind::Limit {
                what: "pages of a frame",
                found: count,
                limit,
            }
            .at(offset));
        }
        let single = count == 1;
        let good = match self.coding {
            Coding::Zero => self.data.is_none(),
            Coding::Fill => self.data.is_some_and(|data| data.len() == 1),
            Coding::Xbzrle | Coding::Zlib => self.data.is_some() && single,
            Coding::Raw | Coding::Zstd => self.data.is_some(),
        };
        let what = match self.zeros {
            _ if count == 0 => "a frame of pages without pages",
            _ if !good => "content that the coding of the pages does not allow",
            Some(_) if self.coding != Coding::Raw => "zero pages among others that are not raw",
            Some(zeros) => {
                let most = count.div_ceil(8);
                let set = set_bits(zeros).count() as u64;
                let beyond = set_bits(zeros).any(|bit| bit >= count);
                if zeros.len() as u64 != most || beyond || set == 0 || set == count {
                    "a bitmap of zero pages that does not fit"
                } else {
                    return Ok(());
                }
            }
            None => return Ok(()),
        };
        Err(BerErrorKind::OutOfTurn { what }.at(offset))
    }
}
