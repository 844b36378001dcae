//! A device described at run time: a tree of values behind the same accessor traits as a compiled device.

use std::fmt;
use std::sync::Arc;

use crate::codec::{Codec, Scalar, ScalarType};
use crate::description::{Description, DescriptionRef};
use crate::error::{Error, ErrorKind, Reason};
use crate::field::{CountSource, Element, Field, Pointers, Repeat, TreeKey};
use crate::scalars::Scalars;
use crate::state::{LoadField, LoadState, SaveField, SaveState, Slot};
use crate::variants::Variants;

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// None: never loaded, or not present.
    #[default]
    Unset,
    /// An empty slot of an array of pointers.
    Absent,
    /// One scalar.
    Scalar(Scalar),
    /// A bool that came as another byte than 0 and 1. It counts as true, and is saved as it came.
    OddBool(u8),
    /// Elements of a scalar array, bytes of a buffer (`u8`), words of a bitmap (`u64`).
    Scalars(Scalars),
    /// Bytes of a custom codec, a capability's name, a byte array.
    Bytes(Vec<u8>),
    /// Embedded state.
    Struct(Box<DynState>),
    /// Elements of an array of structs or pointers, or of a list.
    List(Vec<Value>),
    /// Nodes of a tree: key and value.
    Tree(Vec<(Value, Value)>),
}

impl From<Scalar> for Value {
    fn from(value: Scalar) -> Self {
        Self::Scalar(value)
    }
}

impl From<DynState> for Value {
    fn from(value: DynState) -> Self {
        Self::Struct(Box::new(value))
    }
}

/// What a device described at run time cannot say in data: predicates, temporaries, checks.
pub trait DynHooks {
    /// Whether a conditional field or a validator's condition holds.
    fn exists(&self, state: &DynState, field: usize, version: u32) -> bool {
        let _ = (state, field, version);
        true
    }

    /// Makes the temporary of a `tmp` field from its enclosing state.
    ///
    /// # Errors
    /// The reason why that is impossible.
    fn make_tmp(&self, state: &DynState, field: usize) -> Result<Option<DynState>, Reason> {
        let _ = (state, field);
        Ok(None)
    }

    /// Writes a loaded temporary back into its enclosing state.
    ///
    /// # Errors
    /// The reason to refuse.
    fn apply_tmp(&self, state: &mut DynState, field: usize, tmp: &DynState) -> Result<(), Reason> {
        let _ = (state, field, tmp);
        Ok(())
    }

    /// Runs after loading.
    ///
    /// # Errors
    /// The reason to refuse.
    fn post_load(&self, state: &mut DynState, version: u32) -> Result<(), Reason> {
        let _ = (state, version);
        Ok(())
    }
}

/// State with a description that was made at run time, and a tree of values.
///
/// What is in it before loading is a template: embedded states that are there are loaded in place, with their own
/// descriptions, so that the elements of one array may differ in shape.
#[derive(Clone)]
pub struct DynState {
    description: DescriptionRef,
    values: Vec<Value>,
    subsections: Vec<Option<DynState>>,
    hooks: Option<Arc<dyn DynHooks + Send + Sync>>,
    loading: bool,
    /// Which subsections the stream had.
    came: Vec<bool>,
    /// Counts that a device would compute, by number of the field.
    counts: Vec<(usize, i64)>,
}

impl fmt::Debug for DynState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (field, value) in self.fields() {
            map.entry(&field.name, value);
        }
        for sub in self.subsections() {
            map.entry(&sub.description.name, sub);
        }
        map.finish()
    }
}

impl PartialEq for DynState {
    fn eq(&self, other: &Self) -> bool {
        self.description == other.description
            && self.values == other.values
            && self.subsections == other.subsections
    }
}

