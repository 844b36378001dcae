//! Streams of VM state over BER.

use arbitrary::Unstructured;
use vmstate_ber::frame::Frame;
use vmstate_ber::stream::{Parser, Step};
use vmstate_ber::types::TypeTable;
use vmstate_ber::{Limits, decode_dynamic, encode};
use vmstate_desc::DynState;

use super::device::two_parts;
use super::{Next, in_pieces, settings};
use crate::shape;

/// Memory for one device.
const LIMITS: vmstate_desc::Limits = vmstate_desc::Limits {
    memory: 1 << 20,
    depth: 64,
};

/// Whatever is read of a stream is encoded to the same bytes; so are the values of its devices.
///
/// A byte: the size of the pieces, with 0x80: without the beginning of a stream, which is put before it; then the stream.
///
/// # Panics
/// If it is not.
pub fn ber(data: &[u8]) {
    let (setting, data) = settings(data);
    let mut stream = Vec::new();
    if setting & 0x80 != 0 {
        stream.extend_from_slice(&vmstate_ber::stream::MAGIC);
        let hello = vmstate_ber::frame::Hello::of_file("x", Vec::new());
        Frame::Hello(hello).encode(&mut stream);
    }
    stream.extend_from_slice(data);
    let mut parser = Parser::new(Limits {
        state: 1 << 20,
        ..Limits::default()
    });
    let mut types = TypeTable::default();
    in_pieces(
        &stream,
        usize::from(setting & 0x7f) * 8,
        |input| match parser.next(input) {
            Ok(Step::NeedMore { min }) => {
                assert!(parser.finish(input).is_err(), "complete, but wants more");
                Next::Need(min)
            }
            Ok(Step::Consumed { consumed }) => Next::Took(consumed),
            Ok(Step::Frame {
                consumed,
                offset,
                frame,
            }) => {
                frame_again(&frame, input.get(..consumed).unwrap_or_default());
                frame_in_context(*frame, offset, &mut types);
                Next::Took(consumed)
            }
            Ok(Step::End) | Err(_) => Next::Done,
        },
    );
}

/// Encodes a frame: as it was, but for what later revisions may add.
fn frame_again(frame: &Frame<'_>, bytes: &[u8]) {
    let mut again = Vec::new();
    frame.encode(&mut again);
    if again.len() == bytes.len() {
        assert_eq!(again, bytes, "{frame:?}");
    } else {
        assert!(again.len() < bytes.len(), "{frame:?}");
    }
}

fn frame_in_context(frame: Frame<'_>, offset: u64, types: &mut TypeTable) {
    let (ty, version, body, at) = match frame {
        Frame::TypeDef(ty) => {
            if let Ok(index) = types.insert(ty, 16, offset, &Limits::default()) {
                let _ = types.digest(index);
            }
            return;
        }
        Frame::Device(device) => (device.ty, device.version, device.body, device.body_offset),
        Frame::Machine(machine) => (machine.ty, 0, machine.body, machine.body_offset),
        _ => return,
    };
    let Some(index) = types.find(ty) else {
        return;
    };
    if let Ok(state) = decode_dynamic(types, index, version, body, at, LIMITS) {
        value_again(&state, types, body);
    }
}

/// Encodes what was decoded: the same bytes, unless the version differs from the type's, or types are defined twice.
fn value_again(state: &DynState, types: &mut TypeTable, body: &[u8]) {
    let before = types.len();
    let mut again = Vec::new();
    let Ok(_) = encode(state, types, &mut again) else {
        return;
    };
    if types.len() == before && again.len() == body.len() {
        assert_eq!(again, body, "{state:#?}");
    }
}

/// State of any shape survives: QEMU's bytes, values, BER, values, QEMU's bytes.
///
/// be16 length of the bytes that choose the description, these bytes, payload.
///
/// # Panics
/// If it does not.
pub fn ber_value(data: &[u8]) {
    let (shape, payload) = two_parts(data);
    let mut u = Unstructured::new(shape);
    let Ok(description) = shape::description(&mut u) else {
        return;
    };
    if description.check().is_err() {
        return;
    }
    let version = description.version_id;
    let mut state = DynState::from(description);
    if vmstate_wire::codec::decode(&mut state, version, payload, LIMITS).is_err() {
        return;
    }
    let mut bytes = Vec::new();
    vmstate_wire::codec::encode(&state, &mut bytes).expect("what was decoded can be encoded");
    let (mut types, mut body) = (TypeTable::default(), Vec::new());
    let index = match encode(&state, &mut types, &mut body) {
        Ok(index) => index,
        // What no type can say.
        Err(e) => {
            assert!(e.to_string().contains("type "), "{e}");
            return;
        }
    };
    let mut read = TypeTable::default();
    for ty in types.since(0) {
        let mut frame = Vec::new();
        ty.encode(&mut frame);
        let tlv = vmstate_ber::der::DerReader::new(&frame, 0).any();
        let tlv = tlv.expect("a type is one value");
        let Ok(Frame::TypeDef(again)) = Frame::decode(&tlv, &Limits::default()) else {
            panic!("a type that was written cannot be read: {ty:?}");
        };
        assert_eq!(again, **ty);
        let inserted = read.insert(again, 1, 0, &Limits::default());
        inserted.expect("a table that was written can be read");
    }
    let index = index_of(&types, &read, index);
    let again = decode_dynamic(&mut read, index, version, &body, 0, GENEROUS);
    let again = match again {
        Ok(again) => again,
        Err(e) => panic!("encoded, but not decoded: {e}\n{state:#?}\n{body:x?}"),
    };
    let mut last = Vec::new();
    vmstate_wire::codec::encode(&again, &mut last).expect("values that came through");
    assert_eq!(last, bytes, "{state:#?}\n{again:#?}");
    let (mut types, mut twice) = (TypeTable::default(), Vec::new());
    encode(&again, &mut types, &mut twice).expect("values that came through");
    assert_eq!(twice, body);
}

/// More than what was decoded can have taken.
const GENEROUS: vmstate_desc::Limits = vmstate_desc::Limits {
    memory: 16 << 20,
    depth: 64,
};

fn index_of(
    from: &TypeTable,
    to: &TypeTable,
    index: vmstate_ber::types::TypeIndex,
) -> vmstate_ber::types::TypeIndex {
    let id = from.get(index).map_or(0, |ty| ty.id);
    to.find(id).expect("the type was written")
}
