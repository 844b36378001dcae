//! Descriptions of any shape, made from bytes.

use std::borrow::Cow;

use arbitrary::{Result, Unstructured};
use vmstate_desc::{
    Codec, Count, CountSource, Description, DescriptionRef, Element, Field, ListKind, Pointers,
    Repeat, ScalarType, Size, TreeKey, VariantCase, Variants,
};

/// Most fields of a description.
const FIELDS: usize = 6;
/// How deep descriptions are nested.
const DEPTH: u32 = 3;
/// Bound of counts.
const MOST: u32 = 4096;

/// A description that these bytes choose. Not all of them are valid.
///
/// # Errors
/// None, as far as [`Unstructured`] has them: bytes that are missing count as zeros.
pub fn description(u: &mut Unstructured<'_>) -> Result<Description> {
    describe(u, "d".to_owned(), DEPTH)
}

/// Whether a description has a variant somewhere among its fields.
#[must_use]
pub fn has_variant(d: &Description) -> bool {
    d.fields().iter().any(|field| match &field.element {
        Element::Variant(_) => true,
        element => element.child().is_some_and(|child| has_variant(child)),
    })
}

fn describe(u: &mut Unstructured<'_>, name: String, depth: u32) -> Result<Description> {
    let mut description = Description::new("", u.int_in_range(1..=3)?, u.int_in_range(0..=1)?);
    let mut fields = Vec::new();
    for index in 0..u.int_in_range(0..=FIELDS)? {
        let field = field(u, index, &fields, depth)?;
        fields.push(field);
    }
    let mut subsections: Vec<DescriptionRef> = Vec::new();
    if depth > 0 {
        for index in 0..u.int_in_range(0..=2)? {
            subsections.push(describe(u, format!("{name}/{index}"), depth - 1)?.into());
        }
    }
    description.name = Cow::Owned(name);
    description.fields = Cow::Owned(fields);
    description.subsections = Cow::Owned(subsections);
    Ok(description)
}

fn field(u: &mut Unstructured<'_>, index: usize, earlier: &[Field], depth: u32) -> Result<Field> {
    let mut field = Field::new("", element(u, earlier, depth)?);
    // Now and then a namesake.
    let number = if u.ratio(1, 16)? { 0 } else { index };
    field.name = Cow::Owned(format!("f{number}"));
    // Further down, a stream may say an older version than the one that is saved, with fewer fields than saving needs.
    if depth == DEPTH {
        if u.ratio(1, 8)? {
            field.version_id = u.int_in_range(0..=3)?;
        }
        if u.ratio(1, 16)? {
            field.until = Some(u.int_in_range(1..=4)?);
        }
    }
    field.conditional = u.ratio(1, 8)?;
    field.must_exist = u.ratio(1, 32)?;
    if let Element::Variant(_) = field.element {
        return Ok(field);
    }
    field.repeat = match u.int_in_range(0..=4)? {
        0 => Repeat::Array(u.int_in_range(0..=9)?),
        1 => match count(u, earlier)? {
            Some(count) => Repeat::Counted(count),
            None => Repeat::Single,
        },
        _ => Repeat::Single,
    };
    if field.repeat != Repeat::Single {
        field.pointers = *u.choose(&[Pointers::No, Pointers::MarkAbsent, Pointers::MarkEvery])?;
        field.object_size = (field.pointers == Pointers::MarkEvery).then_some(64);
    }
    Ok(field)
}

const LISTS: &[ListKind] = &[
    ListKind::QTailq,
    ListKind::QList,
    ListKind::Marked {
        more: 42,
        stop: 0,
        lenient: false,
    },
    ListKind::Prefixed(2),
];

fn element(u: &mut Unstructured<'_>, earlier: &[Field], depth: u32) -> Result<Element> {
    let kind = u.int_in_range(0..=12)?;
    if depth > 0
        && kind > 8
        && let Some(variant) = variant(u, earlier, depth)?
    {
        return Ok(variant);
    }
    if depth == 0 || kind > 4 {
        return Ok(Element::Value(codec(u, earlier)?));
    }
    let child: DescriptionRef = describe(u, "c".to_owned(), depth - 1)?.into();
    Ok(match kind {
        0 => Element::Struct(child),
        1 => Element::VersionedStruct(child, u.int_in_range(0..=3)?),
        2 => Element::List(*u.choose(LISTS)?, child),
        3 => Element::Tree {
            key: TreeKey::Direct,
            value: child,
        },
        _ => Element::Tree {
            key: TreeKey::Struct(describe(u, "k".to_owned(), depth - 1)?.into()),
            value: child,
        },
    })
}

