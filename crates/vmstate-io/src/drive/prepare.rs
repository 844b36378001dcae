//! Up to the moment at which the source begins.

use serde_json::{Map, Value, json};
use vmstate_qmp::address::{MigrationAddress, SocketAddress};
use vmstate_qmp::migration::{MigrationInfo, StatusInfo};

use super::Plan;
use super::error::{DriveError, Side};
use super::negotiation::speaks_ber;
use super::postcopy::capabilities;
use super::report::program;
use super::settings::{set_capabilities, set_parameters};
use crate::qmp::{QmpClient, QmpClientError};
use crate::render::text::size;

/// The first release that knows `file:`, and `channels`.
const WITH_FILES: (u32, u32) = (8, 2);
/// The first release whose `migrate-incoming` can leave the process alive after a failure.
const WITH_EXIT_ON_ERROR: (u32, u32) = (9, 1);

fn release(client: &QmpClient) -> (u32, u32) {
    let version = client.version().qemu;
    (version.major, version.minor)
}

/// Runs a command that begins something. A machine that says no has refused.
fn begin(
    client: &mut QmpClient,
    side: Side,
    command: &str,
    arguments: &Value,
) -> Result<(), DriveError> {
    match client.run(command, arguments) {
        Ok(_) => Ok(()),
        Err(QmpClientError::Refused { source, .. }) => Err(DriveError::Refused {
            side,
            error: source,
        }),
        Err(e) => Err(DriveError::monitor(side)(e)),
    }
}

/// Checks that a source can be asked at all, and gives what it does now.
pub(super) fn source(client: &mut QmpClient, plan: &Plan) -> Result<StatusInfo, DriveError> {
    let monitor = DriveError::monitor(Side::Source);
    let address: MigrationAddress = plan.uri.parse()?;
    knows(client, Side::Source, &address)?;
    let status: StatusInfo = client.query("query-status", json!({})).map_err(&monitor)?;
    match status.status.as_str() {
        "inmigrate" => return Err(DriveError::SourceIsIncoming),
        "postmigrate" => {
            let ours = client.version().package.starts_with("vmstate");
            return Err(DriveError::HasMoved { ours });
        }
        _ => {}
    }
    let info: MigrationInfo = client.query("query-migrate", json!({})).map_err(&monitor)?;
    if !info.status().is_over() {
        return Err(DriveError::UnderWay {
            status: info.status().to_string(),
        });
    }
    if let Some(reasons) = info.blocked_reasons.filter(|reasons| !reasons.is_empty()) {
        return Err(DriveError::Blocked { reasons });
    }
    set_capabilities(client, Side::Source, &capabilities(plan))?;
    let parameters = parameters(client, Side::Source, plan)?;
    set_parameters(client, Side::Source, &parameters)?;
    Ok(status)
}

fn knows(client: &QmpClient, side: Side, address: &MigrationAddress) -> Result<(), DriveError> {
    if matches!(address, MigrationAddress::File { .. }) && release(client) < WITH_FILES {
        return Err(DriveError::Scheme {
            side,
            machine: program(client.version()),
            scheme: address.scheme(),
        });
    }
    Ok(())
}

/// Whether a stream that goes there waits there until somebody reads it.
pub(super) fn is_stored(plan: &Plan) -> bool {
    let uri = plan.incoming_uri.as_ref().unwrap_or(&plan.uri);
    let address = uri.parse::<MigrationAddress>();
    address.is_ok_and(|a| matches!(a.scheme(), "file" | "exec"))
}

/// Checks that a destination waits for a migration, and sets it up as the source is.
pub(super) fn destination(client: &mut QmpClient, plan: &Plan) -> Result<(), DriveError> {
    let side = Side::Destination;
    let uri = plan.incoming_uri.as_ref().unwrap_or(&plan.uri);
    knows(client, side, &uri.parse()?)?;
    let status: StatusInfo = client
        .query("query-status", json!({}))
        .map_err(DriveError::monitor(side))?;
    if status.status != "inmigrate" {
        return Err(DriveError::NotIncoming {
            status: status.status,
        });
    }
    set_capabilities(client, side, &capabilities(plan))?;
    let parameters = parameters(client, side, plan)?;
    set_parameters(client, side, &parameters)
}

