//! States of helper processes.

use vmstate_wire::helpers::{BlobErrorKind, BlobReader, MAX_ID, MAX_STATE, decode_blob, put_blob};

use super::settings;

/// The blob of `dbus-vmstate`: the same in whole input and in pieces; what is accepted keeps the bounds, takes no more memory than it has
/// bytes, comes back when it is written, and is refused where one of its ids is nobody's.
///
/// First byte: most elements, in its lower half, and size of the pieces. The rest: the blob.
///
/// # Panics
/// If that does not hold.
pub fn helpers(data: &[u8]) {
    let (byte, data) = settings(data);
    let most = u32::from(byte & 15);
    let whole = decode_blob(data, most);
    let mut reader = BlobReader::new(most);
    let pieces = data.chunks(1 + usize::from(byte >> 4));
    let mut pushed = Ok(());
    for piece in pieces {
        pushed = pushed.and_then(|()| reader.push(piece));
    }
    assert_eq!(pushed.and_then(|()| reader.finish()), whole);
    let elements = match whole {
        Ok(elements) => elements,
        Err(error) => {
            assert!(error.offset() <= data.len() as u64, "{error}");
            return;
        }
    };
    assert!(elements.len() <= most as usize);
    let mut bytes = 0;
    for element in &elements {
        assert!((1..=MAX_ID).contains(&element.id.len()) && element.state.len() <= MAX_STATE);
        bytes += element.id.len() + element.state.len();
    }
    assert!(bytes <= data.len());
    let ids = || elements.iter().map(|element| element.id.clone());
    let mut reader = BlobReader::new(most).only(ids());
    let pushed = reader.push(data);
    assert_eq!(
        pushed.and_then(|()| reader.finish()).as_ref(),
        Ok(&elements)
    );
    if let Some(last) = elements.len().checked_sub(1) {
        let mut reader = BlobReader::new(most).only(ids().take(last));
        let refused = reader.push(data).map_err(|error| error.kind().clone());
        let id = ids().next_back().unwrap_or_default();
        assert_eq!(refused, Err(BlobErrorKind::Unknown { id }));
    }
    let pairs: Vec<(&[u8], &[u8])> = elements
        .iter()
        .map(|element| (&element.id[..], &element.state[..]))
        .collect();
    let mut written = Vec::new();
    let put = put_blob(&mut written, &pairs);
    assert_eq!(put, Ok(()));
    let used = 4 + bytes + 8 * elements.len();
    assert_eq!(written.get(..used), data.get(..used));
    assert_eq!(decode_blob(&written, most), Ok(elements));
}
