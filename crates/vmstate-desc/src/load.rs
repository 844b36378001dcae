//! The traversal in the direction of loading.

mod variant;

use crate::codec::{Codec, Scalar, ScalarType, ValueCheck};
use crate::description::{Description, DescriptionRef};
use crate::error::{Error, ErrorKind, Reason};
use crate::field::{Element, Field, Pointers, Repeat, TreeKey};
use crate::limits::{Limits, MAX_DEPTH};
use crate::save::{disagree, exists, locate, slice_fits, units};
use crate::slice::SliceMut;
use crate::state::{LoadField, LoadState, Slot};
use crate::visit::{FieldCx, Gate, LoadVisitor, Role};

/// Loads `state` from `visitor`. `version` is the section's, as it came.
///
/// Order per description: version check, `pre_load`, fields in order, subsections in the order in which they come,
/// `post_load`. Counts, bounds, markers, depth and memory are checked here, before the device sees a value.
///
/// A device that fails half-way keeps what was loaded so far and must not be started.
///
/// # Errors
/// Whatever the format, the description or the device refuses, with the path of the field and the byte offset.
pub fn load(
    state: &mut dyn LoadState,
    version: u32,
    visitor: &mut dyn LoadVisitor,
    limits: Limits,
) -> Result<(), Error> {
    load_with(state, version, visitor, limits)
}

/// As [`load`], compiled for one format: for formats on the hot path.
///
/// # Errors
/// As [`load`].
pub fn load_with<V: LoadVisitor + ?Sized>(
    state: &mut dyn LoadState,
    version: u32,
    visitor: &mut V,
    limits: Limits,
) -> Result<(), Error> {
    let description = state.description();
    Loader {
        visitor,
        depth: 0,
        max_depth: limits.depth.min(MAX_DEPTH),
        memory: limits.memory,
        limits,
    }
    .description(&description, version, state, Role::Top)
    .map(drop)
    .map_err(|e| e.in_description(&description.name))
}

struct Loader<'v, V: ?Sized> {
    visitor: &'v mut V,
    depth: u32,
    max_depth: u32,
    /// Bytes that may still be taken.
    memory: u64,
    limits: Limits,
}

fn check_version(d: &Description, version: u32) -> Result<(), Error> {
    if version > d.version_id || version < d.minimum_version_id {
        return Err(ErrorKind::Version {
            name: d.name.to_string(),
            found: version,
            minimum: d.minimum_version_id,
            current: d.version_id,
        }
        .into());
    }
    Ok(())
}

/// QEMU 11.1 saves two subsections of one name (`sd-card` with an RPMB partition). A description made from its stream lists
/// both in the order in which they come, so what comes once more is the next of that name, if there is one. `came` has a bit
/// for each of the first 128 that have come.
fn namesake(d: &Description, index: usize, came: &mut u128) -> usize {
    let bit = |index: usize| {
        u32::try_from(index)
            .ok()
            .and_then(|i| 1_u128.checked_shl(i))
    };
    let has_come = |index: usize| bit(index).is_some_and(|bit| *came & bit != 0);
    let mut chosen = index;
    if has_come(index) {
        let subsections = d.subsections();
        let name = subsections.get(index).map(|sub| sub.name());
        let same = |(_, sub): &(usize, &DescriptionRef)| Some(sub.name()) == name;
        let mut later = subsections.iter().enumerate().skip(index + 1).filter(same);
        chosen = later
            .find(|(at, _)| !has_come(*at))
            .map_or(index, |(at, _)| at);
    }
    *came |= bit(chosen).unwrap_or(0);
    chosen
}

