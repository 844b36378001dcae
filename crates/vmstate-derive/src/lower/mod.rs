//! From the checked form to code that one could write by hand.
//!
//! | module | emits |
//! |---|---|
//! | [`structure`] | the trait impls of a struct |
//! | [`description`] | one description, its accessors and hooks: of the type, or of a part that is a subsection |
//! | [`field`] | the description of one field, and how it is saved and loaded |
//! | [`plain`] | the straight-line path |
//! | [`single`] | enums and transparent structs, which are single values |
//! | [`cases`] | enums that are one of several states |
//! | [`bounds`] | bounds of type parameters |

mod bounds;
mod cases;
mod description;
mod field;
mod plain;
pub(crate) mod single;
mod structure;

use proc_macro2::{Span, TokenStream};
use syn::{Expr, Ident};

use crate::krate;
use crate::model::{Input, Plan};

pub(crate) fn lower(input: &Input<'_>, plan: &Plan<'_>) -> TokenStream {
    let cx = Cx {
        krate: krate::path(input.attrs.krate.as_ref().map(|attr| &attr.value)),
        input,
    };
    match plan {
        Plan::Description(description) => structure::lower(&cx, description),
        Plan::Transparent(field) => single::transparent(&cx, field),
        Plan::Enum(repr) => single::enumeration(&cx, repr),
        Plan::Cases(cases) => cases::lower(&cx, cases),
    }
}

/// What all of the lowering needs.
struct Cx<'a> {
    /// Path of `vmstate-desc`.
    krate: TokenStream,
    input: &'a Input<'a>,
}

impl Cx<'_> {
    fn ident(&self) -> &Ident {
        self.input.ident
    }

    /// The path of `vmstate-desc`, for calls that the compiler shall blame on `place`.
    fn krate_at(&self, place: Span) -> TokenStream {
        let respanned = self.krate.clone().into_iter().map(|mut token| {
            token.set_span(place.resolved_at(token.span()));
            token
        });
        respanned.collect()
    }
}

/// A function that was given as an expression, ready to be called.
pub(crate) fn callee(function: &Expr) -> TokenStream {
    match function {
        Expr::Path(path) => quote::quote!(#path),
        other => quote::quote!((#other)),
    }
}
