//! The mirror of a type, as far as its tokens say it.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, PathArguments, Type, parse_quote};

use super::Cx;
use crate::types::{Shape, is_text, primitive, shape};

/// Wrappers whose mirror is that of what they hold.
const TRANSPARENT: [&str; 8] = [
    "Box",
    "Rc",
    "Arc",
    "Cell",
    "RefCell",
    "Mutex",
    "RwLock",
    "Migratable",
];

/// Cells that may be empty.
const ONCE: [&str; 2] = ["OnceCell", "OnceLock"];

/// The name and the only type argument of a type such as `Mutex<T>`.
fn wrapped(ty: &Type) -> Option<(String, &Type)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    let mut types = arguments.args.iter().filter_map(|a| match a {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    match (types.next(), types.next()) {
        (Some(inner), None) => Some((last.ident.to_string(), inner)),
        _ => None,
    }
}

/// What a type holds behind locks, cells and pointers.
pub(super) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => return peel(&group.elem),
        Type::Paren(paren) => return peel(&paren.elem),
        _ => {}
    }
    match (shape(ty), wrapped(ty)) {
        (Shape::BoxSlice(_), _) => ty,
        (_, Some((name, inner))) if TRANSPARENT.contains(&name.as_str()) => peel(inner),
        _ => ty,
    }
}

/// Whether the type has no state at all: `()`, `PhantomData`.
pub(super) fn is_nothing(ty: &Type) -> bool {
    matches!(shape(ty), Shape::Unit) || wrapped(ty).is_some_and(|(name, _)| name == "PhantomData")
}

/// The mirror's type as the trait says it.
pub(super) fn projected(cx: &Cx<'_>, ty: &Type) -> Type {
    if primitive(ty)
        .is_some_and(|p| !["usize", "isize", "u128", "i128", "f32", "char"].contains(&p.as_str()))
    {
        return ty.clone();
    }
    let plain = respanned(cx.plain(), ty);
    parse_quote!(<#ty as #plain>::Migrated)
}

fn respanned(tokens: TokenStream, ty: &Type) -> TokenStream {
    let place = ty.span();
    tokens
        .into_iter()
        .map(|mut token| {
            token.set_span(place.resolved_at(token.span()));
            token
        })
        .collect()
}

/// The same type spelled out, for attributes that look at its shape: `Vec` of the elements' mirrors and so on.
pub(super) fn spelled(cx: &Cx<'_>, ty: &Type) -> Type {
    let krate = &cx.krate;
    let ty = peel(ty);
    match shape(ty) {
        Shape::Array(elem, len) => {
            let elem = spelled(cx, elem);
            parse_quote!(#krate::snapshot::Array<#elem, { #len }>)
        }
        Shape::Vec(elem) | Shape::BoxSlice(elem) => {
            let elem = spelled(cx, elem);
            parse_quote!(::std::vec::Vec<#elem>)
        }
        Shape::Option(inner) => {
            let inner = spelled(cx, inner);
            parse_quote!(::core::option::Option<#inner>)
        }
        Shape::Unit => parse_quote!(()),
        _ if is_text(ty) => ty.clone(),
        _ => match wrapped(ty) {
            Some((name, inner)) if ONCE.contains(&name.as_str()) => {
                let inner = spelled(cx, inner);
                parse_quote!(::core::option::Option<#inner>)
            }
            _ => projected(cx, ty),
        },
    }
}

/// Whether `ty` is spelled differently from what the trait says where it must leave something open.
pub(super) fn is_open(ty: &Type) -> bool {
    let ty = peel(ty);
    matches!(
        shape(ty),
        Shape::Vec(_) | Shape::BoxSlice(_) | Shape::Option(_)
    ) || wrapped(ty).is_some_and(|(name, _)| ONCE.contains(&name.as_str()))
}

/// The value that a field of this type begins with. Arrays of any length have one.
pub(super) fn default_of(ty: &Type) -> TokenStream {
    match ty {
        Type::Array(array) => {
            let elem = default_of(&array.elem);
            quote!(::core::array::from_fn(|_| #elem))
        }
        _ => quote_spanned!(ty.span()=> <#ty as ::core::default::Default>::default()),
    }
}
