use proptest::prelude::*;

use super::*;

fn blob(elements: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    put_blob(&mut out, elements).unwrap();
    out
}

/// Bytes without a size or padding, from numbers and texts.
fn raw(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn kind(bytes: &[u8], most: u32) -> BlobErrorKind {
    decode_blob(bytes, most).unwrap_err().kind().clone()
}

#[test]
fn the_bytes_are_those_of_qemu() {
    let two = blob(&[(b"alpha", b"abc"), (b"mid", b"xy")]);
    let head = b"\0\0\0\x02\0\0\0\x05alpha\0\0\0\x03abc\0\0\0\x03mid\0\0\0\x02xy";
    assert_eq!((&two[..head.len()], two.len()), (&head[..], 64));
    assert!(two[head.len()..].iter().all(|byte| *byte == 0));
    // No helper at all.
    assert_eq!(blob(&[]), [0; 16]);
}

#[test]
fn sizes_are_powers_of_two() {
    let state = vec![7; MAX_STATE];
    for (length, size) in [
        (0, 16),
        (3, 16),
        (4, 32),
        (19, 32),
        (20, 64),
        (MAX_STATE, 1 << 21),
    ] {
        let state = &state[..length];
        let (used, found) = blob_size([(&b"a"[..], state)]).unwrap();
        assert_eq!((used as usize, found), (13 + length, size), "{length}");
        assert_eq!(blob(&[(b"a", state)]).len(), size as usize);
    }
}

#[test]
fn what_cannot_be_written() {
    let refused = |id: &[u8], state: &[u8]| {
        let mut out = b"before".to_vec();
        let error = put_blob(&mut out, &[(b"ok", b""), (id, state)]).unwrap_err();
        assert_eq!(out, b"before");
        error.to_string()
    };
    assert_eq!(
        refused(b"", b"x"),
        "an id of 0 bytes, must be 1 to 255 (element 1, blob offset 14)"
    );
    assert_eq!(
        refused(&[b'x'; 256], b""),
        "an id of 256 bytes, must be 1 to 255 (element 1, blob offset 14)"
    );
    assert_eq!(
        refused(b"n\n", &vec![0; MAX_STATE + 1]),
        "the state of 'n\\n' has 1048577 bytes, more than 1 MiB (element 1, blob offset 14)"
    );
    assert_eq!(blob(&[(&[b'x'; 255], b"")]).len(), 512);
    // 1024 states of 1 MiB.
    let state = vec![0; MAX_STATE];
    let many = |count| blob_size(std::iter::repeat_n((&b"a"[..], &state[..]), count));
    assert_eq!(many(1000).unwrap().1, 1 << 30);
    assert_eq!(many(1024).unwrap_err().kind(), &BlobErrorKind::TooLarge);
}

#[test]
fn any_padding_and_any_order_are_read() {
    let one = raw(&[&[0, 0, 0, 1], &[0, 0, 0, 1], b"b", &[0, 0, 0, 2], b"hi"]);
    let expected = [Element {
        id: b"b".to_vec(),
        state: b"hi".to_vec(),
    }];
    for padding in [&b""[..], &[0; 3], b"odd"] {
        let mut reader = BlobReader::new(1);
        reader.push(&raw(&[&one, padding])).unwrap();
        assert_eq!(reader.has_odd_padding(), padding == b"odd");
        assert_eq!(reader.finish().unwrap(), expected);
    }
    // Elements that nobody counted are padding.
    let none = raw(&[&[0; 4], &one[4..]]);
    assert_eq!(decode_blob(&none, 0).unwrap(), []);
    let both = decode_blob(&blob(&[(b"z", b""), (b"a", b"1")]), 9).unwrap();
    assert_eq!((&both[0].id[..], &both[1].id[..]), (&b"z"[..], &b"a"[..]));
}

#[test]
fn what_lies_is_refused() {
    let two = blob(&[(b"a", b"1"), (b"b", b"2")]);
    assert_eq!(kind(&two, 1), BlobErrorKind::Count { found: 2, most: 1 });
    // A helper that could not be saved is counted, and is not there.
    let mut lost = blob(&[(b"a", b"1"), (b"b", b"22222")]);
    lost[3] = 3;
    assert_eq!(
        kind(&lost, 3),
        BlobErrorKind::Lost {
            announced: 3,
            found: 2
        }
    );
    let twice = blob(&[(b"a", b"1"), (b"a", b"2")]);
    assert_eq!(
        decode_blob(&twice, 2).unwrap_err().to_string(),
        "id 'a' occurs twice (element 1, blob offset 18)"
    );
    let long = raw(&[&[0, 0, 0, 1], &[0, 0, 1, 0], &[b'x'; 300]]);
    assert_eq!(kind(&long, 1), BlobErrorKind::IdLength { found: 256 });
    let large = raw(&[&[0, 0, 0, 1, 0, 0, 0, 1, b'q'], &[0, 0x10, 0, 1]]);
    assert_eq!(
        kind(&large, 1),
        BlobErrorKind::StateLength {
            id: b"q".to_vec(),
            found: 1 << 20 | 1
        }
    );
    let all = raw(&[&[0, 0, 0, 1, 0, 0, 0, 1, b'q'], &[0xff; 4]]);
    assert!(matches!(
        kind(&all, u32::MAX),
        BlobErrorKind::StateLength { .. }
    ));
}

#[test]
fn what_is_cut_is_refused() {
    let elements: [(&[u8], &[u8]); 2] = [(b"one", b"111"), (b"two", b"2")];
    let whole = blob(&elements);
    let (used, _) = blob_size(elements).unwrap();
    for end in 0..used as usize {
        let error = decode_blob(&whole[..end], 2).unwrap_err();
        assert!(
            matches!(error.kind(), BlobErrorKind::End { missing, .. } if *missing > 0),
            "{end}: {error}"
        );
        assert_eq!(error.offset(), end as u64);
    }
    assert!(decode_blob(&whole[..used as usize], 2).is_ok());
    assert_eq!(
        decode_blob(b"", 2).unwrap_err().to_string(),
        "the blob ends inside the number of elements: 4 bytes are missing (blob offset 0)"
    );
}

/// A reader that has refused keeps nothing and says the same again.
#[test]
fn an_error_stays() {
    let mut reader = BlobReader::new(0);
    let first = reader.push(&[0, 0, 0, 1]).unwrap_err();
    assert_eq!(reader.push(b"more"), Err(first.clone()));
    assert_eq!(reader.finish(), Err(first));
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same(
        bytes in proptest::collection::vec(0_u8..4, 0..80),
        cut in 0_usize..80,
    ) {
        let mut reader = BlobReader::new(5);
        let (a, b) = bytes.split_at(cut.min(bytes.len()));
        let pushed = reader.push(a).and_then(|()| reader.push(b));
        let in_pieces = pushed.and_then(|()| reader.finish());
        prop_assert_eq!(in_pieces, decode_blob(&bytes, 5));
    }

    #[test]
    fn what_is_written_is_read(
        states in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 1..12),
            proptest::collection::vec(any::<u8>(), 0..40),
            0..6,
        ),
    ) {
        let pairs: Vec<(&[u8], &[u8])> =
            states.iter().map(|(id, state)| (&id[..], &state[..])).collect();
        let read = decode_blob(&blob(&pairs), 6).unwrap();
        let read: Vec<(&[u8], &[u8])> =
            read.iter().map(|element| (&element.id[..], &element.state[..])).collect();
        prop_assert_eq!(read, pairs);
    }
}
