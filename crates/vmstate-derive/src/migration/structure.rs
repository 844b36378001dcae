//! Structs.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DataStruct, Error, Result};

use super::field::{How, Place, Planned, plan};
use super::{Bodies, Cx, bounds, mirror};
use crate::lower::callee;
use crate::model::member_name;
use crate::parse::Errors;

pub(super) fn expand(cx: &Cx<'_>, data: &DataStruct, mut errors: Errors) -> Result<TokenStream> {
    if let Some(repr) = &cx.attrs.repr {
        errors.push(Error::new(repr.key.span(), "`repr` is for enums"));
    }
    let place = Place {
        prefix: String::new(),
        condition: None,
    };
    let fields: Vec<_> = data
        .fields
        .iter()
        .enumerate()
        .map(|(position, field)| plan(cx, &place, position, field, &mut errors))
        .collect();
    errors.finish()?;

    let generics = bounds::generics(cx, fields.iter());
    let moved: Vec<_> = fields
        .iter()
        .map(|field| {
            let idents = field.mirror.iter().map(|f| f.ident.clone()).collect();
            (member_name(&field.member), idents)
        })
        .collect();
    let bodies = Bodies {
        snapshot: snapshot(cx, &fields),
        prepare: prepare(cx, &fields),
    };
    let mirror_fields: Vec<_> = fields.into_iter().flat_map(|field| field.mirror).collect();
    let (definition, migrated) = mirror::expand(cx, &generics, &mirror_fields, &moved)?;
    let impls = cx.impls(&generics, &migrated, &bodies);
    Ok(quote!(#definition #impls))
}

/// Takes the state apart completely.
fn pattern(fields: &[Planned<'_>]) -> TokenStream {
    let fields = fields.iter().map(Planned::pattern);
    quote!(Self { #(#fields)* })
}

fn snapshot(cx: &Cx<'_>, fields: &[Planned<'_>]) -> TokenStream {
    let pattern = pattern(fields);
    let copies = fields.iter().map(|field| field.snapshot(cx));
    let last = cx.attrs.snapshot_with.as_ref().map(|attr| {
        let (function, support) = (callee(&attr.value), cx.support());
        let call = quote_spanned!(attr.value.span()=> #function(self, &mut *into));
        quote! {
            if let ::core::result::Result::Err(reason) = #call {
                return ::core::result::Result::Err(
                    #support::refused(reason, ::core::option::Option::None),
                );
            }
        }
    });
    quote! {
        let #pattern = self;
        let _ = &into;
        #(#copies)*
        #last
    }
}

fn prepare(cx: &Cx<'_>, fields: &[Planned<'_>]) -> TokenStream {
    let ok = quote!(::core::result::Result::Ok);
    let checks = checks(cx, fields);
    let phases = phases(cx, fields);
    let rebuilds: Vec<_> = fields.iter().filter_map(rebuild).collect();
    let restored = cx.attrs.restored.as_ref().map(|attr| {
        let restored = callee(&attr.value);
        quote!(#restored(self, version_id);)
    });
    if rebuilds.is_empty() && restored.is_none() {
        return quote! {
            #checks
            #phases
            #ok(commit)
        };
    }
    // What comes last looks at the whole state, of which the second phase borrows the parts.
    let support = cx.support();
    quote! {
        #support::suspend(async move {
            #checks
            {
                #phases
                #support::checked().await;
                commit();
            }
            #(#rebuilds)*
            #restored
            #ok(())
        })
    }
}

/// Validators, of fields and of the whole.
fn checks(cx: &Cx<'_>, fields: &[Planned<'_>]) -> TokenStream {
    let checks = fields.iter().map(|field| field.check(cx));
    let whole = cx.attrs.validate.as_ref().map(|attr| {
        let (validate, support) = (callee(&attr.value), cx.support());
        quote! {
            if let ::core::result::Result::Err(reason) = #validate(&from, &*self) {
                return ::core::result::Result::Err(
                    #support::refused(reason, ::core::option::Option::None),
                );
            }
        }
    });
    quote!(#(#checks)* #whole)
}

/// The first phase of all fields, and the second as `commit`.
fn phases(cx: &Cx<'_>, fields: &[Planned<'_>]) -> TokenStream {
    let (state, mirror) = (pattern(fields), cx.mirror());
    let reborrow = if cx.attrs.shared.is_some() {
        quote!(self)
    } else {
        quote!(&mut *self)
    };
    let values = fields.iter().map(Planned::mirror_pattern);
    let first = fields.iter().map(|field| field.prepare(cx));
    let second = fields.iter().map(Planned::commit);
    quote! {
        let #mirror { #(#values)* } = from;
        let #state = #reborrow;
        #(#first)*
        let commit = move || {
            #(#second)*
        };
    }
}

/// Gives an omitted field its new value, once all others have theirs.
fn rebuild(field: &Planned<'_>) -> Option<TokenStream> {
    let How::Omit {
        rebuild: Some(rebuild),
    } = &field.how
    else {
        return None;
    };
    let member = &field.member;
    let value = match rebuild {
        syn::Expr::Path(_) | syn::Expr::Closure(_) => {
            let function = callee(rebuild);
            quote_spanned!(rebuild.span()=> #function(&*self))
        }
        value => quote!(#value),
    };
    Some(quote_spanned!(rebuild.span()=> self.#member = #value;))
}
