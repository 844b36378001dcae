//! The configuration section as state with a description: the same one that QEMU has.

use vmstate_desc::{
    Codec, Count, Description, DescriptionRef, DynState, Field, Limits, Repeat, Size,
};
use vmstate_wire::codec::{decode, encode};
use vmstate_wire::stream::{Configuration, Event, ParserOptions, Step, StreamParser, write};
use vmstate_wire::vmdesc::{Trailer, decode_entry};

/// Longest machine name, most capabilities.
const MOST: u32 = 1 << 16;

static PAGE_BITS: Description = Description::new("configuration/target-page-bits", 1, 1)
    .with_fields(const { &[Field::value("target_page_bits", Codec::Uint32)] });
static CAPABILITIES: Description = Description::new("configuration/capabilities", 1, 1)
    .with_fields(
        const {
            &[
                Field::value("caps_count", Codec::Uint32),
                Field::value("capabilities", Codec::Capability)
                    .repeat(Repeat::Counted(Count::of_field("caps_count", MOST))),
            ]
        },
    );
static UUID: Description = Description::new("configuration/uuid", 1, 1)
    .with_fields(const { &[Field::value("uuid", Codec::Buffer(Size::Fixed(16)))] });
static CONFIGURATION: Description = Description::new("configuration", 1, 1)
    .with_fields(
        const {
            &[
                Field::value("len", Codec::Uint32),
                Field::value(
                    "name",
                    Codec::Buffer(Size::Counted(Count::of_field("len", MOST))),
                ),
            ]
        },
    )
    .with_subsections(
        const {
            &[
                DescriptionRef::Static(&PAGE_BITS),
                DescriptionRef::Static(&CAPABILITIES),
                DescriptionRef::Static(&UUID),
            ]
        },
    );

/// The section's values: as the trailer describes them, else as QEMU's own description does. `None`: neither gives the same bytes
/// again. `body` is what stands behind the type byte.
pub(super) fn state_of(body: &[u8], trailer: Option<&Trailer<'_>>) -> Option<DynState> {
    let described = trailer.and_then(Trailer::configuration).and_then(|entry| {
        let all = |rest: &[u8]| rest.is_empty();
        let decoded = decode_entry(entry, body, 0, false, Limits::default(), &all).ok()?;
        Some(decoded.state)
    });
    described.or_else(|| own(body)).filter(|state| {
        let mut again = Vec::new();
        encode(state, &mut again).is_ok() && again == body
    })
}

fn own(body: &[u8]) -> Option<DynState> {
    let mut state = DynState::new(&CONFIGURATION);
    let used = decode(&mut state, 1, body, Limits::default()).ok()?;
    (used == body.len()).then_some(state)
}

/// The section as the framing knows it.
pub(crate) fn parse(body: &[u8]) -> Option<Configuration> {
    let mut stream = Vec::new();
    write::put_header(&mut stream);
    stream.push(7);
    stream.extend_from_slice(body);
    write::put_eof(&mut stream);
    let mut parser = StreamParser::new(ParserOptions::default());
    let mut rest = stream.as_slice();
    loop {
        match parser.next(rest).ok()? {
            Step::Event {
                event: Event::Configuration(configuration),
                ..
            } => return Some(configuration),
            Step::Event { consumed, .. } => rest = rest.get(consumed..)?,
            _ => return None,
        }
    }
}
