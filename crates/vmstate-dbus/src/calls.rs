//! Calls of helpers: finding, saving and loading them all at once, before one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Serialize, Serializer};
use vmstate_wire::helpers::{Element, MAX_ID, MAX_STATE};
use zbus::connection::Builder;
use zbus::message::Body;
use zbus::names::OwnedUniqueName;
use zbus::{Connection, DynamicType, Message, OwnedVariant, Signature, Type, fdo};

use crate::alarm::Alarm;
use crate::error::{Fault, ObjectError, Step};
use crate::id_list::IdList;
use crate::place::{Kind, Place};
use crate::{BUS_NAME, INTERFACE, OBJECT_PATH};

/// Most helpers: as many states of 1 MiB as a stream can carry.
pub const MAX_HELPERS: usize = 1000;

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A helper that somebody can call.
#[derive(Debug)]
pub(crate) struct Peer {
    connection: Connection,
    /// On a bus, its unique name.
    owner: Option<OwnedUniqueName>,
    /// Unique name or address.
    pub(crate) name: String,
}

impl Peer {
    async fn call<B>(
        &self,
        interface: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<Message, Fault>
    where
        B: Serialize + DynamicType,
    {
        let owner = self.owner.as_ref().map(|owner| owner.as_ref());
        let reply = self
            .connection
            .call_method(owner, OBJECT_PATH, Some(interface), method, body);
        reply.await.map_err(Fault::from)
    }

    /// The property `Id`, by `GetAll` as QEMU does it.
    async fn id(&self) -> Result<String, Fault> {
        let reply = self.call(PROPERTIES, "GetAll", &INTERFACE).await?;
        let body = expect(&reply, "a{sv}")?;
        let all: BTreeMap<&str, OwnedVariant> = body.deserialize().map_err(Fault::from)?;
        let id = all.get("Id").ok_or(Fault::NoId)?;
        let text: &str = id.try_into().map_err(|_| Fault::WrongType {
            expected: "s",
            found: id.value_signature().to_string(),
        })?;
        if (1..=MAX_ID).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err(Fault::IdLength(text.len()))
        }
    }

    pub(crate) async fn save(&self) -> Result<State, Fault> {
        let reply = self.call(INTERFACE, "Save", &()).await?;
        let state = State(expect(&reply, "ay")?);
        match state.bytes().len() {
            0..=MAX_STATE => Ok(state),
            size => Err(Fault::TooLarge(size)),
        }
    }

    async fn load(&self, state: &[u8]) -> Result<(), Fault> {
        self.call(INTERFACE, "Load", &Bytes(state)).await.map(drop)
    }

    /// An error of this helper.
    pub(crate) fn error(&self, id: Option<&str>, step: Step, fault: Fault) -> ObjectError {
        ObjectError::Helper {
            owner: self.name.clone(),
            id: id.map(str::to_owned),
            step,
            fault,
        }
    }
}

/// The body of a reply, if it is of this type.
fn expect(reply: &Message, expected: &'static str) -> Result<Body, Fault> {
    let body = reply.body();
    if *body.signature() == *expected {
        Ok(body)
    } else {
        let found = body.signature().to_string();
        Err(Fault::WrongType { expected, found })
    }
}

/// A saved state, where it has arrived: it is not copied.
#[derive(Debug)]
pub(crate) struct State(Body);

impl State {
    pub(crate) fn bytes(&self) -> &[u8] {
        // Of this type when it was made.
        self.0.deserialize().unwrap_or_default()
    }
}

/// Bytes that are sent in one piece; serde would send a slice byte by byte.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Type for Bytes<'_> {
    const SIGNATURE: &'static Signature = <[u8]>::SIGNATURE;
}

/// A helper that has said who it is.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) id: String,
    pub(crate) peer: Peer,
}

/// Everybody who is there, and who they say that they are.
pub(crate) struct Census {
    pub(crate) found: Vec<(Peer, Result<String, Fault>)>,
    /// To be closed at the end, if this is a bus.
    bus: Option<Connection>,
}

