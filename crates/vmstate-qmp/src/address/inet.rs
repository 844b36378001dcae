//! Internet addresses: `HOST:PORT[,OPTION…]`.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::AddressError;

/// Longest port, in bytes, as QEMU has it.
const MAX_PORT: usize = 32;
/// Longest host, in bytes: that of a domain name.
const MAX_HOST: usize = 255;

/// Host and port, with QEMU's options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InetSocketAddress {
    /// Name or number of the host. Empty: any address of this host.
    pub host: String,
    /// Number of the port or name of the service.
    pub port: String,
    /// Host and port are numbers, nothing is to be looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numeric: Option<bool>,
    /// A listener takes the first free port from `port` to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// Whether IPv4 may be used. Default: both, unless the other is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Whether IPv6 may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Whether TCP looks now and then if the peer is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Probes without an answer after which the peer counts as gone. QEMU 10.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_count: Option<u32>,
    /// Seconds of silence before the first probe. QEMU 10.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_idle: Option<u32>,
    /// Seconds between probes. QEMU 10.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_interval: Option<u32>,
    /// Whether to use multipath TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mptcp: Option<bool>,
}

impl InetSocketAddress {
    /// Host and port without options.
    #[must_use]
    pub fn new(host: impl Into<String>, port: impl fmt::Display) -> Self {
        Self {
            host: host.into(),
            port: port.to_string(),
            ..Self::default()
        }
    }

    /// Reads `HOST:PORT[,OPTION[=VALUE]]…`, where HOST is a name, an IPv4 number, an IPv6 number in brackets or nothing.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let (place, options) = match text.split_once(',') {
            Some((place, options)) => (place, Some(options)),
            None => (text, None),
        };
        let (host, port) = split_host(text, place)?;
        let mut address = Self::new(host, port);
        for option in options.iter().flat_map(|o| o.split(',')) {
            address.set(option)?;
        }
        Ok(address)
    }

    fn set(&mut self, option: &str) -> Result<(), AddressError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match name {
            // What a comma at the end leaves.
            "" if value.is_none() => {}
            "numeric" => self.numeric = Some(switch(name, value)?),
            "ipv4" => self.ipv4 = Some(switch(name, value)?),
            "ipv6" => self.ipv6 = Some(switch(name, value)?),
            "keep-alive" => self.keep_alive = Some(switch(name, value)?),
            "mptcp" => self.mptcp = Some(switch(name, value)?),
            "to" => self.to = Some(number(name, value)?),
            "keep-alive-count" => self.keep_alive_count = Some(number(name, value)?),
            "keep-alive-idle" => self.keep_alive_idle = Some(number(name, value)?),
            "keep-alive-interval" => self.keep_alive_interval = Some(number(name, value)?),
            _ => return Err(AddressError::UnknownOption(name.to_owned())),
        }
        Ok(())
    }
}

/// As in a URI, behind the scheme.
impl fmt::Display for InetSocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        let switches = [
            ("numeric", self.numeric),
            ("ipv4", self.ipv4),
            ("ipv6", self.ipv6),
            ("keep-alive", self.keep_alive),
            ("mptcp", self.mptcp),
        ];
        let numbers = [
            ("to", self.to.map(u32::from)),
            ("keep-alive-count", self.keep_alive_count),
            ("keep-alive-idle", self.keep_alive_idle),
            ("keep-alive-interval", self.keep_alive_interval),
        ];
        let mut options = String::new();
        for (name, value) in switches {
            if let Some(on) = value {
                write!(options, ",{name}={}", if on { "on" } else { "off" })?;
            }
        }
        for (name, value) in numbers {
            if let Some(number) = value {
                write!(options, ",{name}={number}")?;
            }
        }
        f.write_str(&options)
    }
}

/// Cuts `place`, which is `text` up to its options, into host and port.
fn split_host<'t>(text: &str, place: &'t str) -> Result<(&'t str, &'t str), AddressError> {
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let parts = bracketed.split_once("]:");
        parts
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| AddressError::Ipv6(text.to_owned()))?
    } else {
        let parts = place.split_once(':');
        parts.ok_or_else(|| AddressError::Place(text.to_owned()))?
    };
    if port.is_empty() || port.len() > MAX_PORT || host.len() > MAX_HOST {
        return Err(AddressError::Place(text.to_owned()));
    }
    Ok((host, port))
}

fn switch(name: &str, value: Option<&str>) -> Result<bool, AddressError> {
    match value {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(_) => Err(AddressError::Switch(name.to_owned())),
    }
}

fn number<T: std::str::FromStr>(name: &str, value: Option<&str>) -> Result<T, AddressError> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| AddressError::Number(name.to_owned()))
}
