//! Enums: a tag, and the fields of the live variant.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DataEnum, Error, Expr, Fields, Ident, Member, Result, Variant, parse_quote};

use super::field::{How, MirrorField, Place, Planned, plan};
use super::{Bodies, Cx, bounds, mirror};
use crate::check::REPRS;
use crate::lower::callee;
use crate::lower::single::{is_literal, text};
use crate::parse::Errors;
use crate::parse::item::{each, number, set, unknown};

/// A variant with its value and its fields.
struct Live<'a> {
    ident: &'a Ident,
    tag: Expr,
    fields: Vec<Planned<'a>>,
}

pub(super) fn expand(cx: &Cx<'_>, data: &DataEnum, mut errors: Errors) -> Result<TokenStream> {
    let ident = &cx.input.ident;
    if let Some(shared) = &cx.attrs.shared {
        errors.push(Error::new(
            shared.key.span(),
            "`shared` is for structs: which variant is alive cannot change through `&self`",
        ));
    }
    for attr in [&cx.attrs.restored, &cx.attrs.snapshot_with]
        .into_iter()
        .flatten()
    {
        errors.push(Error::new(
            attr.key.span(),
            format!("`{}` is for structs", attr.key),
        ));
    }
    if data.variants.is_empty() {
        errors.push(Error::new(
            ident.span(),
            "an enum without variants has no values",
        ));
    }
    let Some(repr) = &cx.attrs.repr else {
        errors.push(Error::new(
            ident.span(),
            "an enum needs the type of its tag, `#[migration_state(repr = u8)]`, and a value for each variant",
        ));
        errors.finish()?;
        return Ok(TokenStream::new());
    };
    if !REPRS.iter().any(|known| repr.value == known) {
        errors.push(Error::new(
            repr.value.span(),
            format!(
                "`{}` has no encoding; choose one of {}",
                repr.value,
                REPRS.join(", ")
            ),
        ));
    }
    let repr = &repr.value;
    let variants: Vec<_> = data
        .variants
        .iter()
        .map(|variant| live(cx, variant, repr, &mut errors))
        .collect();
    let plain = variants.iter().all(|v| v.fields.is_empty());
    if plain {
        no_mirror(cx, &mut errors);
    }
    errors.finish()?;
    if plain {
        return Ok(tag_alone(cx, repr, &variants));
    }

    let generics = bounds::generics(cx, variants.iter().flat_map(|v| &v.fields));
    let bodies = Bodies {
        snapshot: snapshot(cx, repr, &variants),
        prepare: prepare(cx, repr, &variants),
    };
    let mut fields = vec![MirrorField {
        ident: Ident::new("tag", ident.span()),
        vis: cx.input.vis.clone(),
        docs: Vec::new(),
        ty: parse_quote!(#repr),
        items: Vec::new(),
    }];
    fields.extend(
        variants
            .into_iter()
            .flat_map(|v| v.fields)
            .flat_map(|f| f.mirror),
    );
    let (definition, migrated) = mirror::expand(cx, &generics, &fields, &[])?;
    let impls = cx.impls(&generics, &migrated, &bodies);
    Ok(quote!(#definition #impls))
}

/// Attributes that speak of a mirror, where the mirror is the tag.
fn no_mirror(cx: &Cx<'_>, errors: &mut Errors) {
    let keys = cx.attrs.rename.iter().map(|a| &a.key);
    for key in keys.chain(cx.attrs.passed.iter().map(|p| &p.key)) {
        errors.push(Error::new(
            key.span(),
            format!("`{key}` has no meaning for an enum without data: its mirror is an integer"),
        ));
    }
}

fn live<'a>(cx: &Cx<'_>, variant: &'a Variant, repr: &Ident, errors: &mut Errors) -> Live<'a> {
    let mut given = None;
    each(&variant.attrs, "migration_state", errors, |key, input| {
        if key == "tag" {
            let tag = number(&key, input)?;
            return set(&mut given, key, tag);
        }
        Err(unknown(&key, "a variant", &["tag"]))
    });
    let written = variant.discriminant.as_ref().map(|(_, value)| value);
    let tag = match (given, written) {
        (Some(given), Some(_)) => {
            errors.push(Error::new(
                given.key.span(),
                "the variant has a value already: `tag` cannot be combined with `= …`",
            ));
            given.value
        }
        (Some(given), None) => given.value,
        (None, Some(written)) => written.clone(),
        (None, None) => {
            let name = &variant.ident;
            let how = match variant.fields {
                Fields::Unit => format!("`{name} = …`"),
                _ => "`#[migration_state(tag = …)]`".to_owned(),
            };
            errors.push(Error::new(
                name.span(),
                format!(
                    "write the value on the wire: {how}; counting would change it with the order"
                ),
            ));
            parse_quote!(0)
        }
    };
    let is_live = if is_literal(&tag) {
        quote!(mirror.tag == #tag)
    } else {
        quote!(mirror.tag == (#tag) as #repr)
    };
    let place = Place {
        prefix: snake(&variant.ident),
        condition: Some(&is_live),
    };
    let fields: Vec<_> = variant
        .fields
        .iter()
        .enumerate()
        .map(|(position, field)| plan(cx, &place, position, field, errors))
        .collect();
    for field in &fields {
        if let Some(validate) = &field.validate {
            errors.push(Error::new_spanned(
                validate,
                "fields of variants have no validator; `validate` of the enum sees them all",
            ));
        }
        if let How::Omit {
            rebuild: Some(rebuild),
        } = &field.how
        {
            errors.push(Error::new_spanned(
                rebuild,
                "fields of variants are not rebuilt: a new variant begins with their default",
            ));
        }
    }
    Live {
        ident: &variant.ident,
        tag,
        fields,
    }
}

fn snake(ident: &Ident) -> String {
    let mut out = String::new();
    for c in syn::ext::IdentExt::unraw(ident).to_string().chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// `tag => …,`
fn arm(repr: &Ident, tag: &Expr, code: &TokenStream) -> TokenStream {
    if is_literal(tag) {
        quote!(#tag => #code,)
    } else {
        quote!(value if value == (#tag) as #repr => #code,)
    }
}

/// The value of a tag.
fn value(repr: &Ident, tag: &Expr) -> TokenStream {
    if is_literal(tag) {
        quote!(#tag)
    } else {
        quote!((#tag) as #repr)
    }
}

/// The arm of all tags that no variant has.
fn unknown_tag(cx: &Cx<'_>, variants: &[Live<'_>], field: Option<&str>) -> TokenStream {
    let error = cx.error();
    let known: Vec<_> = variants
        .iter()
        .map(|v| format!("{} ({})", text(&v.tag), v.ident))
        .collect();
    let reason = format!("none of the known values {}", known.join(", "));
    let located = field.map(|field| quote!(.in_field(#field)));
    quote! {
        unknown => return ::core::result::Result::Err(
            #error::new(#reason).with_value(unknown) #located,
        ),
    }
}

/// An enum without data: its mirror is the integer.
fn tag_alone(cx: &Cx<'_>, repr: &Ident, variants: &[Live<'_>]) -> TokenStream {
    let values = variants.iter().map(|v| {
        let (ident, value) = (v.ident, value(repr, &v.tag));
        quote!(Self::#ident {} => #value,)
    });
    let states = variants.iter().map(|v| {
        let ident = v.ident;
        arm(repr, &v.tag, &quote!(Self::#ident {}))
    });
    let unknown = unknown_tag(cx, variants, None);
    let checks = whole(cx);
    let bodies = Bodies {
        snapshot: quote! {
            *into = match self {
                #(#values)*
            };
        },
        prepare: quote! {
            #checks
            let state = match from {
                #(#states)*
                #unknown
            };
            ::core::result::Result::Ok(move || *self = state)
        },
    };
    cx.impls(&cx.input.generics, &quote!(#repr), &bodies)
}

/// The validator of the whole.
fn whole(cx: &Cx<'_>) -> TokenStream {
    let Some(attr) = &cx.attrs.validate else {
        return quote!();
    };
    let (validate, support) = (callee(&attr.value), cx.support());
    quote! {
        if let ::core::result::Result::Err(reason) = #validate(&from, &*self) {
            return ::core::result::Result::Err(
                #support::refused(reason, ::core::option::Option::None),
            );
        }
    }
}

fn pattern(live: &Live<'_>) -> TokenStream {
    let ident = live.ident;
    let fields = live.fields.iter().map(Planned::pattern);
    quote!(Self::#ident { #(#fields)* })
}

fn snapshot(cx: &Cx<'_>, repr: &Ident, variants: &[Live<'_>]) -> TokenStream {
    let arms = variants.iter().map(|v| {
        let (pattern, value) = (pattern(v), value(repr, &v.tag));
        let copies = v.fields.iter().map(|field| field.snapshot(cx));
        quote! {
            #pattern => {
                into.tag = #value;
                #(#copies)*
            }
        }
    });
    quote! {
        *into = ::core::default::Default::default();
        match self {
            #(#arms)*
        }
    }
}

fn prepare(cx: &Cx<'_>, repr: &Ident, variants: &[Live<'_>]) -> TokenStream {
    let mirror = cx.mirror();
    let patterns = variants
        .iter()
        .flat_map(|v| &v.fields)
        .map(Planned::mirror_pattern);
    let boxed = quote!(::std::boxed::Box<dyn ::core::ops::FnOnce() + '_>);
    let arms = variants.iter().map(|v| {
        let first: Vec<_> = v.fields.iter().map(|field| field.prepare(cx)).collect();
        let second = v.fields.iter().map(Planned::commit);
        let pattern = pattern(v);
        let ident = v.ident;
        let new = v.fields.iter().map(|field| {
            let (member, value): (&Member, _) = (&field.member, field.build(cx));
            quote!(#member: #value,)
        });
        let in_place = quote! {
            #pattern => {
                #(#first)*
                ::std::boxed::Box::new(move || {
                    #(#second)*
                })
            }
        };
        let code = quote! {
            match self {
                #in_place
                #[allow(unreachable_patterns)]
                place => {
                    let new = Self::#ident { #(#new)* };
                    ::std::boxed::Box::new(move || *place = new)
                }
            }
        };
        arm(repr, &v.tag, &code)
    });
    let unknown = unknown_tag(cx, variants, Some("tag"));
    let checks = whole(cx);
    quote! {
        #checks
        let #mirror { tag, #(#patterns)* } = from;
        let commit: #boxed = match tag {
            #(#arms)*
            #unknown
        };
        ::core::result::Result::Ok(commit)
    }
}