impl DynState {
    /// State of this shape without values.
    #[must_use]
    pub fn new(description: impl Into<DescriptionRef>) -> Self {
        let description = description.into();
        Self {
            values: vec![Value::Unset; description.fields().len()],
            subsections: vec![None; description.subsections().len()],
            description,
            hooks: None,
            loading: false,
            came: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// The same state with hooks.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Arc<dyn DynHooks + Send + Sync>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// The fields with their values, in wire order.
    pub fn fields(&self) -> impl Iterator<Item = (&Field, &Value)> {
        self.description.fields().iter().zip(&self.values)
    }

    /// The subsections that are there, in wire order.
    pub fn subsections(&self) -> impl Iterator<Item = &Self> {
        self.subsections.iter().flatten()
    }

    /// The value of the field with this name; the first of several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(self.description.field_index(name)?)
    }

    /// The value of field number `index`.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }

    /// Sets the value of field number `index`. `false` if there is no such field.
    pub fn set_value(&mut self, index: usize, value: impl Into<Value>) -> bool {
        match self.values.get_mut(index) {
            Some(slot) => {
                *slot = value.into();
                true
            }
            None => false,
        }
    }

    /// Sets the value of the field with this name. `false` if there is no such field.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> bool {
        match self.description.field_index(name) {
            Some(index) => self.set_value(index, value),
            None => false,
        }
    }

    /// Sets the run-time count of field number `index`, before multiplication, where no field of the description has it.
    pub fn set_count(&mut self, index: usize, count: i64) {
        let found = self
            .counts
            .binary_search_by_key(&index, |(field, _)| *field);
        match found.map(|at| self.counts.get_mut(at)) {
            Ok(Some(set)) => set.1 = count,
            Ok(None) => {}
            Err(at) => self.counts.insert(at, (index, count)),
        }
    }

    /// Sets subsection number `index`. `false` if there is no such subsection.
    pub fn set_subsection(&mut self, index: usize, state: Option<Self>) -> bool {
        match self.subsections.get_mut(index) {
            Some(slot) => {
                *slot = state;
                true
            }
            None => false,
        }
    }

    fn field(&self, index: usize) -> Result<&Field, Error> {
        self.description.fields().get(index).ok_or_else(|| {
            Error::new(ErrorKind::Accessor {
                expected: "a field".into(),
                found: format!("number {index}").into(),
            })
        })
    }
}

fn unset() -> Error {
    ErrorKind::Accessor {
        expected: "a value".into(),
        found: "none".into(),
    }
    .into()
}

fn save_value(value: &Value, field: &Field, sink: &mut dyn SaveField) -> Result<(), Error> {
    match value {
        Value::Unset => Err(unset()),
        Value::Absent => sink.slot(false),
        Value::Scalar(value) => sink.scalar(*value),
        Value::OddBool(byte) => sink.scalar(Scalar::U8(*byte)),
        Value::Scalars(values) => sink.scalars(values.as_slice()),
        Value::Bytes(bytes) => sink.raw(bytes),
        Value::Struct(state) => sink.child(&**state),
        Value::List(values) => {
            if !values.is_empty() {
                sink.list(values.len())?;
            }
            let pointers = field.pointers != Pointers::No;
            for value in values {
                if pointers && *value != Value::Absent {
                    sink.slot(true)?;
                }
                save_value(value, field, sink)?;
            }
            Ok(())
        }
        Value::Tree(nodes) => {
            sink.list(nodes.len())?;
            for (key, value) in nodes {
                match key {
                    Value::Scalar(Scalar::U64(key)) => sink.direct_key(*key)?,
                    Value::Struct(key) => sink.key(&**key)?,
                    _ => return Err(unset()),
                }
                match value {
                    Value::Struct(value) => sink.child(&**value)?,
                    _ => return Err(unset()),
                }
            }
            Ok(())
        }
    }
}

impl SaveState for DynState {
    fn description(&self) -> DescriptionRef {
        self.description.clone()
    }

    fn save_field(&self, index: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
        let field = self.field(index)?;
        if let (Element::Tmp(_), Some(hooks)) = (&field.element, &self.hooks)
            && let Some(tmp) = hooks
                .make_tmp(self, index)
                .map_err(|r| Error::refused("tmp", r))?
        {
            return sink.child(&tmp);
        }
        save_value(self.values.get(index).unwrap_or(&Value::Unset), field, sink)
    }

    fn exists(&self, field: usize, version: u32) -> bool {
        match &self.hooks {
            Some(hooks) => hooks.exists(self, field, version),
            // A validator and a hole have no value. Without hooks nothing can be tested: they are there.
            None => {
                let valueless = self.description.fields().get(field).is_some_and(|f| {
                    f.must_exist || matches!(f.element, Element::Value(Codec::Unused(_)))
                });
                self.loading || valueless || self.values.get(field) != Some(&Value::Unset)
            }
        }
    }

