//! QEMU's encoding, as small as it can be, for these tests alone.

use vmstate_desc::{
    Codec, Description, Element, Error, ErrorKind, FieldCx, Gate, Limits, LoadState, LoadVisitor,
    Pointers, Role, SaveState, SaveVisitor, Scalar, ScalarType, Slice, SliceMut, Slot,
};

/// The state's bytes. With `plain`, states that can are encoded in one piece.
pub(crate) fn save_with(state: &dyn SaveState, plain: bool) -> Result<Vec<u8>, Error> {
    let mut out = Out(Vec::new(), plain);
    vmstate_desc::save(state, &mut out)?;
    Ok(out.0)
}

/// The state's bytes, which are the same on both paths.
pub(crate) fn save(state: &dyn SaveState) -> Vec<u8> {
    let walked = save_with(state, false).unwrap();
    assert_eq!(walked, save_with(state, true).unwrap());
    walked
}

/// Loads and returns the number of bytes that were used.
pub(crate) fn load_with(
    state: &mut dyn LoadState,
    version: u32,
    bytes: &[u8],
    plain: bool,
) -> Result<usize, Error> {
    let mut input = In {
        bytes,
        position: 0,
        plain,
    };
    vmstate_desc::load(state, version, &mut input, Limits::default())?;
    Ok(input.position)
}

/// Loads the present version on the fast path, from exactly these bytes.
pub(crate) fn load(state: &mut dyn LoadState, bytes: &[u8]) -> Result<(), Error> {
    let version = state.description().version_id;
    load_version(state, version, bytes)
}

/// Loads any version on the fast path, from exactly these bytes.
pub(crate) fn load_version(
    state: &mut dyn LoadState,
    version: u32,
    bytes: &[u8],
) -> Result<(), Error> {
    let used = load_with(state, version, bytes, true)?;
    assert_eq!(used, bytes.len(), "bytes are left");
    Ok(())
}

/// The message of the error that must come.
pub(crate) fn refused(state: &mut dyn LoadState, bytes: &[u8]) -> String {
    match load(state, bytes) {
        Ok(()) => panic!("{bytes:02x?} was loaded"),
        Err(e) => e.to_string(),
    }
}

/// Bytes from hexadecimal digits; spaces are for people.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

struct Out(Vec<u8>, bool);

fn little(cx: FieldCx<'_>) -> bool {
    matches!(&cx.field.element, Element::Value(codec) if !codec.is_big_endian())
}

impl SaveVisitor for Out {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error> {
        if let Role::Subsection = role {
            self.0.extend([5, u8::try_from(d.name.len()).unwrap()]);
            self.0.extend(d.name.as_bytes());
            self.0.extend(version.to_be_bytes());
        }
        Ok(())
    }
    fn end(&mut self, _: &Description, _: Role<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn field(&mut self, _: FieldCx<'_>) -> Result<Gate, Error> {
        Ok(Gate::Visit)
    }
    fn end_field(&mut self, _: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn slot(&mut self, cx: FieldCx<'_>, _: usize, present: bool) -> Result<(), Error> {
        match (cx.field.pointers, present) {
            (Pointers::MarkEvery, true) => self.0.push(b'1'),
            (_, false) => self.0.push(b'0'),
            _ => {}
        }
        Ok(())
    }
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        let mut bytes = bits.to_be_bytes()[8 - ty.size()..].to_vec();
        if little(cx) {
            bytes.reverse();
        }
        self.0.extend(bytes);
        Ok(())
    }
    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        (0..values.len()).try_for_each(|i| {
            let bits = values.get(i).unwrap().to_bits();
            self.scalar(cx, values.scalar_type(), bits)
        })
    }
    fn unused(&mut self, _: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.0.resize(self.0.len() + bytes, 0);
        Ok(())
    }
    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        if let Element::Value(Codec::ByteArray { .. }) = cx.field.element {
            self.0
                .extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        }
        self.0.extend(bytes);
        Ok(())
    }
    fn list(&mut self, cx: FieldCx<'_>, len: usize) -> Result<(), Error> {
        if let Element::Tree { .. } = cx.field.element {
            self.0.extend(u32::try_from(len).unwrap().to_be_bytes());
        }
        Ok(())
    }
    fn item(&mut self, _: FieldCx<'_>, _: usize) -> Result<(), Error> {
        self.0.push(1);
        Ok(())
    }
    fn end_list(&mut self, _: FieldCx<'_>) -> Result<(), Error> {
        self.0.push(0);
        Ok(())
    }
    fn direct_key(&mut self, _: FieldCx<'_>, key: u64) -> Result<(), Error> {
        self.0.extend(key.to_be_bytes());
        Ok(())
    }
    fn plain(&mut self, _: &'static Description, size: usize, _: Role<'_>) -> Option<&mut [u8]> {
        if !self.1 {
            return None;
        }
        let start = self.0.len();
        // Not zeros, so that forgotten bytes are seen.
        self.0.resize(start + size, 0xee);
        self.0.get_mut(start..)
    }
}

