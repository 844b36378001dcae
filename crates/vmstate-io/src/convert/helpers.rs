//! The states of helper processes: an entry for each in a live stream over BER, one blob in QEMU's.

use vmstate_desc::{
    Codec, Count, Description, DynState, Error, Field, Limits, Reason, SaveState as _, Size,
};
use vmstate_wire::codec::{decode, encode};
use vmstate_wire::helpers::{MAX_BLOB, decode_blob, put_blob};

/// Name of the description with an entry for each helper.
const ENTRIES: &str = "dbus-vmstate/helpers";
/// Most helpers.
const MOST: u32 = 1000;

/// The section as QEMU describes it.
static BLOB: Description = Description::new("dbus-vmstate", 0, 0).with_fields(
    const {
        &[
            Field::value("data_size", Codec::Uint32),
            Field::value(
                "data",
                Codec::Buffer(Size::Counted(Count::of_field("data_size", MAX_BLOB))),
            ),
        ]
    },
);

/// State as QEMU's stream has it: with entries for helpers, the blob of them; any other as it is.
pub(super) fn as_in_qemu(state: DynState, memory: u64) -> Result<DynState, Error> {
    if state.description().name() != ENTRIES {
        return Ok(state);
    }
    let refused =
        |error: &dyn std::fmt::Display| Error::refused("post_load", Reason::new(error.to_string()));
    let mut bytes = Vec::new();
    encode(&state, &mut bytes)?;
    drop(state);
    let elements = decode_blob(&bytes, MOST).map_err(|error| refused(&error))?;
    let pairs: Vec<_> = elements
        .iter()
        .map(|element| (&*element.id, &*element.state))
        .collect();
    let mut section = vec![0; 4];
    put_blob(&mut section, &pairs).map_err(|error| refused(&error))?;
    let size = u32::try_from(section.len().saturating_sub(4)).unwrap_or(MAX_BLOB);
    for (to, from) in section.iter_mut().zip(size.to_be_bytes()) {
        *to = from;
    }
    let mut state = DynState::new(&BLOB);
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    decode(&mut state, 0, &section, limits)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use vmstate_desc::{DescriptionRef, Element, Repeat, Value};

    use super::*;

    static HELPER: Description = Description::new("helper", 0, 0).with_fields(
        const {
            &[
                Field::value("id", Codec::ByteArray { max: 4096 }),
                Field::value("state", Codec::ByteArray { max: 4096 }),
            ]
        },
    );
    static HELPERS: Description = Description::new(ENTRIES, 0, 0).with_fields(
        const {
            &[
                Field::value("count", Codec::Uint32),
                Field::new("helpers", Element::Struct(DescriptionRef::Static(&HELPER)))
                    .repeat(Repeat::Counted(Count::of_field("count", 1000))),
            ]
        },
    );

    #[test]
    fn entries_become_the_blob() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"a", b"one"), (b"b", b"")];
        let mut blob = Vec::new();
        put_blob(&mut blob, &pairs).unwrap();
        let mut entries = DynState::new(&HELPERS);
        decode(&mut entries, 0, &blob, Limits::default()).unwrap();
        let state = as_in_qemu(entries, 1 << 20).unwrap();
        let mut bytes = Vec::new();
        encode(&state, &mut bytes).unwrap();
        let size = u32::try_from(blob.len()).unwrap().to_be_bytes();
        assert_eq!(bytes, [&size[..], &blob].concat());
        let mut other = DynState::new(&HELPER);
        other.set("id", Value::Bytes(b"x".to_vec()));
        other.set("state", Value::Bytes(Vec::new()));
        assert_eq!(as_in_qemu(other.clone(), 1 << 20).unwrap(), other);
    }
}