impl<V: LoadVisitor + ?Sized> Loader<'_, V> {
    fn here(&self, e: Error) -> Error {
        match self.visitor.offset() {
            Some(offset) => e.at_offset(offset),
            None => e,
        }
    }

    fn description(
        &mut self,
        d: &DescriptionRef,
        version: u32,
        state: &mut dyn LoadState,
        role: Role<'_>,
    ) -> Result<u32, Error> {
        if self.depth >= self.max_depth {
            let limit = self.max_depth;
            return Err(self.here(ErrorKind::TooDeep { limit }.into()));
        }
        check_version(d, version).map_err(|e| self.here(e))?;
        if version == d.version_id
            && let Some(size) = state.plain_size()
            && let Some(compiled) = d.as_static()
            && let Some(bytes) = self.visitor.plain(compiled, size, role)
            && state.load_plain(bytes)
        {
            self.visitor.consume_plain(size);
            // A plain description owns no subsection, but a stream may claim one: that is found out here.
            self.subsections(d, state)?;
            return Ok(version);
        }
        let mut loaded = None;
        let snapshot = &mut |snapshot: &mut dyn LoadState| {
            let version = self.description(d, version, snapshot, role)?;
            loaded = Some(version);
            Ok(version)
        };
        if let Some(result) = state.load_snapshot(snapshot) {
            return match (result, loaded) {
                (Ok(()), Some(version)) => Ok(version),
                (Ok(()), None) => Err(self.here(
                    ErrorKind::Accessor {
                        expected: d.name.to_string().into(),
                        found: "a snapshot that was not loaded".into(),
                    }
                    .into(),
                )),
                (Err(e), _) => Err(self.here(e)),
            };
        }
        self.depth += 1;
        let result = self.body(d, version, state, role);
        self.depth -= 1;
        result
    }

    fn body(
        &mut self,
        d: &DescriptionRef,
        version: u32,
        state: &mut dyn LoadState,
        role: Role<'_>,
    ) -> Result<u32, Error> {
        let version = self.visitor.begin_ref(d, version, role)?;
        let d: &Description = d;
        check_version(d, version).map_err(|e| self.here(e))?;
        state
            .pre_load()
            .map_err(|reason| self.here(Error::refused("pre_load", reason)))?;
        for (index, field) in d.fields().iter().enumerate() {
            self.field(d, version, state, index, field)
                .map_err(|e| e.in_field(&field.name))?;
        }
        self.subsections(d, state)?;
        self.visitor.end(d, role)?;
        state
            .post_load(version)
            .map_err(|reason| self.here(Error::refused("post_load", reason)))?;
        Ok(version)
    }

    fn subsections(&mut self, d: &Description, state: &mut dyn LoadState) -> Result<(), Error> {
        let mut came = 0;
        while let Some((index, version)) = self.visitor.next_subsection(d)? {
            let index = namesake(d, index, &mut came);
            let mut loaded = false;
            state.load_subsection(index, &mut |sub| {
                loaded = true;
                let sd = sub.description();
                self.description(&sd, version, sub, Role::Subsection)
                    .map(drop)
                    .map_err(|e| e.in_description(&sd.name))
            })?;
            if !loaded {
                let name = d.subsections().get(index).map_or("?", |s| &s.name);
                return Err(self.here(
                    ErrorKind::Accessor {
                        expected: name.to_owned().into(),
                        found: "no such subsection".into(),
                    }
                    .into(),
                ));
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        d: &Description,
        version: u32,
        state: &mut dyn LoadState,
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
        let present = exists(field, state, index, version);
        if field.must_exist {
            return if present {
                Ok(())
            } else {
                Err(self.here(ErrorKind::MustExist.into()))
            };
        }
        let mut count = 0;
        if present {
            count = units(field, state, index).map_err(|e| self.here(e))?;
        }
        if self.visitor.field(cx(count), present)? == Gate::Skip || !present {
            return Ok(());
        }
        let own = count;
        if let Some(max) = field.resize_max
            && let Some(units) = self.visitor.units(cx(count))?
        {
            count = units;
            if units > max as usize {
                let e = ErrorKind::OutOfRange {
                    what: "number of elements",
                    found: format!("more than {max}"),
                    minimum: 0,
                    maximum: max.into(),
                };
                return Err(self.here(e.into()));
            }
        }
        match &field.element {
            Element::Value(Codec::Unused(bytes)) => {
                for _ in 0..count {
                    self.visitor.unused(cx(count), *bytes as usize)?;
                }
                return self.visitor.end_field(cx(count));
            }
            Element::Value(codec @ (Codec::ByteArray { .. } | Codec::Capability))
                if field.repeat == Repeat::Single =>
            {
                count = self.visitor.length(cx(count), longest(codec))?;
            }
            // Lists and trees are loaded at the field's own version, which must suit their elements.
            Element::List(_, child) => {
                check_version(child, field.version_id).map_err(|e| self.here(e))?;
                self.visitor.list(cx(count))?;
            }
            Element::Tree { key, value } => {
                check_version(value, field.version_id).map_err(|e| self.here(e))?;
                if let TreeKey::Struct(key) = key {
                    check_version(key, field.version_id).map_err(|e| self.here(e))?;
                }
                self.visitor.list(cx(count))?;
            }
            Element::Variant(variants) => return self.variant(variants, state, cx(count)),
            _ => {}
        }
        let mut source = FieldSource {
            loader: self,
            cx: cx(count),
            own,
            version,
            done: 0,
            ended: false,
        };
        state.load_field(index, &mut source)?;
        source.finish()?;
        self.visitor.end_field(cx(count))
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(self.here(
                ErrorKind::Memory {
                    requested: bytes,
                    limit: self.limits.memory,
                }
                .into(),
            )),
        }
    }
}

