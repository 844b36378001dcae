//! Where helpers are.

use std::fmt;

use crate::link::reachable;

/// Text that is no address of a bus, or not one that can be reached from here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{address}' is no D-Bus address: {reason}")]
pub struct AddressError {
    /// The text.
    pub address: String,
    /// Why not.
    pub reason: String,
}

/// Where helpers are: on a message bus, or each at a socket of its own.
///
/// Addresses are D-Bus's: `unix:path=/run/vm/bus`, `unix:abstract=name`, `tcp:host=127.0.0.1,port=4000`.
///
/// ```
/// use vmstate_dbus::Place;
///
/// let bus = Place::bus("unix:path=/run/vm7/bus")?;
/// let peers = Place::peers("unix:path=/run/vm7/net0;unix:path=/run/vm7/tpm0")?;
/// assert!(Place::bus("/run/vm7/bus").is_err());
/// assert_eq!(peers.to_string(), "unix:path=/run/vm7/net0;unix:path=/run/vm7/tpm0");
/// # Ok::<(), vmstate_dbus::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses of one bus, to be tried in this order.
    Bus(Vec<zbus::Address>),
    /// One address for each helper.
    Peers(Vec<zbus::Address>),
}

impl Place {
    /// A message bus. Several addresses of the same bus have a `;` between them.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn bus(address: &str) -> Result<Self, AddressError> {
        parse(address).map(|addresses| Self(Kind::Bus(addresses)))
    }

    /// The bus of this session: `DBUS_SESSION_BUS_ADDRESS`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn session() -> Result<Self, AddressError> {
        let refused = |reason: String| AddressError {
            address: "session".to_owned(),
            reason,
        };
        let address = zbus::Address::session().map_err(|error| refused(error.to_string()))?;
        reachable(&address).map_err(|reason| refused(reason.to_owned()))?;
        Ok(Self(Kind::Bus(vec![address])))
    }

    /// Helpers without a bus, each at its own address. The addresses have a `;` between them.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn peers(addresses: &str) -> Result<Self, AddressError> {
        parse(addresses).map(|addresses| Self(Kind::Peers(addresses)))
    }

    /// Whether this is a bus.
    #[must_use]
    pub fn is_bus(&self) -> bool {
        matches!(self.0, Kind::Bus(_))
    }
}

fn parse(text: &str) -> Result<Vec<zbus::Address>, AddressError> {
    let one = |text: &str| {
        let refused = |reason: String| AddressError {
            address: text.to_owned(),
            reason,
        };
        let address = zbus::Address::try_from(text).map_err(|error| refused(error.to_string()))?;
        reachable(&address).map_err(|reason| refused(reason.to_owned()))?;
        Ok(address)
    };
    // Within an address, a semicolon is always escaped. An empty one at the end is D-Bus's custom.
    text.strip_suffix(';')
        .unwrap_or(text)
        .split(';')
        .map(one)
        .collect()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Kind::Bus(addresses) | Kind::Peers(addresses)) = &self.0;
        for (index, address) in addresses.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            write!(f, "{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let count = |text| match Place::bus(text).map(|place| place.0) {
            Ok(Kind::Bus(addresses)) => addresses.len(),
            _ => 0,
        };
        assert_eq!(count("unix:path=/a"), 1);
        assert_eq!(count("unix:path=/a;"), 1);
        assert_eq!(count("unix:path=/a;tcp:host=localhost,port=1"), 2);
        for wrong in [
            "",
            ";",
            "unix:path=/a;;",
            "/a",
            "unix:",
            "nothing:x=1",
            "unix:dir=/a",
            "nonce-tcp:host=localhost,port=1,noncefile=/a",
        ] {
            assert_eq!(count(wrong), 0, "{wrong}");
        }
        let error = Place::peers("unix:path=/a;b").unwrap_err();
        assert_eq!(error.address, "b");
    }
}
