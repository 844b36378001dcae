//! Attributes of a field.

use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, Ident, LitStr, Result, Token, parenthesized, token};

use super::Errors;
use super::container::missing;
use super::item::{each, flag, function, nested, number, set, text, unknown, value};
use crate::model::{CountBy, Custom, FieldAttrs, Holes, Kind, List, Range};

pub(crate) const FIELD: &[&str] = &[
    "name",
    "since",
    "until",
    "exists",
    "ignorable",
    "aliases",
    "count",
    "count_with",
    "multiply",
    "max",
    "size",
    "bits",
    "range",
    "resize_max",
    "validate",
    "default",
    "skip",
    "unused",
    "tmp",
    "custom",
    "subsection",
    "buffer",
    "bitmap",
    "byte_array",
    "qtailq",
    "qlist",
    "marked",
    "prefixed",
    "equal",
    "less_or_equal",
    "little_endian",
    "struct_version",
    "pointers",
    "variant",
];

pub(super) fn parse(attrs: &[Attribute], errors: &mut Errors) -> FieldAttrs {
    let mut out = FieldAttrs::default();
    each(attrs, "vmstate", errors, |key, input| {
        item(&mut out, key, input)
    });
    out
}

fn item(out: &mut FieldAttrs, key: Ident, input: ParseStream<'_>) -> Result<()> {
    let word = key.to_string();
    match word.as_str() {
        "name" => {
            let value = text(&key, input)?;
            set(&mut out.name, key, value)
        }
        "since" => {
            let value = number(&key, input)?;
            set(&mut out.since, key, value)
        }
        "until" => {
            let value = number(&key, input)?;
            set(&mut out.until, key, value)
        }
        "ignorable" => {
            flag(&key, input)?;
            set(&mut out.ignorable, key, ())
        }
        "aliases" => {
            let value = names(&key, input)?;
            set(&mut out.aliases, key, value)
        }
        "exists" => {
            let value = function(&key, input)?;
            set(&mut out.exists, key, value)
        }
        "count" => {
            let member = value(&key, input)?;
            set_count(out, key, CountBy::Field(member))
        }
        "count_with" => {
            let function = function(&key, input)?;
            set_count(out, key, CountBy::With(function))
        }
        "multiply" => {
            let value = number(&key, input)?;
            set(&mut out.multiply, key, value)
        }
        "max" => {
            let value = number(&key, input)?;
            set(&mut out.max, key, value)
        }
        "size" => {
            let value = number(&key, input)?;
            set(&mut out.size, key, value)
        }
        "bits" => {
            let value = number(&key, input)?;
            set(&mut out.bits, key, value)
        }
        "range" => {
            let value = range(&key, input)?;
            set(&mut out.range, key, value)
        }
        "resize_max" => {
            let value = number(&key, input)?;
            set(&mut out.resize_max, key, value)
        }
        "validate" => {
            let value = function(&key, input)?;
            set(&mut out.validate, key, value)
        }
        "default" => {
            let value = value(&key, input)?;
            set(&mut out.default, key, value)
        }
        _ => {
            let kind = kind(&key, &word, input)?;
            set_kind(out, key, kind)
        }
    }
}

fn kind(key: &Ident, word: &str, input: ParseStream<'_>) -> Result<Kind> {
    let alone = match word {
        "skip" => return skip(key, input),
        "unused" => return Ok(Kind::Unused(number(key, input)?)),
        "struct_version" => return Ok(Kind::StructVersion(number(key, input)?)),
        "tmp" => return Ok(Kind::Tmp(Box::new(value(key, input)?))),
        "custom" => return custom(key, input),
        "subsection" => return subsection(input),
        "pointers" => return pointers(input),
        "variant" => return Ok(Kind::Variant(value(key, input)?)),
        "marked" => return marked(key, input),
        "prefixed" => return Ok(Kind::List(List::Prefixed(number(key, input)?))),
        "buffer" => Kind::Buffer,
        "bitmap" => Kind::Bitmap,
        "byte_array" => Kind::ByteArray,
        "qtailq" => Kind::List(List::TailQueue),
        "qlist" => Kind::List(List::Linked),
        "equal" => Kind::Equal,
        "less_or_equal" => Kind::LessOrEqual,
        "little_endian" => Kind::LittleEndian,
        "mark_absent" => {
            return Err(Error::new(
                key.span(),
                "`mark_absent` is a form of `pointers`: `pointers(mark_absent)`",
            ));
        }
        _ => return Err(unknown(key, "a field", FIELD)),
    };
    flag(key, input)?;
    Ok(alone)
}

