//! As much of the stream's framing as is needed to find the `ram` sections.

use vmstate_ram::RamSection;

/// What stands next in a stream, as far as these tests care.
#[derive(Debug)]
pub(crate) enum Element {
    /// The header of a `ram` section; its payload follows.
    Ram(RamSection),
    /// Ranges of a block are dropped: its name, then offset and length of each, in bytes.
    Discard(Vec<u8>, Vec<(u64, u64)>),
    /// The destination begins to listen for pages.
    Package,
    /// Anything else; what follows is not understood.
    Other,
}

/// Walks over a stream.
pub(crate) struct Walker<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
    ram: Option<u32>,
}

impl<'a> Walker<'a> {
    /// Reads header and configuration.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut walker = Self {
            bytes,
            at: 0,
            ram: None,
        };
        assert_eq!(walker.take(8), b"QEVM\0\0\0\x03");
        assert_eq!(walker.u8(), 7);
        let length = walker.u32();
        walker.take(length as usize);
        while walker.bytes[walker.at] == 5 {
            walker.u8();
            let name = walker.name();
            walker.u32();
            match &name[..] {
                b"configuration/target-page-bits" => assert_eq!(walker.u32(), 12),
                b"configuration/capabilities" => {
                    for _ in 0..walker.u32() {
                        walker.name();
                    }
                }
                other => panic!("{}", other.escape_ascii()),
            }
        }
        walker
    }

    /// The bytes that have not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Reads the footer of a `ram` section.
    pub(crate) fn footer(&mut self) {
        assert_eq!(self.u8(), 0x7e, "footer at {:#x}", self.at - 1);
        assert_eq!(Some(self.u32()), self.ram);
    }

    /// Reads up to the next element of interest.
    pub(crate) fn next(&mut self) -> Element {
        loop {
            match self.u8() {
                1 => {
                    let id = self.u32();
                    let name = self.name();
                    assert_eq!((&name[..], self.u32(), self.u32()), (&b"ram"[..], 0, 4));
                    self.ram = Some(id);
                    return Element::Ram(RamSection::Start);
                }
                kind @ 2..=3 => {
                    assert_eq!(Some(self.u32()), self.ram);
                    return Element::Ram(if kind == 2 {
                        RamSection::Part
                    } else {
                        RamSection::End
                    });
                }
                8 => {
                    if let Some(element) = self.command() {
                        return element;
                    }
                }
                _ => return Element::Other,
            }
        }
    }

    fn command(&mut self) -> Option<Element> {
        let id = self.u16();
        let length = self.u16();
        let begin = self.at;
        let element = match id {
            6 => {
                self.u8();
                let name = self.name();
                self.u8();
                let end = begin + usize::from(length);
                let mut ranges = Vec::new();
                while self.at < end {
                    ranges.push((self.u64(), self.u64()));
                }
                Some(Element::Discard(name, ranges))
            }
            7 => {
                let blob = self.u32();
                self.take(blob as usize);
                return Some(Element::Package);
            }
            _ => None,
        };
        self.at = begin + usize::from(length);
        element
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn name(&mut self) -> Vec<u8> {
        let length = self.u8();
        self.take(length.into()).to_vec()
    }
}
