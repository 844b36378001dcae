//! The traversal in the direction of saving.

mod variant;

use crate::codec::{Codec, Scalar, ScalarType};
use crate::description::{Description, DescriptionRef};
use crate::error::{Error, ErrorKind};
use crate::field::{Element, Field, Pointers, Repeat, Size, TreeKey};
use crate::limits::MAX_DEPTH;
use crate::slice::Slice;
use crate::state::{SaveField, SaveState};
use crate::visit::{FieldCx, Gate, Role, SaveVisitor};

/// Walks `state` and gives it to `visitor`, at the description's own version.
///
/// Order per description: `pre_save`, fields in order, subsections that are needed, `post_save` (also after a failure).
///
/// # Errors
/// Whatever the device or the format refuses, with the path of the field.
pub fn save(state: &dyn SaveState, visitor: &mut dyn SaveVisitor) -> Result<(), Error> {
    save_with(state, visitor)
}

/// As [`save`], compiled for one format: for formats on the hot path.
///
/// # Errors
/// As [`save`].
pub fn save_with<V: SaveVisitor + ?Sized>(
    state: &dyn SaveState,
    visitor: &mut V,
) -> Result<(), Error> {
    let description = state.description();
    if description.unmigratable {
        return Err(ErrorKind::Unmigratable {
            name: description.name.to_string(),
        }
        .into());
    }
    let version = description.version_id;
    Saver { visitor, depth: 0 }
        .description(&description, version, state, Role::Top)
        .map_err(|e| e.in_description(&description.name))
}

struct Saver<'v, V: ?Sized> {
    visitor: &'v mut V,
    depth: u32,
}

impl<V: SaveVisitor + ?Sized> Saver<'_, V> {
    fn description(
        &mut self,
        d: &DescriptionRef,
        version: u32,
        state: &dyn SaveState,
        role: Role<'_>,
    ) -> Result<(), Error> {
        // A subsection has a header, which its `begin` writes.
        if version == d.version_id
            && !matches!(role, Role::Subsection)
            && let Some(size) = state.plain_size()
            && let Some(d) = d.as_static()
            && let Some(out) = self.visitor.plain(d, size, role)
        {
            state.save_plain(out);
            return self.visitor.end_plain();
        }
        if self.depth >= MAX_DEPTH {
            return Err(ErrorKind::TooDeep { limit: MAX_DEPTH }.into());
        }
        let snapshot = &mut |snapshot: &dyn SaveState| self.description(d, version, snapshot, role);
        if let Some(result) = state.save_snapshot(snapshot) {
            return result;
        }
        state
            .pre_save()
            .map_err(|reason| Error::refused("pre_save", reason))?;
        self.depth += 1;
        let result = self.body(d, version, state, role);
        self.depth -= 1;
        state.post_save();
        result
    }

    fn body(
        &mut self,
        d: &Description,
        version: u32,
        state: &dyn SaveState,
        role: Role<'_>,
    ) -> Result<(), Error> {
        self.visitor.begin(d, version, role)?;
        for (index, field) in d.fields().iter().enumerate() {
            self.field(d, version, state, index, field)
                .map_err(|e| e.in_field(&field.name))?;
        }
        for index in 0..d.subsections().len() {
            state.save_subsection(index, &mut |sub| {
                let sd = sub.description();
                self.subsection(&sd, sub)
                    .map_err(|e| e.in_description(&sd.name))
            })?;
        }
        self.visitor.end(d, role)
    }

    /// Saves a subsection if it is needed. Of a snapshot, it is the snapshot that knows.
    fn subsection(&mut self, d: &DescriptionRef, state: &dyn SaveState) -> Result<(), Error> {
        if let Some(result) = state.save_snapshot(&mut |snapshot| self.subsection(d, snapshot)) {
            return result;
        }
        if !state.needed() {
            return Ok(());
        }
        self.description(d, d.version_id, state, Role::Subsection)
    }

    fn field(
        &mut self,
        d: &Description,
        version: u32,
        state: &dyn SaveState,
        index: usize,
        field: &Field,
    ) -> Result<(), Error> {
        // Made anew at each use: copying one whose count was just written makes the processor wait for that.
        let cx = |count| FieldCx {
            description: d,
            index,
            field,
            count,
        };
        if !exists(field, state, index, version) {
            if field.must_exist {
                return Err(ErrorKind::MustExist.into());
            }
            return self.visitor.absent(cx(0));
        }
        if field.must_exist {
            return Ok(());
        }
        let count = units(field, state, index)?;
        if self.visitor.field(cx(count))? == Gate::Skip {
            return Ok(());
        }
        if let Element::Value(Codec::Unused(bytes)) = field.element {
            for _ in 0..count {
                self.visitor.unused(cx(count), bytes as usize)?;
            }
            return self.visitor.end_field(cx(count));
        }
        if let Element::Variant(variants) = &field.element {
            return self.variant(variants, state, cx(count));
        }
        let mut sink = FieldSink {
            saver: self,
            cx: cx(count),
            done: 0,
            listed: None,
        };
        state.save_field(index, &mut sink)?;
        sink.finish()?;
        self.visitor.end_field(cx(count))
    }
}

