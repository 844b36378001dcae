//! Capabilities by name: what each end can do, and what both do together.

use vmstate_ber::AnyValue;
use vmstate_ber::der::{DerReader, close, open, tag};
use vmstate_ber::frame::{Capability, Finding, Level, Param, Severity};

use crate::rules::Rule;

/// Frames with bytes in bulk carry a checksum.
pub const FRAME_CRC: &str = "frame-crc";
/// Types travel in the stream, before their first value.
pub const TYPEDEFS: &str = "typedefs";
/// Types that the destination has need not travel.
pub const TYPE_CACHE: &str = "type-cache";
/// Pages of RAM are selected by bitmaps, too.
pub const RAM_BITMAP: &str = "ram-bitmap";
/// Pages of one byte travel as this byte.
pub const RAM_FILL: &str = "ram-fill";
/// Pages travel as deltas.
pub const RAM_XBZRLE: &str = "ram-xbzrle";
/// Pages are compressed.
pub const RAM_ZSTD: &str = "ram-zstd";
/// Pages carry a checksum.
pub const RAM_CRC: &str = "ram-crc";
/// The last frame carries a digest of the stream.
pub const STREAM_DIGEST: &str = "stream-digest";
/// Pages travel on further channels.
pub const CHANNELS: &str = "channels";
/// Large values travel in pieces.
pub const BLOBS: &str = "blobs";
/// Sections without a description travel as bytes.
pub const OPAQUE_SECTIONS: &str = "opaque-sections";
/// The guest may move before its memory.
pub const POSTCOPY: &str = "postcopy";
/// Devices of the destination approve the switchover.
pub const SWITCHOVER_ACK: &str = "switchover-ack";
/// The destination answers.
pub const RETURN_PATH: &str = "return-path";
/// Commands of a QEMU stream travel.
pub const QEMU_COMMANDS: &str = "qemu-commands";

/// What stands before the name of a capability of QEMU's.
pub const QEMU: &str = "qemu:";

/// What every end of version 1 must have.
pub const BASE: [&str; 2] = [FRAME_CRC, TYPEDEFS];

/// A capability without parameters.
#[must_use]
pub fn capability(name: impl Into<String>, level: Level) -> Capability {
    Capability {
        name: name.into(),
        level,
        params: Vec::new(),
    }
}

/// Puts capabilities into the order in which they travel. Of namesakes the one that is wanted most stays.
pub fn sort(capabilities: &mut Vec<Capability>) {
    capabilities.sort_by(|a, b| (&a.name, b.level as u8).cmp(&(&b.name, a.level as u8)));
    capabilities.dedup_by(|a, b| a.name == b.name);
}

/// What both ends do, and what one of them misses.
///
/// | source | destination | |
/// |---|---|---|
/// | required | listed | on |
/// | required | not listed | refused, N02 |
/// | wanted | listed | on |
/// | wanted | not listed | off, N03 |
/// | offered | wanted, required | on |
/// | offered | offered, not listed | off |
/// | not listed | required | refused, N02 |
/// | not listed | wanted | off, N03 |
///
/// Of parameters that both ends give, numbers are combined by their minimum and lists by their intersection; other values must be
/// equal. A capability with a list that becomes empty, or with values that differ, is as one that is not listed.
///
/// What is on has [`Level::Required`] in the result. Both lists must be sorted by name.
///
/// ```
/// use vmstate_ber::frame::Level;
/// use vmstate_negotiate::capabilities::{RAM_FILL, capability, combine};
///
/// let source = [capability(RAM_FILL, Level::Offered)];
/// let (on, findings) = combine(&source, &[capability(RAM_FILL, Level::Wanted)]);
/// assert!(on.len() == 1 && findings.is_empty());
/// let (on, _) = combine(&source, &source);
/// assert!(on.is_empty(), "nobody wants it");
/// ```
#[must_use]
pub fn combine(
    source: &[Capability],
    destination: &[Capability],
) -> (Vec<Capability>, Vec<Finding>) {
    let mut names: Vec<&str> = source
        .iter()
        .chain(destination)
        .map(|one| one.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let find = |list: &'_ [Capability], name: &str| {
        let place = list.binary_search_by(|one| one.name.as_str().cmp(name));
        place.ok().and_then(|place| list.get(place)).cloned()
    };
    let (mut on, mut findings) = (Vec::new(), Vec::new());
    for name in names {
        let (ours, theirs) = (find(source, name), find(destination, name));
        let wish = [&ours, &theirs].into_iter().flatten();
        let wish = wish.map(|one| one.level as u8).max();
        let both = match (&ours, &theirs) {
            (Some(a), Some(b)) => params(&a.params, &b.params),
            _ => None,
        };
        match (both, wish) {
            (_, None | Some(0)) => {}
            (Some(params), _) => on.push(Capability {
                name: name.to_owned(),
                level: Level::Required,
                params,
            }),
            (None, Some(wish)) => {
                let required = wish == Level::Required as u8;
                findings.push(missing(name, required, ours.as_ref(), theirs.as_ref()));
            }
        }
    }
    (on, findings)
}

fn missing(
    name: &str,
    required: bool,
    source: Option<&Capability>,
    destination: Option<&Capability>,
) -> Finding {
    let shown = |one: Option<&Capability>| {
        Some(match one.map(|one| one.level) {
            None => "not there".to_owned(),
            Some(Level::Offered) => "offered".to_owned(),
            Some(Level::Wanted) => "wanted".to_owned(),
            Some(Level::Required) => "required".to_owned(),
        })
    };
    let (rule, severity) = match required {
        true => (Rule::N02, Severity::Error),
        false => (Rule::N03, Severity::Info),
    };
    Finding {
        severity,
        rule: rule.id().to_owned(),
        path: format!("capability {name}"),
        expected: shown(destination),
        found: shown(source),
        text: Some(rule.title().to_owned()),
    }
}

/// The parameters of both; `None` if there is no common ground.
fn params(ours: &[Param], theirs: &[Param]) -> Option<Vec<Param>> {
    let mut all = Vec::new();
    for param in ours {
        let value = match theirs.iter().find(|other| other.name == param.name) {
            Some(other) => value(&param.value, &other.value)?,
            None => param.value.clone(),
        };
        let name = param.name.clone();
        all.push(Param { name, value });
    }
    let only_theirs = |param: &&Param| ours.iter().all(|one| one.name != param.name);
    all.extend(theirs.iter().filter(only_theirs).cloned());
    Some(all)
}

fn value(ours: &AnyValue, theirs: &AnyValue) -> Option<AnyValue> {
    if let (Some(a), Some(b)) = (ours.as_int(), theirs.as_int()) {
        return Some(if a <= b { ours.clone() } else { theirs.clone() });
    }
    if let (Some(a), Some(b)) = (elements(ours), elements(theirs)) {
        let common: Vec<_> = a.into_iter().filter(|one| b.contains(one)).collect();
        if common.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        let start = open(&mut out, tag::SEQUENCE);
        for one in common {
            out.extend_from_slice(one);
        }
        close(&mut out, start);
        return AnyValue::decode(&mut DerReader::new(&out, 0)).ok();
    }
    (ours == theirs).then(|| ours.clone())
}

/// The elements of a SEQUENCE.
fn elements(value: &AnyValue) -> Option<Vec<&[u8]>> {
    let mut reader = DerReader::new(value.as_bytes(), 0);
    let mut inner = reader.nested(tag::SEQUENCE, "a list").ok()?;
    let mut all = Vec::new();
    while !inner.is_empty() {
        all.push(inner.any().ok()?.whole);
    }
    Some(all)
}