impl Census {
    /// Closes all connections. Dropping them does so too, but later.
    pub(crate) async fn close(self) {
        let peers = self.found.into_iter().map(|(peer, _)| peer);
        close(self.bus, peers).await;
    }

    /// Those that take part: all, or those on the list, once [`check`](Self::check) is content.
    pub(crate) fn select(self, list: Option<&IdList>) -> Selection {
        let mut helpers = Vec::new();
        let mut others = Vec::new();
        let mut skipped = Vec::new();
        for (peer, id) in self.found {
            match id {
                Ok(id) if list.is_none_or(|list| list.contains(&id)) => {
                    helpers.push(Helper { id, peer });
                }
                Ok(id) => {
                    skipped.push(id);
                    others.push(peer);
                }
                Err(_) => others.push(peer),
            }
        }
        helpers.sort_by(|a, b| a.id.cmp(&b.id));
        Selection {
            helpers,
            skipped,
            others,
            bus: self.bus,
        }
    }

    /// Everybody must have said who it is, with an id of its own, and nobody on the list may be missing.
    pub(crate) fn check(&self, list: Option<&IdList>) -> Result<(), ObjectError> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (peer, id) in &self.found {
            let id = match id {
                Ok(id) => id,
                Err(fault) => return Err(peer.error(None, Step::Id, fault.clone())),
            };
            if list.is_some_and(|list| !list.contains(id)) {
                continue;
            }
            if let Some(first) = seen.insert(id, &peer.name) {
                return Err(ObjectError::Duplicate {
                    id: id.clone(),
                    first: first.to_owned(),
                    second: peer.name.clone(),
                });
            }
        }
        let missing: Vec<String> = list
            .into_iter()
            .flat_map(IdList::iter)
            .filter(|id| !seen.contains_key(id))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ObjectError::Missing { ids: missing })
        }
    }
}

/// The helpers that take part, in the order of their ids.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) helpers: Vec<Helper>,
    /// Ids of those that are there and not on the list.
    pub(crate) skipped: Vec<String>,
    others: Vec<Peer>,
    bus: Option<Connection>,
}

impl Selection {
    pub(crate) async fn close(self) {
        let helpers = self.helpers.into_iter().map(|helper| helper.peer);
        close(self.bus, helpers.chain(self.others)).await;
    }

    /// The states of all, in the order of their ids. The first failure ends it.
    pub(crate) async fn save(
        &self,
        alarm: &Alarm,
        time: Duration,
    ) -> Result<Vec<State>, ObjectError> {
        let saves = self.helpers.iter().map(|helper| helper.peer.save());
        let answers = alarm.all(saves, Result::is_err).await;
        outcome(self.helpers.iter().zip(answers), Step::Save, time)
    }

    /// Loads these states, all of which must have a helper. None is loaded if one has not.
    pub(crate) async fn load(
        &self,
        elements: &[Element],
        alarm: &Alarm,
        time: Duration,
    ) -> Result<(), ObjectError> {
        let by_id: BTreeMap<&[u8], &Helper> = self
            .helpers
            .iter()
            .map(|helper| (helper.id.as_bytes(), helper))
            .collect();
        let mut pairs = Vec::with_capacity(elements.len());
        for element in elements {
            match by_id.get(&element.id[..]) {
                Some(helper) => pairs.push((*helper, element)),
                None => {
                    let id = element.id.clone();
                    return Err(ObjectError::Unexpected { id });
                }
            }
        }
        let loads = pairs
            .iter()
            .map(|(helper, element)| helper.peer.load(&element.state));
        let answers = alarm.all(loads, Result::is_err).await;
        let helpers = pairs.iter().map(|(helper, _)| *helper);
        outcome(helpers.zip(answers), Step::Load, time).map(drop)
    }

    /// Ids of helpers of which no element has come.
    pub(crate) fn without(&self, elements: &[Element]) -> Vec<String> {
        let came: BTreeSet<&[u8]> = elements.iter().map(|element| &element.id[..]).collect();
        self.helpers
            .iter()
            .filter(|helper| !came.contains(helper.id.as_bytes()))
            .map(|helper| helper.id.clone())
            .collect()
    }
}

