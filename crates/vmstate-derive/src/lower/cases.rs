//! Enums of which each variant has the state of one case.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse_quote;
use syn::spanned::Spanned;

use super::Cx;
use super::bounds::mentions;
use super::single::is_literal;
use crate::model::Case;

pub(super) fn lower(cx: &Cx<'_>, cases: &[Case<'_>]) -> TokenStream {
    let krate = &cx.krate;
    let ident = cx.ident();
    let mut generics = cx.input.generics.clone();
    match &cx.input.attrs.bound {
        Some(bound) => generics
            .make_where_clause()
            .predicates
            .extend(bound.value.iter().cloned()),
        None => {
            for ty in cases.iter().filter_map(|case| case.ty) {
                if mentions(cx.input.generics, ty) {
                    let needs = parse_quote!(#ty: #krate::FieldValue + ::core::default::Default);
                    generics.make_where_clause().predicates.push(needs);
                }
            }
        }
    }
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let support = quote!(#krate::support::variant);
    let mut table = Vec::new();
    let mut save = Vec::new();
    let mut load = Vec::new();
    for case in cases {
        let (name, value) = (case.ident, &case.value);
        let value = if is_literal(value) {
            quote!(#value)
        } else {
            quote_spanned!(value.span()=> (#value) as i64)
        };
        let Some(ty) = case.ty else {
            let text = name.to_string();
            let description = quote!(const { &#krate::Description::new(#text, 0, 0) });
            table.push(quote!(#krate::VariantCase::new(#value, #description),));
            save.push(quote!(Self::#name => sink.child(&#support::Nothing(#description)),));
            load.push(quote! {
                if case == ::core::option::Option::Some(#value) {
                    source.child(&mut #support::Nothing(#description))?;
                    *self = Self::#name;
                    return ::core::result::Result::Ok(());
                }
            });
            continue;
        };
        let inner = quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>);
        let default = quote_spanned!(ty.span()=> <#ty as ::core::default::Default>);
        table.push(quote_spanned!(ty.span()=> #support::case::<#ty>(#value),));
        save.push(quote!(Self::#name(state) => #inner::save(state, sink),));
        load.push(quote! {
            if case == ::core::option::Option::Some(#value) {
                if let Self::#name(state) = self {
                    return #inner::load(state, source);
                }
                let mut state = #default::default();
                #inner::load(&mut state, source)?;
                *self = Self::#name(state);
                return ::core::result::Result::Ok(());
            }
        });
    }
    let result = quote!(::core::result::Result<(), #krate::Error>);
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::VariantValue for #ident #ty_generics #where_clause {
            const CASES: &'static [#krate::VariantCase] = &[#(#table)*];

            fn save_case(&self, sink: &mut dyn #krate::SaveField) -> #result {
                match self {
                    #(#save)*
                }
            }

            fn load_case(&mut self, source: &mut dyn #krate::LoadField) -> #result {
                let case = source.case();
                #(#load)*
                ::core::result::Result::Err(#support::no_case(source))
            }
        }
    }
}
