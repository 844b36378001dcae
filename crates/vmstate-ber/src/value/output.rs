//! The encoder of values.

mod plain;

use vmstate_desc::{
    Codec, Description, Element, Error, FieldCx, Gate, Role, SaveState, SaveVisitor, ScalarType,
    Slice, TreeKey, save_with,
};

use super::list::RunWriter;
use super::{Form, value_tag};
use crate::der::{close, open, put_bool, put_int, put_null, put_octets, put_uint, tag, wrap};
use crate::error::BerError;
use crate::types::{TypeIndex, TypeTable};
use plain::Plain;

/// Encodes device state: a visitor for the traversal of `vmstate-desc`. Types that the state needs and the table lacks are
/// added to it.
#[derive(Debug)]
pub struct BerOut<'a> {
    out: &'a mut Vec<u8>,
    types: &'a mut TypeTable,
    root: Option<TypeIndex>,
    structs: Vec<OpenStruct>,
    fields: Vec<OpenField>,
    /// The field is one scalar.
    scalar: bool,
    plain: Plain,
}

/// A struct that is being written.
#[derive(Debug)]
struct OpenStruct {
    ty: TypeIndex,
    /// Place of its length.
    start: usize,
    /// Of what encloses it, if its type is told.
    wrapped: Option<usize>,
    /// Number of the next field.
    next: usize,
}

/// A field of more than one scalar that is being written.
#[derive(Debug)]
enum OpenField {
    /// Octets, from here on.
    Octets(usize),
    /// Nothing is written, or one value: by others.
    One,
    List {
        start: usize,
        run: RunWriter,
        /// The node of a tree.
        node: Option<usize>,
    },
    Custom {
        start: usize,
        /// An octet string, from here on.
        chunk: Option<usize>,
        /// Something else than bytes has come.
        mixed: bool,
    },
}

/// Appends the state's value, a SEQUENCE, to `out`, and adds its type to the table.
///
/// # Errors
/// What the device refuses, and what no type can say. `out` then ends with an incomplete value.
///
/// ```
/// use vmstate_ber::types::TypeTable;
/// use vmstate_desc::{Codec, Description, DynState, Field, Scalar};
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
/// let mut rtc = DynState::new(&RTC);
/// rtc.set("year", Scalar::U16(2026));
/// let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
/// vmstate_ber::encode(&rtc, &mut types, &mut bytes)?;
/// assert_eq!(bytes, [0x30, 4, 2, 2, 0x07, 0xea]);
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
pub fn encode(
    state: &dyn SaveState,
    types: &mut TypeTable,
    out: &mut Vec<u8>,
) -> Result<TypeIndex, Error> {
    let description = state.description();
    let root = types.add_ref(&description).map_err(BerError::into_state)?;
    save_with(state, &mut BerOut::new(types, root, out))?;
    Ok(root)
}

