//! Capabilities and parameters, as the machine that gets them knows them.

use serde_json::{Map, Value, json};
use vmstate_qmp::migration::CapabilityStatus;

use super::error::{DriveError, Side};
use super::report::program;
use crate::qmp::{QmpClient, QmpClientError};

/// Capabilities that the source alone needs, and that a destination may not know or may refuse.
const OF_THE_SOURCE: &[&str] = &[
    "auto-converge",
    "background-snapshot",
    "dirty-limit",
    "pause-before-switchover",
    "release-ram",
    "zero-copy-send",
];

/// Whether a destination goes by this parameter too.
fn is_of_both(parameter: &str) -> bool {
    ["multifd-", "announce-"]
        .iter()
        .any(|p| parameter.starts_with(p))
        || ["direct-io", "mode", "tls-authz", "tls-creds", "x-peer"].contains(&parameter)
}

/// Switches capabilities on and off.
pub(super) fn set_capabilities(
    client: &mut QmpClient,
    side: Side,
    wanted: &[(String, bool)],
) -> Result<(), DriveError> {
    let wanted = wanted
        .iter()
        .filter(|(name, _)| side == Side::Source || !OF_THE_SOURCE.contains(&name.as_str()));
    let known: Vec<CapabilityStatus> = client
        .query("query-migrate-capabilities", json!({}))
        .map_err(DriveError::monitor(side))?;
    let mut changes = Vec::new();
    for (name, state) in wanted {
        if !known.iter().any(|one| one.capability == *name) {
            return Err(DriveError::UnknownCapability {
                side,
                machine: program(client.version()),
                name: name.clone(),
                known: known.into_iter().map(|one| one.capability).collect(),
            });
        }
        changes.push(json!({ "capability": name, "state": state }));
    }
    if changes.is_empty() {
        return Ok(());
    }
    let arguments = json!({ "capabilities": changes });
    set(client, side, "migrate-set-capabilities", &arguments)
}

/// Sets parameters.
pub(super) fn set_parameters(
    client: &mut QmpClient,
    side: Side,
    wanted: &[(String, String)],
) -> Result<(), DriveError> {
    let known: Map<String, Value> = client
        .query("query-migrate-parameters", json!({}))
        .map_err(DriveError::monitor(side))?;
    let mut arguments = Map::new();
    for (name, text) in wanted {
        if side == Side::Destination && !is_of_both(name) {
            continue;
        }
        let like = match known.get(name) {
            Some(value) => value,
            // Shown only where it is set.
            None if name == "block-bitmap-mapping" => &Value::Array(Vec::new()),
            None => {
                return Err(DriveError::UnknownParameter {
                    side,
                    machine: program(client.version()),
                    name: name.clone(),
                    known: known.into_iter().map(|(name, _)| name).collect(),
                });
            }
        };
        arguments.insert(name.clone(), value(name, text, like)?);
    }
    if arguments.is_empty() {
        return Ok(());
    }
    set(client, side, "migrate-set-parameters", &arguments.into())
}

fn set(
    client: &mut QmpClient,
    side: Side,
    command: &str,
    arguments: &Value,
) -> Result<(), DriveError> {
    match client.run(command, arguments) {
        Ok(_) => Ok(()),
        Err(QmpClientError::Refused { source, .. }) => Err(DriveError::Settings {
            side,
            error: source,
        }),
        Err(e) => Err(DriveError::monitor(side)(e)),
    }
}

/// The value that a text stands for where the present value is `like`.
pub(super) fn value(name: &str, text: &str, like: &Value) -> Result<Value, DriveError> {
    let wrong = |expected| DriveError::Value {
        name: name.to_owned(),
        value: text.to_owned(),
        expected,
    };
    Ok(match like {
        Value::Number(_) => {
            let number = number(text);
            number
                .ok_or_else(|| wrong("a number, as 300, 64K, 32M or 1G"))?
                .into()
        }
        Value::Bool(_) => match text {
            "on" | "true" | "yes" => true.into(),
            "off" | "false" | "no" => false.into(),
            _ => return Err(wrong("on or off")),
        },
        Value::Array(_) => match serde_json::from_str(text) {
            Ok(list @ Value::Array(_)) => list,
            _ => return Err(wrong("a list in JSON")),
        },
        _ => text.into(),
    })
}

/// A whole number, with a letter for a power of 1024.
fn number(text: &str) -> Option<u64> {
    let plain = text.strip_suffix("iB").unwrap_or(text);
    let shift = match plain.bytes().next_back()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = plain.get(..plain.len() - usize::from(shift > 0))?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_kind_that_is_there() {
        let check = |text: &str, like: Value, expected: Value| {
            assert_eq!(value("x", text, &like).unwrap(), expected, "{text}");
        };
        check("300", json!(1), json!(300));
        check("64k", json!(1), json!(65536));
        check("2GiB", json!(1), json!(2_u64 << 30));
        check("on", json!(false), json!(true));
        check("off", json!(true), json!(false));
        check("zstd", json!("none"), json!("zstd"));
        check("", json!(""), json!(""));
        check("[\"a\"]", json!([]), json!(["a"]));
        let refused = |text: &str, like: Value, expected: &str| {
            let error = value("x", text, &like).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("parameter 'x': expected {expected}, found '{text}'")
            );
        };
        for wrong in [
            "",
            "K",
            "-1",
            "1.5G",
            "+1",
            "0x10",
            "99999999999999999999",
            "é",
        ] {
            refused(wrong, json!(1), "a number, as 300, 64K, 32M or 1G");
        }
        refused("1", json!(true), "on or off");
        refused("a b", json!([]), "a list in JSON");
    }
}