/// Whether a field is present: the device's word for conditional ones, the versions' for all others.
pub(crate) fn exists<S: SaveState + ?Sized>(
    field: &Field,
    state: &S,
    index: usize,
    version: u32,
) -> bool {
    if field.conditional {
        state.exists(index, version)
    } else {
        field.exists_at(version)
    }
}

/// Number of units of a field, from the description or from the device, checked against the bound.
pub(crate) fn units<S: SaveState + ?Sized>(
    field: &Field,
    state: &S,
    index: usize,
) -> Result<usize, Error> {
    let counted = match field.count() {
        None => None,
        Some(count) => {
            let raw = state.count(index).ok_or_else(|| {
                Error::new(ErrorKind::Accessor {
                    expected: "a count".into(),
                    found: "none".into(),
                })
            })?;
            let product = i128::from(raw) * i128::from(count.multiply);
            match usize::try_from(product) {
                Ok(n) if n <= count.max as usize => Some(n),
                _ => {
                    return Err(ErrorKind::OutOfRange {
                        what: "count",
                        found: product.to_string(),
                        minimum: 0,
                        maximum: count.max.into(),
                    }
                    .into());
                }
            }
        }
    };
    Ok(match (&field.repeat, &field.element) {
        (Repeat::Array(n), _) => *n as usize,
        (Repeat::Counted(_), _) => counted.unwrap_or(0),
        (Repeat::Single, Element::Value(Codec::Buffer(size))) => match size {
            Size::Fixed(n) => *n as usize,
            Size::Counted(_) => counted.unwrap_or(0),
        },
        (Repeat::Single, Element::Value(Codec::Bitmap(size))) => match size {
            Size::Fixed(bits) => (*bits as usize).div_ceil(64),
            Size::Counted(_) => counted.unwrap_or(0).div_ceil(64),
        },
        (Repeat::Single, Element::List(..) | Element::Tree { .. }) => 0,
        (Repeat::Single, _) => 1,
    })
}

/// Whether slices of type `ty` may stand for elements of `codec`.
pub(crate) fn slice_fits(codec: &Codec, ty: ScalarType) -> bool {
    match codec {
        Codec::Buffer(_) => ty == ScalarType::U8,
        Codec::Bitmap(_) => ty == ScalarType::U64,
        Codec::Custom { .. } => true,
        Codec::Bool => matches!(ty, ScalarType::Bool | ScalarType::U8),
        codec => codec.scalar_type() == Some(ty),
    }
}

pub(crate) fn disagree(field: &Field, found: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    ErrorKind::Accessor {
        expected: field.element.type_name().to_owned().into(),
        found: found.into(),
    }
    .into()
}

struct FieldSink<'s, 'v, 'c, V: ?Sized> {
    saver: &'s mut Saver<'v, V>,
    cx: FieldCx<'c>,
    done: usize,
    /// Announced length of a list or tree.
    listed: Option<usize>,
}

impl<V: SaveVisitor + ?Sized> FieldSink<'_, '_, '_, V> {
    fn is_list(&self) -> bool {
        matches!(
            self.cx.field.element,
            Element::List(..) | Element::Tree { .. }
        )
    }

    fn is_variable(&self) -> bool {
        matches!(
            self.cx.field.element,
            Element::Value(Codec::Custom { .. } | Codec::Capability | Codec::ByteArray { .. })
        )
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.is_list() {
            let len = self.listed.unwrap_or(0);
            if self.listed.is_none() {
                self.saver.visitor.list(self.cx, 0)?;
            }
            if self.done != len {
                return Err(self.miscounted("its length", len));
            }
            return self.saver.visitor.end_list(self.cx);
        }
        if self.is_variable() || self.done == self.cx.count {
            return Ok(());
        }
        let source = self
            .cx
            .field
            .count()
            .map_or("its description", |c| c.source.name())
            .to_owned();
        Err(self.miscounted(&source, self.cx.count))
    }

    fn miscounted(&self, field: &str, expected: usize) -> Error {
        ErrorKind::CountMismatch {
            field: field.to_owned(),
            expected: expected as u64,
            found: self.done as u64,
        }
        .into()
    }

    /// Counts `n` more elements, if there is room for them.
    fn advance(&mut self, n: usize) -> Result<(), Error> {
        self.done += n;
        if self.done > self.cx.count && !self.is_list() && !self.is_variable() {
            let source = self
                .cx
                .field
                .count()
                .map_or("its description", |c| c.source.name())
                .to_owned();
            return Err(self.miscounted(&source, self.cx.count));
        }
        Ok(())
    }

    fn locate(&self, e: Error) -> Error {
        locate(self.cx.field, self.done, e)
    }
}