    fn count(&self, index: usize) -> Option<i64> {
        let field = self.description.fields().get(index)?;
        if let Element::Variant(variants) = &field.element {
            return match self.get(&variants.field)? {
                Value::Scalar(value) => Some(i64::try_from(value.as_i128()?).unwrap_or(i64::MAX)),
                _ => None,
            };
        }
        match &field.count()?.source {
            CountSource::Field(name) => match self.get(name)? {
                Value::Scalar(value) => i64::try_from(value.as_i128()?).ok(),
                _ => None,
            },
            CountSource::Device(name) => {
                let found = self
                    .counts
                    .binary_search_by_key(&index, |(field, _)| *field);
                let set = found.ok().and_then(|at| self.counts.get(at));
                match (set, self.get(name)) {
                    (Some((_, count)), _) => Some(*count),
                    (None, Some(Value::Scalar(value))) => i64::try_from(value.as_i128()?).ok(),
                    _ => None,
                }
            }
        }
    }

    fn save_subsection(
        &self,
        index: usize,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self.subsections.get(index) {
            Some(Some(sub)) => visit(sub),
            _ => Ok(()),
        }
    }
}

/// How many scalars are loaded before more memory is taken.
const CHUNK: usize = 4096;

fn load_scalars(ty: ScalarType, source: &mut dyn LoadField) -> Result<Scalars, Error> {
    let mut values = Scalars::new(ty);
    let count = source.count();
    while values.len() < count {
        let n = (count - values.len()).min(CHUNK);
        source.reserve(n * ty.size())?;
        source.scalars(values.grow(n))?;
    }
    Ok(values)
}

fn load_raw(len: usize, source: &mut dyn LoadField) -> Result<Value, Error> {
    let mut bytes = Vec::new();
    if len == 0 {
        // A format may count elements, also such as have no bytes.
        source.raw(&mut [])?;
    }
    while bytes.len() < len {
        let start = bytes.len();
        let n = (len - start).min(CHUNK);
        source.reserve(n)?;
        bytes.resize(start + n, 0);
        source.raw(bytes.get_mut(start..).unwrap_or_default())?;
    }
    Ok(Value::Bytes(bytes))
}

fn load_bool(source: &mut dyn LoadField) -> Result<Value, Error> {
    Ok(match source.scalar(Some(Scalar::U8(0)))? {
        Scalar::U8(byte @ 2..) => Value::OddBool(byte),
        Scalar::U8(byte) => Scalar::Bool(byte == 1).into(),
        other => other.into(),
    })
}

/// One element of a field with a codec.
fn load_single(codec: &Codec, source: &mut dyn LoadField) -> Result<Value, Error> {
    match codec {
        Codec::Bool => load_bool(source),
        Codec::Buffer(_) => load_scalars(ScalarType::U8, source).map(Value::Scalars),
        Codec::Bitmap(_) => load_scalars(ScalarType::U64, source).map(Value::Scalars),
        Codec::Capability | Codec::ByteArray { .. } => load_raw(source.count(), source),
        Codec::Custom {
            size: Some(size), ..
        } => load_raw(*size as usize, source),
        Codec::Custom { name, size: None } => Err(Error::format(format!(
            "codec {name} has no known size and cannot be decoded without its device"
        ))),
        _ => source.scalar(None).map(Value::Scalar),
    }
}

/// One of several elements of a field with a codec: each carries a length of its own, if any does.
fn load_one_of(codec: &Codec, source: &mut dyn LoadField) -> Result<Value, Error> {
    match codec {
        Codec::Capability | Codec::ByteArray { .. } => {
            let len = source.length()?;
            load_raw(len, source)
        }
        codec => load_single(codec, source),
    }
}

/// Elements of an array of scalars.
fn load_array(codec: &Codec, source: &mut dyn LoadField) -> Result<Value, Error> {
    let Some(ty) = codec.scalar_type() else {
        return load_each(source, |source| load_one_of(codec, source));
    };
    if codec.value_check() != crate::ValueCheck::None {
        let mut values = Scalars::new(ty);
        while source.more(ty.size())? {
            values.push(source.scalar(None)?);
        }
        return Ok(Value::Scalars(values));
    }
    if *codec != Codec::Bool {
        return load_scalars(ty, source).map(Value::Scalars);
    }
    let bytes = load_scalars(ScalarType::U8, source)?;
    if let Scalars::U8(bytes) = &bytes
        && bytes.iter().all(|b| *b < 2)
    {
        let bools = bytes.iter().map(|b| *b == 1).collect();
        return Ok(Value::Scalars(Scalars::Bool(bools)));
    }
    Ok(Value::Scalars(bytes))
}