impl<'a> BerOut<'a> {
    /// An encoder of one state of type `root` that appends to `out`.
    #[must_use]
    pub const fn new(types: &'a mut TypeTable, root: TypeIndex, out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            types,
            root: Some(root),
            structs: Vec::new(),
            fields: Vec::new(),
            scalar: false,
            plain: Plain::new(),
        }
    }

    /// Fills up with absent fields before field number `index`, and moves behind it.
    #[inline]
    fn reach(&mut self, index: usize) {
        if let Some(open) = self.structs.last_mut() {
            for _ in open.next..index {
                put_null(self.out, tag::NULL);
            }
            open.next = index.saturating_add(1);
        }
    }

    /// All fields have been there.
    fn finish_fields(&mut self) {
        let count = self
            .structs
            .last()
            .and_then(|open| self.types.get(open.ty))
            .map_or(0, |ty| ty.fields.len());
        if let Some(open) = self.structs.last_mut() {
            for _ in open.next..count {
                put_null(self.out, tag::NULL);
            }
            open.next = count;
        }
    }

    /// The type that the open struct declares for a field: of its elements, or of a tree's keys.
    fn declared(&self, cx: FieldCx<'_>, key: bool) -> Option<(TypeIndex, u32)> {
        let owner = self.types.get(self.structs.last()?.ty)?;
        let field = owner.fields.get(cx.index)?;
        let index = self.types.find(if key { field.key } else { field.ty }?)?;
        let version = self.types.get(index)?.version;
        Some((index, field.pinned.unwrap_or(version)))
    }

    /// Whether `d` is what the field declares, and of which type it is.
    fn type_of(
        &mut self,
        d: &Description,
        version: u32,
        cx: FieldCx<'_>,
        key: bool,
    ) -> Result<(TypeIndex, bool), Error> {
        if let Some(index) = self.declared_type(d, version, cx, key) {
            return Ok((index, true));
        }
        let index = self.types.add(d).map_err(BerError::into_state)?;
        let declared = self.declared(cx, key);
        Ok((index, declared == Some((index, version))))
    }

    /// The type of `d`, if that is the description which the field has, at the version that goes without saying.
    fn declared_type(
        &self,
        d: &Description,
        version: u32,
        cx: FieldCx<'_>,
        key: bool,
    ) -> Option<TypeIndex> {
        let child = match (&cx.field.element, key) {
            (
                Element::Tree {
                    key: TreeKey::Struct(child),
                    ..
                },
                true,
            ) => child,
            (element, false) => element.child()?,
            _ => return None,
        };
        let (index, expected) = self.declared(cx, key)?;
        let same = expected == version && (std::ptr::eq(d, &raw const **child) || *d == **child);
        same.then_some(index)
    }

    /// The type that the open struct declares for a case of a field.
    fn case_type(&self, cx: FieldCx<'_>, value: i64) -> Option<TypeIndex> {
        let owner = self.types.get(self.structs.last()?.ty)?;
        let variants = owner.fields.get(cx.index)?.variants.as_ref()?;
        self.types.find(variants.case(value)?)
    }

    fn open_typed(&mut self, identifier: u8, ty: TypeIndex, version: u32) -> usize {
        let start = open(self.out, identifier);
        let id = self.types.get(ty).map_or(0, |ty| ty.id);
        put_uint(self.out, tag::INTEGER, id.into());
        put_uint(self.out, tag::INTEGER, version.into());
        start
    }

    fn begin_item(&mut self) {
        let at = self.out.len();
        if let Some(OpenField::List { run, .. }) = self.fields.last_mut() {
            run.begin(at);
        }
    }

    fn end_item(&mut self) {
        if let Some(OpenField::List { run, .. }) = self.fields.last_mut() {
            run.end(self.out);
        }
    }

    fn put_scalar(&mut self, ty: ScalarType, codec: Option<&Codec>, bits: u64) {
        let bits = bits & mask(ty);
        match ty {
            ScalarType::Bool => put_bool(self.out, tag::BOOLEAN, bits != 0),
            ScalarType::U8 if matches!(codec, Some(Codec::Bool)) && bits < 2 => {
                put_bool(self.out, tag::BOOLEAN, bits != 0);
            }
            ScalarType::U8 if matches!(codec, Some(Codec::Bool)) => {
                let byte = u8::try_from(bits).unwrap_or(u8::MAX);
                self.out.extend_from_slice(&[value_tag::RAW, 1, byte]);
            }
            ScalarType::U8 | ScalarType::U16 | ScalarType::U32 | ScalarType::U64 => {
                put_uint(self.out, tag::INTEGER, bits);
            }
            ScalarType::F64 => put_octets(self.out, &bits.to_be_bytes()),
            _ => put_int(self.out, tag::INTEGER, extended(ty, bits)),
        }
    }

    fn end_field_of_many(&mut self) {
        self.end_chunk();
        match self.fields.pop() {
            Some(OpenField::Octets(start)) => close(self.out, start),
            Some(OpenField::List { start, mut run, .. }) => {
                run.finish(self.out);
                close(self.out, start);
            }
            Some(OpenField::Custom { start, mixed, .. }) => {
                if mixed {
                    wrap(self.out, start, value_tag::LIST);
                } else if self.out.len() == start {
                    self.out.extend_from_slice(&[tag::OCTETS, 0]);
                }
            }
            Some(OpenField::One) | None => {}
        }
    }

    /// Bytes of a custom codec go here.
    fn chunk(&mut self) {
        if let Some(OpenField::Custom { chunk, .. }) = self.fields.last_mut()
            && chunk.is_none()
        {
            *chunk = Some(open(self.out, tag::OCTETS));
        }
    }

    fn end_chunk(&mut self) {
        if let Some(OpenField::Custom { chunk, .. }) = self.fields.last_mut()
            && let Some(start) = chunk.take()
        {
            close(self.out, start);
        }
    }

    fn put_be(&mut self, ty: ScalarType, bits: u64) {
        let be = bits.to_be_bytes();
        let skip = be.len().saturating_sub(ty.size());
        self.out
            .extend_from_slice(be.get(skip..).unwrap_or_default());
    }

    fn put_all(&mut self, values: Slice<'_>) {
        macro_rules! extend {
            ($values:expr) => {{
                self.out.reserve(size_of_val($values));
                self.out
                    .extend($values.iter().flat_map(|v| v.to_be_bytes()));
            }};
        }
        match values {
            Slice::Bool(values) => self.out.extend(values.iter().map(|v| u8::from(*v))),
            Slice::U8(values) => self.out.extend_from_slice(values),
            Slice::I8(values) => extend!(values),
            Slice::U16(values) => extend!(values),
            Slice::U32(values) => extend!(values),
            Slice::U64(values) => extend!(values),
            Slice::I16(values) => extend!(values),
            Slice::I32(values) => extend!(values),
            Slice::I64(values) => extend!(values),
            Slice::F64(values) => extend!(values),
            _ => {}
        }
    }
}

