//! What goes wrong while two ends negotiate. A refusal is no error: it is an answer.

use std::borrow::Cow;

use vmstate_ber::BerError;
use vmstate_ber::frame::{FrameKind, Status};

/// The negotiation cannot go on: what, and in which frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("negotiation: {kind}")]
pub struct NegotiateError {
    /// What went wrong.
    #[source]
    pub kind: NegotiateErrorKind,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiateErrorKind {
    /// The bytes are no stream of the protocol.
    #[error(transparent)]
    Ber(#[from] BerError),
    /// A frame that does not come now.
    #[error("the frame {found} comes while {expected} is awaited")]
    OutOfTurn {
        /// What came.
        found: FrameKind,
        /// What should have come.
        expected: &'static str,
    },
    /// The peer contradicts itself, or this end.
    #[error("the peer {0}")]
    Misbehaved(Cow<'static, str>),
    /// More of something than this end takes.
    #[error("{what}: {found} exceeds the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The peer ended its stream without an answer.
    #[error("the peer gave up ({status:?}{}{reason})", if reason.is_empty() { "" } else { ": " })]
    Ended {
        /// How it calls that.
        status: Status,
        /// Its reason; may be empty.
        reason: String,
    },
}

impl<K: Into<NegotiateErrorKind>> From<K> for NegotiateError {
    fn from(kind: K) -> Self {
        Self { kind: kind.into() }
    }
}

/// Short for a peer that misbehaves.
pub(crate) fn misbehaved(what: impl Into<Cow<'static, str>>) -> NegotiateError {
    NegotiateErrorKind::Misbehaved(what.into()).into()
}

/// Checks a bound.
pub(crate) fn bounded(
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), NegotiateError> {
    if found <= limit {
        return Ok(());
    }
    let (found, limit) = (found as u64, limit as u64);
    Err(NegotiateErrorKind::Limit { what, found, limit }.into())
}