/// Appends an element; pays for the room that it takes beforehand.
fn push<T>(values: &mut Vec<T>, value: T, source: &mut dyn LoadField) -> Result<(), Error> {
    if values.len() == values.capacity() {
        let more = values.capacity().max(4);
        source.reserve(more.saturating_mul(size_of::<T>()))?;
        values.reserve_exact(more);
    }
    values.push(value);
    Ok(())
}

fn load_each(
    source: &mut dyn LoadField,
    mut load: impl FnMut(&mut dyn LoadField) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut values = Vec::new();
    // Custom codecs do not count their elements by themselves.
    for _ in 0..source.count() {
        let value = load(source)?;
        push(&mut values, value, source)?;
    }
    Ok(Value::List(values))
}

/// The child that is there, or a new one.
fn child_of(template: Value, child: &DescriptionRef) -> Box<DynState> {
    match template {
        Value::Struct(state) => state,
        _ => Box::new(DynState::new(child.clone())),
    }
}

fn load_struct(
    template: Value,
    child: &DescriptionRef,
    source: &mut dyn LoadField,
) -> Result<Value, Error> {
    let mut state = child_of(template, child);
    source.reserve(state.footprint())?;
    source.child(&mut *state)?;
    Ok(Value::Struct(state))
}

/// The case that comes: in what is there, if that is of this case.
fn load_case(
    template: Value,
    variants: &Variants,
    source: &mut dyn LoadField,
) -> Result<Value, Error> {
    let case = source.case().and_then(|value| variants.case(value));
    let case = case.ok_or_else(unset)?;
    let template = match template {
        Value::Struct(state) if state.description == *case => Value::Struct(state),
        _ => Value::Unset,
    };
    load_struct(template, case, source)
}

/// Elements that may be structs, pointers or both.
fn load_elements(
    template: Value,
    field: &Field,
    source: &mut dyn LoadField,
) -> Result<Value, Error> {
    let mut templates = match template {
        Value::List(values) => values,
        _ => Vec::new(),
    }
    .into_iter();
    let mut values = Vec::new();
    let pointers = field.pointers != Pointers::No;
    let is_list = matches!(field.element, Element::List(..));
    let count = source.count();
    while if is_list {
        source.more(0)?
    } else {
        values.len() < count
    } {
        let template = templates.next().unwrap_or_default();
        if pointers && source.slot(template != Value::Absent)? == Slot::Absent {
            push(&mut values, Value::Absent, source)?;
            continue;
        }
        let value = match &field.element {
            Element::Value(codec) => load_one_of(codec, source)?,
            element => match element.child() {
                Some(child) => load_struct(template, child, source)?,
                None => return Err(unset()),
            },
        };
        push(&mut values, value, source)?;
    }
    Ok(Value::List(values))
}

fn load_tree(
    key: &TreeKey,
    value: &DescriptionRef,
    source: &mut dyn LoadField,
) -> Result<Value, Error> {
    let mut nodes = Vec::new();
    while source.more(0)? {
        let key = match key {
            TreeKey::Direct => Scalar::U64(source.direct_key()?).into(),
            TreeKey::Struct(description) => {
                let mut key = DynState::new(description.clone());
                source.reserve(key.footprint())?;
                source.key(&mut key)?;
                key.into()
            }
        };
        let value = load_struct(Value::Unset, value, source)?;
        push(&mut nodes, (key, value), source)?;
    }
    Ok(Value::Tree(nodes))
}

fn load_value(template: Value, field: &Field, source: &mut dyn LoadField) -> Result<Value, Error> {
    match (&field.element, &field.repeat) {
        (Element::Tree { key, value }, _) => load_tree(key, value, source),
        (Element::List(..), _) => load_elements(template, field, source),
        (Element::Variant(variants), _) => load_case(template, variants, source),
        (Element::Value(codec), Repeat::Single) => load_single(codec, source),
        (Element::Value(codec), _) if field.pointers == Pointers::No => load_array(codec, source),
        (
            Element::Struct(child) | Element::VersionedStruct(child, _) | Element::Tmp(child),
            Repeat::Single,
        ) => load_struct(template, child, source),
        _ => load_elements(template, field, source),
    }
}

