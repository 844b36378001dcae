//! Rules of one field.

use syn::{Error, Ident, Type, spanned::Spanned};

use super::literal;
use crate::model::{ContainerAttrs, CountBy, Field, Holes, Kind};
use crate::parse::Errors;
use crate::types::{Shape, element, innermost, is_text, pointee, primitive, refusal, shape};

const COUNTED: [&str; 4] = ["count", "count_with", "multiply", "max"];

/// What else may stand beside a kind.
fn beside(kind: Option<&Kind>) -> Vec<&'static str> {
    let presence = ["name", "since", "until", "exists", "ignorable", "aliases"].as_slice();
    let loading = ["validate", "default"].as_slice();
    let groups: &[&[&str]] = match kind {
        Some(Kind::Skip) => &[],
        Some(Kind::Subsection { .. }) => &[],
        Some(Kind::Unused(_)) => &[presence, &COUNTED],
        Some(Kind::Tmp(_)) => &[presence],
        Some(Kind::Custom(_) | Kind::List(_) | Kind::Variant(_)) => &[presence, loading],
        Some(Kind::ByteArray) => &[presence, loading, &["max"]],
        Some(Kind::Buffer) => &[
            presence,
            loading,
            &COUNTED,
            &["size", "range", "resize_max"],
        ],
        Some(Kind::Bitmap) => &[presence, loading, &COUNTED, &["bits"]],
        None
        | Some(Kind::Equal | Kind::LessOrEqual | Kind::LittleEndian | Kind::StructVersion(_)) => {
            &[presence, loading, &COUNTED, &["range", "resize_max"]]
        }
        Some(Kind::Pointers(_)) => &[presence, loading, &COUNTED, &["range"]],
    };
    groups.concat()
}

pub(super) fn check(field: &Field<'_>, container: &ContainerAttrs, errors: &mut Errors) {
    let before = errors.len();
    combinations(field, errors);
    presence(field, container, errors);
    counts(field, errors);
    if errors.len() == before {
        check_type(field, errors);
    }
}

fn refuse(errors: &mut Errors, key: &Ident, message: impl std::fmt::Display) {
    errors.push(Error::new(key.span(), message));
}

fn combinations(field: &Field<'_>, errors: &mut Errors) {
    let attrs = &field.attrs;
    let allowed = beside(field.kind());
    for modifier in attrs.modifiers() {
        if allowed.iter().any(|allowed| modifier == allowed) {
            continue;
        }
        match &attrs.kind {
            Some(kind) => refuse(
                errors,
                modifier,
                format!("`{modifier}` cannot be combined with `{}`", kind.key),
            ),
            None if modifier == "size" => refuse(errors, modifier, "`size` belongs to `buffer`"),
            None => refuse(errors, modifier, "`bits` belongs to `bitmap`"),
        }
    }
    if let (Some(resize_max), Some(range)) = (&attrs.resize_max, &attrs.range) {
        refuse(
            errors,
            &resize_max.key,
            format!(
                "`{}` cannot be combined with `{}`",
                resize_max.key, range.key
            ),
        );
    }
    if let Some(resize_max) = &attrs.resize_max
        && (primitive(field.ty).is_some() || matches!(shape(field.ty), Shape::Option(_)))
    {
        refuse(
            errors,
            &resize_max.key,
            "`resize_max` is for arrays, `Vec` and `Box<[_]>`",
        );
    }
    // Each of these says how long the field is.
    let lengths = [
        attrs.count.as_ref().map(|a| &a.key),
        attrs.size.as_ref().map(|a| &a.key),
        attrs.bits.as_ref().map(|a| &a.key),
        attrs.range.as_ref().map(|a| &a.key),
    ];
    let lengths: Vec<_> = lengths.into_iter().flatten().collect();
    if let [first, second, ..] = lengths.as_slice() {
        refuse(
            errors,
            second,
            format!("`{second}` cannot be combined with `{first}`"),
        );
    }
}