/// Adds the element's index to an error where the field has several.
pub(crate) fn locate(field: &Field, index: usize, e: Error) -> Error {
    let several = !matches!(field.repeat, Repeat::Single)
        || matches!(field.element, Element::List(..) | Element::Tree { .. });
    if several {
        e.in_element(index as u64)
    } else {
        e
    }
}

impl<V: SaveVisitor + ?Sized> SaveField for FieldSink<'_, '_, '_, V> {
    fn count(&self) -> usize {
        self.cx.count
    }

    #[inline]
    fn scalar(&mut self, value: Scalar) -> Result<(), Error> {
        let ty = value.scalar_type();
        match &self.cx.field.element {
            Element::Value(Codec::Custom { .. }) => {}
            Element::Value(Codec::Bool) if ty == ScalarType::U8 => {}
            Element::Value(codec) if codec.scalar_type() == Some(ty) => {}
            _ => return Err(disagree(self.cx.field, ty.name())),
        }
        self.saver
            .visitor
            .scalar(self.cx, ty, value.to_bits())
            .map_err(|e| self.locate(e))?;
        self.advance(1)
    }

    fn scalars(&mut self, values: Slice<'_>) -> Result<(), Error> {
        match &self.cx.field.element {
            Element::Value(codec) if slice_fits(codec, values.scalar_type()) => {}
            _ => return Err(disagree(self.cx.field, values.scalar_type().name())),
        }
        self.advance(values.len())?;
        self.saver.visitor.scalars(self.cx, values)
    }

    fn slot(&mut self, present: bool) -> Result<(), Error> {
        if self.cx.field.pointers == Pointers::No {
            return if present {
                Ok(())
            } else {
                let e = Error::new(ErrorKind::Hole {
                    expected: "a value",
                    found: "none",
                });
                Err(self.locate(e))
            };
        }
        self.saver.visitor.slot(self.cx, self.done, present)?;
        if present { Ok(()) } else { self.advance(1) }
    }

    fn child(&mut self, state: &dyn SaveState) -> Result<(), Error> {
        let d = state.description();
        let (version, role) = match &self.cx.field.element {
            Element::Struct(_) | Element::Tmp(_) => (d.version_id, self.element_role()),
            Element::VersionedStruct(_, version) => (*version, self.element_role()),
            Element::List(..) => {
                self.saver.visitor.item(self.cx, self.done)?;
                (d.version_id, self.element_role())
            }
            Element::Tree { .. } => (d.version_id, self.element_role()),
            Element::Value(Codec::Custom { .. }) => (d.version_id, Role::Custom),
            Element::Value(_) | Element::Variant(_) => {
                return Err(disagree(self.cx.field, d.name.clone()));
            }
        };
        self.saver
            .description(&d, version, state, role)
            .map_err(|e| self.locate(e))?;
        self.advance(1)
    }

    fn list(&mut self, len: usize) -> Result<(), Error> {
        if !self.is_list() {
            // An array: its elements are counted anyway.
            return Ok(());
        }
        self.listed = Some(len);
        self.saver.visitor.list(self.cx, len)
    }

    fn direct_key(&mut self, key: u64) -> Result<(), Error> {
        match &self.cx.field.element {
            Element::Tree {
                key: TreeKey::Direct,
                ..
            } => {
                self.saver.visitor.item(self.cx, self.done)?;
                self.saver.visitor.direct_key(self.cx, key)
            }
            _ => Err(disagree(self.cx.field, "an integer key")),
        }
    }

    fn key(&mut self, key: &dyn SaveState) -> Result<(), Error> {
        match &self.cx.field.element {
            Element::Tree {
                key: TreeKey::Struct(_),
                ..
            } => {}
            _ => return Err(disagree(self.cx.field, "a key object")),
        }
        self.saver.visitor.item(self.cx, self.done)?;
        let d: DescriptionRef = key.description();
        let role = Role::Key {
            cx: self.cx,
            index: self.done,
        };
        self.saver
            .description(&d, d.version_id, key, role)
            .map_err(|e| self.locate(e))
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.is_variable() {
            return Err(disagree(self.cx.field, "raw bytes"));
        }
        self.saver.visitor.raw(self.cx, bytes)
    }
}

impl<'c, V: ?Sized> FieldSink<'_, '_, 'c, V> {
    fn element_role(&self) -> Role<'c> {
        Role::Element {
            cx: self.cx,
            index: self.done,
        }
    }
}
