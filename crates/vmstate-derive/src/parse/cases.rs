//! Enums of which each variant has a state: the cases of a variant.

use syn::spanned::Spanned;
use syn::{DataEnum, Error, Expr, Fields, Type};

use super::Errors;
use super::item::{each, number, set, unknown};
use crate::lower::single::is_literal;
use crate::model::{Case, Opt};

/// Whether the enum is meant to be a choice of states.
pub(super) fn are_cases(data: &DataEnum) -> bool {
    let mut attrs = data.variants.iter().flat_map(|variant| &variant.attrs);
    attrs.any(|attr| attr.path().is_ident("vmstate"))
}

pub(super) fn cases<'a>(data: &'a DataEnum, errors: &mut Errors) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for variant in &data.variants {
        let mut value: Opt<Expr> = None;
        each(&variant.attrs, "vmstate", errors, |key, input| {
            if key != "case" {
                return Err(unknown(&key, "a variant", &["case"]));
            }
            let number = number(&key, input)?;
            set(&mut value, key, number)
        });
        let ty = match state(&variant.fields) {
            Ok(ty) => ty,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        match value {
            Some(value) => cases.push(Case {
                ident: &variant.ident,
                value: value.value,
                ty,
            }),
            None => errors.push(Error::new(
                variant.ident.span(),
                format!(
                    "say for which value `{}` stands: `#[vmstate(case = …)]`",
                    variant.ident
                ),
            )),
        }
    }
    sort(&mut cases, errors);
    cases
}

/// The one state of a variant.
fn state(fields: &Fields) -> syn::Result<Option<&Type>> {
    match fields {
        Fields::Unit => Ok(None),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            let field = fields.unnamed.first();
            let mut attrs = field.iter().flat_map(|field| &field.attrs);
            if let Some(attr) = attrs.find(|attr| attr.path().is_ident("vmstate")) {
                let text = "the state of a case has no attributes";
                return Err(Error::new(attr.span(), text));
            }
            Ok(field.map(|field| &field.ty))
        }
        other => Err(Error::new(
            other.span(),
            "a case has one state, `Name(State)`, of a type that derives `VmState`, or none",
        )),
    }
}

/// Brings cases into the order of their values, as far as these are written down.
fn sort(cases: &mut [Case<'_>], errors: &mut Errors) {
    if !cases.iter().all(|case| is_literal(&case.value)) {
        // The finished description is checked.
        return;
    }
    cases.sort_by_key(|case| literal(&case.value));
    for pair in cases.windows(2) {
        if let [one, other] = pair
            && literal(&one.value) == literal(&other.value)
        {
            errors.push(Error::new_spanned(
                &other.value,
                format!("`{}` has this value already", one.ident),
            ));
        }
    }
}

/// The value of a literal with its sign.
fn literal(value: &Expr) -> Option<i128> {
    match value {
        Expr::Lit(lit) => match &lit.lit {
            syn::Lit::Int(int) => int.base10_parse().ok(),
            _ => None,
        },
        Expr::Unary(unary) => literal(&unary.expr)?.checked_neg(),
        _ => None,
    }
}
