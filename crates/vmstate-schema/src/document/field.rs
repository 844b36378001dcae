//! One field's line in a document.

use serde::{Deserialize, Serialize};
use vmstate_desc::{
    Codec, Count, CountSource, ListKind, MAX_CASES, Pointers, Repeat, ScalarType, Size,
};

use crate::model::{Case, Element, Field, Key, TypeId};

/// One case of a variant.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseLine {
    value: i64,
    #[serde(rename = "type")]
    ty: u32,
}

/// The members of a field's object; what is left out is at its default.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Line {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<Length>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scalar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codec: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    ty: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_type: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discriminant: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases: Vec<CaseLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<u8>,
    #[serde(skip_serializing_if = "is_false")]
    lenient: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<Length>,
    #[serde(skip_serializing_if = "is_zero")]
    since: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    conditional: bool,
    #[serde(skip_serializing_if = "is_false")]
    validator: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointers: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_size: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variants: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    ignorable: bool,
    #[serde(rename = "default", skip_serializing_if = "is_false")]
    has_default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_max: Option<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A number of elements, bytes or bits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Length {
    Fixed(u64),
    Counted(Counted),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counted {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    device: Option<String>,
    #[serde(skip_serializing_if = "is_one", default = "one")]
    multiply: u32,
    max: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
const fn is_one(value: &u32) -> bool {
    *value == 1
}

const fn one() -> u32 {
    1
}

impl Counted {
    fn of(count: &Count) -> Self {
        let name = Some(count.source.name().to_owned());
        let (field, device) = match count.source {
            CountSource::Field(_) => (name, None),
            _ => (None, name),
        };
        Self {
            field,
            device,
            multiply: count.multiply,
            max: count.max,
        }
    }

    fn count(self) -> Result<Count, String> {
        let source = match (self.field, self.device) {
            (Some(name), None) => CountSource::Field(name.into()),
            (None, Some(name)) => CountSource::Device(name.into()),
            _ => return Err("a count has either \"field\" or \"device\"".to_owned()),
        };
        Ok(Count {
            source,
            multiply: self.multiply,
            max: self.max,
        })
    }
}

const SCALARS: [ScalarType; 10] = [
    ScalarType::Bool,
    ScalarType::U8,
    ScalarType::U16,
    ScalarType::U32,
    ScalarType::U64,
    ScalarType::I8,
    ScalarType::I16,
    ScalarType::I32,
    ScalarType::I64,
    ScalarType::F64,
];

impl From<&Size> for Length {
    fn from(size: &Size) -> Self {
        match size {
            Size::Counted(count) => Self::Counted(Counted::of(count)),
            Size::Fixed(n) => Self::Fixed((*n).into()),
            _ => Self::Fixed(0),
        }
    }
}

impl Length {
    fn size(self) -> Result<Size, String> {
        Ok(match self {
            Self::Fixed(n) => Size::Fixed(narrow(n)?),
            Self::Counted(counted) => Size::Counted(counted.count()?),
        })
    }
}

fn narrow(n: u64) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| format!("{n} is above 2^32 - 1"))
}

impl Line {
    pub(super) fn of(field: &Field) -> Self {
        let mut line = Self {
            name: field.name.clone(),
            since: field.version_id,
            until: field.until,
            conditional: field.conditional,
            validator: field.must_exist,
            pointers: match field.pointers {
                Pointers::MarkAbsent => Some("mark-absent".to_owned()),
                Pointers::MarkEvery => Some("mark-every".to_owned()),
                _ => None,
            },
            object_size: field.object_size,
            repeat: match &field.repeat {
                Repeat::Array(n) => Some(Length::Fixed((*n).into())),
                Repeat::Counted(count) => Some(Length::Counted(Counted::of(count))),
                _ => None,
            },
            variants: field.variants.iter().map(|ty| ty.0).collect(),
            aliases: field.aliases.clone(),
            ignorable: field.ignorable,
            has_default: field.default,
            resize_max: field.resize_max,
            ..Self::default()
        };
        line.put_element(&field.element);
        line
    }