fn presence(field: &Field<'_>, container: &ContainerAttrs, errors: &mut Errors) {
    let attrs = &field.attrs;
    let since = attrs.since.as_ref().and_then(|since| literal(&since.value));
    if let (Some(exists), Some(until)) = (&attrs.exists, &attrs.until) {
        refuse(
            errors,
            &until.key,
            format!(
                "`{}` alone decides whether the field is present",
                exists.key
            ),
        );
    }
    if let Some(attr) = &attrs.since
        && let Some(since) = since
        && attrs.exists.is_none()
    {
        let version = match &container.description.version {
            None => Some(0),
            Some(version) => literal(&version.value),
        };
        // A field of a subsection goes by the subsection's version, which the compiler checks.
        if container.description.subsections.is_empty()
            && version.is_some_and(|version| since > version)
        {
            errors.push(Error::new_spanned(
                &attr.value,
                "`since` is above the type's `version`",
            ));
        }
    }
    if let Some(attr) = &attrs.until
        && let Some(until) = literal(&attr.value)
        && until <= since.unwrap_or(0)
    {
        errors.push(Error::new_spanned(
            &attr.value,
            "`until` is the first version without the field: it must be above `since`",
        ));
    }
}

fn counts(field: &Field<'_>, errors: &mut Errors) {
    let attrs = &field.attrs;
    match (&attrs.count, &attrs.max) {
        (Some(count), None) => refuse(
            errors,
            &count.key,
            format!(
                "`{}` needs `max`, the most that this end accepts: a stream must not decide about memory",
                count.key
            ),
        ),
        (None, Some(max)) if !matches!(field.kind(), Some(Kind::ByteArray)) => {
            refuse(errors, &max.key, "`max` needs `count` or `count_with`");
        }
        _ => {}
    }
    if let (Some(multiply), None) = (&attrs.multiply, &attrs.count) {
        refuse(
            errors,
            &multiply.key,
            "`multiply` needs `count` or `count_with`",
        );
    }
    for (number, what) in [(&attrs.max, "max"), (&attrs.multiply, "multiply")] {
        if let Some(number) = number
            && literal(&number.value) == Some(0)
        {
            errors.push(Error::new_spanned(
                &number.value,
                format!("`{what}` must be above 0"),
            ));
        }
    }
    if let (Some(Kind::ByteArray), None, Some(kind)) = (field.kind(), &attrs.max, &attrs.kind) {
        refuse(
            errors,
            &kind.key,
            "`byte_array` needs `max`, the most bytes that this end accepts",
        );
    }
}

/// Whether the tokens of the type fit what the attributes say.
pub(super) fn check_type(field: &Field<'_>, errors: &mut Errors) {
    let ty = field.ty;
    match &field.attrs.kind {
        None => value(field, errors),
        Some(kind) => match &kind.value {
            Kind::Skip | Kind::Custom(_) => {}
            Kind::Unused(_) => {
                if !matches!(shape(ty), Shape::Unit) {
                    errors.push(Error::new_spanned(
                        ty,
                        "`unused` is for fields of type `()`",
                    ));
                }
            }
            Kind::Tmp(_) => {}
            Kind::Subsection { needed } => {
                if let (Shape::Option(_), Some(needed)) = (shape(ty), needed) {
                    errors.push(Error::new_spanned(
                        needed,
                        "an `Option` is sent when it is `Some`; `needed` is for fields that are always there",
                    ));
                }
            }
            Kind::Buffer => words(field, &kind.key, "u8", errors),
            Kind::Bitmap => words(field, &kind.key, "u64", errors),
            Kind::ByteArray => {
                if !is_byte_array(ty) {
                    errors.push(Error::new_spanned(
                        ty,
                        "`byte_array` is for `Vec<u8>` and `String`",
                    ));
                }
            }
            Kind::List(_) => {
                if !matches!(shape(ty), Shape::Vec(_) | Shape::List(_)) {
                    errors.push(Error::new_spanned(
                        ty,
                        format!("`{}` is for `VecDeque`, `LinkedList` and `Vec` of types that derive `VmState`", kind.key),
                    ));
                }
            }
            Kind::Equal => scalars(
                field,
                &kind.key,
                &["u8", "u16", "u32", "i32", "u64"],
                errors,
            ),
            Kind::LessOrEqual => scalars(field, &kind.key, &["i32"], errors),
            Kind::LittleEndian => {
                let all = [
                    "bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f64",
                ];
                scalars(field, &kind.key, &all, errors);
            }
            Kind::StructVersion(_) => {
                if primitive(innermost(ty)).is_some() {
                    errors.push(Error::new(
                        kind.key.span(),
                        "`struct_version` is for types that derive `VmState`",
                    ));
                } else {
                    value(field, errors);
                }
            }
            Kind::Pointers(holes) => pointers(field, &kind.key, *holes, errors),
            Kind::Variant(_) => {
                let wrong = primitive(ty).is_some()
                    || !matches!(shape(ty), Shape::Box(_) | Shape::Word(_) | Shape::Other);
                if wrong {
                    errors.push(Error::new_spanned(
                        ty,
                        "`variant` is for an enum whose variants have a `case`, one of them at a time",
                    ));
                }
            }
        },
    }
    range(field, errors);
}