/// The parameters to set, with what the plan wants besides.
fn parameters(
    client: &mut QmpClient,
    side: Side,
    plan: &Plan,
) -> Result<Vec<(String, String)>, DriveError> {
    let mut all = plan.parameters.clone();
    if plan.require_ber {
        speaks_ber(client, side)?;
        all.push(("x-peer".to_owned(), "ber".to_owned()));
    }
    Ok(all)
}

/// Compares what a destination compares, too, but tells its standard error only. What a machine cannot be asked is not
/// compared.
pub(super) fn compare(
    source: &mut QmpClient,
    destination: &mut QmpClient,
) -> Result<(), DriveError> {
    let machine = json!({"path": "/machine", "property": "type"});
    let machine_type = |reply: &Value| {
        let name = reply.as_str()?;
        Some(name.strip_suffix("-machine").unwrap_or(name).to_owned())
    };
    let memory = |reply: &Value| reply.get("base-memory")?.as_u64().map(size);
    differ(
        source,
        destination,
        "machine type",
        ("qom-get", &machine),
        machine_type,
    )?;
    let summary = ("query-memory-size-summary", &json!({}));
    differ(source, destination, "memory", summary, memory)
}

/// Asks both machines the same.
fn differ(
    source: &mut QmpClient,
    destination: &mut QmpClient,
    what: &'static str,
    (command, arguments): (&str, &Value),
    read: impl Fn(&Value) -> Option<String>,
) -> Result<(), DriveError> {
    let ask = |client: &mut QmpClient, side| match client.run(command, arguments) {
        Ok(reply) => Ok(read(&reply)),
        Err(QmpClientError::Refused { .. }) => Ok(None),
        Err(e) => Err(DriveError::monitor(side)(e)),
    };
    match (
        ask(source, Side::Source)?,
        ask(destination, Side::Destination)?,
    ) {
        (Some(source_has), Some(destination_has)) if source_has != destination_has => {
            Err(DriveError::Different {
                what,
                source_has,
                destination_has,
            })
        }
        _ => Ok(()),
    }
}

/// Lets a destination wait at its place. Gives the URI for the source, which has the port that the destination has chosen
/// if none was named.
pub(super) fn incoming(client: &mut QmpClient, plan: &Plan) -> Result<String, DriveError> {
    let side = Side::Destination;
    let uri = plan.incoming_uri.as_ref().unwrap_or(&plan.uri);
    let mut arguments = Map::new();
    arguments.insert("uri".to_owned(), uri.clone().into());
    if release(client) >= WITH_EXIT_ON_ERROR {
        // So that it can still say why it has failed.
        arguments.insert("exit-on-error".to_owned(), false.into());
    }
    begin(client, side, "migrate-incoming", &arguments.into())?;
    let Ok(MigrationAddress::Socket(SocketAddress::Inet(mut place))) = plan.uri.parse() else {
        return Ok(plan.uri.clone());
    };
    if place.port != "0" {
        return Ok(plan.uri.clone());
    }
    let info: MigrationInfo = client
        .query("query-migrate", json!({}))
        .map_err(DriveError::monitor(side))?;
    let chosen = info.socket_address.iter().flatten().find_map(|address| {
        let port = address.get("port")?.as_str()?;
        Some(port.to_owned())
    });
    place.port = chosen.unwrap_or(place.port);
    Ok(format!("tcp:{place}"))
}

/// Lets the source begin.
pub(super) fn migrate(client: &mut QmpClient, uri: &str) -> Result<(), DriveError> {
    begin(client, Side::Source, "migrate", &json!({ "uri": uri }))
}
