//! Bounds of type parameters: what the fields that mention them need.

use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{Generics, Ident, PathArguments, TypePath, parse_quote};

use super::Cx;
use crate::model::{Body, Field, Kind};
use crate::types::{Shape, shape};

/// The type's parameters with the bounds that its described fields need, or with those that were given.
pub(super) fn generics(cx: &Cx<'_>) -> Generics {
    match &cx.input.body {
        Body::Struct(fields) => generics_of(
            cx,
            fields
                .iter()
                .filter(|f| !matches!(f.kind(), Some(Kind::Skip))),
        ),
        Body::Enum(_) | Body::Cases(_) => cx.input.generics.clone(),
    }
}

pub(super) fn generics_of<'f>(
    cx: &Cx<'_>,
    fields: impl Iterator<Item = &'f Field<'f>>,
) -> Generics {
    let krate = &cx.krate;
    let mut generics = cx.input.generics.clone();
    if let Some(bound) = &cx.input.attrs.bound {
        generics
            .make_where_clause()
            .predicates
            .extend(bound.value.iter().cloned());
        return generics;
    }
    let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    if parameters.is_empty() {
        return generics;
    }
    let mut needs = Vec::new();
    for field in fields {
        let mut uses = Uses {
            parameters: &parameters,
            grown: false,
            found: Vec::new(),
        };
        uses.visit_type(field.ty);
        let described = matches!(
            field.kind(),
            Some(Kind::List(_) | Kind::Subsection { .. } | Kind::Tmp(_))
        );
        let variant = matches!(field.kind(), Some(Kind::Variant(_)));
        for (parameter, grown) in uses.found {
            if variant && matches!(shape(field.ty), Shape::Word(_)) {
                needs.push((parameter, quote!(#krate::VariantValue)));
                continue;
            }
            // Cases are made anew.
            let grown = grown || variant;
            needs.push((parameter.clone(), quote!(#krate::FieldValue)));
            if described {
                needs.push((parameter.clone(), quote!(#krate::VmState)));
            }
            if grown {
                needs.push((parameter, quote!(::core::default::Default)));
            }
        }
    }
    let mut seen = Vec::new();
    for (parameter, bound) in needs {
        let key = format!("{parameter}: {}", bound.to_token_stream());
        if !seen.contains(&key) {
            seen.push(key);
            generics
                .make_where_clause()
                .predicates
                .push(parse_quote!(#parameter: #bound));
        }
    }
    generics
}

/// Whether a type mentions a type parameter.
pub(super) fn mentions(generics: &Generics, ty: &syn::Type) -> bool {
    let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    let mut uses = Uses {
        parameters: &parameters,
        grown: false,
        found: Vec::new(),
    };
    uses.visit_type(ty);
    !uses.found.is_empty()
}

/// Parameters that a type mentions, and whether within something that makes new values of them.
struct Uses<'a> {
    parameters: &'a [Ident],
    grown: bool,
    found: Vec<(Ident, bool)>,
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_type(&mut self, ty: &'ast syn::Type) {
        let before = self.grown;
        self.grown |= matches!(
            shape(ty),
            Shape::Vec(_) | Shape::BoxSlice(_) | Shape::Option(_) | Shape::List(_)
        );
        visit::visit_type(self, ty);
        self.grown = before;
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        if let Some(ident) = path.path.get_ident()
            && path.qself.is_none()
            && self.parameters.contains(ident)
        {
            self.found.push((ident.clone(), self.grown));
        }
        for segment in &path.path.segments {
            if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                self.visit_angle_bracketed_generic_arguments(arguments);
            }
        }
    }
}