struct In<'a> {
    bytes: &'a [u8],
    position: usize,
    plain: bool,
}

impl<'a> In<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..n).ok_or_else(|| {
            Error::new(ErrorKind::UnexpectedEnd {
                inside: "value".into(),
                needed: n as u64,
                available: rest.len() as u64,
            })
        })?;
        self.position += n;
        Ok(taken)
    }
    fn number(&mut self, n: usize) -> Result<u64, Error> {
        let bytes = self.take(n)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

impl LoadVisitor for In<'_> {
    fn begin(&mut self, _: &Description, version: u32, _: Role<'_>) -> Result<u32, Error> {
        Ok(version)
    }
    fn end(&mut self, _: &Description, _: Role<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn field(&mut self, _: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        Ok(if exists { Gate::Visit } else { Gate::Skip })
    }
    fn end_field(&mut self, _: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn slot(&mut self, cx: FieldCx<'_>, _: usize, occupied: bool) -> Result<Slot, Error> {
        match cx.field.pointers {
            Pointers::MarkAbsent if occupied => return Ok(Slot::InPlace),
            _ => {}
        }
        match (self.number(1)?, cx.field.pointers) {
            (0x30, _) => Ok(Slot::Absent),
            (0x31, Pointers::MarkEvery) => Ok(Slot::New),
            _ => Err(Error::format("wrong marker")),
        }
    }
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        let bits = self.number(ty.size())?;
        Ok(if little(cx) {
            bits.swap_bytes() >> (64 - 8 * ty.size())
        } else {
            bits
        })
    }
    fn scalars(&mut self, cx: FieldCx<'_>, mut values: SliceMut<'_>) -> Result<(), Error> {
        let ty = values.scalar_type();
        for index in 0..values.len() {
            let bits = self.scalar(cx, ty)?;
            values.set(index, Scalar::from_bits(ty, bits));
        }
        Ok(())
    }
    fn unused(&mut self, _: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.take(bytes).map(|_| ())
    }
    fn raw(&mut self, _: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        bytes.copy_from_slice(self.take(bytes.len())?);
        Ok(())
    }
    fn length(&mut self, _: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        let len = usize::try_from(self.number(4)?).unwrap();
        if len > max {
            return Err(Error::format(format!("length {len} is above {max}")));
        }
        Ok(len)
    }
    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        if let Element::Tree { .. } = cx.field.element {
            self.number(4)?;
        }
        Ok(())
    }
    fn item(&mut self, _: FieldCx<'_>, _: usize) -> Result<bool, Error> {
        Ok(self.number(1)? != 0)
    }
    fn direct_key(&mut self, _: FieldCx<'_>) -> Result<u64, Error> {
        self.number(8)
    }
    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        let rest = &self.bytes[self.position..];
        let &[5, len, ref rest @ ..] = rest else {
            return Ok(None);
        };
        let len = usize::from(len);
        let Some(name) = rest.get(..len) else {
            return Ok(None);
        };
        if len <= owner.name.len() || !name.starts_with(owner.name.as_bytes()) {
            return Ok(None);
        }
        let found = owner
            .subsections()
            .iter()
            .position(|s| s.name.as_bytes() == name);
        let index = found.ok_or_else(|| Error::format("unknown subsection"))?;
        self.position += 2 + len;
        let version = u32::try_from(self.number(4)?).unwrap();
        Ok(Some((index, version)))
    }
    fn plain(&mut self, _: &'static Description, size: usize, _: Role<'_>) -> Option<&[u8]> {
        let rest = &self.bytes[self.position..];
        (self.plain && rest.len() >= size).then_some(rest)
    }
    fn consume_plain(&mut self, size: usize) {
        self.position += size;
    }
    fn offset(&self) -> Option<u64> {
        Some(self.position as u64)
    }
}
