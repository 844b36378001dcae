use super::super::types::{BlockName, StreamOffset};
use super::*;

fn block() -> BlockName {
    BlockName::new("pc.ram").unwrap()
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(ReturnMessage),
    Bitmap(u64, Vec<u8>),
    BitmapEnd,
}

fn walk(
    parser: &mut ReturnPathParser,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<Seen>, ReturnPathError> {
    let mut seen = Vec::new();
    let (mut at, mut available) = (0, 0);
    loop {
        match parser.next(&bytes[at..available])? {
            ReturnStep::NeedMore { min } => {
                assert!(min > available - at);
                if available == bytes.len() {
                    parser.finish(&bytes[at..])?;
                    return Ok(seen);
                }
                available = bytes.len().min(available + piece);
            }
            ReturnStep::Event { consumed, event } => {
                at += consumed;
                match event {
                    ReturnEvent::Message(message) => seen.push(Seen::Message(message)),
                    ReturnEvent::BitmapBegin { size } => seen.push(Seen::Bitmap(size, vec![])),
                    ReturnEvent::BitmapChunk(chunk) => match seen.last_mut() {
                        Some(Seen::Bitmap(_, bitmap)) => bitmap.extend_from_slice(chunk),
                        other => panic!("chunk after {other:?}"),
                    },
                    ReturnEvent::BitmapEnd => seen.push(Seen::BitmapEnd),
                }
            }
            ReturnStep::End => return Ok(seen),
        }
    }
}

fn everything() -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, &ReturnMessage::SwitchoverAck);
    put_message(&mut out, &ReturnMessage::Pong(0x42));
    put_message(
        &mut out,
        &ReturnMessage::ReqPagesId {
            start: 0x3000,
            length: 0x1000,
            block: block(),
        },
    );
    put_message(
        &mut out,
        &ReturnMessage::ReqPages {
            start: 0x4000,
            length: 0x1000,
        },
    );
    put_message(&mut out, &ReturnMessage::RecvBitmap { block: block() });
    put_bitmap(&mut out, &[0xff; 11]);
    put_message(&mut out, &ReturnMessage::ResumeAck(1));
    put_message(&mut out, &ReturnMessage::Shut(0));
    out
}

#[test]
fn messages_have_the_bytes_of_the_format() {
    let expected = [
        &b"\0\x07\0\0"[..],
        b"\0\x02\0\x04\0\0\0\x42",
        b"\0\x03\0\x13\0\0\0\0\0\0\x30\0\0\0\x10\0\x06pc.ram",
        b"\0\x04\0\x0c\0\0\0\0\0\0\x40\0\0\0\x10\0",
        b"\0\x05\0\x07\x06pc.ram",
        b"\0\0\0\0\0\0\0\x10",
        &[0xff; 11],
        &[0; 5],
        b"\x01\x23\x45\x67\x89\xab\xcd\xef",
        b"\0\x06\0\x04\0\0\0\x01",
        b"\0\x01\0\x04\0\0\0\0",
    ]
    .concat();
    assert_eq!(everything(), expected);
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let bytes = everything();
    let whole = walk(&mut ReturnPathParser::new(), &bytes, bytes.len()).unwrap();
    assert_eq!(whole.len(), 9);
    assert_eq!(
        whole[5],
        Seen::Bitmap(16, [&[0xff_u8; 11][..], &[0; 5]].concat())
    );
    for piece in 1..bytes.len() {
        let mut parser = ReturnPathParser::new();
        assert_eq!(walk(&mut parser, &bytes, piece).unwrap(), whole);
        assert_eq!(parser.offset(), StreamOffset(bytes.len() as u64));
    }
}