/// A variant by one of the earlier fields, if one is an integer.
fn variant(u: &mut Unstructured<'_>, earlier: &[Field], depth: u32) -> Result<Option<Element>> {
    let discriminants: Vec<&Field> = earlier
        .iter()
        .filter(|field| {
            use Codec::{Int8, Int16, Int32, Int64, LittleEndian, Uint8, Uint16, Uint32, Uint64};
            let chooses = matches!(
                field.element,
                Element::Value(
                    Uint8
                        | Uint16
                        | Uint32
                        | Uint64
                        | Int8
                        | Int16
                        | Int32
                        | Int64
                        | LittleEndian(_)
                )
            );
            chooses && field.repeat == Repeat::Single && !field.conditional && !field.must_exist
        })
        .collect();
    if discriminants.is_empty() {
        return Ok(None);
    }
    let field = u.choose(&discriminants)?.name.clone();
    let mut cases = Vec::new();
    let mut value = i64::from(u.int_in_range(-1..=1_i8)?);
    for _ in 0..u.int_in_range(1..=4)? {
        cases.push(VariantCase {
            value,
            description: describe(u, format!("case{value}"), depth - 1)?.into(),
        });
        value += if u.ratio(1, 4)? { 3 } else { 1 };
    }
    Ok(Some(Element::Variant(Variants {
        field,
        cases: cases.into(),
    })))
}

fn codec(u: &mut Unstructured<'_>, earlier: &[Field]) -> Result<Codec> {
    const SCALARS: [Codec; 18] = [
        Codec::Bool,
        Codec::Int8,
        Codec::Int16,
        Codec::Int32,
        Codec::Int64,
        Codec::Uint8,
        Codec::Uint16,
        Codec::Uint32,
        Codec::Uint64,
        Codec::Uint8Equal,
        Codec::Uint16Equal,
        Codec::Int32Equal,
        Codec::Uint32Equal,
        Codec::Uint64Equal,
        Codec::Int32Le,
        Codec::CpuDouble,
        Codec::Timer,
        Codec::Capability,
    ];
    const TYPES: [ScalarType; 10] = [
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
    Ok(match u.int_in_range(0..=15)? {
        0 => Codec::Buffer(size(u, earlier)?),
        1 => Codec::Bitmap(size(u, earlier)?),
        2 => Codec::Unused(u.int_in_range(0..=9)?),
        3 => Codec::ByteArray { max: MOST },
        4 => Codec::custom("own", Some(u.int_in_range(0..=9)?)),
        5 => Codec::LittleEndian(*u.choose(&TYPES)?),
        _ => u.choose(&SCALARS)?.clone(),
    })
}

fn size(u: &mut Unstructured<'_>, earlier: &[Field]) -> Result<Size> {
    Ok(match count(u, earlier)? {
        Some(count) if u.arbitrary()? => Size::Counted(count),
        _ => Size::Fixed(u.int_in_range(0..=99)?),
    })
}

/// A count that is one of the earlier fields, if one can be.
fn count(u: &mut Unstructured<'_>, earlier: &[Field]) -> Result<Option<Count>> {
    let counters: Vec<&Field> = earlier
        .iter()
        .filter(|field| {
            use Codec::{Int32, Uint8, Uint16, Uint32};
            let counts = matches!(
                field.element,
                Element::Value(Uint8 | Uint16 | Uint32 | Int32)
            );
            counts && field.repeat == Repeat::Single
        })
        .collect();
    if counters.is_empty() {
        return Ok(None);
    }
    let counter = u.choose(&counters)?;
    Ok(Some(Count {
        source: CountSource::Field(counter.name.clone()),
        multiply: u.int_in_range(1..=3)?,
        max: MOST,
    }))
}