    fn put_element(&mut self, element: &Element) {
        self.ty = element.child().map(|ty| ty.0);
        let kind = match element {
            Element::Value(codec) => {
                self.put_codec(codec);
                return;
            }
            Element::Struct(_) => "struct",
            Element::VersionedStruct(_, version) => {
                self.pinned_version = Some(*version);
                "vstruct"
            }
            Element::Tmp(_) => "tmp",
            Element::List(kind, _) => match *kind {
                ListKind::Marked {
                    more,
                    stop,
                    lenient,
                } => {
                    (self.more, self.stop, self.lenient) = (Some(more), Some(stop), lenient);
                    "marked-list"
                }
                ListKind::Prefixed(width) => {
                    self.width = Some(width);
                    "counted-list"
                }
                kind => kind.name(),
            },
            Element::Tree { key, .. } => {
                if let Key::Struct(key) = key {
                    self.key_type = Some(key.0);
                }
                "gtree"
            }
            Element::Variant {
                discriminant,
                cases,
            } => {
                self.discriminant = Some(discriminant.clone());
                let line = |case: &Case| CaseLine {
                    value: case.value,
                    ty: case.ty.0,
                };
                self.cases = cases.iter().map(line).collect();
                "variant"
            }
            Element::Memory { size, num, .. } => {
                self.size = Some(Length::Fixed(*size));
                self.num = *num;
                "memory"
            }
        };
        kind.clone_into(&mut self.kind);
    }

    fn put_codec(&mut self, codec: &Codec) {
        let kind = match codec {
            Codec::LittleEndian(ty) => {
                self.scalar = Some(ty.name().to_owned());
                "little-endian"
            }
            Codec::Buffer(size) => {
                self.size = Some(size.into());
                "buffer"
            }
            Codec::Bitmap(size) => {
                self.size = Some(size.into());
                "bitmap"
            }
            Codec::Unused(bytes) => {
                self.size = Some(Length::Fixed((*bytes).into()));
                "unused"
            }
            Codec::ByteArray { max } => {
                self.max = Some(*max);
                "byte-array"
            }
            Codec::Custom { name, size } => {
                self.codec = Some(name.to_string());
                self.size = size.map(|n| Length::Fixed(n.into()));
                "custom"
            }
            codec => codec.name(),
        };
        kind.clone_into(&mut self.kind);
    }

    pub(super) fn field(mut self) -> Result<Field, String> {
        if self.name.is_empty() {
            return Err("a field without a name".to_owned());
        }
        let element = self.element()?;
        let left_over = [
            ("size", self.size.is_some()),
            ("scalar", self.scalar.is_some()),
            ("codec", self.codec.is_some()),
            ("type", self.ty.is_some()),
            ("key_type", self.key_type.is_some()),
            ("discriminant", self.discriminant.is_some()),
            ("cases", !self.cases.is_empty()),
            ("pinned_version", self.pinned_version.is_some()),
            ("max", self.max.is_some()),
            ("num", self.num.is_some()),
            ("more", self.more.is_some()),
            ("stop", self.stop.is_some()),
            ("lenient", self.lenient),
            ("width", self.width.is_some()),
        ];
        if let Some((member, _)) = left_over.into_iter().find(|(_, is_left)| *is_left) {
            return Err(format!("kind {} has no \"{member}\"", self.kind));
        }
        Ok(Field {
            version_id: self.since,
            until: self.until,
            conditional: self.conditional,
            must_exist: self.validator,
            repeat: match self.repeat {
                None => Repeat::Single,
                Some(Length::Fixed(n)) => Repeat::Array(narrow(n)?),
                Some(Length::Counted(counted)) => Repeat::Counted(counted.count()?),
            },
            pointers: match self.pointers.as_deref() {
                None => Pointers::No,
                Some("mark-absent") => Pointers::MarkAbsent,
                Some("mark-every") => Pointers::MarkEvery,
                Some(other) => return Err(format!("unknown pointers {other:?}")),
            },
            object_size: self.object_size,
            variants: self.variants.into_iter().map(TypeId).collect(),
            aliases: self.aliases,
            ignorable: self.ignorable,
            default: self.has_default,
            resize_max: self.resize_max,
            ..Field::new(self.name, element)
        })
    }

    fn child(&mut self) -> Result<TypeId, String> {
        let kind = &self.kind;
        self.ty
            .take()
            .map(TypeId)
            .ok_or_else(|| format!("kind {kind} needs a \"type\""))
    }

