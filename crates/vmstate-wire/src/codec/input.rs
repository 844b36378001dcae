//! The decoder.

use vmstate_desc::{
    Codec, Description, Element, Error, ErrorKind, FieldCx, Gate, ListKind, LoadVisitor, Pointers,
    Role, ScalarType, SliceMut, Slot,
};

use super::{MARKER_ABSENT, MARKER_PRESENT, SUBSECTION};

/// Decodes device state from QEMU's encoding.
///
/// Reads from a slice. Where more bytes may follow, say so with [`QemuIn::partial`]: an
/// [`ErrorKind::UnexpectedEnd`] then means that the load can be tried again with more.
#[derive(Debug)]
pub struct QemuIn<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Offset of `bytes` in the stream, for errors.
    base: u64,
    /// More bytes may follow than are at hand.
    partial: bool,
    /// Announced lengths of the trees that are open.
    trees: Vec<Option<u32>>,
}

impl<'a> QemuIn<'a> {
    /// A decoder of `bytes`, which are all there is.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            base: 0,
            partial: false,
            trees: Vec::new(),
        }
    }

    /// A decoder of `bytes`, behind which more may follow.
    #[must_use]
    pub const fn partial(bytes: &'a [u8]) -> Self {
        let mut input = Self::new(bytes);
        input.partial = true;
        input
    }

    /// The same decoder, for bytes that stand at `base` in a stream: errors then carry stream offsets.
    #[must_use]
    pub const fn at(mut self, base: u64) -> Self {
        self.base = base;
        self
    }

    /// The same decoder inside of these trees.
    pub(super) fn with_trees(mut self, trees: Vec<Option<u32>>) -> Self {
        self.trees = trees;
        self
    }

    /// The trees that are open.
    pub(super) fn into_trees(self) -> Vec<Option<u32>> {
        self.trees
    }

    /// Bytes consumed so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    fn ends_inside(&self, inside: &str, needed: usize) -> Error {
        Error::new(ErrorKind::UnexpectedEnd {
            inside: inside.to_owned().into(),
            needed: needed as u64,
            available: self.rest().len() as u64,
        })
        .at_offset(self.here())
    }

    fn here(&self) -> u64 {
        self.base.saturating_add(self.position as u64)
    }

    fn advance(&mut self, n: usize) {
        self.position = self.position.saturating_add(n).min(self.bytes.len());
    }

    #[inline]
    fn take(&mut self, n: usize, inside: impl Fn() -> String) -> Result<&'a [u8], Error> {
        match self.rest().get(..n) {
            Some(bytes) => {
                self.advance(n);
                Ok(bytes)
            }
            None => Err(self.ends_inside(&inside(), n)),
        }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self, cx: FieldCx<'_>) -> Result<[u8; N], Error> {
        match self.rest().first_chunk::<N>() {
            Some(chunk) => {
                self.advance(N);
                Ok(*chunk)
            }
            None => Err(self.ends_inside(cx.field.element.type_name(), N)),
        }
    }
}

impl QemuIn<'_> {
    /// The number of elements in front of a list.
    fn prefix(&mut self, width: u8) -> Result<u32, Error> {
        let offset = self.here();
        let bytes = self.take(usize::from(width), || "the count of a list".to_owned())?;
        let count = bytes
            .iter()
            .fold(0_u64, |count, byte| count << 8 | u64::from(*byte));
        u32::try_from(count).map_err(|_| {
            Error::new(ErrorKind::OutOfRange {
                what: "count",
                found: count.to_string(),
                minimum: 0,
                maximum: u32::MAX.into(),
            })
            .at_offset(offset)
        })
    }
}

fn is_little_endian(cx: FieldCx<'_>) -> bool {
    matches!(&cx.field.element, Element::Value(codec) if !codec.is_big_endian())
}

macro_rules! fill {
    ($bytes:expr, $values:expr, $little:expr, $ty:ident) => {{
        let (chunks, _) = $bytes.as_chunks::<{ size_of::<$ty>() }>();
        if $little {
            for (value, chunk) in $values.iter_mut().zip(chunks) {
                *value = $ty::from_le_bytes(*chunk);
            }
        } else {
            for (value, chunk) in $values.iter_mut().zip(chunks) {
                *value = $ty::from_be_bytes(*chunk);
            }
        }
    }};
}

