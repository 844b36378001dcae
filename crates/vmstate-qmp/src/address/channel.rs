//! The `channels` argument of `migrate` and `migrate-incoming`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AddressError, MigrationAddress};

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelType {
    /// The migration stream.
    Main,
    /// What one QEMU hands over to the next on the same host. QEMU 10.0.
    Cpr,
}

/// One channel of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrationChannel {
    /// What it carries.
    pub channel_type: ChannelType,
    /// Where it goes to or comes from.
    pub addr: MigrationAddress,
}

impl MigrationChannel {
    /// The channel of the migration stream.
    #[must_use]
    pub const fn main(addr: MigrationAddress) -> Self {
        Self {
            channel_type: ChannelType::Main,
            addr,
        }
    }
}

/// Arguments that name no place, or more than one. The texts are QEMU's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChannelsError {
    /// Neither or both.
    #[error("need either 'uri' or 'channels' argument")]
    NeitherOrBoth,
    /// More than one channel for the migration stream.
    #[error("Channel list has more than one main entry")]
    SeveralMain,
    /// No channel for the migration stream.
    #[error("Channel list has no main entry")]
    NoMain,
    /// A channel that only QEMU itself can use.
    #[error("Channel type 'cpr' is not supported")]
    Cpr,
    /// A URI that names no place.
    #[error(transparent)]
    Uri(#[from] AddressError),
}

/// The place that the arguments `uri` and `channels` of `migrate` or `migrate-incoming` name.
///
/// # Errors
/// Neither or both arguments, a wrong URI, no or several main channels, a channel for CPR.
pub fn main_channel(
    uri: Option<&str>,
    channels: Option<&[MigrationChannel]>,
) -> Result<MigrationAddress, ChannelsError> {
    let channels = match (uri, channels) {
        // An empty list counts as none.
        (Some(uri), None | Some([])) => return Ok(uri.parse()?),
        (None, Some(channels)) if !channels.is_empty() => channels,
        _ => return Err(ChannelsError::NeitherOrBoth),
    };
    if channels
        .iter()
        .any(|channel| channel.channel_type == ChannelType::Cpr)
    {
        return Err(ChannelsError::Cpr);
    }
    match channels {
        [channel] => Ok(channel.addr.clone()),
        [] => Err(ChannelsError::NoMain),
        _ => Err(ChannelsError::SeveralMain),
    }
}
