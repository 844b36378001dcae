//! What the tokens of a type say. Aliases are not seen through: what they hide is left to the compiler.

use syn::{Expr, GenericArgument, PathArguments, Type, TypePath};

/// The shapes that attributes are about.
#[derive(Debug)]
pub(crate) enum Shape<'a> {
    /// `[T; N]`, `Array<T, N>`.
    Array(&'a Type, &'a Expr),
    Vec(&'a Type),
    BoxSlice(&'a Type),
    Option(&'a Type),
    Box(&'a Type),
    /// `VecDeque`, `LinkedList`.
    List(&'a Type),
    Unit,
    /// A path of one word without arguments.
    Word(String),
    Other,
}

pub(crate) fn shape(ty: &Type) -> Shape<'_> {
    match ty {
        Type::Group(group) => shape(&group.elem),
        Type::Paren(paren) => shape(&paren.elem),
        Type::Array(array) => Shape::Array(&array.elem, &array.len),
        Type::Tuple(tuple) if tuple.elems.is_empty() => Shape::Unit,
        Type::Path(path) => path_shape(path),
        _ => Shape::Other,
    }
}

fn path_shape(path: &TypePath) -> Shape<'_> {
    let Some(last) = path.path.segments.last() else {
        return Shape::Other;
    };
    if last.ident == "Array"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(ty)) = arguments.args.first()
        && let Some(GenericArgument::Const(len)) = arguments.args.get(1)
    {
        return Shape::Array(ty, len);
    }
    let argument = match &last.arguments {
        PathArguments::None if path.path.segments.len() == 1 && path.qself.is_none() => {
            return Shape::Word(last.ident.to_string());
        }
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|a| match a {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        }),
        _ => None,
    };
    match (last.ident.to_string().as_str(), argument) {
        ("Vec", Some(ty)) => Shape::Vec(ty),
        ("Option", Some(ty)) => Shape::Option(ty),
        ("VecDeque" | "LinkedList", Some(ty)) => Shape::List(ty),
        ("Box", Some(Type::Slice(slice))) => Shape::BoxSlice(&slice.elem),
        ("Box", Some(ty)) => Shape::Box(ty),
        _ => Shape::Other,
    }
}

/// The type of the elements, if there are several.
pub(crate) fn element(ty: &Type) -> Option<&Type> {
    match shape(ty) {
        Shape::Array(elem, _) | Shape::Vec(elem) | Shape::BoxSlice(elem) | Shape::List(elem) => {
            Some(elem)
        }
        _ => None,
    }
}

/// The type of the scalars at the bottom of all arrays.
pub(crate) fn innermost(ty: &Type) -> &Type {
    match element(ty) {
        Some(elem) => innermost(elem),
        None => ty,
    }
}

/// What a pointer points to: `T` of `Option<Box<T>>`, `Box<T>`, `Option<T>`.
pub(crate) fn pointee(ty: &Type) -> &Type {
    match shape(ty) {
        Shape::Option(inner) | Shape::Box(inner) => pointee(inner),
        _ => ty,
    }
}

/// The word that a type is, if it is one of Rust's own.
pub(crate) fn primitive(ty: &Type) -> Option<String> {
    const PRIMITIVES: [&str; 16] = [
        "bool", "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "usize",
        "isize", "f32", "f64", "char",
    ];
    match shape(ty) {
        Shape::Word(word) if PRIMITIVES.contains(&word.as_str()) => Some(word),
        _ => None,
    }
}

/// Whether a type is text: `String`, `Cow<'static, str>`.
pub(crate) fn is_text(ty: &Type) -> bool {
    let Type::Path(path) = ty else {
        return matches!(ty, Type::Group(group) if is_text(&group.elem));
    };
    let Some(last) = path.path.segments.last() else {
        return false;
    };
    match &last.arguments {
        PathArguments::None => last.ident == "String",
        PathArguments::AngleBracketed(arguments) => {
            let mut words = arguments.args.iter().filter_map(|a| match a {
                GenericArgument::Type(Type::Path(path)) => path.path.get_ident(),
                _ => None,
            });
            last.ident == "Cow" && words.next().is_some_and(|word| word == "str")
        }
        PathArguments::Parenthesized(_) => false,
    }
}

/// Why a type can never be a field, and what to do about it.
pub(crate) fn refusal(ty: &Type) -> Option<String> {
    let (name, reason) = match ty {
        Type::Reference(_) | Type::Ptr(_) => (
            "a reference".to_owned(),
            "has no state: skip it with a reason, or embed the value",
        ),
        Type::Path(path) => {
            let name = path.path.segments.last()?.ident.to_string();
            let reason = match (name.as_str(), shape(ty)) {
                ("HashMap" | "HashSet", Shape::Other) => "has no order: use a `BTreeMap`",
                (word, Shape::Word(_)) => refused_word(word)?,
                _ => return None,
            };
            (format!("`{name}`"), reason)
        }
        _ => return None,
    };
    Some(format!("{name} {reason}"))
}

fn refused_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "usize" => "differs between hosts: choose a width, `u32` or `u64`",
        "isize" => "differs between hosts: choose a width, `i32` or `i64`",
        "u128" | "i128" => "has no encoding: use `[u64; 2]`",
        "f32" => "has no encoding: keep its bits in a `u32`, or use `f64`",
        "char" => "has no encoding: use `u32`",
        "str" => "has no encoding: use a `String`",
        _ => return None,
    })
}
