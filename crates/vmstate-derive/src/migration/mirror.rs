//! The mirror: a struct with a description.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{DeriveInput, Generics, Result, Type};

use super::Cx;
use super::attrs::{Passed, Rest};
use super::bounds;
use super::field::{MirrorField, member_of};

/// The mirror's definition with all that is implemented for it, and its type.
pub(super) fn expand(
    cx: &Cx<'_>,
    generics: &Generics,
    fields: &[MirrorField],
    moved: &[(String, Vec<syn::Ident>)],
) -> Result<(TokenStream, TokenStream)> {
    let (ident, vis, krate) = (cx.mirror(), &cx.input.vis, &cx.krate);
    let source = &cx.input.ident;
    let generics = bounds::of_mirror(generics, fields);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let mut items: Vec<TokenStream> = cx
        .attrs
        .passed
        .iter()
        .map(|item| rewritten(item, moved).to_token_stream())
        .collect();
    if !cx.attrs.passed.iter().any(|item| item.key == "name") {
        let name = source.to_string();
        let name = syn::LitStr::new(name.trim_start_matches("r#"), source.span());
        items.push(quote!(name = #name));
    }
    items.push(quote!(crate = #krate));

    let definitions = fields.iter().map(|field| {
        let MirrorField { ident, vis, ty, .. } = field;
        quote!(#vis #ident: #ty)
    });
    let mut documented: Vec<_> = fields
        .iter()
        .zip(definitions.clone())
        .map(|(field, definition)| {
            let docs = &field.docs;
            quote!(#(#docs)* #definition)
        })
        .collect();
    // Whether a struct has a size depends on its last field. Where that is the mirror of a type without one, every mention
    // of the struct would be an error of its own; so a field whose type is plain goes last.
    if let Some(plain) = fields.iter().rposition(|field| is_spelled_out(&field.ty)) {
        let last = documented.remove(plain);
        documented.push(last);
    }
    let described = fields.iter().zip(definitions).map(|(field, definition)| {
        let items = &field.items;
        let attr = (!items.is_empty()).then(|| quote!(#[vmstate(#(#items),*)]));
        quote!(#attr #definition)
    });
    let input: DeriveInput = syn::parse2(quote! {
        #[vmstate(#(#items),*)]
        #vis struct #ident #impl_generics #where_clause {
            #(#described,)*
        }
    })?;
    let description = crate::expand(&input)?;

    let doc = format!("What travels of [`{source}`].");
    let defaults = fields.iter().map(|field| {
        let (ident, value) = (&field.ident, field.default());
        quote!(#ident: #value,)
    });
    let impls = values(cx, &generics, fields);
    let definition = quote! {
        #[doc = #doc]
        #[allow(missing_docs)]
        #vis struct #ident #impl_generics #where_clause {
            #(#documented,)*
        }

        #[automatically_derived]
        impl #impl_generics ::core::default::Default for #ident #ty_generics #where_clause {
            fn default() -> Self {
                Self { #(#defaults)* }
            }
        }

        #impls
        #description
    };
    Ok((definition, quote!(#ident #ty_generics)))
}

/// Whether a type is there without a trait's help.
fn is_spelled_out(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.qself.is_none() && path.path.get_ident().is_some(),
        _ => false,
    }
}

/// `Debug`, `Clone` and `PartialEq`. The standard derives would bound the parameters, where it is the fields that count.
fn values(cx: &Cx<'_>, generics: &Generics, fields: &[MirrorField]) -> TokenStream {
    let ident = cx.mirror();
    let name = ident.to_string();
    let (impl_generics, ty_generics, _) = generics.split_for_impl();
    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let names = idents.iter().map(ToString::to_string);
    let bounded = |bound: TokenStream| {
        let generic = generics.type_params().next().is_some();
        let types = fields.iter().filter(|_| generic).map(|field| &field.ty);
        let own = generics.where_clause.iter().flat_map(|w| &w.predicates);
        quote!(where #(#own,)* #(#types: #bound,)*)
    };
    let (debug, clone, equal) = (
        bounded(quote!(::core::fmt::Debug)),
        bounded(quote!(::core::clone::Clone)),
        bounded(quote!(::core::cmp::PartialEq)),
    );
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::fmt::Debug for #ident #ty_generics #debug {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name)
                    #(.field(#names, &self.#idents))*
                    .finish()
            }
        }

        #[automatically_derived]
        impl #impl_generics ::core::clone::Clone for #ident #ty_generics #clone {
            fn clone(&self) -> Self {
                Self { #(#idents: ::core::clone::Clone::clone(&self.#idents),)* }
            }
        }

        #[automatically_derived]
        impl #impl_generics ::core::cmp::PartialEq for #ident #ty_generics #equal {
            fn eq(&self, other: &Self) -> bool {
                #(if self.#idents != other.#idents {
                    return false;
                })*
                true
            }
        }
    }
}

/// An item of the container with the mirror's names for fields, in `fields(…)` and `after = …`.
fn rewritten(item: &Passed, moved: &[(String, Vec<syn::Ident>)]) -> Passed {
    let rest = match &item.rest {
        Rest::Group(group) => Rest::Group(group_rewritten(group.clone(), moved)),
        other => other.clone(),
    };
    Passed {
        key: item.key.clone(),
        rest,
    }
}

fn group_rewritten(tokens: TokenStream, moved: &[(String, Vec<syn::Ident>)]) -> TokenStream {
    let names = |token: &TokenTree| {
        let member = member_of(&token.to_token_stream())?;
        let name = crate::model::member_name(&member);
        moved
            .iter()
            .find(|(from, _)| *from == name)
            .map(|(_, to)| to)
    };
    let mut out = TokenStream::new();
    // The last two tokens: `fields`, or `after` and `=`.
    let mut before: [String; 2] = [String::new(), String::new()];
    for token in tokens {
        let text = match &token {
            TokenTree::Group(_) => String::new(),
            other => other.to_string(),
        };
        match &token {
            TokenTree::Group(group) => {
                let inner = if before[1] == "fields" {
                    group
                        .stream()
                        .into_iter()
                        .flat_map(|token| match names(&token) {
                            Some(to) => quote!(#(#to),*),
                            None => token.into_token_stream(),
                        })
                        .collect()
                } else {
                    group_rewritten(group.stream(), moved)
                };
                let mut new = Group::new(group.delimiter(), inner);
                new.set_span(group.span());
                out.extend([TokenTree::Group(new)]);
            }
            other if before[0] == "after" && before[1] == "=" => {
                match names(other).and_then(|to| to.last()) {
                    Some(to) => out.extend(to.to_token_stream()),
                    None => out.extend([token]),
                }
            }
            _ => out.extend([token]),
        }
        before = [std::mem::take(&mut before[1]), text];
    }
    out
}