    fn size(&mut self) -> Result<Length, String> {
        let kind = &self.kind;
        self.size
            .take()
            .ok_or_else(|| format!("kind {kind} needs a \"size\""))
    }

    fn fixed(&mut self) -> Result<u64, String> {
        match self.size()? {
            Length::Fixed(n) => Ok(n),
            Length::Counted(_) => Err(format!("the size of kind {} is fixed", self.kind)),
        }
    }

    fn variant(&mut self) -> Result<Element, String> {
        let discriminant = self.discriminant.take();
        let discriminant = discriminant.ok_or("kind variant needs a \"discriminant\"")?;
        let cases: Vec<Case> = std::mem::take(&mut self.cases)
            .into_iter()
            .map(|case| Case {
                value: case.value,
                ty: TypeId(case.ty),
            })
            .collect();
        if cases.is_empty() || cases.len() > MAX_CASES {
            return Err(format!("kind variant needs 1 to {MAX_CASES} \"cases\""));
        }
        if !cases.is_sorted_by(|a, b| a.value < b.value) {
            return Err("cases stand in ascending order, each once".to_owned());
        }
        Ok(Element::Variant {
            discriminant,
            cases,
        })
    }

    /// Takes what makes the element; what is left then has no place in it.
    fn element(&mut self) -> Result<Element, String> {
        Ok(match self.kind.as_str() {
            "struct" => Element::Struct(self.child()?),
            "vstruct" => {
                let version = self.pinned_version.take();
                let version = version.ok_or("kind vstruct needs a \"pinned_version\"")?;
                Element::VersionedStruct(self.child()?, version)
            }
            "tmp" => Element::Tmp(self.child()?),
            "qtailq" => Element::List(ListKind::QTailq, self.child()?),
            "qlist" => Element::List(ListKind::QList, self.child()?),
            "marked-list" => {
                let byte =
                    |byte: Option<u8>| byte.ok_or("kind marked-list needs \"more\" and \"stop\"");
                let kind = ListKind::Marked {
                    more: byte(self.more.take())?,
                    stop: byte(self.stop.take())?,
                    lenient: std::mem::take(&mut self.lenient),
                };
                Element::List(kind, self.child()?)
            }
            "counted-list" => {
                let width = self.width.take();
                let width = width.ok_or("kind counted-list needs a \"width\"")?;
                Element::List(ListKind::Prefixed(width), self.child()?)
            }
            "gtree" => Element::Tree {
                key: match self.key_type.take() {
                    Some(key) => Key::Struct(TypeId(key)),
                    None => Key::Direct,
                },
                value: self.child()?,
            },
            "variant" => self.variant()?,
            "memory" => Element::Memory {
                size: self.fixed()?,
                num: self.num.take(),
                child: self.ty.take().map(TypeId),
            },
            "little-endian" => {
                let name = self.scalar.take().unwrap_or_default();
                let ty = SCALARS.into_iter().find(|ty| ty.name() == name);
                let ty = ty.ok_or_else(|| format!("unknown scalar {name:?}"))?;
                Element::Value(Codec::LittleEndian(ty))
            }
            "buffer" => Element::Value(Codec::Buffer(self.size()?.size()?)),
            "bitmap" => Element::Value(Codec::Bitmap(self.size()?.size()?)),
            "unused" => Element::Value(Codec::Unused(narrow(self.fixed()?)?)),
            "capability" => Element::Value(Codec::Capability),
            "byte-array" => Element::Value(Codec::ByteArray {
                max: self.max.take().ok_or("kind byte-array needs a \"max\"")?,
            }),
            "custom" => {
                let name = self.codec.take().ok_or("kind custom needs a \"codec\"")?;
                let size = match self.size.take() {
                    None => None,
                    Some(Length::Fixed(n)) => Some(narrow(n)?),
                    Some(Length::Counted(_)) => {
                        return Err("the size of kind custom is fixed".to_owned());
                    }
                };
                Element::Value(Codec::Custom {
                    name: name.into(),
                    size,
                })
            }
            other => Element::Value(
                Codec::scalar_by_name(other).ok_or_else(|| format!("unknown kind {other:?}"))?,
            ),
        })
    }
}
