//! `#[migration_state(…)]`: what is the derive's own, and what is the mirror's.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::ParseStream;
use syn::{
    Attribute, Error, Expr, Ident, LitStr, Result, Token, Type, WherePredicate, parenthesized,
    token,
};

use crate::model::Opt;
use crate::parse::Errors;
use crate::parse::container::CONTAINER;
use crate::parse::field::FIELD;
use crate::parse::item::{
    each, flag, function, module, nested, predicates, set, text, unknown, value,
};

/// Attributes of the type.
#[derive(Debug, Default)]
pub(super) struct ContainerAttrs {
    pub(super) rename: Opt<Ident>,
    pub(super) krate: Opt<syn::Path>,
    pub(super) bound: Opt<Vec<WherePredicate>>,
    pub(super) shared: Opt<()>,
    pub(super) validate: Opt<Expr>,
    pub(super) restored: Opt<Expr>,
    pub(super) snapshot_with: Opt<Expr>,
    pub(super) repr: Opt<Ident>,
    pub(super) passed: Vec<Passed>,
}

/// Attributes of a field.
#[derive(Debug, Default)]
pub(super) struct FieldAttrs {
    pub(super) omit: Opt<Option<Expr>>,
    pub(super) clone: Opt<()>,
    pub(super) into: Opt<Type>,
    pub(super) try_into: Opt<Type>,
    pub(super) validate: Opt<Expr>,
    pub(super) len: Opt<(Ident, Type)>,
    pub(super) passed: Vec<Passed>,
}

/// An item that is handed on to `#[vmstate(…)]` of the mirror.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    pub(super) key: Ident,
    /// What stands behind the key.
    pub(super) rest: Rest,
}

#[derive(Debug, Clone)]
pub(super) enum Rest {
    Flag,
    Value(TokenStream),
    Group(TokenStream),
}

