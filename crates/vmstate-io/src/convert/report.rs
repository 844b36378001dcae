//! What a conversion tells.

use vmstate_ber::BerError;

use super::Format;
use crate::inspect::InspectError;

/// What a converted stream was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The format that was read.
    pub from: Option<Format>,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Devices that were converted value by value.
    pub devices: u64,
    /// Sections that were carried as bytes, with why.
    pub carried: Vec<Carried>,
    /// Bytes of device state in QEMU's form: sections with header and footer, of the devices that were converted.
    pub qemu_state: u64,
    /// Bytes of the same devices in BER: whole frames.
    pub ber_state: u64,
    /// Bytes of the types of these devices.
    pub types: u64,
    /// Bytes of pages' frames without the pages' content.
    pub page_framing: u64,
    /// The trailing description was carried as text, since values do not give it again, or came too late.
    pub trailer_carried: bool,
}

/// A section that was carried as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Id string and instance id.
    pub section: String,
    /// Bytes.
    pub length: u64,
    /// Why.
    pub reason: String,
}

/// Why a stream could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The QEMU stream is wrong, or writing failed.
    #[error("{0}")]
    Qemu(#[from] InspectError),
    /// The BER stream is wrong.
    #[error("{0}")]
    Ber(#[from] BerError),
    /// Reading or writing failed.
    #[error("cannot read or write: {0}")]
    Io(#[from] std::io::Error),
    /// The JSON is wrong.
    #[error("{}{what}", element.map(|n| format!("element {n}: ")).unwrap_or_default())]
    Json {
        /// Which element, from 0.
        element: Option<usize>,
        /// What is wrong.
        what: String,
    },
    /// The stream has this format already.
    #[error("the stream is in this format already")]
    SameFormat,
    /// Bytes before a stream can be passed over, before JSON nothing can stand.
    #[error("the stream begins with the first byte: it is JSON")]
    Start,
    /// The BER stream holds what a QEMU stream has no place for.
    #[error("{what} (byte {offset:#x})")]
    NoPlace {
        /// What.
        what: String,
        /// Where.
        offset: u64,
    },
}

impl From<ConvertError> for InspectError {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Qemu(error) => error,
            ConvertError::Ber(error) => Self::Ber(error),
            ConvertError::Io(error) => Self::Io(error),
            ConvertError::NoPlace { what, offset } => Self::NoPlace { what, offset },
            error
            @ (ConvertError::Json { .. } | ConvertError::SameFormat | ConvertError::Start) => {
                Self::NoPlace {
                    what: error.to_string(),
                    offset: 0,
                }
            }
        }
    }
}

impl ConvertError {
    /// Whether the stream is wrong, rather than that it could not be read or written.
    #[must_use]
    pub fn is_about_the_stream(&self) -> bool {
        match self {
            Self::Io(_)
            | Self::SameFormat
            | Self::Start
            | Self::Qemu(InspectError::Io(_) | InspectError::Write(_)) => false,
            Self::Qemu(error) => !error.is_limit(),
            Self::Ber(_) | Self::Json { .. } | Self::NoPlace { .. } => true,
        }
    }
}
