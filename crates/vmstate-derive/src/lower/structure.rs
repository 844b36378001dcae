//! The trait impls of a struct.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::description::{self, Accessors};
use super::{Cx, bounds, callee, plain};
use crate::model::{Description, Subsection};

pub(super) fn lower(cx: &Cx<'_>, plan: &Description<'_>) -> TokenStream {
    let krate = &cx.krate;
    let ident = cx.ident();
    let generics = bounds::generics(cx);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let description = description::description(cx, plan);
    let Accessors { save, load } = description::accessors(cx, plan);
    let unplug_pending = cx.input.attrs.unplug_pending.as_ref().map(|attr| {
        let function = callee(&attr.value);
        quote! {
            fn unplug_pending(&self) -> bool {
                #function(self)
            }
        }
    });
    let plain = plain::lower(cx, plan);
    let (plain_save, plain_load, plain_value) = (plain.save, plain.load, plain.value);
    let parts = parts(cx, plan, &generics);
    let asserted = quote!(<Self as #krate::VmState>::DESCRIPTION);
    // Without parameters the rules are checked when the type is declared, otherwise when it is used.
    let assertion = generics.params.is_empty().then(|| {
        quote_spanned! {ident.span()=>
            const _: () = <#ident as #krate::VmState>::DESCRIPTION.assert_valid();
        }
    });

    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::VmState for #ident #ty_generics #where_clause {
            const DESCRIPTION: &'static #krate::Description = #description;
        }

        #[automatically_derived]
        impl #impl_generics #krate::SaveState for #ident #ty_generics #where_clause {
            fn description(&self) -> #krate::DescriptionRef {
                const { #asserted.assert_valid() };
                #krate::DescriptionRef::Static(#asserted)
            }
            #save
            #unplug_pending
            #plain_save
        }

        #[automatically_derived]
        impl #impl_generics #krate::LoadState for #ident #ty_generics #where_clause {
            #load
            #plain_load
        }

        #[automatically_derived]
        impl #impl_generics #krate::FieldValue for #ident #ty_generics #where_clause {
            const ELEMENT: #krate::Element =
                #krate::Element::Struct(#krate::DescriptionRef::Static(#asserted));

            fn save(
                &self,
                sink: &mut dyn #krate::SaveField,
            ) -> ::core::result::Result<(), #krate::Error> {
                sink.child(self)
            }

            fn load(
                &mut self,
                source: &mut dyn #krate::LoadField,
            ) -> ::core::result::Result<(), #krate::Error> {
                source.child(self)
            }
            #plain_value
        }

        #parts
        #assertion
    }
}

/// Subsections whose fields live in the struct, and the subsections of those.
fn parts(cx: &Cx<'_>, plan: &Description<'_>, generics: &syn::Generics) -> TokenStream {
    let krate = &cx.krate;
    let ident = cx.ident();
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let mut out = TokenStream::new();
    for subsection in &plan.subsections {
        let Subsection::Part(part) = subsection else {
            continue;
        };
        let number = part.part;
        let description = description::description(cx, part);
        let Accessors { save, load } = description::accessors(cx, part);
        out.extend(quote! {
            #[automatically_derived]
            impl #impl_generics #krate::support::part::Part<#number> for #ident #ty_generics
            #where_clause
            {
                const DESCRIPTION: &'static #krate::Description = #description;
                #save
                #load
            }
        });
        if generics.params.is_empty() {
            out.extend(quote_spanned! {part.attrs.name.as_ref().map_or(ident.span(), |n| n.value.span())=>
                const _: () =
                    <#ident as #krate::support::part::Part<#number>>::DESCRIPTION.assert_valid();
            });
        }
        out.extend(parts(cx, part, generics));
    }
    out
}