/// Most bytes of an element that carries its length.
const fn longest(codec: &Codec) -> usize {
    match codec {
        Codec::ByteArray { max } => *max as usize,
        _ => 255,
    }
}

struct FieldSource<'s, 'v, 'c, V: ?Sized> {
    loader: &'s mut Loader<'v, V>,
    cx: FieldCx<'c>,
    /// Units that the target has of its own.
    own: usize,
    /// In force for the description that the field belongs to.
    version: u32,
    done: usize,
    /// The end of a list or tree has been read.
    ended: bool,
}

impl<V: LoadVisitor + ?Sized> FieldSource<'_, '_, '_, V> {
    fn is_list(&self) -> bool {
        matches!(
            self.cx.field.element,
            Element::List(..) | Element::Tree { .. }
        )
    }

    /// Whether the accessor counts by itself: custom codecs, and arrays of elements with a length of their own.
    fn is_custom(&self) -> bool {
        match self.cx.field.element {
            Element::Value(Codec::Custom { .. }) => true,
            Element::Value(Codec::Capability | Codec::ByteArray { .. }) => {
                self.cx.field.repeat != Repeat::Single
            }
            _ => false,
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.is_custom() {
            return Ok(());
        }
        let complete = if self.is_list() {
            self.ended
        } else {
            self.done == self.cx.count
        };
        if complete {
            return Ok(());
        }
        let e = ErrorKind::CountMismatch {
            field: self
                .cx
                .field
                .count()
                .map_or("its description", |c| c.source.name())
                .to_owned(),
            expected: self.cx.count as u64,
            found: self.done as u64,
        };
        Err(self.loader.here(e.into()))
    }

    fn advance(&mut self, n: usize) -> Result<(), Error> {
        self.done += n;
        if self.done > self.cx.count && !self.is_list() && !self.is_custom() {
            return self.finish();
        }
        Ok(())
    }

    fn locate(&self, e: Error) -> Error {
        locate(self.cx.field, self.done, e)
    }

    fn check(&self, codec: &Codec, local: Option<Scalar>, value: Scalar) -> Result<Scalar, Error> {
        let Some(local) = local else {
            return Ok(value);
        };
        match codec.value_check() {
            ValueCheck::None => Ok(value),
            ValueCheck::Equal if value == local => Ok(value),
            ValueCheck::Equal => Err(ErrorKind::NotEqual {
                expected: local.to_string(),
                found: value.to_string(),
            }
            .into()),
            ValueCheck::LessOrEqual => {
                let (v, max) = (value.as_i128().unwrap_or(-1), local.as_i128().unwrap_or(-1));
                if (0..=max).contains(&v) {
                    Ok(value)
                } else {
                    Err(ErrorKind::OutOfRange {
                        what: "value",
                        found: value.to_string(),
                        minimum: 0,
                        maximum: u64::try_from(max).unwrap_or(0),
                    }
                    .into())
                }
            }
        }
    }

    fn child_version(&self, d: &Description) -> Result<u32, Error> {
        Ok(match &self.cx.field.element {
            Element::VersionedStruct(_, version) => *version,
            Element::Struct(_) | Element::Value(Codec::Custom { .. }) => d.version_id,
            // A temporary and the elements of lists and trees are loaded at the field's version.
            Element::Tmp(_) | Element::List(..) | Element::Tree { .. } => self.cx.field.version_id,
            Element::Value(_) | Element::Variant(_) => {
                return Err(disagree(self.cx.field, d.name.clone()));
            }
        })
    }
}

