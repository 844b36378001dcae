//! Device state, by descriptions of any shape and by trailers.

use arbitrary::Unstructured;
use vmstate_desc::{DynState, Limits};
use vmstate_wire::codec::{decode, encode};
use vmstate_wire::json::Json;
use vmstate_wire::vmdesc::{Trailer, Vmdesc, VmdescDialect};

use crate::shape;

/// Memory for one device.
const LIMITS: Limits = Limits {
    memory: 1 << 20,
    depth: 64,
};

/// What is decoded by any description can be encoded, and that is then decoded to the same.
///
/// be16 length of the bytes that choose the description, these bytes, payload.
///
/// # Panics
/// If it cannot.
pub fn device(data: &[u8]) {
    let (shape, payload) = two_parts(data);
    let mut u = Unstructured::new(shape);
    let Ok(description) = shape::description(&mut u) else {
        return;
    };
    if description.check().is_err() {
        return;
    }
    let version = description.version_id;
    let mut state = DynState::from(description.clone());
    let Ok(used) = decode(&mut state, version, payload, LIMITS) else {
        return;
    };
    assert!(used <= payload.len());
    let mut bytes = Vec::new();
    if let Err(e) = encode(&state, &mut bytes) {
        panic!("decoded, but not encoded: {e}\n{description:#?}\n{state:#?}");
    }
    again(description, version, &bytes);
}

/// Decodes and encodes canonical bytes: both use all of them.
fn again(description: vmstate_desc::Description, version: u32, bytes: &[u8]) {
    let mut state = DynState::from(description);
    match decode(&mut state, version, bytes, LIMITS) {
        Ok(used) => assert_eq!(used, bytes.len(), "{state:#?}"),
        Err(e) => panic!("encoded, but not decoded: {e}\n{bytes:x?}"),
    }
    let mut third = Vec::new();
    encode(&state, &mut third).expect("what was encoded once can be encoded");
    assert_eq!(bytes, third, "{state:#?}");
}

/// What a trailer describes is decoded, encoded, described.
///
/// be16 length of the trailer's text, text, payload.
///
/// # Panics
/// If what was encoded cannot be decoded again.
pub fn trailer(data: &[u8]) {
    let (text, payload) = two_parts(data);
    let Ok(trailer) = Trailer::parse(text) else {
        return;
    };
    for device in trailer.devices().iter().take(4) {
        let _ = device.opaque_size();
        for whole in [true, false] {
            let ends = |rest: &[u8]| !whole || rest.is_empty();
            let Ok(decoded) = device.decode(payload, 0, false, LIMITS, &ends) else {
                continue;
            };
            assert!(decoded.used <= payload.len());
            let mut bytes = Vec::new();
            let mut vmdesc = Vmdesc::new(trailer.dialect(), 4096);
            let described = vmdesc.device(
                device.idstr(),
                device.instance_id(),
                &decoded.state,
                &mut bytes,
            );
            if described.is_ok() {
                let text = vmdesc.finish();
                assert!(
                    Json::parse_with_depth(text.as_bytes(), 1024).is_ok(),
                    "{text}"
                );
            }
        }
    }
    for dialect in VmdescDialect::ALL {
        let mut vmdesc = Vmdesc::new(dialect, 4096);
        for device in trailer.devices() {
            vmdesc.carried_device(&device.entry().to_text());
        }
        let text = vmdesc.finish();
        let again = Trailer::parse(text.as_bytes()).expect("a trailer of its own entries");
        assert_eq!(again.devices().len(), trailer.devices().len());
    }
}

/// A part with a be16 length before it, and the rest.
pub(super) fn two_parts(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else {
        return (data, &[]);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    rest.split_at(length.min(rest.len()))
}