fn set_kind(out: &mut FieldAttrs, key: Ident, kind: Kind) -> Result<()> {
    if let Some(other) = &out.kind
        && other.key != key
    {
        return Err(Error::new(
            key.span(),
            format!("`{key}` cannot be combined with `{}`", other.key),
        ));
    }
    set(&mut out.kind, key, kind)
}

fn set_count(out: &mut FieldAttrs, key: Ident, count: CountBy) -> Result<()> {
    if let Some(other) = &out.count
        && other.key != key
    {
        return Err(Error::new(
            key.span(),
            format!("`{key}` cannot be combined with `{}`", other.key),
        ));
    }
    set(&mut out.count, key, count)
}

fn skip(key: &Ident, input: ParseStream<'_>) -> Result<Kind> {
    if !input.peek(Token![=]) {
        return Err(Error::new(
            key.span(),
            "say why the field does not travel: `skip = \"reason\"`",
        ));
    }
    text(key, input)?;
    Ok(Kind::Skip)
}

fn custom(key: &Ident, input: ParseStream<'_>) -> Result<Kind> {
    let (mut name, mut size, mut save, mut load) = (None, None, None, None);
    nested(input, |key, input| match key.to_string().as_str() {
        "name" => {
            let value = text(&key, input)?;
            set(&mut name, key, value)
        }
        "size" => {
            let value = number(&key, input)?;
            set(&mut size, key, value)
        }
        "save" => {
            let value = function(&key, input)?;
            set(&mut save, key, value)
        }
        "load" => {
            let value = function(&key, input)?;
            set(&mut load, key, value)
        }
        _ => Err(unknown(&key, "`custom`", &["name", "size", "save", "load"])),
    })?;
    Ok(Kind::Custom(Box::new(Custom {
        name: name.ok_or_else(|| missing(key, "name"))?.value,
        size: size.map(|size| size.value),
        save: save.ok_or_else(|| missing(key, "save"))?.value,
        load: load.ok_or_else(|| missing(key, "load"))?.value,
    })))
}

fn subsection(input: ParseStream<'_>) -> Result<Kind> {
    let mut needed = None;
    if input.peek(token::Paren) {
        nested(input, |key, input| match key.to_string().as_str() {
            "needed" => {
                let value = function(&key, input)?;
                set(&mut needed, key, value)
            }
            _ => Err(unknown(&key, "the `subsection` of a field", &["needed"])),
        })?;
    }
    Ok(Kind::Subsection {
        needed: needed.map(|needed| needed.value),
    })
}

fn pointers(input: ParseStream<'_>) -> Result<Kind> {
    let mut holes = None;
    if input.peek(token::Paren) {
        nested(input, |key, input| {
            flag(&key, input)?;
            if key != "mark_absent" {
                return Err(unknown(&key, "`pointers`", &["mark_absent"]));
            }
            set(&mut holes, key, Holes::MarkAbsent)
        })?;
    }
    Ok(Kind::Pointers(
        holes.map_or(Holes::MarkEvery, |holes| holes.value),
    ))
}

/// `("…", "…")`
fn names(key: &Ident, input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let content;
    parenthesized!(content in input);
    let names = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
    if names.is_empty() || names.iter().any(|name| name.value().is_empty()) {
        return Err(Error::new(
            key.span(),
            format!("`{key}` needs the names that the field had: `{key}(\"…\")`"),
        ));
    }
    Ok(names.into_iter().collect())
}

fn marked(key: &Ident, input: ParseStream<'_>) -> Result<Kind> {
    let (mut more, mut stop, mut lenient) = (None, None, None);
    nested(input, |key, input| match key.to_string().as_str() {
        "more" => {
            let value = number(&key, input)?;
            set(&mut more, key, value)
        }
        "stop" => {
            let value = number(&key, input)?;
            set(&mut stop, key, value)
        }
        "lenient" => {
            flag(&key, input)?;
            set(&mut lenient, key, ())
        }
        _ => Err(unknown(&key, "`marked`", &["more", "stop", "lenient"])),
    })?;
    Ok(Kind::List(List::Marked {
        more: more.ok_or_else(|| missing(key, "more"))?.value,
        stop: stop.ok_or_else(|| missing(key, "stop"))?.value,
        lenient: lenient.is_some(),
    }))
}

fn range(key: &Ident, input: ParseStream<'_>) -> Result<Range> {
    let value: Expr = value(key, input)?;
    match value {
        Expr::Range(range) if matches!(range.limits, syn::RangeLimits::HalfOpen(_)) => Ok(Range {
            from: range.start.map(|from| *from),
            to: range.end.map(|to| *to),
        }),
        other => Err(Error::new_spanned(
            other,
            "a range of elements is written `from..to`",
        )),
    }
}