impl<V: LoadVisitor + ?Sized> LoadField for FieldSource<'_, '_, '_, V> {
    fn count(&self) -> usize {
        self.cx.count
    }

    fn own_count(&self) -> usize {
        self.own
    }

    fn more(&mut self, size: usize) -> Result<bool, Error> {
        let more = if self.is_list() {
            // A tree's key has been asked for already when its value is loaded.
            let more = !self.ended && self.loader.visitor.item(self.cx, self.done)?;
            self.ended = !more;
            more
        } else {
            self.done < self.cx.count
        };
        if more {
            self.loader
                .reserve(size as u64)
                .map_err(|e| self.locate(e))?;
        }
        Ok(more)
    }

    #[inline]
    fn scalar(&mut self, local: Option<Scalar>) -> Result<Scalar, Error> {
        let (codec, ty) = match (&self.cx.field.element, local) {
            (Element::Value(codec @ Codec::Custom { .. }), Some(local)) => {
                (codec, local.scalar_type())
            }
            (Element::Value(codec @ Codec::Bool), Some(Scalar::U8(_))) => (codec, ScalarType::U8),
            (Element::Value(codec), local) => match (codec.scalar_type(), local) {
                (Some(ty), None) => (codec, ty),
                (Some(ty), Some(local)) if local.scalar_type() == ty => (codec, ty),
                (_, Some(local)) => {
                    return Err(disagree(self.cx.field, local.scalar_type().name()));
                }
                _ => return Err(disagree(self.cx.field, "a scalar")),
            },
            _ => return Err(disagree(self.cx.field, "a scalar")),
        };
        let checked = codec.value_check() != ValueCheck::None;
        // Of no use where nothing can be refused.
        let offset = if checked {
            self.loader.visitor.offset()
        } else {
            None
        };
        let bits = self
            .loader
            .visitor
            .scalar(self.cx, ty)
            .map_err(|e| self.locate(e))?;
        if !checked {
            self.advance(1)?;
            // Made in its place: a copy of an enum that was just written costs more than all the rest.
            return Ok(Scalar::from_bits(ty, bits));
        }
        let value = self
            .check(codec, local, Scalar::from_bits(ty, bits))
            .map_err(|e| {
                let e = self.locate(e);
                match offset {
                    Some(offset) => e.at_offset(offset),
                    None => e,
                }
            })?;
        self.advance(1)?;
        Ok(value)
    }

    fn scalars(&mut self, mut values: SliceMut<'_>) -> Result<(), Error> {
        let codec = match &self.cx.field.element {
            Element::Value(codec) if slice_fits(codec, values.scalar_type()) => codec,
            _ => return Err(disagree(self.cx.field, values.scalar_type().name())),
        };
        if codec.value_check() != ValueCheck::None {
            for index in 0..values.len() {
                let value = self.scalar(values.get(index))?;
                values.set(index, value);
            }
            return Ok(());
        }
        let n = values.len();
        if self.done + n > self.cx.count && !self.is_custom() {
            return self.advance(n);
        }
        self.loader.visitor.scalars(self.cx, values)?;
        self.advance(n)
    }

    fn slot(&mut self, occupied: bool) -> Result<Slot, Error> {
        if self.cx.field.pointers == Pointers::No {
            return Ok(if occupied { Slot::InPlace } else { Slot::New });
        }
        let slot = self
            .loader
            .visitor
            .slot(self.cx, self.done, occupied)
            .map_err(|e| self.locate(e))?;
        if slot == Slot::Absent {
            self.advance(1)?;
        } else if slot == Slot::New {
            let size = self.cx.field.object_size.unwrap_or(0);
            self.loader.reserve(size.into())?;
        }
        Ok(slot)
    }

    fn child(&mut self, state: &mut dyn LoadState) -> Result<(), Error> {
        let d = state.description();
        let version = self.child_version(&d)?;
        let role = if self.is_custom() {
            Role::Custom
        } else {
            Role::Element {
                cx: self.cx,
                index: self.done,
            }
        };
        self.loader
            .description(&d, version, state, role)
            .map_err(|e| self.locate(e))?;
        self.advance(1)
    }

    fn direct_key(&mut self) -> Result<u64, Error> {
        match &self.cx.field.element {
            Element::Tree {
                key: TreeKey::Direct,
                ..
            } => self.loader.visitor.direct_key(self.cx),
            _ => Err(disagree(self.cx.field, "an integer key")),
        }
    }

    fn key(&mut self, key: &mut dyn LoadState) -> Result<(), Error> {
        match &self.cx.field.element {
            Element::Tree {
                key: TreeKey::Struct(_),
                ..
            } => {}
            _ => return Err(disagree(self.cx.field, "a key object")),
        }
        let d = key.description();
        let role = Role::Key {
            cx: self.cx,
            index: self.done,
        };
        self.loader
            .description(&d, self.cx.field.version_id, key, role)
            .map(drop)
            .map_err(|e| self.locate(e))
    }

    fn raw(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match &self.cx.field.element {
            Element::Value(Codec::Custom { .. }) => self.loader.visitor.raw(self.cx, bytes),
            Element::Value(Codec::Capability | Codec::ByteArray { .. }) => {
                self.loader.visitor.raw(self.cx, bytes)?;
                if self.is_custom() {
                    return Ok(());
                }
                self.advance(bytes.len())
            }
            _ => Err(disagree(self.cx.field, "raw bytes")),
        }
    }

    fn length(&mut self) -> Result<usize, Error> {
        match &self.cx.field.element {
            Element::Value(codec @ (Codec::Capability | Codec::ByteArray { .. })) => {
                self.loader.visitor.length(self.cx, longest(codec))
            }
            _ => Err(disagree(self.cx.field, "a length")),
        }
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        self.loader.reserve(bytes as u64)
    }

    fn version(&self) -> u32 {
        match &self.cx.field.element {
            Element::Struct(d) => d.version_id,
            Element::VersionedStruct(_, version) => *version,
            Element::Tmp(_) | Element::List(..) | Element::Tree { .. } => self.cx.field.version_id,
            Element::Value(_) | Element::Variant(_) => self.version,
        }
    }

    fn located(&self, e: Error) -> Error {
        let e = self.loader.here(e);
        locate(self.cx.field, self.done.saturating_sub(1), e)
    }

    fn refuse(&self, hook: &'static str, reason: Reason) -> Error {
        self.located(Error::refused(hook, reason))
    }

    fn refuse_field(&self, hook: &'static str, reason: Reason) -> Error {
        self.loader.here(Error::refused(hook, reason))
    }
}
