//! From tokens to the intermediate form. Checks what one attribute can be checked for alone.

mod cases;
pub(crate) mod container;
pub(crate) mod field;
pub(crate) mod item;

use syn::{Data, DeriveInput, Error, Fields, Index, Member, Result, spanned::Spanned};

use crate::model::{Body, ContainerAttrs, Field, Input, Variant};

/// Errors of several places, reported together.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish(self) -> Result<()> {
        let all = self.0.into_iter().reduce(|mut errors, error| {
            errors.combine(error);
            errors
        });
        all.map_or(Ok(()), Err)
    }
}

pub(crate) fn input(input: &DeriveInput) -> Result<Input<'_>> {
    let mut errors = Errors::default();
    let attrs = container::parse(&input.attrs, &mut errors);
    let body = match &input.data {
        Data::Struct(data) => Body::Struct(fields(&data.fields, &mut errors)),
        Data::Enum(data) if attrs.repr.is_none() && cases::are_cases(data) => {
            Body::Cases(cases::cases(data, &mut errors))
        }
        Data::Enum(data) => Body::Enum(variants(input, data, &attrs, &mut errors)),
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union does not say which of its fields is alive: derive for a struct and convert",
            ));
        }
    };
    errors.finish()?;
    Ok(Input {
        ident: &input.ident,
        generics: &input.generics,
        attrs,
        body,
    })
}

fn fields<'a>(fields: &'a Fields, errors: &mut Errors) -> Vec<Field<'a>> {
    fields
        .iter()
        .enumerate()
        .map(|(position, field)| {
            let member = match &field.ident {
                Some(ident) => Member::Named(ident.clone()),
                None => Member::Unnamed(Index {
                    index: u32::try_from(position).unwrap_or(u32::MAX),
                    span: field.ty.span(),
                }),
            };
            Field {
                span: member.span(),
                member,
                ty: &field.ty,
                attrs: field::parse(&field.attrs, errors),
            }
        })
        .collect()
}

fn variants<'a>(
    input: &'a DeriveInput,
    data: &'a syn::DataEnum,
    attrs: &ContainerAttrs,
    errors: &mut Errors,
) -> Vec<Variant<'a>> {
    if attrs.repr.is_none() {
        errors.push(Error::new(
            input.ident.span(),
            "an enum needs its type on the wire, `#[vmstate(repr = u8)]`, and a value for each variant; with data, `#[vmstate(case = …)]` for each",
        ));
        return Vec::new();
    }
    if data.variants.is_empty() {
        errors.push(Error::new(
            input.ident.span(),
            "an enum without variants has no values",
        ));
    }
    let mut variants = Vec::new();
    for variant in &data.variants {
        for attr in &variant.attrs {
            if attr.path().is_ident("vmstate") {
                errors.push(Error::new(
                    attr.span(),
                    "variants of an enum with `repr` have no attributes",
                ));
            }
        }
        if !matches!(variant.fields, Fields::Unit) {
            errors.push(Error::new(
                variant.fields.span(),
                "a variant with data is no integer: without `repr`, `#[vmstate(case = …)]` for each variant makes the enum a choice of states",
            ));
            continue;
        }
        match &variant.discriminant {
            Some((_, value)) => variants.push(Variant {
                ident: &variant.ident,
                value,
            }),
            None => errors.push(Error::new(
                variant.ident.span(),
                format!(
                    "write the value on the wire: `{} = …`; counting would change it with the order",
                    variant.ident
                ),
            )),
        }
    }
    variants
}