impl ToTokens for Passed {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let key = &self.key;
        tokens.extend(match &self.rest {
            Rest::Flag => quote!(#key),
            Rest::Value(value) => quote!(#key = #value),
            Rest::Group(group) => quote!(#key(#group)),
        });
    }
}

const OWN_CONTAINER: &[&str] = &[
    "rename",
    "crate",
    "bound",
    "shared",
    "validate",
    "restored",
    "snapshot_with",
    "repr",
];
/// What has no meaning for a mirror: it is a struct, and no value.
const NOT_CONTAINER: &[&str] = &["transparent"];

const OWN_FIELD: &[&str] = &["omit", "clone", "into", "try_into", "validate", "len"];
const NOT_FIELD: &[&str] = &["skip"];

fn known(own: &[&'static str], mirror: &[&'static str], not: &[&str]) -> Vec<&'static str> {
    let mut all = own.to_vec();
    all.extend(
        mirror
            .iter()
            .filter(|k| !not.contains(k) && !own.contains(k)),
    );
    all
}

pub(super) fn container(attrs: &[Attribute], errors: &mut Errors) -> ContainerAttrs {
    let mut out = ContainerAttrs::default();
    each(attrs, "migration_state", errors, |key, input| {
        match key.to_string().as_str() {
            "rename" => {
                let name = rename(&key, input)?;
                set(&mut out.rename, key, name)
            }
            "crate" => {
                let path = module(input)?;
                set(&mut out.krate, key, path)
            }
            "bound" => {
                let bounds = predicates(input)?;
                set(&mut out.bound, key, bounds)
            }
            "shared" => {
                flag(&key, input)?;
                set(&mut out.shared, key, ())
            }
            "validate" => {
                let value = function(&key, input)?;
                set(&mut out.validate, key, value)
            }
            "restored" => {
                let value = function(&key, input)?;
                set(&mut out.restored, key, value)
            }
            "snapshot_with" => {
                let value = function(&key, input)?;
                set(&mut out.snapshot_with, key, value)
            }
            "repr" => {
                let repr = value(&key, input)?;
                set(&mut out.repr, key, repr)
            }
            _ => {
                let known = known(OWN_CONTAINER, CONTAINER, NOT_CONTAINER);
                out.passed.push(passed(key, input, "a type", &known)?);
                Ok(())
            }
        }
    });
    out
}

fn rename(key: &Ident, input: ParseStream<'_>) -> Result<Ident> {
    let value: Expr = value(key, input)?;
    let message = "the mirror's name is an identifier, without quotes: `rename = Name`";
    match &value {
        Expr::Path(path) => match path.path.get_ident() {
            Some(ident) if path.qself.is_none() => Ok(ident.clone()),
            _ => Err(Error::new_spanned(value, message)),
        },
        _ => Err(Error::new_spanned(value, message)),
    }
}

pub(super) fn field(attrs: &[Attribute], errors: &mut Errors) -> FieldAttrs {
    let mut out = FieldAttrs::default();
    each(attrs, "migration_state", errors, |key, input| {
        match key.to_string().as_str() {
            "omit" => {
                let rebuild = omit(&key, input)?;
                set(&mut out.omit, key, rebuild)
            }
            "clone" => {
                flag(&key, input)?;
                set(&mut out.clone, key, ())
            }
            "into" => {
                let ty = target(&key, input)?;
                set(&mut out.into, key, ty)
            }
            "try_into" => {
                let ty = target(&key, input)?;
                set(&mut out.try_into, key, ty)
            }
            "validate" => {
                let value = function(&key, input)?;
                set(&mut out.validate, key, value)
            }
            "len" => {
                let len = len(&key, input)?;
                set(&mut out.len, key, len)
            }
            "skip" => Err(Error::new(
                key.span(),
                "a field that does not travel is not in the mirror: `omit` or `omit = \"reason\"`",
            )),
            _ => {
                let known = known(OWN_FIELD, FIELD, NOT_FIELD);
                let item = passed(key, input, "a field", &known)?;
                if let Some(other) = out.passed.iter().find(|other| other.key == item.key) {
                    return Err(Error::new(
                        item.key.span(),
                        format!("`{}` is given twice", other.key),
                    ));
                }
                out.passed.push(item);
                Ok(())
            }
        }
    });
    check(&out, errors);
    out
}

/// `omit`, `omit = "reason"`, `omit(rebuild = expression)`.
fn omit(key: &Ident, input: ParseStream<'_>) -> Result<Option<Expr>> {
    if input.peek(Token![=]) {
        let _reason: LitStr = text(key, input)?;
        return Ok(None);
    }
    let mut rebuild = None;
    if input.peek(token::Paren) {
        nested(input, |key, input| match key.to_string().as_str() {
            "rebuild" => {
                let expr: Expr = value(&key, input)?;
                set(&mut rebuild, key, expr)
            }
            _ => Err(unknown(&key, "`omit`", &["rebuild"])),
        })?;
        return Ok(rebuild.map(|rebuild| rebuild.value));
    }
    flag(key, input)?;
    Ok(None)
}

/// `(Type)`.
fn target(key: &Ident, input: ParseStream<'_>) -> Result<Type> {
    let message = format!("`{key}` names the mirror's type in parentheses: `{key}(u32)`");
    if !input.peek(token::Paren) {
        return Err(Error::new(key.span(), message));
    }
    let content;
    parenthesized!(content in input);
    if content.is_empty() {
        return Err(Error::new(key.span(), message));
    }
    let ty = content.parse()?;
    if !content.is_empty() {
        return Err(content.error(format!("`{key}` takes one type")));
    }
    Ok(ty)
}

/// `(name: type)`.
fn len(key: &Ident, input: ParseStream<'_>) -> Result<(Ident, Type)> {
    if !input.peek(token::Paren) {
        return Err(Error::new(
            key.span(),
            "`len` names the field that counts the elements, and its type: `len(queue_count: u8)`",
        ));
    }
    let content;
    parenthesized!(content in input);
    let name = content.parse()?;
    content.parse::<Token![:]>()?;
    Ok((name, content.parse()?))
}

/// An item of the mirror's.
fn passed(key: Ident, input: ParseStream<'_>, place: &str, known: &[&str]) -> Result<Passed> {
    if !known.iter().any(|k| key == k) {
        return Err(unknown(&key, place, known));
    }
    let rest = if input.peek(token::Paren) {
        let content;
        parenthesized!(content in input);
        Rest::Group(content.parse()?)
    } else if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        Rest::Value(if key == "tmp" {
            input.parse::<Type>()?.into_token_stream()
        } else {
            input.parse::<Expr>()?.into_token_stream()
        })
    } else {
        Rest::Flag
    };
    Ok(Passed { key, rest })
}

/// What goes together.
fn check(attrs: &FieldAttrs, errors: &mut Errors) {
    let key = |attr: Option<&Ident>| attr.cloned();
    let conversions = [
        key(attrs.clone.as_ref().map(|a| &a.key)),
        key(attrs.into.as_ref().map(|a| &a.key)),
        key(attrs.try_into.as_ref().map(|a| &a.key)),
    ];
    if let Some(omit) = &attrs.omit {
        let others = conversions
            .iter()
            .flatten()
            .chain(attrs.validate.as_ref().map(|a| &a.key))
            .chain(attrs.len.as_ref().map(|a| &a.key))
            .chain(attrs.passed.iter().map(|p| &p.key));
        for other in others {
            errors.push(Error::new(
                other.span(),
                format!(
                    "`{}` stands alone: `{other}` says how a field travels",
                    omit.key
                ),
            ));
        }
    }
    if let (Some(into), Some(try_into)) = (&attrs.into, &attrs.try_into) {
        errors.push(Error::new(
            try_into.key.span(),
            format!(
                "`{}` cannot be combined with `{}`: one conversion is enough",
                try_into.key, into.key
            ),
        ));
    }
}

impl FieldAttrs {
    pub(super) fn passes(&self, key: &str) -> bool {
        self.passed.iter().any(|p| p.key == key)
    }

    pub(super) fn passed_value(&self, key: &str) -> Option<&Passed> {
        self.passed.iter().find(|p| p.key == key)
    }
}
