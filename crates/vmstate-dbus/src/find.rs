//! Who is there, and who they say that they are.

use std::time::Duration;

use zbus::names::OwnedUniqueName;
use zbus::{Address, Connection, fdo};

use crate::BUS_NAME;
use crate::alarm::Alarm;
use crate::calls::{Census, Found};
use crate::error::{Fault, ObjectError, Step};
use crate::introspection::elsewhere;
use crate::link::{self, Cuts};
use crate::peer::{Peer, expect};
use crate::place::{Kind, Place};

/// Most helpers: as many states of 1 MiB as a stream can carry.
pub const MAX_HELPERS: usize = 1000;

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// For ids only.
    Ids,
    /// Also for objects of the interface at other paths, by introspection. That is nothing that a helper must answer, so it is
    /// waited for a quarter of the time and no longer.
    Objects,
}

/// Finds everybody and asks who they are.
pub(crate) async fn census(
    place: &Place,
    look: Look,
    alarm: &Alarm,
    time: Duration,
) -> Result<Census, ObjectError> {
    let (peers, bus) = match &place.0 {
        Kind::Bus(addresses) => {
            let (bus, cuts) = connect(place, addresses, alarm, time).await?;
            let owners = match alarm.bound(owners(&bus)).await {
                Some(Ok(owners)) if owners.len() <= MAX_HELPERS => owners,
                other => {
                    let error = match other {
                        Some(Ok(owners)) => too_many(owners.len()),
                        Some(Err(fault)) => ObjectError::List(fault),
                        None => ObjectError::List(Fault::Late(time)),
                    };
                    let _ = bus.close().await;
                    return Err(error);
                }
            };
            let peer = |owner| Peer::on_bus(&bus, &cuts, owner);
            (owners.into_iter().map(peer).collect(), Some(bus))
        }
        Kind::Peers(addresses) => (peers(addresses, alarm, time).await?, None),
    };
    let ids = alarm.all(peers.iter().map(Peer::id), |_| false).await;
    let found = peers.into_iter().zip(ids).map(|(peer, id)| Found {
        peer,
        id: id.unwrap_or(Err(Fault::Late(time))),
        second: None,
    });
    let mut census = Census::new(found.collect(), bus);
    if look == Look::Objects
        && let Ok(patience) = Alarm::after(time / 4)
    {
        let looks = census.found.iter().map(|found| async {
            match found.id {
                Ok(_) => elsewhere(&found.peer).await,
                Err(_) => None,
            }
        });
        let seconds = alarm.bound(patience.all(looks, |_| false)).await;
        for (found, second) in census.found.iter_mut().zip(seconds.unwrap_or_default()) {
            found.second = second.flatten();
        }
    }
    Ok(census)
}

fn too_many(found: usize) -> ObjectError {
    let most = MAX_HELPERS;
    ObjectError::TooMany { found, most }
}

/// The first of a bus's addresses that answers.
async fn connect(
    place: &Place,
    addresses: &[Address],
    alarm: &Alarm,
    time: Duration,
) -> Result<(Connection, Cuts), ObjectError> {
    let mut last = Fault::Late(time);
    for address in addresses {
        match alarm.bound(link::open(address, true)).await {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(fault)) => last = fault,
            None => break,
        }
    }
    Err(ObjectError::Connect {
        address: place.to_string(),
        fault: last,
    })
}

/// Unique names of everybody who has the name, or waits for it.
async fn owners(bus: &Connection) -> Result<Vec<OwnedUniqueName>, Fault> {
    let reply = bus
        .call_method(
            Some(BUS),
            BUS_PATH,
            Some(BUS),
            "ListQueuedOwners",
            &BUS_NAME,
        )
        .await;
    let reply = match reply {
        Ok(reply) => reply,
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::NameHasNoOwner(_)) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    expect(&reply, "as")?.deserialize().map_err(Fault::from)
}

/// Connections to everybody, peer to peer.
async fn peers(
    addresses: &[Address],
    alarm: &Alarm,
    time: Duration,
) -> Result<Vec<Peer>, ObjectError> {
    if addresses.len() > MAX_HELPERS {
        return Err(too_many(addresses.len()));
    }
    let opened = addresses.iter().map(|address| link::open(address, false));
    let connections = alarm.all(opened, Result::is_err).await;
    let mut peers = Vec::new();
    let mut failure = None;
    for (address, connection) in addresses.iter().zip(connections) {
        let fault = match connection {
            Some(Ok((connection, cuts))) => {
                peers.push(Peer::alone(connection, cuts, address.to_string()));
                continue;
            }
            Some(Err(fault)) => fault,
            None => Fault::Late(time),
        };
        // One that was refused ends the attempts of the others, which are not late then.
        if failure.is_none() || !matches!(fault, Fault::Late(_)) {
            failure = Some(ObjectError::Helper {
                owner: address.to_string(),
                id: None,
                step: Step::Connect,
                fault,
            });
        }
    }
    match failure {
        None => Ok(peers),
        Some(error) => {
            for peer in peers {
                peer.close().await;
            }
            Err(error)
        }
    }
}
