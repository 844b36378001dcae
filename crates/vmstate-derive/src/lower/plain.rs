//! The straight-line path of a struct whose encoding has a fixed size.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::Cx;
use crate::model::{Described, Description, Entry, Kind};
use crate::types::{Shape, shape};

/// Additions to the impls; empty where the attributes exclude the path.
#[derive(Default)]
pub(super) struct Plain {
    /// To `SaveState`.
    pub(super) save: TokenStream,
    /// To `LoadState`.
    pub(super) load: TokenStream,
    /// To `FieldValue`.
    pub(super) value: TokenStream,
}

pub(super) fn lower(cx: &Cx<'_>, plan: &Description<'_>) -> Plain {
    if !is_plain(plan) {
        return Plain::default();
    }
    let krate = &cx.krate;
    let plain = quote!(#krate::support::plain);
    let mut sizes = Vec::new();
    let mut puts = Vec::new();
    let mut gets = Vec::new();
    for entry in &plan.entries {
        let Entry::Field(described) = entry else {
            continue;
        };
        let field = described.field;
        if let Some(Kind::Unused(bytes)) = field.kind() {
            let size = quote!(::core::option::Option::Some(#bytes as usize));
            puts.push(quote! {
                let (head, out) = #plain::split(out, #size);
                head.fill(0);
            });
            gets.push(quote!(let bytes = #plain::behind(bytes, #size);));
            sizes.push(size);
        } else {
            let (ty, member) = (field.ty, &field.member);
            let value = quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>);
            puts.push(quote! {
                let (head, out) = #plain::split(out, #value::PLAIN);
                #value::put_plain(&self.#member, head);
            });
            gets.push(quote! {
                if !#value::get_plain(&mut self.#member, bytes) {
                    return false;
                }
                let bytes = #plain::behind(bytes, #value::PLAIN);
            });
            sizes.push(quote!(#value::PLAIN));
        }
    }
    let this_size = quote!(#plain::size::<Self>());
    Plain {
        save: quote! {
            fn plain_size(&self) -> ::core::option::Option<usize> {
                <Self as #krate::FieldValue>::PLAIN
            }

            fn save_plain(&self, out: &mut [u8]) {
                <Self as #krate::FieldValue>::put_plain(self, out);
            }
        },
        load: quote! {
            #[inline]
            fn load_plain(&mut self, bytes: &[u8]) -> bool {
                if bytes.len() < #this_size {
                    return false;
                }
                #(#gets)*
                let _ = bytes;
                true
            }
        },
        value: quote! {
            const PLAIN: ::core::option::Option<usize> = #plain::sum(&[#(#sizes),*]);

            #[inline]
            fn put_plain(&self, out: &mut [u8]) {
                let ::core::option::Option::Some(out) = out.get_mut(..#this_size) else {
                    return;
                };
                #(#puts)*
                let _ = out;
            }

            #[inline]
            fn get_plain(&mut self, bytes: &[u8]) -> bool {
                // A subsection may stand behind every embedded description; only the engine can tell.
                <Self as #krate::LoadState>::load_plain(self, bytes)
                    && !#plain::subsection_may_follow(bytes, #this_size)
            }
        },
    }
}

/// Whether the attributes allow it; whether the types do is for the compiler to compute.
fn is_plain(plan: &Description<'_>) -> bool {
    let attrs = plan.attrs;
    let hooks = [
        &attrs.pre_save,
        &attrs.post_save,
        &attrs.pre_load,
        &attrs.post_load,
    ];
    plan.subsections.is_empty()
        && hooks.iter().all(|hook| hook.is_none())
        && plan.entries.iter().all(|entry| match entry {
            Entry::Field(described) => is_plain_field(described),
            Entry::Extra(_) => false,
        })
}

fn is_plain_field(described: &Described<'_>) -> bool {
    let field = described.field;
    let attrs = &field.attrs;
    let kind = match field.kind() {
        None | Some(Kind::Unused(_)) => true,
        Some(Kind::Buffer) => matches!(shape(field.ty), Shape::Array(..)) && attrs.size.is_none(),
        _ => false,
    };
    kind && described.count.is_none()
        && attrs.exists.is_none()
        && attrs.until.is_none()
        && attrs.range.is_none()
        && attrs.validate.is_none()
}
