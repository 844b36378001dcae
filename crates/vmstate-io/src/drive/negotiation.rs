//! What two machines of ours can do together, before and after.

use serde::Deserialize;
use serde_json::{Value, json};
use vmstate_ber::frame::{Capability, Level, Severity};
use vmstate_negotiate::Report;
use vmstate_negotiate::capabilities::{capability, combine, sort};
use vmstate_qmp::migration::{AdaptedState, MigrationInfo};

use super::error::{DriveError, Side};
use super::report::program;
use crate::qmp::{QmpClient, QmpClientError};

/// What a machine of ours says that it can do.
#[derive(Deserialize)]
struct Offers {
    source: Vec<Offer>,
    destination: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    name: String,
    level: String,
}

fn list(offers: Vec<Offer>) -> Vec<Capability> {
    let level = |name: &str| match name {
        "required" => Level::Required,
        "wanted" => Level::Wanted,
        _ => Level::Offered,
    };
    let mut all: Vec<_> = offers
        .into_iter()
        .map(|offer| capability(offer.name, level(&offer.level)))
        .collect();
    sort(&mut all);
    all
}

/// The capabilities of a machine; none of one that does not know the question.
fn offers(client: &mut QmpClient, side: Side) -> Result<Option<Offers>, DriveError> {
    match client.query("x-query-vmstate-capabilities", json!({})) {
        Ok(offers) => Ok(Some(offers)),
        Err(QmpClientError::Refused { .. }) => Ok(None),
        Err(error) => Err(DriveError::monitor(side)(error)),
    }
}

/// Checks that two machines of ours can do together what each of them requires. QEMU is not asked.
pub(super) fn agree(source: &mut QmpClient, destination: &mut QmpClient) -> Result<(), DriveError> {
    let Some(here) = offers(source, Side::Source)? else {
        return Ok(());
    };
    let Some(there) = offers(destination, Side::Destination)? else {
        return Ok(());
    };
    let (_, findings) = combine(&list(here.source), &list(there.destination));
    let refused = findings.iter().any(|f| f.severity == Severity::Error);
    match refused {
        true => Err(DriveError::Incompatible(Report { refused, findings })),
        false => Ok(()),
    }
}

/// Checks that a machine speaks VM state over BER.
pub(super) fn speaks_ber(client: &mut QmpClient, side: Side) -> Result<(), DriveError> {
    match offers(client, side)? {
        Some(_) => Ok(()),
        None => Err(DriveError::NotOurs {
            side,
            machine: program(client.version()),
        }),
    }
}

/// What came of the negotiation, as the source tells it; none if there was none.
pub(super) fn outcome(client: &mut QmpClient) -> Option<Value> {
    let told: Value = client.query("x-query-negotiation", json!({})).ok()?;
    told.get("text").is_some().then_some(told)
}

/// What a destination of ours has dropped or left at its default; none if it says nothing of the kind.
pub(super) fn adapted(client: &mut QmpClient) -> Option<AdaptedState> {
    let info: MigrationInfo = client.query("query-migrate", json!({})).ok()?;
    info.adapted
}