/// The bits that a scalar of this type has.
pub(super) const fn mask(ty: ScalarType) -> u64 {
    match ty.size() {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// The number that bits stand for in a type with sign.
const fn extended(ty: ScalarType, bits: u64) -> i64 {
    let shift = match ty.size() {
        1 => 56,
        2 => 48,
        4 => 32,
        _ => 0,
    };
    (bits << shift).cast_signed() >> shift
}

const fn codec_of<'c>(cx: &FieldCx<'c>) -> Option<&'c Codec> {
    match &cx.field.element {
        Element::Value(codec) => Some(codec),
        _ => None,
    }
}

impl SaveVisitor for BerOut<'_> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error> {
        let (ty, wrapped) = match role {
            Role::Top => match self.root.take() {
                Some(root) => (root, None),
                None => (self.types.add(d).map_err(BerError::into_state)?, None),
            },
            Role::Element { cx, .. } | Role::Key { cx, .. } => {
                let key = matches!(role, Role::Key { .. });
                let (ty, declared) = self.type_of(d, version, cx, key)?;
                if !matches!(cx.field.element, Element::Tree { .. }) {
                    self.begin_item();
                }
                if declared {
                    (ty, None)
                } else {
                    (ty, Some(self.open_typed(value_tag::TYPED, ty, version)))
                }
            }
            Role::Case { cx, value } => {
                let ty = match self.case_type(cx, value) {
                    Some(ty) => ty,
                    None => self.types.add(d).map_err(BerError::into_state)?,
                };
                (ty, Some(self.open_typed(value_tag::TYPED, ty, version)))
            }
            Role::Subsection => {
                self.finish_fields();
                let ty = self.types.add(d).map_err(BerError::into_state)?;
                let id = self.types.get(ty).map_or(0, |ty| ty.id);
                let owner = self.structs.last().and_then(|s| self.types.get(s.ty));
                if !owner.is_some_and(|owner| owner.subs.iter().any(|sub| sub.ty == id)) {
                    return Err(Error::format(format!(
                        "subsection {} is not the one that its owner declares",
                        d.name
                    )));
                }
                (ty, Some(self.open_typed(value_tag::SUB, ty, version)))
            }
            _ => {
                self.end_chunk();
                if let Some(OpenField::Custom { mixed, .. }) = self.fields.last_mut() {
                    *mixed = true;
                }
                let ty = self.types.add(d).map_err(BerError::into_state)?;
                (ty, Some(self.open_typed(value_tag::TYPED, ty, version)))
            }
        };
        let start = open(self.out, tag::SEQUENCE);
        self.structs.push(OpenStruct {
            ty,
            start,
            wrapped,
            next: 0,
        });
        Ok(())
    }

    fn end(&mut self, _d: &Description, role: Role<'_>) -> Result<(), Error> {
        self.finish_fields();
        if let Some(open) = self.structs.pop() {
            close(self.out, open.start);
            if let Some(start) = open.wrapped {
                close(self.out, start);
            }
        }
        if let Role::Element { cx, .. } = role {
            if matches!(cx.field.element, Element::Tree { .. })
                && let Some(OpenField::List { node, .. }) = self.fields.last_mut()
                && let Some(start) = node.take()
            {
                close(self.out, start);
            }
            self.end_item();
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error> {
        self.reach(cx.index);
        let open = match Form::of(cx.field) {
            Form::Scalar => {
                self.scalar = true;
                return Ok(Gate::Visit);
            }
            Form::Packed => OpenField::Octets(open(self.out, tag::OCTETS)),
            Form::Bytes | Form::Struct | Form::Case => OpenField::One,
            Form::Pad => {
                self.out.extend_from_slice(&[tag::OCTETS, 0]);
                OpenField::One
            }
            Form::List => OpenField::List {
                start: open(self.out, value_tag::LIST),
                run: RunWriter::default(),
                node: None,
            },
            Form::Custom => OpenField::Custom {
                start: self.out.len(),
                chunk: None,
                mixed: false,
            },
        };
        self.fields.push(open);
        Ok(Gate::Visit)
    }

    #[inline]
    fn end_field(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        if !std::mem::take(&mut self.scalar) {
            self.end_field_of_many();
        }
        Ok(())
    }

    fn slot(&mut self, _cx: FieldCx<'_>, _index: usize, present: bool) -> Result<(), Error> {
        if !present {
            self.begin_item();
            put_null(self.out, value_tag::NIL);
            self.end_item();
        }
        Ok(())
    }

    #[inline]
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        if self.scalar {
            self.put_scalar(ty, codec_of(&cx), bits);
            return Ok(());
        }
        match Form::of(cx.field) {
            Form::Scalar => self.put_scalar(ty, codec_of(&cx), bits),
            Form::List => {
                self.begin_item();
                self.put_scalar(ty, codec_of(&cx), bits);
                self.end_item();
            }
            form => {
                if form == Form::Custom {
                    self.chunk();
                }
                self.put_be(ty, bits);
            }
        }
        Ok(())
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        match Form::of(cx.field) {
            Form::Scalar | Form::List => {
                for value in (0..values.len()).filter_map(|i| values.get(i)) {
                    self.scalar(cx, value.scalar_type(), value.to_bits())?;
                }
            }
            Form::Custom => {
                self.chunk();
                self.put_all(values);
            }
            _ => self.put_all(values),
        }
        Ok(())
    }

    fn unused(&mut self, _cx: FieldCx<'_>, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        match Form::of(cx.field) {
            Form::Custom => {
                self.chunk();
                self.out.extend_from_slice(bytes);
            }
            Form::List => {
                self.begin_item();
                put_octets(self.out, bytes);
                self.end_item();
            }
            _ => put_octets(self.out, bytes),
        }
        Ok(())
    }

    fn list(&mut self, _cx: FieldCx<'_>, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    fn item(&mut self, cx: FieldCx<'_>, _index: usize) -> Result<(), Error> {
        if matches!(cx.field.element, Element::Tree { .. }) {
            self.begin_item();
            let start = open(self.out, tag::SEQUENCE);
            if let Some(OpenField::List { node, .. }) = self.fields.last_mut() {
                *node = Some(start);
            }
        }
        Ok(())
    }

    fn end_list(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>, key: u64) -> Result<(), Error> {
        put_uint(self.out, tag::INTEGER, key);
        Ok(())
    }

    fn plain(&mut self, d: &'static Description, size: usize, role: Role<'_>) -> Option<&mut [u8]> {
        self.plain_place(d, size, role)
    }

    fn end_plain(&mut self) -> Result<(), Error> {
        self.put_plain()
    }
}