/// Whether a type can be bytes behind their number.
fn is_byte_array(ty: &Type) -> bool {
    match shape(ty) {
        Shape::Vec(elem) => primitive(elem).is_none_or(|p| p == "u8"),
        _ => is_text(ty),
    }
}

/// A field whose encoding follows from its type.
fn value(field: &Field<'_>, errors: &mut Errors) {
    let attrs = &field.attrs;
    match shape(field.ty) {
        Shape::Unit => errors.push(Error::new_spanned(
            field.ty,
            "a field of type `()` has no state: use `unused = …` or `tmp = …`",
        )),
        Shape::Vec(_) | Shape::BoxSlice(_) if attrs.count.is_none() => {
            errors.push(Error::new_spanned(
                field.ty,
                "the type does not say how many elements there are: add `count = …, max = …`, or `qtailq`, `qlist`, `marked`, `prefixed`, `byte_array`",
            ));
        }
        Shape::List(_) => errors.push(Error::new_spanned(
            field.ty,
            "which list is it? Add `qtailq`, `qlist`, `marked(more = …, stop = …)` or `prefixed = …`",
        )),
        Shape::Option(_) if attrs.exists.is_none() => errors.push(Error::new_spanned(
            field.ty,
            "nothing says whether it is present: add `exists = …` or `subsection`",
        )),
        _ => unsupported(innermost(field.ty), errors),
    }
    if let Some(elem) = element(field.ty)
        && let Shape::Option(_) = shape(elem)
    {
        errors.push(Error::new_spanned(
            elem,
            "elements that may be absent need `pointers` or `pointers(mark_absent)`",
        ));
    }
    if let Some(count) = &attrs.count
        && (primitive(field.ty).is_some() || matches!(shape(field.ty), Shape::Option(_)))
    {
        errors.push(Error::new(
            count.key.span(),
            format!("`{}` is for arrays, `Vec` and `Box<[_]>`", count.key),
        ));
    }
}

fn unsupported(ty: &Type, errors: &mut Errors) {
    let ty = pointee(ty);
    if let Some(refusal) = refusal(ty) {
        errors.push(Error::new_spanned(ty, refusal));
    }
}

/// A sequence of words of one type.
fn words(field: &Field<'_>, key: &Ident, word: &str, errors: &mut Errors) {
    let attrs = &field.attrs;
    let sequence = shape(field.ty);
    let wrong = match element(field.ty) {
        Some(_) => primitive(innermost(field.ty)).is_some_and(|p| p != word),
        None => primitive(field.ty).is_some() || matches!(sequence, Shape::Unit | Shape::Option(_)),
    };
    if wrong || matches!(sequence, Shape::List(_)) {
        errors.push(Error::new_spanned(
            field.ty,
            format!("`{key}` is for `[{word}; N]`, `Vec<{word}>` and `Box<[{word}]>`"),
        ));
        return;
    }
    let fixed = attrs.size.is_some() || attrs.bits.is_some();
    if let Shape::Vec(_) | Shape::BoxSlice(_) = sequence
        && attrs.count.is_none()
        && !fixed
    {
        let size = if word == "u8" { "size" } else { "bits" };
        errors.push(Error::new_spanned(
            field.ty,
            format!(
                "the type does not say how large it is: add `{size} = …`, or `count = …, max = …`"
            ),
        ));
    }
}