/// A field of which fewer elements come than it has: the others are those of the template, or zero.
fn load_shorter(
    template: Value,
    field: &Field,
    source: &mut dyn LoadField,
) -> Result<Value, Error> {
    let own = source.own_count();
    let kept = template.clone();
    let mut value = load_value(template, field, source)?;
    match (&mut value, kept) {
        (Value::Scalars(values), kept) => {
            source.reserve(own.saturating_sub(values.len()) * values.scalar_type().size())?;
            let kept = match kept {
                Value::Scalars(kept) if kept.scalar_type() == values.scalar_type() => Some(kept),
                _ => None,
            };
            for index in values.len()..own {
                let old = kept.as_ref().and_then(|kept| kept.as_slice().get(index));
                values.push(old.unwrap_or_else(|| Scalar::from_bits(values.scalar_type(), 0)));
            }
        }
        (Value::List(values), Value::List(kept)) => {
            for value in kept.into_iter().take(own).skip(values.len()) {
                push(values, value, source)?;
            }
        }
        _ => {}
    }
    Ok(value)
}

impl Value {
    /// Bytes of memory that the value takes beside itself.
    fn held(&self) -> usize {
        match self {
            Self::Scalars(values) => values.len() * values.scalar_type().size(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Struct(state) => state.memory(),
            Self::List(values) => {
                values.capacity() * size_of::<Self>() + values.iter().map(Self::held).sum::<usize>()
            }
            Self::Tree(nodes) => {
                let held = |(key, value): &(Self, Self)| key.held() + value.held();
                nodes.capacity() * size_of::<(Self, Self)>() + nodes.iter().map(held).sum::<usize>()
            }
            Self::Unset | Self::Absent | Self::Scalar(_) | Self::OddBool(_) => 0,
        }
    }
}

impl DynState {
    /// Bytes of memory that the state takes, its values included; without its description, which it may share.
    #[must_use]
    pub fn memory(&self) -> usize {
        let values = self.values.iter().map(Value::held).sum::<usize>();
        let subsections = self.subsections.iter().flatten().map(Self::memory);
        self.footprint() + values + subsections.sum::<usize>()
    }

    /// Bytes of memory that an empty state of this shape takes.
    fn footprint(&self) -> usize {
        size_of::<Self>()
            + self.values.len() * size_of::<Value>()
            + self.subsections.len() * (size_of::<Option<Self>>() + size_of::<bool>())
    }
}

impl LoadState for DynState {
    fn load_field(&mut self, index: usize, source: &mut dyn LoadField) -> Result<(), Error> {
        let template = self
            .values
            .get_mut(index)
            .map(std::mem::take)
            .unwrap_or_default();
        let description = self.description.clone();
        let field = description.fields().get(index).ok_or_else(unset)?;
        let value = if source.count() < source.own_count() {
            load_shorter(template, field, source)?
        } else {
            load_value(template, field, source)?
        };
        if let (Element::Tmp(_), Some(hooks), Value::Struct(tmp)) =
            (&field.element, self.hooks.clone(), &value)
        {
            hooks
                .apply_tmp(self, index, tmp)
                .map_err(|reason| source.refuse("tmp", reason))?;
        }
        self.set_value(index, value);
        Ok(())
    }

    fn load_subsection(
        &mut self,
        index: usize,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (Some(slot), Some(description)) = (
            self.subsections.get_mut(index),
            self.description.subsections().get(index),
        ) else {
            return Ok(());
        };
        if let Some(came) = self.came.get_mut(index) {
            *came = true;
        }
        visit(slot.get_or_insert_with(|| Self::new(description.clone())))
    }

    fn pre_load(&mut self) -> Result<(), Reason> {
        self.loading = true;
        self.came = vec![false; self.subsections.len()];
        Ok(())
    }

    fn post_load(&mut self, version: u32) -> Result<(), Reason> {
        self.loading = false;
        for (sub, came) in self
            .subsections
            .iter_mut()
            .zip(std::mem::take(&mut self.came))
        {
            if !came {
                *sub = None;
            }
        }
        match self.hooks.clone() {
            Some(hooks) => hooks.post_load(self, version),
            None => Ok(()),
        }
    }
}

impl From<Description> for DynState {
    fn from(description: Description) -> Self {
        Self::new(description)
    }
}
