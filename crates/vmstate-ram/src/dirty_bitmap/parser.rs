//! Reading chunks.

use super::{Body, Chunk, ChunkEvent, ChunkFlags, LONGEST_BITS, StartFlags};
use crate::cursor::{Cursor, Halt};
use crate::record::Step;
use crate::{RamError, RamErrorKind};

/// Parses the payload of `dirty-bitmap` sections, from input in pieces of any size.
///
/// It remembers the aliases across sections, so one parser serves one migration. Whether node and bitmap exist, and
/// whether the bits fit the disk, is the caller's to check: stock QEMU drops all incoming bitmaps then and goes on.
///
/// On an error nothing is consumed and the state is unchanged.
#[derive(Debug, Clone, Default)]
pub struct ChunkParser {
    node: Box<[u8]>,
    bitmap: Box<[u8]>,
    position: u64,
}

impl ChunkParser {
    /// Makes a parser that remembers no alias.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the payload of a section, at this offset of the stream.
    pub fn begin_section(&mut self, stream_offset: u64) {
        self.position = stream_offset;
    }

    /// Offset of the next byte, counted as in [`begin_section`](Self::begin_section).
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Understands the chunk at the front of `input`, when all of it is there.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::ChunkFlags`], [`RamErrorKind::ChunkAlias`], [`RamErrorKind::ChunkGranularity`],
    /// [`RamErrorKind::ChunkStartFlags`], [`RamErrorKind::ChunkBits`].
    pub fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<ChunkEvent<'a>>, RamError> {
        let mut cursor = Cursor::new(input);
        let parsed = match self.chunk(&mut cursor) {
            Ok(parsed) => parsed,
            Err(Halt::Need(at_least)) => return Ok(Step::NeedMore { at_least }),
            Err(Halt::Error(error)) => return Err(error),
        };
        let consumed = cursor.consumed();
        self.position = self.position.saturating_add(consumed as u64);
        let Some(Parsed { node, bitmap, body }) = parsed else {
            return Ok(Step::Event {
                consumed,
                event: ChunkEvent::EndOfSection,
            });
        };
        for (memory, alias) in [(&mut self.node, node), (&mut self.bitmap, bitmap)] {
            if let Some(alias) = alias {
                *memory = alias.into();
            }
        }
        let chunk = Chunk {
            node: &self.node,
            bitmap: &self.bitmap,
            node_named: node.is_some(),
            bitmap_named: bitmap.is_some(),
            body,
        };
        Ok(Step::Event {
            consumed,
            event: ChunkEvent::Chunk(chunk),
        })
    }

    fn chunk<'a>(&self, cursor: &mut Cursor<'a>) -> Result<Option<Parsed<'a>>, Halt> {
        let bits = cursor.u8()?;
        let flags = known(bits).map_err(|problem| {
            self.refuse(
                0,
                RamErrorKind::ChunkFlags {
                    flags: bits,
                    problem,
                },
            )
        })?;
        if flags == ChunkFlags::EOS {
            return Ok(None);
        }
        let node = self.alias(
            cursor,
            flags.contains(ChunkFlags::DEVICE_NAME),
            &self.node,
            "node",
        )?;
        let bitmap = self.alias(
            cursor,
            flags.contains(ChunkFlags::BITMAP_NAME),
            &self.bitmap,
            "bitmap",
        )?;
        let body = if flags.contains(ChunkFlags::START) {
            self.start(cursor)?
        } else if flags.contains(ChunkFlags::BITS) {
            self.bits(cursor, flags.contains(ChunkFlags::ZEROES))?
        } else {
            Body::Complete
        };
        Ok(Some(Parsed { node, bitmap, body }))
    }

    /// An alias that is present, or else one must be remembered.
    fn alias<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        present: bool,
        memory: &[u8],
        what: &'static str,
    ) -> Result<Option<&'a [u8]>, Halt> {
        let at = cursor.consumed();
        let alias = if present { Some(cursor.name()?) } else { None };
        if alias.unwrap_or(memory).is_empty() {
            return Err(self.refuse(at, RamErrorKind::ChunkAlias { what }));
        }
        Ok(alias)
    }

    fn start<'a>(&self, cursor: &mut Cursor<'a>) -> Result<Body<'a>, Halt> {
        let at = cursor.consumed();
        let granularity = cursor.u32_be()?;
        if !granularity.is_power_of_two() || granularity < 512 {
            return Err(self.refuse(at, RamErrorKind::ChunkGranularity { found: granularity }));
        }
        let at = cursor.consumed();
        let found = cursor.u8()?;
        let flags = StartFlags::from_bits(found)
            .ok_or_else(|| self.refuse(at, RamErrorKind::ChunkStartFlags { found }))?;
        Ok(Body::Start { granularity, flags })
    }

    fn bits<'a>(&self, cursor: &mut Cursor<'a>, zeroes: bool) -> Result<Body<'a>, Halt> {
        let first_sector = cursor.u64_be()?;
        let sectors = cursor.u32_be()?;
        if zeroes {
            return Ok(Body::Bits {
                first_sector,
                sectors,
                data: None,
            });
        }
        let at = cursor.consumed();
        let found = cursor.u64_be()?;
        match usize::try_from(found) {
            Ok(size) if found <= LONGEST_BITS => {
                let data = Some(cursor.take(size)?);
                Ok(Body::Bits {
                    first_sector,
                    sectors,
                    data,
                })
            }
            _ => Err(self.refuse(
                at,
                RamErrorKind::ChunkBits {
                    found,
                    limit: LONGEST_BITS,
                },
            )),
        }
    }

    #[cold]
    fn refuse(&self, at: usize, kind: RamErrorKind) -> Halt {
        Halt::Error(RamError::from(kind).at(self.position.saturating_add(at as u64)))
    }
}

struct Parsed<'a> {
    node: Option<&'a [u8]>,
    bitmap: Option<&'a [u8]>,
    body: Body<'a>,
}

/// Checks that the flags make sense together.
fn known(bits: u8) -> Result<ChunkFlags, &'static str> {
    let Some(flags) = ChunkFlags::from_bits(bits) else {
        return Err("longer flag words are not known");
    };
    let bodies = flags & (ChunkFlags::START | ChunkFlags::COMPLETE | ChunkFlags::BITS);
    if flags.contains(ChunkFlags::EOS) {
        if flags == ChunkFlags::EOS {
            Ok(flags)
        } else {
            Err("the end of the section stands alone")
        }
    } else if bodies.bits().count_ones() != 1 {
        Err("expected exactly one of start, complete and bits")
    } else if flags.contains(ChunkFlags::ZEROES) && !flags.contains(ChunkFlags::BITS) {
        Err("zeroes without bits")
    } else {
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ChunkWriter;
    use super::*;

    /// Two bitmaps on one node, as QEMU 11.1 writes them.
    const RECORDED: &[u8] = b"\x1c\x02d0\x02b1\0\0\x10\0\0\x14\x02b0\0\x01\0\0\x01\x01";

    #[test]
    fn reads_a_recorded_start_section() {
        let mut parser = ChunkParser::new();
        let mut input = RECORDED;
        let mut seen = Vec::new();
        loop {
            let Step::Event { consumed, event } = parser.step(input).unwrap() else {
                panic!()
            };
            input = &input[consumed..];
            match event {
                ChunkEvent::Chunk(Chunk {
                    node,
                    bitmap,
                    body: Body::Start { granularity, flags },
                    ..
                }) => {
                    seen.push((node.to_vec(), bitmap.to_vec(), granularity, flags.bits()));
                }
                ChunkEvent::Chunk(other) => panic!("{other:?}"),
                ChunkEvent::EndOfSection => break,
            }
        }
        assert_eq!(
            seen,
            [
                (b"d0".to_vec(), b"b1".to_vec(), 4096, 0),
                (b"d0".to_vec(), b"b0".to_vec(), 65536, 1)
            ]
        );
        assert_eq!((input.len(), parser.position()), (0, RECORDED.len() as u64));
    }

    #[test]
    fn refuses_what_is_out_of_order() {
        #[track_caller]
        fn check(input: &[u8], at: u64, expected: RamErrorKind) {
            let error = ChunkParser::new().step(input).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (&expected, Some(at)));
        }
        let flags = |flags, problem| RamErrorKind::ChunkFlags { flags, problem };
        check(&[0x80], 0, flags(0x80, "longer flag words are not known"));
        check(
            &[0x41],
            0,
            flags(0x41, "the end of the section stands alone"),
        );
        check(
            &[0x0c],
            0,
            flags(0x0c, "expected exactly one of start, complete and bits"),
        );
        check(
            &[0x60],
            0,
            flags(0x60, "expected exactly one of start, complete and bits"),
        );
        check(&[0x22], 0, flags(0x22, "zeroes without bits"));
        check(&[0x20], 1, RamErrorKind::ChunkAlias { what: "node" });
        check(b"\x28\x01n", 3, RamErrorKind::ChunkAlias { what: "bitmap" });
        check(b"\x28\0", 1, RamErrorKind::ChunkAlias { what: "node" });
        check(
            b"\x1c\x01n\x01b\0\0\x01\0",
            5,
            RamErrorKind::ChunkGranularity { found: 256 },
        );
        check(
            b"\x1c\x01n\x01b\0\0\x03\0",
            5,
            RamErrorKind::ChunkGranularity { found: 768 },
        );
        check(
            b"\x1c\x01n\x01b\0\0\x02\0\x08",
            9,
            RamErrorKind::ChunkStartFlags { found: 8 },
        );
        let bits = [&b"\x4c\x01n\x01b"[..], &[0; 12], &10_241_u64.to_be_bytes()].concat();
        check(
            &bits,
            17,
            RamErrorKind::ChunkBits {
                found: 10_241,
                limit: 10_240,
            },
        );
    }

    proptest! {
        #[test]
        fn rewrites_to_the_same_bytes(
            chunks in prop::collection::vec(
                (0_u8..4, any::<[bool; 2]>(), any::<(u64, u32)>(), prop::collection::vec(any::<u8>(), 0..70)),
                0..8,
            ),
        ) {
            let mut writer = ChunkWriter::new();
            let mut input = Vec::new();
            for (kind, [node, bitmap], (first_sector, sectors), data) in &chunks {
                let body = match kind {
                    0 => Body::Start { granularity: 512, flags: StartFlags::ENABLED },
                    1 => Body::Bits { first_sector: *first_sector, sectors: *sectors, data: Some(data) },
                    2 => Body::Bits { first_sector: *first_sector, sectors: *sectors, data: None },
                    _ => Body::Complete,
                };
                let name = |first: bool| if first { &b"one"[..] } else { b"two" };
                writer.put(name(*node), name(*bitmap), body, &mut input).unwrap();
            }
            writer.end_of_section(&mut input);
            let mut parser = ChunkParser::new();
            let (mut from, mut to) = (0, 0);
            let mut again = Vec::new();
            loop {
                match parser.step(&input[from..to]).unwrap() {
                    Step::NeedMore { at_least } => {
                        prop_assert!(at_least > to - from && from + at_least <= input.len());
                        to = from + at_least;
                    }
                    Step::Event { consumed, event } => {
                        from += consumed;
                        match event {
                            ChunkEvent::Chunk(chunk) => ChunkWriter::chunk(&chunk, &mut again).unwrap(),
                            ChunkEvent::EndOfSection => {
                                writer.end_of_section(&mut again);
                                break;
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(again, input);
        }

        #[test]
        fn any_bytes_are_refused_or_understood(input in prop::collection::vec(any::<u8>(), 0..60)) {
            let length = input.len();
            match ChunkParser::new().step(&input) {
                Ok(Step::NeedMore { at_least }) => prop_assert!(at_least > length),
                Ok(Step::Event { consumed, .. }) => prop_assert!(0 < consumed && consumed <= length),
                Err(error) => prop_assert!(error.offset().is_some_and(|at| at <= length as u64)),
            }
        }
    }
}
