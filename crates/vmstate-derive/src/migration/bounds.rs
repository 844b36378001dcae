//! Type parameters: what the fields that mention them need, and which of them the mirror has.

use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{
    GenericParam, Generics, Ident, Lifetime, PathArguments, Type, TypePath, WherePredicate,
    parse_quote,
};

use super::Cx;
use super::field::{How, MirrorField, Planned};
use crate::types::{Shape, shape};

/// The runtime type's parameters with what its fields need, or with what was given.
pub(super) fn generics<'p>(cx: &Cx<'_>, fields: impl Iterator<Item = &'p Planned<'p>>) -> Generics {
    let mut generics = cx.input.generics.clone();
    if let Some(bound) = &cx.attrs.bound {
        generics
            .make_where_clause()
            .predicates
            .extend(bound.value.iter().cloned());
        return generics;
    }
    let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    let mut seen = Vec::new();
    for field in fields {
        let mut uses = Uses {
            parameters: &parameters,
            within: Within::default(),
            found: Vec::new(),
        };
        uses.visit_type(field.ty);
        for (parameter, within) in uses.found {
            for bound in needs(cx, &field.how, within) {
                let predicate: WherePredicate = parse_quote!(#parameter: #bound);
                let text = predicate.to_token_stream().to_string();
                if !seen.contains(&text) {
                    seen.push(text);
                    generics.make_where_clause().predicates.push(predicate);
                }
            }
        }
    }
    generics
}

fn needs(cx: &Cx<'_>, how: &How, within: Within) -> Vec<proc_macro2::TokenStream> {
    let krate = &cx.krate;
    let default = quote!(::core::default::Default);
    match how {
        How::Recurse => {
            let mut needs = vec![
                if within.counted || cx.attrs.shared.is_some() && !within.locked {
                    cx.shared()
                } else {
                    cx.plain()
                },
            ];
            if within.grown {
                needs.push(default);
            }
            if within.copied {
                needs.push(quote!(::core::marker::Copy));
            }
            needs
        }
        How::Clone => vec![
            quote!(::core::clone::Clone),
            quote!(::core::fmt::Debug),
            quote!(::core::cmp::PartialEq),
            quote!(#krate::FieldValue),
            default,
        ],
        How::Into { .. } | How::TryInto { .. } | How::Nothing | How::Omit { .. } => Vec::new(),
    }
}

/// What a parameter is inside of.
#[derive(Debug, Clone, Copy, Default)]
struct Within {
    /// Something that makes new values.
    grown: bool,
    /// A `Cell`.
    copied: bool,
    /// `Rc` or `Arc`, without a lock in between.
    counted: bool,
    /// A lock or a cell.
    locked: bool,
}

struct Uses<'a> {
    parameters: &'a [Ident],
    within: Within,
    found: Vec<(Ident, Within)>,
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        let before = self.within;
        self.within.grown |= matches!(
            shape(ty),
            Shape::Vec(_) | Shape::BoxSlice(_) | Shape::Option(_)
        );
        if let Type::Path(path) = ty
            && let Some(last) = path.path.segments.last()
        {
            match last.ident.to_string().as_str() {
                "OnceCell" | "OnceLock" => self.within.grown = true,
                "Cell" => {
                    (self.within.copied, self.within.locked, self.within.counted) =
                        (true, true, false);
                }
                "Mutex" | "RwLock" | "RefCell" => {
                    (self.within.locked, self.within.counted) = (true, false);
                }
                "Rc" | "Arc" => self.within.counted = true,
                _ => {}
            }
        }
        visit::visit_type(self, ty);
        self.within = before;
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        if let Some(ident) = path.path.get_ident()
            && path.qself.is_none()
            && self.parameters.contains(ident)
        {
            self.found.push((ident.clone(), self.within));
        }
        for segment in &path.path.segments {
            if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                self.visit_angle_bracketed_generic_arguments(arguments);
            }
        }
    }
}

/// The parameters that the mirror's fields mention, with the bounds of `generics`.
pub(super) fn of_mirror(generics: &Generics, fields: &[MirrorField]) -> Generics {
    let mut mentions = Mentions::default();
    for field in fields {
        mentions.visit_type(&field.ty);
    }
    let kept = |param: &GenericParam| match param {
        GenericParam::Lifetime(p) => mentions.lifetimes.contains(&p.lifetime),
        GenericParam::Type(p) => mentions.idents.contains(&p.ident),
        GenericParam::Const(p) => mentions.idents.contains(&p.ident),
    };
    let dropped: Vec<_> = generics.params.iter().filter(|p| !kept(p)).collect();
    let dropped_idents: Vec<&Ident> = dropped
        .iter()
        .filter_map(|p| match p {
            GenericParam::Type(p) => Some(&p.ident),
            GenericParam::Const(p) => Some(&p.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    let mut out = Generics {
        params: generics
            .params
            .iter()
            .filter(|p| kept(p))
            .cloned()
            .collect(),
        ..Generics::default()
    };
    if !out.params.is_empty() {
        out.lt_token = generics.lt_token;
        out.gt_token = generics.gt_token;
    }
    for predicate in generics.where_clause.iter().flat_map(|w| &w.predicates) {
        let mut used = Mentions::default();
        used.visit_where_predicate(predicate);
        let alone = used
            .idents
            .iter()
            .all(|ident| !dropped_idents.contains(&ident));
        let mirrored = out.params.iter().any(|p| match p {
            GenericParam::Type(p) => used.idents.contains(&p.ident),
            GenericParam::Const(p) => used.idents.contains(&p.ident),
            GenericParam::Lifetime(p) => used.lifetimes.contains(&p.lifetime),
        });
        if alone && mirrored {
            out.make_where_clause().predicates.push(predicate.clone());
        }
    }
    out
}

/// Words and lifetimes that occur.
#[derive(Default)]
struct Mentions {
    idents: Vec<Ident>,
    lifetimes: Vec<Lifetime>,
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.idents.push(ident.clone());
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        self.lifetimes.push(lifetime.clone());
    }
}
