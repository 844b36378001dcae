//! Device sections: decoded through the trailer, encoded again for proof.

use std::cell::Cell;

use vmstate_desc::{DynState, ErrorKind, Limits};
use vmstate_wire::stream::{Presence, SectionHeader, SectionId, SectionKind, SectionTable};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc};

use super::report::{InspectError, Problem};
use crate::input::Input;

/// Bytes that are looked at for a device at first.
const FIRST_WINDOW: usize = 16 << 10;

/// What may follow a section's payload.
pub(super) struct Surroundings<'s, 't> {
    pub(super) section_id: SectionId,
    pub(super) footers: Presence,
    pub(super) sections: &'s SectionTable,
    pub(super) trailer: &'s Trailer<'t>,
    /// Bytes up to the end of the package that the section stands in.
    pub(super) room: Option<u64>,
}

/// A decoded payload.
pub(super) struct DecodedSection {
    pub(super) state: DynState,
    pub(super) used: usize,
}

/// Decodes the payload at the input's position, without consuming it.
pub(super) fn decode(
    input: &mut dyn Input,
    device: &Device<'_>,
    around: &Surroundings<'_, '_>,
    memory: u64,
) -> Result<DecodedSection, InspectError> {
    let base = input.position();
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    let mut window = FIRST_WINDOW;
    loop {
        let bytes = input.peek(window)?;
        let mut partial = bytes.len() >= window;
        let bytes = match around.room {
            Some(room) if room <= bytes.len() as u64 => {
                partial = false;
                bytes
                    .get(..usize::try_from(room).unwrap_or(0))
                    .unwrap_or(bytes)
            }
            _ => bytes,
        };
        let more = Cell::new(false);
        let ends_here = |rest: &[u8]| match section_ends(rest, around) {
            Some(ends) => ends,
            None => {
                more.set(partial);
                partial
            }
        };
        let result = device.decode(bytes, base, partial, limits, &ends_here);
        let wants_more = match &result {
            Ok(_) => more.get(),
            Err(e) => partial && matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }),
        };
        if !wants_more {
            return Ok(result.map(|d| DecodedSection {
                state: d.state,
                used: d.used,
            })?);
        }
        window = window.saturating_mul(4);
        if window as u64 > memory {
            return Err(InspectError::Limit {
                what: format!("section {}/{}", device.idstr(), device.instance_id()),
                limit: memory,
                offset: base,
            });
        }
    }
}

/// Whether a payload can end where `rest` begins; `None` if more bytes are needed to tell.
fn section_ends(rest: &[u8], around: &Surroundings<'_, '_>) -> Option<bool> {
    if around.footers != Presence::Absent {
        let Some(footer) = rest.first_chunk::<5>() else {
            return if rest.is_empty() || rest.first() == Some(&0x7e) {
                None
            } else {
                Some(around.footers == Presence::Detect && element_follows(rest, around)?)
            };
        };
        let [mark, id @ ..] = footer;
        if *mark == 0x7e && u32::from_be_bytes(*id) == around.section_id.0 {
            return Some(true);
        }
        if around.footers == Presence::Required {
            return Some(false);
        }
    }
    element_follows(rest, around)
}

/// Whether an element of the stream begins at `rest`.
fn element_follows(rest: &[u8], around: &Surroundings<'_, '_>) -> Option<bool> {
    let Some((&byte, after)) = rest.split_first() else {
        return if around.room.is_some() {
            Some(true)
        } else {
            None
        };
    };
    match byte {
        0 => Some(after.first().is_none_or(|b| *b == 6)),
        8 => Some(after.first().is_none_or(|b| *b == 0)),
        1..=4 => {
            let id = SectionId(u32::from_be_bytes(*after.first_chunk::<4>()?));
            let kind = SectionKind::from_byte(byte)?;
            if !kind.names_owner() {
                return Some(around.sections.get(id).is_some());
            }
            let after = after.get(4..)?;
            let (&len, after) = after.split_first()?;
            let name = after.get(..usize::from(len))?;
            let instance = after.get(usize::from(len)..)?.first_chunk::<4>()?;
            let instance = u32::from_be_bytes(*instance);
            let known = around
                .trailer
                .devices()
                .iter()
                .any(|d| d.idstr().as_bytes() == name && d.instance_id() == instance);
            Some(known)
        }
        _ => Some(false),
    }
}

/// Encodes a decoded device again: payload and trailer entry must be what they were.
pub(super) fn verify(
    header: &SectionHeader,
    payload: &[u8],
    offset: u64,
    state: &DynState,
    device: &Device<'_>,
    trailer: &Trailer<'_>,
    problems: &mut Vec<Problem>,
) {
    let name = header.name();
    let version = vmstate_desc::SaveState::description(state).version_id;
    if device.opaque_size().is_none() && version != header.version_id.0 {
        problems.push(Problem {
            offset: Some(offset),
            text: format!(
                "section {name}: its header says version {}, the trailer version {version}",
                header.version_id
            ),
        });
    }
    let mut again = Vec::with_capacity(payload.len());
    let mut vmdesc = Vmdesc::new(trailer.dialect(), 0);
    let described = if device.opaque_size().is_some() {
        vmdesc.opaque_device(device.idstr(), device.instance_id(), payload.len() as u64);
        vmstate_wire::codec::encode(state, &mut again)
    } else {
        vmdesc.device(device.idstr(), device.instance_id(), state, &mut again)
    };
    if let Err(e) = described {
        problems.push(Problem {
            offset: Some(offset),
            text: format!("section {name}: cannot be encoded again: {e}"),
        });
        return;
    }
    if again != payload {
        let at = again
            .iter()
            .zip(payload)
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| again.len().min(payload.len()));
        problems.push(Problem {
            offset: Some(offset + at as u64),
            text: format!("section {name}: encoding its values again gives other bytes"),
        });
    }
    let text = vmdesc.finish();
    let entry = device.entry().to_text();
    // `Vmdesc` encloses the one entry: {"page_size": 0, "devices": [ENTRY]}
    let ours = text
        .split_once("\"devices\": [")
        .and_then(|(_, rest)| rest.strip_suffix("]}"));
    if ours != Some(&entry) {
        problems.push(Problem {
            offset: None,
            text: format!(
                "section {name}: describing its values again gives another entry in the trailer than {:?} wrote",
                trailer.dialect()
            ),
        });
    }
}
