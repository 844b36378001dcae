//! Where a migration goes to or comes from: as a URI, and as QMP's `channels` have it.
//!
//! Both forms stand for the same [`MigrationAddress`]. QEMU before 8.2 knows the URI only.

mod channel;
mod inet;
mod size;
mod uri;

use serde::{Deserialize, Serialize};

pub use channel::{ChannelType, ChannelsError, MigrationChannel, main_channel};
pub use inet::InetSocketAddress;
pub use uri::AddressError;

/// The place at the other end of a migration.
///
/// | URI | variant |
/// |---|---|
/// | `tcp:HOST:PORT[,OPTION…]` | [`SocketAddress::Inet`] |
/// | `unix:PATH` | [`SocketAddress::Unix`] |
/// | `fd:NAME` or `fd:NUMBER` | [`SocketAddress::Fd`] |
/// | `vsock:CID:PORT` | [`SocketAddress::Vsock`] |
/// | `exec:COMMAND` | [`MigrationAddress::Exec`], as an argument of `/bin/sh -c` |
/// | `file:PATH[,offset=SIZE]` | [`MigrationAddress::File`] |
/// | `rdma:HOST:PORT` | [`MigrationAddress::Rdma`] |
///
/// Its serde form is that of QMP's type of the same name: flat objects, told apart by `transport` and for sockets by `type`.
///
/// ```
/// use vmstate_qmp::address::{MigrationAddress, SocketAddress};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address: MigrationAddress = "file:/var/tmp/vm,offset=1M".parse()?;
/// assert_eq!(
///     serde_json::to_string(&address)?,
///     r#"{"transport":"file","filename":"/var/tmp/vm","offset":1048576}"#,
/// );
/// assert_eq!(address.to_uri().as_deref(), Some("file:/var/tmp/vm,offset=1048576"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "kebab-case")]
pub enum MigrationAddress {
    /// A socket that is connected to, listened on, or passed in.
    Socket(SocketAddress),
    /// A command whose standard input takes the stream, or whose standard output gives it.
    Exec {
        /// Program and arguments.
        args: Vec<String>,
    },
    /// RDMA.
    Rdma(InetSocketAddress),
    /// A file.
    File {
        /// Path of the file.
        filename: String,
        /// Where in the file the stream begins, in bytes.
        offset: u64,
    },
}

/// An address of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SocketAddress {
    /// TCP over IPv4 or IPv6.
    Inet(InetSocketAddress),
    /// A Unix domain socket.
    Unix(UnixSocketAddress),
    /// A socket between host and guest.
    Vsock {
        /// Context id.
        cid: String,
        /// Port number.
        port: String,
    },
    /// A file descriptor.
    Fd {
        /// A name that `getfd` gave, or a number.
        str: String,
    },
}

/// An address of a Unix domain socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixSocketAddress {
    /// Path in the file system, or a name where `abstract` is set.
    pub path: String,
    /// Whether this is a name in Linux's abstract namespace.
    #[serde(rename = "abstract", default, skip_serializing_if = "Option::is_none")]
    pub abstract_name: Option<bool>,
    /// Whether an abstract name ends with its last byte, instead of being filled up with zero bytes. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tight: Option<bool>,
}

impl MigrationAddress {
    /// The address as a command line of a shell.
    #[must_use]
    pub fn exec(command: impl Into<String>) -> Self {
        let args = vec!["/bin/sh".to_owned(), "-c".to_owned(), command.into()];
        Self::Exec { args }
    }

    /// The address of a Unix domain socket in the file system.
    #[must_use]
    pub fn unix(path: impl Into<String>) -> Self {
        Self::Socket(SocketAddress::Unix(UnixSocketAddress {
            path: path.into(),
            ..UnixSocketAddress::default()
        }))
    }

    /// What the scheme of a URI to this place is: `tcp`, `unix`, `fd`, `vsock`, `exec`, `rdma` or `file`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Socket(SocketAddress::Inet(_)) => "tcp",
            Self::Socket(SocketAddress::Unix(_)) => "unix",
            Self::Socket(SocketAddress::Vsock { .. }) => "vsock",
            Self::Socket(SocketAddress::Fd { .. }) => "fd",
            Self::Exec { .. } => "exec",
            Self::Rdma(_) => "rdma",
            Self::File { .. } => "file",
        }
    }

    /// Whether more than one connection can be made to this place, as multifd and postcopy preemption need it.
    #[must_use]
    pub const fn has_several_channels(&self) -> bool {
        matches!(
            self,
            Self::Socket(
                SocketAddress::Inet(_) | SocketAddress::Unix(_) | SocketAddress::Vsock { .. }
            )
        )
    }
}

#[cfg(test)]
mod tests;
