//! Attributes of the type.

use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, Ident, LitStr, Member, Result, Token, Type, parenthesized};

use super::Errors;
use super::item::{
    each, flag, function, module, nested, number, predicates, set, text, unknown, value,
};
use crate::model::{ContainerAttrs, DescriptionAttrs, Extra, ExtraKind, SubsectionAttrs};

pub(crate) const CONTAINER: &[&str] = &[
    "name",
    "version",
    "minimum_version",
    "priority",
    "unmigratable",
    "early_setup",
    "pre_load",
    "post_load",
    "pre_save",
    "post_save",
    "needed",
    "unplug_pending",
    "subsection",
    "must_exist",
    "tmp",
    "transparent",
    "repr",
    "crate",
    "bound",
];

const SUBSECTION: &[&str] = &[
    "name",
    "version",
    "minimum_version",
    "needed",
    "pre_load",
    "post_load",
    "pre_save",
    "post_save",
    "fields",
    "subsection",
];

const PRIORITIES: [&str; 8] = [
    "Low",
    "Default",
    "Iommu",
    "PciBus",
    "VirtioMem",
    "Apic",
    "GicV3Its",
    "GicV3",
];

pub(super) fn parse(attrs: &[Attribute], errors: &mut Errors) -> ContainerAttrs {
    let mut out = ContainerAttrs::default();
    each(attrs, "vmstate", errors, |key, input| {
        item(&mut out, key, input)
    });
    out
}

fn item(out: &mut ContainerAttrs, key: Ident, input: ParseStream<'_>) -> Result<()> {
    match key.to_string().as_str() {
        "priority" => {
            let priority: Ident = value(&key, input)?;
            if !PRIORITIES.iter().any(|known| priority == known) {
                return Err(Error::new(
                    priority.span(),
                    format!("a priority is one of {}", PRIORITIES.join(", ")),
                ));
            }
            set(&mut out.priority, key, priority)
        }
        "unmigratable" => {
            flag(&key, input)?;
            set(&mut out.unmigratable, key, ())
        }
        "early_setup" => {
            flag(&key, input)?;
            set(&mut out.early_setup, key, ())
        }
        "transparent" => {
            flag(&key, input)?;
            set(&mut out.transparent, key, ())
        }
        "unplug_pending" => {
            let value = function(&key, input)?;
            set(&mut out.unplug_pending, key, value)
        }
        "must_exist" => {
            out.extras.push(must_exist(key, input)?);
            Ok(())
        }
        "tmp" => {
            out.extras.push(tmp(key, input)?);
            Ok(())
        }
        "repr" => {
            let repr = value(&key, input)?;
            set(&mut out.repr, key, repr)
        }
        "crate" => {
            let path = module(input)?;
            set(&mut out.krate, key, path)
        }
        "bound" => {
            let bounds = predicates(input)?;
            set(&mut out.bound, key, bounds)
        }
        _ => description_item(&mut out.description, key, input, "a type", CONTAINER),
    }
}

/// Items that a type and a subsection have in common.
fn description_item(
    out: &mut DescriptionAttrs,
    key: Ident,
    input: ParseStream<'_>,
    place: &str,
    known: &[&str],
) -> Result<()> {
    let hook = match key.to_string().as_str() {
        "name" => {
            let name = text(&key, input)?;
            if name.value().len() > 255 {
                return Err(Error::new(name.span(), "a name has at most 255 bytes"));
            }
            return set(&mut out.name, key, name);
        }
        "version" => {
            let version = number(&key, input)?;
            return set(&mut out.version, key, version);
        }
        "minimum_version" => {
            let version = number(&key, input)?;
            return set(&mut out.minimum_version, key, version);
        }
        "subsection" => {
            let subsection = subsection(key, input)?;
            out.subsections.push(subsection);
            return Ok(());
        }
        "needed" => &mut out.needed,
        "pre_save" => &mut out.pre_save,
        "post_save" => &mut out.post_save,
        "pre_load" => &mut out.pre_load,
        "post_load" => &mut out.post_load,
        _ => return Err(unknown(&key, place, known)),
    };
    let value = function(&key, input)?;
    set(hook, key, value)
}

fn subsection(key: Ident, input: ParseStream<'_>) -> Result<SubsectionAttrs> {
    let mut description = DescriptionAttrs::default();
    let mut fields = None;
    nested(input, |key, input| {
        if key == "fields" {
            let content;
            parenthesized!(content in input);
            let members = Punctuated::<Member, Token![,]>::parse_terminated(&content)?;
            return set(&mut fields, key, members.into_iter().collect());
        }
        description_item(&mut description, key, input, "a subsection", SUBSECTION)
    })?;
    if description.name.is_none() {
        return Err(missing(&key, "name"));
    }
    Ok(SubsectionAttrs {
        fields: fields.ok_or_else(|| missing(&key, "fields"))?.value,
        key,
        description,
    })
}

fn must_exist(key: Ident, input: ParseStream<'_>) -> Result<Extra> {
    let (mut name, mut test, mut after) = (None, None, None);
    nested(input, |key, input| match key.to_string().as_str() {
        "name" => {
            let value = text(&key, input)?;
            set(&mut name, key, value)
        }
        "test" => {
            let value = function(&key, input)?;
            set(&mut test, key, value)
        }
        "after" => {
            let member = value(&key, input)?;
            set(&mut after, key, member)
        }
        _ => Err(unknown(&key, "`must_exist`", &["name", "test", "after"])),
    })?;
    let name = name.ok_or_else(|| missing(&key, "name"))?;
    let test: Expr = test.ok_or_else(|| missing(&key, "test"))?.value;
    Ok(Extra {
        name: Some(name.value),
        after: after.map(|after| after.value),
        kind: ExtraKind::MustExist(test),
        key,
    })
}

fn tmp(key: Ident, input: ParseStream<'_>) -> Result<Extra> {
    let content;
    parenthesized!(content in input);
    let ty: Type = content.parse()?;
    let (mut name, mut after) = (None, None);
    if !content.is_empty() {
        content.parse::<Token![,]>()?;
        super::item::list(&content, |key, input| match key.to_string().as_str() {
            "name" => {
                let value: LitStr = text(&key, input)?;
                set(&mut name, key, value)
            }
            "after" => {
                let member = value(&key, input)?;
                set(&mut after, key, member)
            }
            _ => Err(unknown(&key, "`tmp`", &["name", "after"])),
        })?;
    }
    Ok(Extra {
        name: name.map(|name| name.value),
        after: after.map(|after| after.value),
        kind: ExtraKind::Tmp(ty),
        key,
    })
}

/// The error of an item that another one needs inside of it.
pub(super) fn missing(key: &Ident, inner: &str) -> Error {
    Error::new(key.span(), format!("`{key}` needs `{inner}`"))
}
