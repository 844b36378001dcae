//! URIs.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::size::parse_size;
use super::{InetSocketAddress, MigrationAddress, SocketAddress, UnixSocketAddress};

/// What separates a file's path from where the stream begins in it.
const OFFSET: &str = ",offset=";
/// Longest context id and port of a vsock address, as QEMU has it.
const MAX_VSOCK: usize = 32;

/// A URI that names no place. The texts are QEMU's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No scheme, or one that there is not.
    #[error("unknown migration protocol: {0}")]
    UnknownProtocol(String),
    /// Not `HOST:PORT`, or not `CID:PORT`.
    #[error("error parsing address '{0}'")]
    Place(String),
    /// Not `[NUMBER]:PORT`.
    #[error("error parsing IPv6 address '{0}'")]
    Ipv6(String),
    /// An option that there is not.
    #[error("Invalid parameter '{0}'")]
    UnknownOption(String),
    /// An option that is neither on nor off.
    #[error("Parameter '{0}' expects 'on' or 'off'")]
    Switch(String),
    /// An option that is no number, or too large.
    #[error("Parameter '{0}' expects a number")]
    Number(String),
    /// `unix:` without a path.
    #[error("invalid Unix socket address")]
    NoPath,
    /// `fd:` without a name.
    #[error("invalid file descriptor address")]
    NoDescriptor,
    /// The offset of a file is no size.
    #[error("file URI has bad offset {0}: Invalid argument")]
    Offset(String),
}

/// From a URI.
impl FromStr for MigrationAddress {
    type Err = AddressError;

    fn from_str(uri: &str) -> Result<Self, AddressError> {
        let unknown = || AddressError::UnknownProtocol(uri.to_owned());
        let (scheme, rest) = uri.split_once(':').ok_or_else(unknown)?;
        match scheme {
            "tcp" => InetSocketAddress::parse(rest).map(|a| Self::Socket(SocketAddress::Inet(a))),
            "unix" if rest.is_empty() => Err(AddressError::NoPath),
            "unix" => Ok(Self::unix(rest)),
            "fd" if rest.is_empty() => Err(AddressError::NoDescriptor),
            "fd" => Ok(Self::Socket(SocketAddress::Fd {
                str: rest.to_owned(),
            })),
            "vsock" => vsock(rest).map(Self::Socket),
            "exec" => Ok(Self::exec(rest)),
            "rdma" => InetSocketAddress::parse(rest).map(Self::Rdma),
            "file" => file(rest),
            _ => Err(unknown()),
        }
    }
}

fn vsock(text: &str) -> Result<SocketAddress, AddressError> {
    let wrong = || AddressError::Place(text.to_owned());
    let (cid, port) = text.split_once(':').ok_or_else(wrong)?;
    let fits = |part: &str| !part.is_empty() && part.len() <= MAX_VSOCK && !part.contains(':');
    if !fits(cid) || !fits(port) {
        return Err(wrong());
    }
    Ok(SocketAddress::Vsock {
        cid: cid.to_owned(),
        port: port.to_owned(),
    })
}

fn file(text: &str) -> Result<MigrationAddress, AddressError> {
    let (filename, offset) = match text.split_once(OFFSET) {
        Some((filename, offset)) => {
            let wrong = || AddressError::Offset(offset.to_owned());
            (filename, parse_size(offset).ok_or_else(wrong)?)
        }
        None => (text, 0),
    };
    Ok(MigrationAddress::File {
        filename: filename.to_owned(),
        offset,
    })
}

impl MigrationAddress {
    /// The URI that stands for this place, if one does: a command that is not given to a shell, and an abstract name, have
    /// none.
    #[must_use]
    pub fn to_uri(&self) -> Option<String> {
        let rest = match self {
            Self::Socket(SocketAddress::Inet(address)) | Self::Rdma(address) => address.to_string(),
            Self::Socket(SocketAddress::Unix(UnixSocketAddress {
                path,
                abstract_name: None | Some(false),
                ..
            })) => path.clone(),
            Self::Socket(SocketAddress::Unix(_)) => return None,
            Self::Socket(SocketAddress::Vsock { cid, port }) => format!("{cid}:{port}"),
            Self::Socket(SocketAddress::Fd { str }) => str.clone(),
            Self::Exec { args } => match args.as_slice() {
                [shell, option, command] if shell == "/bin/sh" && option == "-c" => command.clone(),
                _ => return None,
            },
            Self::File { filename, offset } if *offset != 0 || filename.contains(OFFSET) => {
                format!("{filename}{OFFSET}{offset}")
            }
            Self::File { filename, .. } => filename.clone(),
        };
        let uri = format!("{}:{rest}", self.scheme());
        // What QMP's form can say and a URI cannot, such as a comma in a host, does not come back.
        let same = match uri.parse::<Self>() {
            Ok(back) => back.normalized() == self.normalized(),
            Err(_) => false,
        };
        same.then_some(uri)
    }

    /// Without what says nothing.
    fn normalized(&self) -> Self {
        match self {
            Self::Socket(SocketAddress::Unix(UnixSocketAddress {
                path,
                abstract_name: None | Some(false),
                ..
            })) => Self::unix(path.clone()),
            other => other.clone(),
        }
    }
}

/// The URI, or where there is none, what comes nearest, for people.
impl fmt::Display for MigrationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uri) = self.to_uri() {
            return f.write_str(&uri);
        }
        match self {
            Self::Socket(SocketAddress::Unix(address)) => write!(f, "unix:@{}", address.path),
            Self::Exec { args } => write!(f, "exec:{}", args.join(" ")),
            Self::File { filename, offset } => write!(f, "file:{filename}{OFFSET}{offset}"),
            Self::Socket(SocketAddress::Inet(address)) => write!(f, "tcp:{address}"),
            Self::Rdma(address) => write!(f, "rdma:{address}"),
            Self::Socket(SocketAddress::Vsock { cid, port }) => write!(f, "vsock:{cid}:{port}"),
            Self::Socket(SocketAddress::Fd { str }) => write!(f, "fd:{str}"),
        }
    }
}