#[test]
fn a_cut_anywhere_is_an_error() {
    let bytes = everything();
    for cut in 0..bytes.len() {
        let error = walk(&mut ReturnPathParser::new(), &bytes[..cut], 5).unwrap_err();
        assert!(matches!(
            error.kind,
            ReturnPathErrorKind::UnexpectedEnd { .. }
        ));
        assert_eq!(error.offset, StreamOffset(cut as u64));
    }
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let error = walk(&mut ReturnPathParser::new(), bytes, 64).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn refusals() {
    check(
        b"\0\0\0\0",
        "return path: unknown message type 0 (at byte 0x0)",
    );
    check(
        b"\0\x08\0\0",
        "return path: unknown message type 8 (at byte 0x0)",
    );
    check(
        b"\0\x05\x02\x01",
        "return path: message RECV_BITMAP has 513 bytes of payload, at most 512 are allowed (at byte 0x2)",
    );
    check(
        b"\0\x05\x02\0",
        "return path: message RECV_BITMAP has 512 bytes of payload, expected a block name that fills the payload (at byte 0x2)",
    );
    check(
        b"\0\x01\0\x05",
        "return path: message SHUT has 5 bytes of payload, expected 4 (at byte 0x2)",
    );
    check(
        b"\0\x02\0\x03",
        "return path: message PONG has 3 bytes of payload, expected 4 (at byte 0x2)",
    );
    check(
        b"\0\x03\0\x0d",
        "return path: message REQ_PAGES_ID has 13 bytes of payload, expected 12 and a block name that fills the rest (at byte 0x2)",
    );
    check(
        b"\0\x03\0\x0e\0\0\0\0\0\0\0\0\0\0\0\0\x02a",
        "return path: message REQ_PAGES_ID has 14 bytes of payload, expected 12 and a block name that fills the rest (at byte 0x4)",
    );
    check(
        b"\0\x04\0\x0b",
        "return path: message REQ_PAGES has 11 bytes of payload, expected 12 (at byte 0x2)",
    );
    check(
        b"\0\x04\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        "return path: REQ_PAGES before a block has been named by REQ_PAGES_ID (at byte 0x0)",
    );
    check(
        b"\0\x05\0\x03\x01ab",
        "return path: message RECV_BITMAP has 3 bytes of payload, expected a block name that fills the payload (at byte 0x4)",
    );
    check(
        b"\0\x06\0\x04\0\0\0\x02",
        "return path: RESUME_ACK carries 0x2, expected 0x1 (at byte 0x4)",
    );
    check(
        b"\0\x07\0\x01",
        "return path: message SWITCHOVER_ACK has 1 bytes of payload, expected none (at byte 0x2)",
    );
    check(b"", "return path: ends before SHUT (at byte 0x0)");
    check(b"\0", "return path: ends inside a message (at byte 0x1)");
    check(
        b"\0\x02\0\x04",
        "return path: ends inside the message PONG (at byte 0x4)",
    );
}

#[test]
fn bitmaps_are_bounded() {
    let bitmap = |size: u64| {
        let mut out = Vec::new();
        put_message(&mut out, &ReturnMessage::RecvBitmap { block: block() });
        out.extend_from_slice(&size.to_be_bytes());
        out
    };
    check(
        &bitmap(9),
        "return path: bitmap of block pc.ram has 9 bytes, expected a multiple of 8, at most 1073741824 (at byte 0xb)",
    );
    check(
        &bitmap(u64::MAX - 7),
        "return path: bitmap of block pc.ram has 18446744073709551608 bytes, expected a multiple of 8, at most 1073741824 (at byte 0xb)",
    );
    check(
        &bitmap(16),
        "return path: ends inside the bitmap of block pc.ram (at byte 0x13)",
    );
    let mut wrong_end = bitmap(0);
    wrong_end.extend_from_slice(&[0; 8]);
    check(
        &wrong_end,
        "return path: bitmap of block pc.ram ends with 0x0000000000000000, expected 0x0123456789abcdef (at byte 0x13)",
    );
    let mut bounded = ReturnPathParser::new().with_max_bitmap(8);
    assert!(
        walk(&mut bounded, &bitmap(16), 64)
            .unwrap_err()
            .to_string()
            .contains("at most 8")
    );
    let mut bounded = ReturnPathParser::new().with_max_bitmap(16);
    assert!(matches!(
        walk(&mut bounded, &bitmap(16), 64).unwrap_err().kind,
        ReturnPathErrorKind::UnexpectedEnd { .. }
    ));
}