fn scalars(field: &Field<'_>, key: &Ident, known: &[&str], errors: &mut Errors) {
    if let Some(found) = primitive(innermost(field.ty))
        && !known.contains(&found.as_str())
    {
        errors.push(Error::new(
            key.span(),
            format!("`{key}` is for {}, and this is `{found}`", known.join(", ")),
        ));
        return;
    }
    value(field, errors);
}

fn pointers(field: &Field<'_>, key: &Ident, holes: Holes, errors: &mut Errors) {
    let attrs = &field.attrs;
    let elem = match shape(field.ty) {
        Shape::Array(elem, _) => elem,
        Shape::Vec(elem) | Shape::BoxSlice(elem) => {
            if attrs.count.is_none() {
                errors.push(Error::new_spanned(
                    field.ty,
                    "the type does not say how many elements there are: add `count = …, max = …`",
                ));
            }
            elem
        }
        _ => {
            errors.push(Error::new(
                key.span(),
                "`pointers` is for arrays, `Vec` and `Box<[_]>` of `Option<Box<_>>`",
            ));
            return;
        }
    };
    if holes == Holes::MarkEvery && !matches!(shape(elem), Shape::Option(_)) {
        errors.push(Error::new_spanned(
            elem,
            "with `pointers` each element may be absent: use `Option<Box<_>>`",
        ));
    }
    unsupported(elem, errors);
}

fn range(field: &Field<'_>, errors: &mut Errors) {
    let Some(range) = &field.attrs.range else {
        return;
    };
    if !matches!(shape(field.ty), Shape::Array(..)) {
        errors.push(Error::new(range.key.span(), "`range` is for arrays"));
        return;
    }
    let bound = |expr: &Option<syn::Expr>| expr.as_ref().and_then(literal);
    if let (Some(from), Some(to)) = (bound(&range.value.from).or(Some(0)), bound(&range.value.to))
        && from >= to
        && range
            .value
            .from
            .as_ref()
            .is_none_or(|from| literal(from).is_some())
    {
        errors.push(Error::new(range.key.span(), "the range is empty"));
    }
}

/// Whether a field can choose the case of a variant, as far as the tokens of its type say.
pub(super) fn check_discriminant(
    member: &syn::Member,
    discriminant: &Field<'_>,
    errors: &mut Errors,
) -> bool {
    let fits = match shape(discriminant.ty) {
        Shape::Word(_) => {
            primitive(discriminant.ty).is_none_or(|found| super::REPRS.contains(&found.as_str()))
        }
        Shape::Other => true,
        _ => false,
    };
    if !fits {
        let ty = discriminant.ty;
        let ty = quote::quote!(#ty);
        errors.push(Error::new(
            member.span(),
            format!(
                "`variant` names an integer field or an enum with `repr`, and this one is `{ty}`"
            ),
        ));
    }
    fits
}

/// Whether a field can count elements, as far as the tokens of its type say.
pub(super) fn check_counter(
    count: &CountBy,
    key: &Ident,
    counter: &Field<'_>,
    travels: bool,
    errors: &mut Errors,
) -> bool {
    let CountBy::Field(member) = count else {
        return true;
    };
    let fits = match shape(counter.ty) {
        Shape::Word(_) => match primitive(counter.ty) {
            Some(found) if travels => ["u8", "u16", "u32", "i32"].contains(&found.as_str()),
            Some(found) => {
                !["bool", "f32", "f64", "char", "u128", "i128"].contains(&found.as_str())
            }
            None => true,
        },
        Shape::Other => true,
        _ => false,
    };
    if !fits {
        let ty = counter.ty;
        let ty = quote::quote!(#ty);
        errors.push(Error::new(
            member.span(),
            format!("`{key}` names a field of type u8, u16, u32 or i32, and this one is `{ty}`"),
        ));
    }
    fits
}
