//! The proof that a guest has arrived unharmed.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::pair::Pair;
use crate::machine::{GuestReport, Range};
use crate::outcome::Failure;

const PAGE: u64 = 4096;

/// What was found on both sides, with both guests standing still.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    /// Pages that the guest had written at the source when it left, and where it is now when it was looked at.
    pub(super) pages_before: u64,
    pub(super) pages_after: u64,
    /// SHA-256 of each block on both sides, of everything that the guest has not written since it arrived.
    pub(super) source: BTreeMap<String, String>,
    pub(super) destination: BTreeMap<String, String>,
    /// Bytes that it has written since, and that its own checksum stands for.
    pub(super) written_since: u64,
    /// The guest's checksums, and every word that it has written, computed again.
    pub(super) guest_is_right: bool,
    /// Why not.
    pub(super) complaint: Option<String>,
}

impl Proof {
    pub(super) fn memory_is_equal(&self) -> bool {
        !self.source.is_empty() && self.source == self.destination
    }

    pub(super) fn is_right(&self) -> bool {
        self.memory_is_equal() && self.guest_is_right && self.pages_after > self.pages_before
    }
}

/// Stops the guest where it is now, and compares.
pub(super) fn of(pair: &mut Pair) -> Result<Proof, Failure> {
    let before: GuestReport = pair.source.query("x-query-guest", json!({}))?;
    let _: serde_json::Value = pair.destination.query("stop", json!({}))?;
    let after = pair
        .destination
        .query::<GuestReport>("x-query-guest", json!({}));
    let written: Vec<Range> = pair.destination.query("x-query-written", json!({}))?;
    let without = json!({ "without": written });
    let source = pair.source.query("x-query-digest", without.clone())?;
    let destination = pair.destination.query("x-query-digest", without)?;
    Ok(Proof {
        pages_before: before.counter,
        pages_after: after.as_ref().map_or(0, |after| after.counter),
        source,
        destination,
        written_since: written.iter().map(|range| range.pages * PAGE).sum(),
        guest_is_right: after.as_ref().is_ok_and(|after| after.checked),
        complaint: after.err().map(|failure| failure.message),
    })
}
