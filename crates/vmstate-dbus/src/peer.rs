//! One helper that somebody can call, and the calls.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use vmstate_wire::helpers::{MAX_ID, MAX_STATE};
use zbus::message::Body;
use zbus::names::OwnedUniqueName;
use zbus::{Connection, DynamicType, Message, OwnedVariant, Signature, Type};

use crate::error::{Fault, ObjectError, Step};
use crate::link::Cuts;
use crate::{INTERFACE, OBJECT_PATH};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";

/// A helper that somebody can call.
#[derive(Debug)]
pub(crate) struct Peer {
    connection: Connection,
    cuts: Cuts,
    /// On a bus, its unique name.
    owner: Option<OwnedUniqueName>,
    /// Unique name or address.
    pub(crate) name: String,
}

impl Peer {
    /// The helper with this unique name.
    pub(crate) fn on_bus(bus: &Connection, cuts: &Cuts, owner: OwnedUniqueName) -> Self {
        Self {
            connection: bus.clone(),
            cuts: cuts.clone(),
            name: owner.to_string(),
            owner: Some(owner),
        }
    }

    /// The helper at the other end.
    pub(crate) fn alone(connection: Connection, cuts: Cuts, address: String) -> Self {
        Self {
            connection,
            cuts,
            owner: None,
            name: address,
        }
    }

    async fn call<B>(
        &self,
        path: &str,
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
            .call_method(owner, path, Some(interface), method, body);
        let reply = reply.await;
        // What is left of a message that was too large is no answer.
        match self
            .cuts
            .take(self.owner.as_ref().map(|name| name.as_str()))
        {
            Some(size) => Err(Fault::MessageSize(size)),
            None => reply.map_err(Fault::from),
        }
    }

    /// The property `Id`, by `GetAll` as QEMU does it.
    pub(crate) async fn id(&self) -> Result<String, Fault> {
        self.id_at(OBJECT_PATH).await
    }

    /// The property `Id` of an object at this path.
    pub(crate) async fn id_at(&self, path: &str) -> Result<String, Fault> {
        let reply = self.call(path, PROPERTIES, "GetAll", &INTERFACE).await?;
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

    /// What the object at this path says about itself, in XML.
    pub(crate) async fn introspect(&self, path: &str) -> Result<String, Fault> {
        let reply = self.call(path, INTROSPECTABLE, "Introspect", &()).await?;
        let body = expect(&reply, "s")?;
        body.deserialize().map_err(Fault::from)
    }

    pub(crate) async fn save(&self) -> Result<State, Fault> {
        let reply = self.call(OBJECT_PATH, INTERFACE, "Save", &()).await?;
        State::new(expect(&reply, "ay")?)
    }

    pub(crate) async fn load(&self, state: &[u8]) -> Result<(), Fault> {
        let state = Bytes(state);
        self.call(OBJECT_PATH, INTERFACE, "Load", &state)
            .await
            .map(drop)
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

    /// Closes a connection that is this helper's alone.
    pub(crate) async fn close(self) {
        if self.owner.is_none() {
            // What is closed badly is gone all the same.
            let _ = self.connection.close().await;
        }
    }
}

/// The body of a reply, if it is of this type.
pub(crate) fn expect(reply: &Message, expected: &'static str) -> Result<Body, Fault> {
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
    fn new(body: Body) -> Result<Self, Fault> {
        match body.deserialize::<&[u8]>().map_err(Fault::from)?.len() {
            0..=MAX_STATE => Ok(Self(body)),
            size => Err(Fault::TooLarge(size)),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // It could be read when it was made.
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
