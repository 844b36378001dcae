//! Items of an attribute: `key`, `key = value`, `key(…)`.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Error, Expr, Ident, Lit, LitStr, Path, Result, Token, WherePredicate, parenthesized,
};

use super::Errors;
use crate::model::{Attr, Opt};

/// Calls `item` for each item of all `#[name(…)]`; it consumes what follows the key.
pub(crate) fn each(
    attrs: &[Attribute],
    name: &str,
    errors: &mut Errors,
    mut item: impl FnMut(Ident, ParseStream<'_>) -> Result<()>,
) {
    for attr in attrs {
        if attr.path().is_ident(name)
            && let Err(error) =
                attr.parse_args_with(|input: ParseStream<'_>| list(input, &mut item))
        {
            errors.push(error);
        }
    }
}

/// Calls `item` for each item of a list.
pub(crate) fn list(
    input: ParseStream<'_>,
    mut item: impl FnMut(Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    while !input.is_empty() {
        let key = input.call(Ident::parse_any)?;
        item(key, input)?;
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

/// As [`list`], within parentheses.
pub(crate) fn nested(
    input: ParseStream<'_>,
    item: impl FnMut(Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    let content;
    parenthesized!(content in input);
    list(&content, item)
}

/// Stores the value of an item, of which there may be one only.
pub(crate) fn set<T>(slot: &mut Opt<T>, key: Ident, value: T) -> Result<()> {
    if slot.is_some() {
        return Err(Error::new(key.span(), format!("`{key}` is given twice")));
    }
    *slot = Some(Attr { key, value });
    Ok(())
}

/// `= value`.
pub(crate) fn value<T: Parse>(key: &Ident, input: ParseStream<'_>) -> Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new(
            key.span(),
            format!("`{key}` needs a value: `{key} = …`"),
        ));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

/// `= path::to::module`.
pub(crate) fn module(input: ParseStream<'_>) -> Result<Path> {
    input.parse::<Token![=]>()?;
    input.call(Path::parse_mod_style)
}

/// `(predicate, …)`, as they stand behind `where`.
pub(crate) fn predicates(input: ParseStream<'_>) -> Result<Vec<WherePredicate>> {
    let content;
    parenthesized!(content in input);
    let predicates = Punctuated::<_, Token![,]>::parse_terminated(&content)?;
    Ok(predicates.into_iter().collect())
}

/// `= number`: a literal, or any other expression that is a constant.
pub(crate) fn number(key: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    let value = value(key, input)?;
    if let Expr::Lit(lit) = &value
        && !matches!(lit.lit, Lit::Int(_))
    {
        return Err(Error::new_spanned(
            &value,
            format!("`{key}` is a number without quotes"),
        ));
    }
    Ok(value)
}

/// `= path::to::function`.
pub(crate) fn function(key: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    let value = value(key, input)?;
    if let Expr::Lit(_) = &value {
        return Err(Error::new_spanned(
            &value,
            format!("`{key}` is the path of a function, without quotes"),
        ));
    }
    Ok(value)
}

/// `= "text"`, not empty.
pub(crate) fn text(key: &Ident, input: ParseStream<'_>) -> Result<LitStr> {
    let value: LitStr = value(key, input)?;
    if value.value().trim().is_empty() {
        return Err(Error::new(value.span(), format!("`{key}` is empty")));
    }
    Ok(value)
}

/// A key without a value.
pub(crate) fn flag(key: &Ident, input: ParseStream<'_>) -> Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    Err(Error::new(
        key.span(),
        format!("`{key}` stands alone, without a value"),
    ))
}

/// The error of a key that does not exist, with the nearest one that does.
pub(crate) fn unknown(key: &Ident, place: &str, known: &[&str]) -> Error {
    let found = key.unraw().to_string();
    let nearest = known
        .iter()
        .map(|k| (distance(&found, k), *k))
        .min()
        .filter(|(distance, _)| *distance <= found.len().div_ceil(3));
    let message = match nearest {
        Some((_, nearest)) => {
            format!("`{found}` is not an attribute of {place}; did you mean `{nearest}`?")
        }
        None => format!(
            "`{found}` is not an attribute of {place}; these are: {}",
            known.join(", ")
        ),
    };
    Error::new(key.span(), message)
}

/// Edits from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
