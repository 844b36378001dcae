//! From descriptions and decoded sections to types, and back.

use std::sync::Arc;

use vmstate_desc::{
    Codec, Description, DescriptionRef, DynState, Error, ErrorKind, MAX_DEPTH, SaveState, TreeKey,
    Value, VariantCase, Variants,
};

use crate::model::{Case, Element, Field, Key, Origin, Schema, Section, Subsection, Type, TypeId};

/// Most fields and subsections of a description that is made of a type, all that it embeds included.
const MAX_FIELDS: usize = 1 << 18;

impl Schema {
    /// The schema of a machine's descriptions: one section for each, instance 0.
    ///
    /// # Errors
    /// Descriptions that are nested deeper than [`MAX_DEPTH`].
    pub fn of<'d>(
        machine: Option<&str>,
        descriptions: impl IntoIterator<Item = &'d Description>,
    ) -> Result<Self, Error> {
        let mut schema = Self::new(Origin::Descriptions, machine.map(str::to_owned));
        for description in descriptions {
            schema.add_section(&description.name, 0, description)?;
        }
        Ok(schema)
    }

    /// Adds a section with this description.
    ///
    /// # Errors
    /// As [`Schema::of`].
    pub fn add_section(
        &mut self,
        idstr: &str,
        instance_id: u32,
        description: &Description,
    ) -> Result<TypeId, Error> {
        let ty = self.add_description(description)?;
        self.add_typed(idstr, instance_id, ty);
        Ok(ty)
    }

    /// Adds a section with a type of this schema, as [`Schema::add_description`] gives it.
    pub fn add_typed(&mut self, idstr: &str, instance_id: u32, ty: TypeId) {
        self.push_section(idstr, instance_id, Some(ty));
    }

    /// Adds a section that was decoded: its description, and the shapes of elements that differ from it.
    ///
    /// # Errors
    /// As [`Schema::of`].
    pub fn add_state(
        &mut self,
        idstr: &str,
        instance_id: u32,
        version: u32,
        state: &DynState,
    ) -> Result<TypeId, Error> {
        let mut ty = self.state_type(state, 0)?;
        ty.version_id = version;
        let ty = self.enter(ty)?;
        self.push_section(idstr, instance_id, Some(ty));
        Ok(ty)
    }

    /// Adds a section that nothing describes.
    pub fn add_opaque(&mut self, idstr: &str, instance_id: u32) {
        self.push_section(idstr, instance_id, None);
    }

    fn push_section(&mut self, idstr: &str, instance_id: u32, ty: Option<TypeId>) {
        self.sections.push(Section {
            idstr: idstr.to_owned(),
            instance_id,
            class: None,
            ty,
            optional: false,
        });
    }

    /// Adds a description with all that it embeds.
    ///
    /// # Errors
    /// As [`Schema::of`].
    pub fn add_description(&mut self, description: &Description) -> Result<TypeId, Error> {
        let ty = self.type_of(description, None, 0)?;
        self.enter(ty)
    }

    fn state_type(&mut self, state: &DynState, depth: u32) -> Result<Type, Error> {
        self.type_of(&SaveState::description(state), Some(state), depth)
    }

    fn enter(&mut self, ty: Type) -> Result<TypeId, Error> {
        let name = ty.name.clone();
        self.add_type(ty)
            .ok_or_else(|| Error::format(format!("too many types, of which {name} is one")))
    }

    /// A type whose parts are entered; what `state` has in place of a declared part goes first.
    fn type_of(
        &mut self,
        d: &Description,
        state: Option<&DynState>,
        depth: u32,
    ) -> Result<Type, Error> {
        if depth >= MAX_DEPTH {
            return Err(ErrorKind::TooDeep { limit: MAX_DEPTH }.into());
        }
        let mut ty = Type::new(&*d.name, d.version_id, d.minimum_version_id);
        ty.priority = d.priority;
        ty.unmigratable = d.unmigratable;
        ty.early_setup = d.early_setup;
        ty.readable_from = d.readable_from;
        for (index, field) in d.fields().iter().enumerate() {
            let value = state.and_then(|state| state.value(index));
            ty.fields.push(self.field_of(field, value, depth + 1)?);
        }
        for sub in d.subsections() {
            let seen = state.and_then(|state| state.subsections().find(|s| is_same(s, sub)));
            let part = self.type_of(sub, seen, depth + 1);
            let part = part.map_err(|e| e.in_description(&sub.name))?;
            let ty_of_part = self.enter(part)?;
            ty.subsections.push(Subsection {
                ty: ty_of_part,
                ignorable: false,
            });
        }
        Ok(ty)
    }

    fn field_of(
        &mut self,
        field: &vmstate_desc::Field,
        value: Option<&Value>,
        depth: u32,
    ) -> Result<Field, Error> {
        let mut shapes = Vec::new();
        if let Some(value) = value {
            self.shapes(value, depth, &mut shapes)?;
        }
        let mut seen = shapes.into_iter();
        let mut child = |schema: &mut Self, d: &DescriptionRef| match seen.next() {
            Some(shape) => Ok(shape),
            None => {
                let ty = schema.type_of(d, None, depth)?;
                schema.enter(ty)
            }
        };
        let element = match &field.element {
            vmstate_desc::Element::Value(codec) => Element::Value(codec.clone()),
            vmstate_desc::Element::Struct(d) => Element::Struct(child(self, d)?),
            vmstate_desc::Element::VersionedStruct(d, version) => {
                Element::VersionedStruct(child(self, d)?, *version)
            }
            vmstate_desc::Element::Tmp(d) => Element::Tmp(child(self, d)?),
            vmstate_desc::Element::List(kind, d) => Element::List(*kind, child(self, d)?),
            vmstate_desc::Element::Tree { key, value } => {
                let key = match key {
                    TreeKey::Struct(d) => {
                        let ty = self.type_of(d, None, depth)?;
                        Key::Struct(self.enter(ty)?)
                    }
                    _ => Key::Direct,
                };
                Element::Tree {
                    key,
                    value: child(self, value)?,
                }
            }
            vmstate_desc::Element::Variant(variants) => {
                return self.variant(field, variants, depth);
            }
            _ => return Err(Error::format("an element of an unknown kind")),
        };
        Ok(Field {
            variants: seen.collect(),
            ..facts(field, element)
        })
    }

    /// A field with all its cases, whichever a state has.
    fn variant(
        &mut self,
        field: &vmstate_desc::Field,
        variants: &Variants,
        depth: u32,
    ) -> Result<Field, Error> {
        let mut cases = Vec::with_capacity(variants.cases().len());
        for case in variants.cases() {
            let ty = self.type_of(&case.description, None, depth)?;
            cases.push(Case {
                value: case.value,
                ty: self.enter(ty)?,
            });
        }
        let discriminant = variants.field.to_string();
        let element = Element::Variant {
            discriminant,
            cases,
        };
        Ok(facts(field, element))
    }

    /// The different shapes of the states in a value, in order.
    fn shapes(&mut self, value: &Value, depth: u32, shapes: &mut Vec<TypeId>) -> Result<(), Error> {
        match value {
            Value::Struct(state) => {
                let ty = self.state_type(state, depth)?;
                let id = self.enter(ty)?;
                if !shapes.contains(&id) {
                    shapes.push(id);
                }
            }
            Value::List(values) => {
                for value in values {
                    self.shapes(value, depth, shapes)?;
                }
            }
            Value::Tree(nodes) => {
                for (_, value) in nodes {
                    self.shapes(value, depth, shapes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The description of a type, by which a [`DynState`] can be made. Of a dump's types nothing can be made.
    ///
    /// What descriptions do not say, as that a subsection is ignorable, is lost; of several shapes the first is taken.
    ///
    /// # Errors
    /// A type that is not there, types of a dump, and such that embed each other deeper than [`MAX_DEPTH`].
    pub fn description(&self, id: TypeId) -> Result<Arc<Description>, Error> {
        // Types that embed each other twice can stand for more fields than there are atoms.
        let mut left = MAX_FIELDS;
        self.described(id, 0, &mut left).map(Arc::new)
    }

    fn described(&self, id: TypeId, depth: u32, left: &mut usize) -> Result<Description, Error> {
        if depth >= MAX_DEPTH {
            return Err(ErrorKind::TooDeep { limit: MAX_DEPTH }.into());
        }
        let ty = self
            .get(id)
            .ok_or_else(|| Error::format(format!("there is no type {}", id.0)))?;
        let parts = ty.fields.len() + ty.subsections.len() + 1;
        *left = left.checked_sub(parts).ok_or_else(|| {
            Error::format(format!("the type has more than {MAX_FIELDS} fields in all"))
        })?;
        let mut d = Description::new("", ty.version_id, ty.minimum_version_id);
        d.name = ty.name.clone().into();
        d.priority = ty.priority;
        d.unmigratable = ty.unmigratable;
        d.early_setup = ty.early_setup;
        let mut fields = Vec::with_capacity(ty.fields.len());
        for field in &ty.fields {
            let made = self.described_field(field, depth + 1, left);
            fields.push(made.map_err(|e| e.in_field(&field.name))?);
        }
        let mut subsections = Vec::with_capacity(ty.subsections.len());
        for sub in &ty.subsections {
            subsections.push(self.described(sub.ty, depth + 1, left)?.into());
        }
        d.fields = fields.into();
        d.subsections = subsections.into();
        Ok(d)
    }

    fn described_field(
        &self,
        field: &Field,
        depth: u32,
        left: &mut usize,
    ) -> Result<vmstate_desc::Field, Error> {
        let mut child = |id| self.described(id, depth, left).map(DescriptionRef::from);
        let element = match &field.element {
            Element::Value(codec) => vmstate_desc::Element::Value(codec.clone()),
            Element::Struct(id) => vmstate_desc::Element::Struct(child(*id)?),
            Element::VersionedStruct(id, version) => {
                vmstate_desc::Element::VersionedStruct(child(*id)?, *version)
            }
            Element::Tmp(id) => vmstate_desc::Element::Tmp(child(*id)?),
            Element::List(kind, id) => vmstate_desc::Element::List(*kind, child(*id)?),
            Element::Tree { key, value } => vmstate_desc::Element::Tree {
                key: match key {
                    Key::Direct => TreeKey::Direct,
                    Key::Struct(id) => TreeKey::Struct(child(*id)?),
                },
                value: child(*value)?,
            },
            Element::Variant {
                discriminant,
                cases,
            } => {
                let mut made = Vec::with_capacity(cases.len());
                for case in cases {
                    made.push(VariantCase {
                        value: case.value,
                        description: child(case.ty)?,
                    });
                }
                vmstate_desc::Element::Variant(Variants {
                    field: discriminant.clone().into(),
                    cases: made.into(),
                })
            }
            Element::Memory { .. } => {
                return Err(Error::format(
                    "a dump says how large the field is in memory, not what it is",
                ));
            }
        };
        let mut made = vmstate_desc::Field::new("", element).repeat(field.repeat.clone());
        made.name = field.name.clone().into();
        made.version_id = field.version_id;
        made.until = field.until;
        made.conditional = field.conditional;
        made.must_exist = field.must_exist;
        made.pointers = field.pointers;
        made.object_size = field.object_size;
        made.ignorable = field.ignorable;
        made.default = field.default;
        made.resize_max = field.resize_max;
        made.aliases = field.aliases.iter().cloned().map(Into::into).collect();
        Ok(made)
    }
}

/// What a description says about a field beside its element.
fn facts(field: &vmstate_desc::Field, element: Element) -> Field {
    Field {
        version_id: field.version_id,
        until: field.until,
        conditional: field.conditional,
        must_exist: field.must_exist,
        repeat: field.repeat.clone(),
        pointers: field.pointers,
        object_size: field.object_size,
        aliases: field.aliases.iter().map(ToString::to_string).collect(),
        ignorable: field.ignorable,
        default: field.default,
        resize_max: field.resize_max,
        ..Field::new(&*field.name, element)
    }
}

/// Whether this state is that of this subsection.
fn is_same(state: &DynState, sub: &DescriptionRef) -> bool {
    SaveState::description(state).name == sub.name
}

/// Bytes that one element of this codec takes in a QEMU stream, where that is fixed.
pub(crate) fn wire_size(codec: &Codec) -> Option<u64> {
    use vmstate_desc::Size;
    if let Some(ty) = codec.scalar_type() {
        return Some(ty.size() as u64);
    }
    match codec {
        Codec::Buffer(Size::Fixed(n)) | Codec::Unused(n) => Some(u64::from(*n)),
        Codec::Bitmap(Size::Fixed(bits)) => Some(u64::from(*bits).div_ceil(64) * 8),
        Codec::Custom { size, .. } => size.map(u64::from),
        _ => None,
    }
}
