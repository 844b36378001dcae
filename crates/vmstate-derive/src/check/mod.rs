//! What attributes must keep together, and the order in which things are described.

mod field;
mod plan;

use proc_macro2::Span;
use syn::{Error, Expr, Lit, Result};

use crate::model::{Body, ContainerAttrs, DescriptionAttrs, Input, Plan, SubsectionAttrs};
use crate::parse::Errors;

pub(crate) const REPRS: [&str; 8] = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"];

pub(crate) fn check<'a>(input: &'a Input<'a>) -> Result<Plan<'a>> {
    match &input.body {
        Body::Enum(_) => enumeration(input),
        Body::Cases(cases) => {
            let mut errors = Errors::default();
            let allowed = ["crate", "bound"];
            only(&input.attrs, "an enum with cases", &allowed, &mut errors);
            errors.finish()?;
            Ok(Plan::Cases(cases))
        }
        Body::Struct(_) if input.attrs.transparent.is_some() => transparent(input),
        Body::Struct(_) => structure(input),
    }
}

fn structure<'a>(input: &'a Input<'a>) -> Result<Plan<'a>> {
    let Body::Struct(fields) = &input.body else {
        return Err(Error::new(input.ident.span(), "a struct is expected"));
    };
    let mut errors = Errors::default();
    if let Some(repr) = &input.attrs.repr {
        errors.push(Error::new(repr.key.span(), "`repr` is for enums"));
    }
    let name = match &input.attrs.description.name {
        Some(name) => name.value.value(),
        None => input.ident.to_string(),
    };
    description(&input.attrs.description, &name, &mut errors);
    for field in fields {
        field::check(field, &input.attrs, &mut errors);
    }
    let plan = plan::plan(input, fields, &mut errors);
    errors.finish()?;
    Ok(Plan::Description(plan))
}

/// Versions and names of a description and of the subsections in it.
fn description(attrs: &DescriptionAttrs, name: &str, errors: &mut Errors) {
    if let Some(minimum) = &attrs.minimum_version
        && let Some(low) = literal(&minimum.value)
    {
        let high = match &attrs.version {
            None => Some(0),
            Some(version) => literal(&version.value),
        };
        if high.is_some_and(|high| low > high) {
            errors.push(Error::new_spanned(
                &minimum.value,
                "`minimum_version` is above `version`",
            ));
        }
    }
    for subsection in &attrs.subsections {
        subsection_name(subsection, name, errors);
        if let Some(version) = &subsection.description.version
            && literal(&version.value).is_some_and(|version| version > 255)
        {
            errors.push(Error::new_spanned(
                &version.value,
                "a subsection's version is at most 255, since loaders keep the low byte only",
            ));
        }
    }
}

fn subsection_name(subsection: &SubsectionAttrs, owner: &str, errors: &mut Errors) {
    let Some(name) = &subsection.description.name else {
        return;
    };
    let text = name.value.value();
    if !text.starts_with(owner) || text.len() <= owner.len() {
        errors.push(Error::new(
            name.value.span(),
            format!("a subsection's name begins with its owner's: `{owner}/…`"),
        ));
    }
    description(&subsection.description, &text, errors);
}

fn transparent<'a>(input: &'a Input<'a>) -> Result<Plan<'a>> {
    let Body::Struct(fields) = &input.body else {
        return Err(Error::new(input.ident.span(), "a struct is expected"));
    };
    let mut errors = Errors::default();
    only(
        &input.attrs,
        "a transparent struct",
        &["transparent", "crate", "bound"],
        &mut errors,
    );
    let span = input
        .attrs
        .transparent
        .as_ref()
        .map_or_else(Span::call_site, |attr| attr.key.span());
    let [field] = fields.as_slice() else {
        return Err(Error::new(
            span,
            format!(
                "`transparent` is for structs with one field, and `{}` has {}",
                input.ident,
                fields.len()
            ),
        ));
    };
    if let Some(key) = field.attrs.keys().first() {
        errors.push(Error::new(
            key.span(),
            "the field of a `transparent` struct has no attributes",
        ));
    }
    field::check_type(field, &mut errors);
    errors.finish()?;
    Ok(Plan::Transparent(field))
}

fn enumeration<'a>(input: &'a Input<'a>) -> Result<Plan<'a>> {
    let mut errors = Errors::default();
    only(&input.attrs, "an enum", &["repr", "crate"], &mut errors);
    let Some(repr) = &input.attrs.repr else {
        return Err(Error::new(input.ident.span(), "an enum needs `repr`"));
    };
    if !REPRS.iter().any(|known| repr.value == known) {
        errors.push(Error::new(
            repr.value.span(),
            format!(
                "`{}` has no encoding; choose one of {}",
                repr.value,
                REPRS.join(", ")
            ),
        ));
    }
    errors.finish()?;
    Ok(Plan::Enum(&repr.value))
}

/// Refuses all attributes of a type but these.
fn only(attrs: &ContainerAttrs, place: &str, allowed: &[&str], errors: &mut Errors) {
    for key in attrs.keys() {
        if !allowed.iter().any(|allowed| key == allowed) {
            errors.push(Error::new(
                key.span(),
                format!("`{key}` has no meaning for {place}"),
            ));
        }
    }
}

/// The value of a number that is written down, rather than named.
fn literal(value: &Expr) -> Option<u64> {
    match value {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(int) => int.base10_parse().ok(),
            _ => None,
        },
        Expr::Group(group) => literal(&group.expr),
        Expr::Paren(paren) => literal(&paren.expr),
        _ => None,
    }
}
