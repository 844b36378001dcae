//! The encoder.

use vmstate_desc::{
    Codec, Description, Element, Error, FieldCx, Gate, ListKind, Pointers, Role, SaveVisitor,
    ScalarType, Slice,
};

use super::{MARKER_ABSENT, MARKER_PRESENT, SUBSECTION};
use crate::vmdesc::Vmdesc;

/// Encodes device state as QEMU does, and describes it in a trailer on the way if one is wanted.
#[derive(Debug)]
pub struct QemuOut<'a> {
    out: &'a mut Vec<u8>,
    vmdesc: Option<&'a mut Vmdesc>,
}

impl<'a> QemuOut<'a> {
    /// An encoder that appends to `out`.
    #[must_use]
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, vmdesc: None }
    }

    /// An encoder that appends to `out` and describes what it writes in `vmdesc`.
    #[must_use]
    pub const fn described(out: &'a mut Vec<u8>, vmdesc: &'a mut Vmdesc) -> Self {
        Self {
            out,
            vmdesc: Some(vmdesc),
        }
    }

    fn put(&mut self, ty: ScalarType, bits: u64) {
        let be = bits.to_be_bytes();
        match ty.size() {
            1 => self
                .out
                .extend_from_slice(be.last_chunk::<1>().unwrap_or(&[0])),
            2 => self
                .out
                .extend_from_slice(be.last_chunk::<2>().unwrap_or(&[0; 2])),
            4 => self
                .out
                .extend_from_slice(be.last_chunk::<4>().unwrap_or(&[0; 4])),
            _ => self.out.extend_from_slice(&be),
        }
    }
}

fn is_little_endian(cx: FieldCx<'_>) -> bool {
    matches!(&cx.field.element, Element::Value(codec) if !codec.is_big_endian())
}

macro_rules! extend {
    ($out:expr, $values:expr, $little:expr) => {{
        let (out, values) = ($out, $values);
        out.reserve(size_of_val(values));
        if $little {
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        } else {
            out.extend(values.iter().flat_map(|v| v.to_be_bytes()));
        }
    }};
}

impl SaveVisitor for QemuOut<'_> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error> {
        if let Role::Subsection = role {
            let name = d.name.as_bytes();
            let len = u8::try_from(name.len()).map_err(|_| {
                Error::format(format!(
                    "name of subsection {} is longer than 255 bytes",
                    d.name
                ))
            })?;
            // A subsection begins where its owner's fields end, so its header is not part of itself.
            self.out.extend_from_slice(&[SUBSECTION, len]);
            self.out.extend_from_slice(name);
            self.out.extend_from_slice(&version.to_be_bytes());
        }
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.begin(d, version, role, self.out.len());
        }
        Ok(())
    }

    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error> {
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.end(d, role, self.out.len());
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error> {
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.field(cx, self.out.len());
        }
        Ok(Gate::Visit)
    }

    #[inline]
    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.end_field(cx, self.out.len());
        }
        Ok(())
    }

    fn slot(&mut self, cx: FieldCx<'_>, index: usize, present: bool) -> Result<(), Error> {
        match (cx.field.pointers, present) {
            (Pointers::MarkEvery, true) => self.out.push(MARKER_PRESENT),
            (Pointers::MarkEvery | Pointers::MarkAbsent, false) => self.out.push(MARKER_ABSENT),
            _ => {}
        }
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.slot(cx, index, present);
        }
        Ok(())
    }

    #[inline]
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        if is_little_endian(cx) {
            let le = bits.to_le_bytes();
            self.out
                .extend_from_slice(le.get(..ty.size()).unwrap_or(&le));
        } else {
            self.put(ty, bits);
        }
        Ok(())
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        let little = is_little_endian(cx);
        let out = &mut *self.out;
        match values {
            Slice::Bool(values) => out.extend(values.iter().map(|v| u8::from(*v))),
            Slice::U8(values) => out.extend_from_slice(values),
            Slice::I8(values) => extend!(out, values, little),
            Slice::U16(values) => extend!(out, values, little),
            Slice::U32(values) => extend!(out, values, little),
            Slice::U64(values) => extend!(out, values, little),
            Slice::I16(values) => extend!(out, values, little),
            Slice::I32(values) => extend!(out, values, little),
            Slice::I64(values) => extend!(out, values, little),
            Slice::F64(values) => extend!(out, values, little),
            _ => return Err(Error::format("a scalar type without a QEMU encoding")),
        }
        Ok(())
    }

    fn unused(&mut self, _cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        let len = self.out.len().saturating_add(bytes);
        self.out.resize(len, 0);
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        let too_long = |_| Error::format(format!("{} bytes are too many", bytes.len()));
        match &cx.field.element {
            Element::Value(Codec::Capability) => {
                self.out.push(u8::try_from(bytes.len()).map_err(too_long)?);
            }
            Element::Value(Codec::ByteArray { .. }) => {
                let len = u32::try_from(bytes.len()).map_err(too_long)?;
                self.out.extend_from_slice(&len.to_be_bytes());
            }
            _ => {}
        }
        self.out.extend_from_slice(bytes);
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.measured(self.out.len());
        }
        Ok(())
    }

    fn list(&mut self, cx: FieldCx<'_>, len: usize) -> Result<(), Error> {
        let width = match cx.field.element {
            Element::Tree { .. } => 4,
            Element::List(ListKind::Prefixed(width), _) => usize::from(width),
            _ => return Ok(()),
        };
        let bytes = (len as u64).to_be_bytes();
        match bytes.split_at_checked(bytes.len().saturating_sub(width)) {
            Some((high, low)) if high.iter().all(|byte| *byte == 0) => {
                self.out.extend_from_slice(low);
                Ok(())
            }
            _ => Err(Error::format(format!(
                "{len} elements are too many for a count of {width} bytes"
            ))),
        }
    }

    fn item(&mut self, cx: FieldCx<'_>, _index: usize) -> Result<(), Error> {
        match cx.field.element {
            Element::List(ListKind::Prefixed(_), _) => {}
            Element::List(ListKind::Marked { more, .. }, _) => self.out.push(more),
            _ => self.out.push(1),
        }
        Ok(())
    }

    fn end_list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        match cx.field.element {
            Element::List(ListKind::Prefixed(_), _) => {}
            Element::List(ListKind::Marked { stop, .. }, _) => self.out.push(stop),
            _ => self.out.push(0),
        }
        Ok(())
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>, key: u64) -> Result<(), Error> {
        self.out.extend_from_slice(&key.to_be_bytes());
        Ok(())
    }

    #[inline]
    fn plain(&mut self, d: &'static Description, size: usize, role: Role<'_>) -> Option<&mut [u8]> {
        let start = self.out.len();
        if let Some(vmdesc) = &mut self.vmdesc
            && !vmdesc.plain(d, role, start, size)
        {
            return None;
        }
        self.out.resize(start.saturating_add(size), 0);
        self.out.get_mut(start..)
    }
}