/// All answers, or the failure of a helper: rather one that said something than one that did not come to it.
fn outcome<'h, T>(
    answers: impl Iterator<Item = (&'h Helper, Option<Result<T, Fault>>)>,
    step: Step,
    time: Duration,
) -> Result<Vec<T>, ObjectError> {
    let mut good = Vec::new();
    let mut late = None;
    for (helper, answer) in answers {
        let error = |fault| helper.peer.error(Some(&helper.id), step, fault);
        match answer {
            Some(Ok(answer)) => good.push(answer),
            Some(Err(fault)) => return Err(error(fault)),
            None => late = late.or_else(|| Some(error(Fault::Late(time)))),
        }
    }
    late.map_or(Ok(good), Err)
}

/// Finds everybody and asks who they are.
pub(crate) async fn census(
    place: &Place,
    alarm: &Alarm,
    time: Duration,
) -> Result<Census, ObjectError> {
    let (peers, bus) = match &place.0 {
        Kind::Bus(addresses) => {
            let bus = connect(place, addresses, alarm, time).await?;
            let owners = match alarm.bound(owners(&bus)).await {
                Some(Ok(owners)) if owners.len() <= MAX_HELPERS => owners,
                other => {
                    let error = match other {
                        Some(Ok(owners)) => too_many(owners.len()),
                        Some(Err(fault)) => ObjectError::List(fault),
                        None => ObjectError::List(Fault::Late(time)),
                    };
                    close(Some(bus), []).await;
                    return Err(error);
                }
            };
            let peer = |owner: OwnedUniqueName| Peer {
                connection: bus.clone(),
                name: owner.to_string(),
                owner: Some(owner),
            };
            (owners.into_iter().map(peer).collect(), Some(bus))
        }
        Kind::Peers(addresses) => (peers(addresses, alarm, time).await?, None),
    };
    let ids = alarm.all(peers.iter().map(Peer::id), |_| false).await;
    let ids = ids
        .into_iter()
        .map(|id| id.unwrap_or(Err(Fault::Late(time))));
    let found = peers.into_iter().zip(ids).collect();
    Ok(Census { found, bus })
}

fn too_many(found: usize) -> ObjectError {
    let most = MAX_HELPERS;
    ObjectError::TooMany { found, most }
}

/// The first of a bus's addresses that answers.
async fn connect(
    place: &Place,
    addresses: &[zbus::Address],
    alarm: &Alarm,
    time: Duration,
) -> Result<Connection, ObjectError> {
    let mut last = Fault::Late(time);
    for address in addresses {
        let builder = Builder::address(address.clone());
        match alarm.bound(builder.build()).await {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(error)) => last = error.into(),
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
    addresses: &[zbus::Address],
    alarm: &Alarm,
    time: Duration,
) -> Result<Vec<Peer>, ObjectError> {
    if addresses.len() > MAX_HELPERS {
        return Err(too_many(addresses.len()));
    }
    let builds = addresses
        .iter()
        .map(|address| Builder::address(address.clone()).p2p().build());
    let connections = alarm.all(builds, Result::is_err).await;
    let mut peers = Vec::new();
    let mut failure = None;
    for (address, connection) in addresses.iter().zip(connections) {
        let fault = match connection {
            Some(Ok(connection)) => {
                peers.push(Peer {
                    connection,
                    owner: None,
                    name: address.to_string(),
                });
                continue;
            }
            Some(Err(error)) => Fault::from(error),
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
            close(None, peers).await;
            Err(error)
        }
    }
}

async fn close(bus: Option<Connection>, peers: impl IntoIterator<Item = Peer>) {
    let on_bus = bus.is_some();
    for peer in peers {
        if !on_bus {
            // What is closed badly is gone all the same.
            let _ = peer.connection.close().await;
        }
    }
    if let Some(bus) = bus {
        let _ = bus.close().await;
    }
}
