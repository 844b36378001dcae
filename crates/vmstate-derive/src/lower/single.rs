//! Types that are one value: enums and transparent structs. They have no description of their own.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Ident, Lit};

use super::{Cx, bounds};
use crate::model::{Body, Field};

/// A struct that is encoded as its one field.
pub(super) fn transparent(cx: &Cx<'_>, field: &Field<'_>) -> TokenStream {
    let krate = &cx.krate;
    let ident = cx.ident();
    let generics = bounds::generics_of(cx, std::iter::once(field));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let member = &field.member;
    let ty = field.ty;
    let inner = quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>);
    let result = quote!(::core::result::Result<(), #krate::Error>);
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::FieldValue for #ident #ty_generics #where_clause {
            const ELEMENT: #krate::Element = #inner::ELEMENT;
            const DIMENSIONS: ::core::option::Option<u32> = #inner::DIMENSIONS;
            const PLAIN: ::core::option::Option<usize> = #inner::PLAIN;

            #[inline]
            fn save(&self, sink: &mut dyn #krate::SaveField) -> #result {
                #inner::save(&self.#member, sink)
            }

            #[inline]
            fn load(&mut self, source: &mut dyn #krate::LoadField) -> #result {
                #inner::load(&mut self.#member, source)
            }

            #[inline]
            fn put_plain(&self, out: &mut [u8]) {
                #inner::put_plain(&self.#member, out);
            }

            #[inline]
            fn get_plain(&mut self, bytes: &[u8]) -> bool {
                #inner::get_plain(&mut self.#member, bytes)
            }
        }
    }
}

/// An enum that is encoded as the integer of its variants' values.
pub(super) fn enumeration(cx: &Cx<'_>, repr: &Ident) -> TokenStream {
    let krate = &cx.krate;
    let ident = cx.ident();
    let (impl_generics, ty_generics, where_clause) = cx.input.generics.split_for_impl();
    let Body::Enum(variants) = &cx.input.body else {
        return TokenStream::new();
    };
    let mut to_wire = Vec::new();
    let mut from_wire = Vec::new();
    let mut known = Vec::new();
    for variant in variants {
        let (name, value) = (variant.ident, variant.value);
        if is_literal(value) {
            to_wire.push(quote!(Self::#name => #value,));
            from_wire.push(quote!(#value => Self::#name,));
        } else {
            to_wire.push(quote!(Self::#name => (#value) as #repr,));
            from_wire.push(quote!(value if value == (#value) as #repr => Self::#name,));
        }
        known.push(format!("{} ({name})", text(value)));
    }
    let known = known.join(", ");
    let wire = quote!(<#repr as #krate::FieldValue>);
    let result = quote!(::core::result::Result<(), #krate::Error>);
    let value_of_self = quote! {
        match self {
            #(#to_wire)*
        }
    };
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::support::variant::ToDiscriminant for #ident #ty_generics
        #where_clause
        {
            fn to_discriminant(&self) -> i64 {
                let value: #repr = #value_of_self;
                #krate::support::variant::ToDiscriminant::to_discriminant(&value)
            }
        }

        #[automatically_derived]
        impl #impl_generics #krate::FieldValue for #ident #ty_generics #where_clause {
            const ELEMENT: #krate::Element = #wire::ELEMENT;
            const PLAIN: ::core::option::Option<usize> = #wire::PLAIN;

            fn save(&self, sink: &mut dyn #krate::SaveField) -> #result {
                let value: #repr = #value_of_self;
                #wire::save(&value, sink)
            }

            fn load(&mut self, source: &mut dyn #krate::LoadField) -> #result {
                let mut value: #repr = #value_of_self;
                #wire::load(&mut value, source)?;
                *self = match value {
                    #(#from_wire)*
                    unknown => {
                        return ::core::result::Result::Err(
                            #krate::support::access::unknown_value(unknown, #known, source),
                        );
                    }
                };
                ::core::result::Result::Ok(())
            }

            #[inline]
            fn put_plain(&self, out: &mut [u8]) {
                let value: #repr = #value_of_self;
                #wire::put_plain(&value, out);
            }

            #[inline]
            fn get_plain(&mut self, bytes: &[u8]) -> bool {
                let mut value: #repr = 0;
                if !#wire::get_plain(&mut value, bytes) {
                    return false;
                }
                *self = match value {
                    #(#from_wire)*
                    _ => return false,
                };
                true
            }
        }
    }
}

/// A value for people.
pub(crate) fn text(value: &Expr) -> String {
    let text = quote!(#value).to_string();
    if is_literal(value) {
        text.replace(' ', "")
    } else {
        text
    }
}

/// Whether an expression can stand in a pattern.
pub(crate) fn is_literal(value: &Expr) -> bool {
    match value {
        Expr::Lit(lit) => matches!(lit.lit, Lit::Int(_)),
        Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Neg(_)) && is_literal(&unary.expr),
        _ => false,
    }
}
