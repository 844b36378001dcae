//! Checking values.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Member, Shape, Type, Variants};
use crate::QmpError;

/// Checks the arguments of a command, and puts numbers into the form that [`Type`] says.
///
/// # Errors
/// Arguments that are missing, of the wrong type or not known. The text names the first by its path, such as
/// `channels[0].addr.path`.
pub fn check_arguments(shape: &Shape, arguments: &mut Map<String, Value>) -> Result<(), QmpError> {
    object(shape, arguments, &mut String::new())
}

fn object(
    shape: &Shape,
    members: &mut Map<String, Value>,
    path: &mut String,
) -> Result<(), QmpError> {
    let mut known = Vec::new();
    fields(shape, members, path, &mut known)?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(QmpError::unexpected(&joined(path, name))),
        None => Ok(()),
    }
}

fn fields(
    shape: &Shape,
    members: &mut Map<String, Value>,
    path: &mut String,
    known: &mut Vec<&'static str>,
) -> Result<(), QmpError> {
    for member in shape.members {
        known.push(member.name);
        field(member, members, path)?;
    }
    let Some(Variants { tag, branches }) = shape.variants else {
        return Ok(());
    };
    known.push(tag);
    let text = match members.get(tag) {
        None => return Err(QmpError::missing(&joined(path, tag))),
        Some(Value::String(text)) => text,
        Some(_) => return Err(QmpError::invalid_type(&joined(path, tag), "string")),
    };
    match branches.iter().find(|(value, _)| value == text) {
        Some((_, shape)) => fields(shape, members, path, known),
        None => Err(QmpError::invalid_value(tag, text)),
    }
}

fn field(
    member: &Member,
    members: &mut Map<String, Value>,
    path: &mut String,
) -> Result<(), QmpError> {
    let length = path.len();
    *path = joined(path, member.name);
    let result = match members.get_mut(member.name) {
        Some(value) => check(member.value, value, path, member.name),
        None if member.optional => Ok(()),
        None => Err(QmpError::missing(path)),
    };
    path.truncate(length);
    result
}

/// `name` is the last named part of the path, which is all that QEMU tells of an enumeration and of a range.
fn check(expected: Type, value: &mut Value, path: &mut String, name: &str) -> Result<(), QmpError> {
    match (expected, &mut *value) {
        (Type::Any, _)
        | (Type::String | Type::StringOrNull, Value::String(_))
        | (Type::Bool, Value::Bool(_)) => Ok(()),
        (Type::StringOrNull, Value::Null) => {
            *value = Value::String(String::new());
            Ok(())
        }
        (Type::StringOrNull, _) => Err(QmpError::invalid_type(path, "StrOrNull")),
        (Type::Enum(values), Value::String(text)) => {
            if values.contains(&text.as_str()) {
                Ok(())
            } else {
                Err(QmpError::invalid_value(name, text))
            }
        }
        (Type::String | Type::Enum(_), _) => Err(QmpError::invalid_type(path, "string")),
        (Type::Bool, _) => Err(QmpError::invalid_type(path, "boolean")),
        (Type::U8, _) => small(value, path, name, (u8::MAX.into(), "uint8_t")),
        (Type::U16, _) => small(value, path, name, (u16::MAX.into(), "uint16_t")),
        (Type::U32, _) => small(value, path, name, (u32::MAX.into(), "uint32_t")),
        (Type::U64, _) => number(value, path).map(|_| ()),
        (Type::List(element), Value::Array(elements)) => {
            for (index, value) in elements.iter_mut().enumerate() {
                let length = path.len();
                // Writing into a string does not fail.
                let _ = write!(path, "[{index}]");
                let result = check(*element, value, path, name);
                path.truncate(length);
                result?;
            }
            Ok(())
        }
        (Type::List(_), _) => Err(QmpError::invalid_type(path, "array")),
        (Type::Object(shape), Value::Object(members)) => object(shape, members, path),
        (Type::Object(_), _) => Err(QmpError::invalid_type(path, "object")),
    }
}

/// QEMU reads a number of 64 bits first, and then tells the range without the path.
fn small(
    value: &mut Value,
    path: &str,
    name: &str,
    (max, kind): (u64, &str),
) -> Result<(), QmpError> {
    match number(value, path)? {
        number if number <= max => Ok(()),
        _ => Err(QmpError::expects(name, kind)),
    }
}

/// A number of 64 bits. One below zero counts modulo 2^64.
fn number(value: &mut Value, path: &str) -> Result<u64, QmpError> {
    let signed = || value.as_i64().map(i64::cast_unsigned);
    let number = value.as_u64().or_else(signed);
    let number = number.ok_or_else(|| QmpError::expects(path, "uint64"))?;
    *value = number.into();
    Ok(number)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