impl LoadVisitor for QemuIn<'_> {
    fn begin(&mut self, _d: &Description, version: u32, _role: Role<'_>) -> Result<u32, Error> {
        Ok(version)
    }

    fn end(&mut self, _d: &Description, _role: Role<'_>) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn field(&mut self, _cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        Ok(if exists { Gate::Visit } else { Gate::Skip })
    }

    #[inline]
    fn end_field(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn slot(&mut self, cx: FieldCx<'_>, _index: usize, occupied: bool) -> Result<Slot, Error> {
        let offset = self.here();
        let marker = |found, expected| {
            Err(Error::new(ErrorKind::Marker { expected, found }).at_offset(offset))
        };
        match cx.field.pointers {
            // The older form: an object that is there is loaded in place, without any marker.
            Pointers::MarkAbsent if occupied => Ok(Slot::InPlace),
            Pointers::MarkAbsent => match self.chunk(cx)? {
                [MARKER_ABSENT] => Ok(Slot::Absent),
                [found] => marker(found, "0x30 (absent, as in the destination)"),
            },
            Pointers::MarkEvery => match self.chunk(cx)? {
                [MARKER_ABSENT] => Ok(Slot::Absent),
                [MARKER_PRESENT] => Ok(Slot::New),
                [found] => marker(found, "0x30 (absent) nor 0x31 (present)"),
            },
            _ => Ok(if occupied { Slot::InPlace } else { Slot::New }),
        }
    }

    #[inline]
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        let bits = match ty.size() {
            1 => u64::from(u8::from_be_bytes(self.chunk(cx)?)),
            2 => u64::from(u16::from_be_bytes(self.chunk(cx)?)),
            4 => u64::from(u32::from_be_bytes(self.chunk(cx)?)),
            _ => u64::from_be_bytes(self.chunk(cx)?),
        };
        if is_little_endian(cx) {
            let shift = 64_usize.saturating_sub(ty.size().saturating_mul(8));
            return Ok(bits
                .swap_bytes()
                .checked_shr(u32::try_from(shift).unwrap_or(0))
                .unwrap_or(0));
        }
        Ok(bits)
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: SliceMut<'_>) -> Result<(), Error> {
        let needed = values.len().saturating_mul(values.scalar_type().size());
        let bytes = self.take(needed, || cx.field.element.type_name().to_owned())?;
        let little = is_little_endian(cx);
        match values {
            SliceMut::Bool(values) => {
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value = *byte != 0;
                }
            }
            SliceMut::U8(values) => values.copy_from_slice(bytes),
            SliceMut::I8(values) => fill!(bytes, values, little, i8),
            SliceMut::U16(values) => fill!(bytes, values, little, u16),
            SliceMut::U32(values) => fill!(bytes, values, little, u32),
            SliceMut::U64(values) => fill!(bytes, values, little, u64),
            SliceMut::I16(values) => fill!(bytes, values, little, i16),
            SliceMut::I32(values) => fill!(bytes, values, little, i32),
            SliceMut::I64(values) => fill!(bytes, values, little, i64),
            SliceMut::F64(values) => fill!(bytes, values, little, f64),
            _ => return Err(Error::format("a scalar type without a QEMU encoding")),
        }
        Ok(())
    }

    fn unused(&mut self, _cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.take(bytes, || "unused bytes".to_owned())?;
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        let source = self.take(bytes.len(), || cx.field.element.type_name().to_owned())?;
        bytes.copy_from_slice(source);
        Ok(())
    }

    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        let offset = self.here();
        let len = match cx.field.element {
            Element::Value(Codec::Capability) => u64::from(u8::from_be_bytes(self.chunk(cx)?)),
            _ => u64::from(u32::from_be_bytes(self.chunk(cx)?)),
        };
        match usize::try_from(len) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(Error::new(ErrorKind::OutOfRange {
                what: "length",
                found: len.to_string(),
                minimum: 0,
                maximum: max as u64,
            })
            .at_offset(offset)),
        }
    }

    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        let announced = match cx.field.element {
            Element::Tree { .. } => Some(u32::from_be_bytes(self.chunk(cx)?)),
            Element::List(ListKind::Prefixed(width), _) => Some(self.prefix(width)?),
            _ => None,
        };
        self.trees.push(announced);
        Ok(())
    }

    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<bool, Error> {
        let offset = self.here();
        if let Element::List(ListKind::Prefixed(_), _) = cx.field.element {
            let announced = self.trees.last().copied().flatten().unwrap_or(0);
            let more = (index as u64) < announced.into();
            if !more {
                self.trees.pop();
            }
            return Ok(more);
        }
        let [marker] = self.chunk(cx)?;
        let more = match cx.field.element {
            Element::List(
                ListKind::Marked {
                    more,
                    stop,
                    lenient,
                },
                _,
            ) => {
                if marker != stop && marker != more && !lenient {
                    return Err(Error::format(format!(
                        "marker {marker:#04x} is neither {more:#04x} (another element) nor {stop:#04x} (the end)"
                    ))
                    .at_offset(offset));
                }
                marker != stop
            }
            _ => marker != 0,
        };
        let announced = self.trees.last().copied().flatten();
        if let Some(announced) = announced {
            let found = (index as u64).saturating_add(u64::from(more));
            if (more && found > announced.into()) || (!more && found != announced.into()) {
                return Err(Error::new(ErrorKind::TreeCount {
                    announced: announced.into(),
                    found,
                })
                .at_offset(offset));
            }
        }
        if !more {
            self.trees.pop();
        }
        Ok(more)
    }

    fn direct_key(&mut self, cx: FieldCx<'_>) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.chunk(cx)?))
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        let rest = self.rest();
        let Some((&type_byte, rest)) = rest.split_first() else {
            return if self.partial {
                Err(self.ends_inside("subsection header", 1))
            } else {
                Ok(None)
            };
        };
        if type_byte != SUBSECTION {
            return Ok(None);
        }
        let owner_name = owner.name.as_bytes();
        let Some((&len, rest)) = rest.split_first() else {
            return if self.partial {
                Err(self.ends_inside("subsection header", 2))
            } else {
                Ok(None)
            };
        };
        let len = usize::from(len);
        // A name that is too short or has another prefix belongs to somebody further out, or is data.
        if len <= owner_name.len() {
            return Ok(None);
        }
        let seen = rest.get(..len.min(rest.len())).unwrap_or_default();
        let prefix = seen.len().min(owner_name.len());
        if seen.get(..prefix) != owner_name.get(..prefix) {
            return Ok(None);
        }
        let Some(name) = rest.get(..len) else {
            return if self.partial {
                Err(self.ends_inside("subsection header", len.saturating_add(6)))
            } else {
                Ok(None)
            };
        };
        let found = owner
            .subsections()
            .iter()
            .position(|s| s.name.as_bytes() == name);
        let Some(index) = found else {
            let known: Vec<_> = owner.subsections().iter().map(|s| s.name()).collect();
            return Err(Error::new(ErrorKind::UnknownSubsection {
                owner: owner.name.to_string(),
                found: String::from_utf8_lossy(name).into_owned(),
                known: if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                },
            })
            .at_offset(self.here()));
        };
        let Some(version) = rest.get(len..).and_then(|r| r.first_chunk::<4>()) else {
            return Err(self.ends_inside("subsection header", len.saturating_add(6)));
        };
        // Loaders keep the low byte only.
        let version = u32::from_be_bytes(*version) & 0xff;
        self.advance(len.saturating_add(6));
        Ok(Some((index, version)))
    }

    #[inline]
    fn plain(&mut self, _d: &'static Description, size: usize, _role: Role<'_>) -> Option<&[u8]> {
        let rest = self.rest();
        // The look-ahead behind the last embedded description needs one byte more, if there may be one.
        let needed = size.saturating_add(usize::from(self.partial));
        (rest.len() >= needed).then_some(rest)
    }

    #[inline]
    fn consume_plain(&mut self, size: usize) {
        self.advance(size);
    }

    #[inline]
    fn offset(&self) -> Option<u64> {
        Some(self.here())
    }
}
