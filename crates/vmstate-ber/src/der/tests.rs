use proptest::prelude::*;

use super::*;
use crate::error::BerErrorKind;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn read(text: &str) -> Result<i128, BerErrorKind> {
    let bytes = hex(text);
    let mut reader = DerReader::new(&bytes, 0);
    let value = reader
        .expect(tag::INTEGER, "integer")
        .and_then(|tlv| tlv.integer())
        .map_err(|e| e.kind().clone())?;
    assert!(reader.is_empty());
    Ok(value)
}

#[test]
fn integers() {
    for (value, bytes) in [
        (0_i64, "02 01 00"),
        (127, "02 01 7f"),
        (128, "02 02 00 80"),
        (-1, "02 01 ff"),
        (-128, "02 01 80"),
        (-129, "02 02 ff 7f"),
        (i64::MAX, "02 08 7f ff ff ff ff ff ff ff"),
        (i64::MIN, "02 08 80 00 00 00 00 00 00 00"),
    ] {
        let mut out = Vec::new();
        put_int(&mut out, tag::INTEGER, value);
        assert_eq!(out, hex(bytes), "{value}");
        assert_eq!(read(bytes), Ok(value.into()));
    }
    for (value, bytes) in [
        (0_u64, "02 01 00"),
        (255, "02 02 00 ff"),
        (256, "02 02 01 00"),
        (u64::MAX, "02 09 00 ff ff ff ff ff ff ff ff"),
    ] {
        let mut out = Vec::new();
        put_uint(&mut out, tag::INTEGER, value);
        assert_eq!(out, hex(bytes), "{value}");
        assert_eq!(read(bytes), Ok(value.into()));
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let canonical = |text| matches!(read(text), Err(BerErrorKind::NotCanonical(_)));
    assert!(canonical("02 00") && canonical("02 02 00 7f") && canonical("02 02 ff 80"));
    assert!(canonical("02 81 01 05") && canonical("02 82 00 01 05"));
    assert!(matches!(
        read("02 09 01 00 00 00 00 00 00 00 00"),
        Err(BerErrorKind::Range { .. })
    ));
    assert!(matches!(
        read("02 09 ff 7f ff ff ff ff ff ff ff"),
        Err(BerErrorKind::Range { .. })
    ));
    assert!(matches!(
        read("02 0a 00 ff ff ff ff ff ff ff ff ff"),
        Err(BerErrorKind::Limit { .. })
    ));
    assert_eq!(read("02 80"), Err(BerErrorKind::Indefinite));
    assert_eq!(read("02 ff"), Err(BerErrorKind::LengthForm { found: 0xff }));
    assert_eq!(
        read("02 85 00 00 00 00 01"),
        Err(BerErrorKind::LengthForm { found: 0x85 })
    );
    let bytes = hex("1f 01 05");
    let error = DerReader::new(&bytes, 7).any().unwrap_err();
    assert_eq!(
        (error.kind(), error.offset()),
        (&BerErrorKind::HighTag { found: 0x1f }, 7)
    );
    let error = DerReader::new(&[0, 0], 7).any().unwrap_err();
    assert_eq!(error.kind(), &BerErrorKind::EndOfContents);
    let error = DerReader::new(&[4, 5, 1], 7).any().unwrap_err();
    assert_eq!(
        error.kind(),
        &BerErrorKind::Truncated {
            needed: 7,
            available: 3
        }
    );
    let mut reader = DerReader::new(&[1, 1, 1], 0);
    assert!(reader.any().unwrap().boolean().is_err());
    let mut reader = DerReader::new(&[5, 1, 0], 0);
    assert!(reader.any().unwrap().null().is_err());
}

proptest! {
    #[test]
    fn lengths_of_every_size(length in prop_oneof![0_usize..300, 65_530_usize..65_540]) {
        let content = vec![7; length];
        let (mut opened, mut wrapped, mut put) = (vec![9], vec![9], vec![9]);
        let start = open(&mut opened, tag::OCTETS);
        opened.extend_from_slice(&content);
        close(&mut opened, start);
        wrapped.extend_from_slice(&content);
        wrap(&mut wrapped, 1, tag::OCTETS);
        put_octets(&mut put, &content);
        prop_assert_eq!(&opened, &put);
        prop_assert_eq!(&wrapped, &put);
        let mut reader = DerReader::new(&put[1..], 1);
        prop_assert_eq!(reader.any().unwrap().content, content);
        prop_assert!(reader.finish().is_ok());
    }

    #[test]
    fn numbers_come_back(value: i64) {
        let mut out = Vec::new();
        put_int(&mut out, tag::INTEGER, value);
        put_uint(&mut out, tag::INTEGER, value.cast_unsigned());
        let mut reader = DerReader::new(&out, 0);
        prop_assert_eq!(reader.any().unwrap().integer().unwrap(), i128::from(value));
        prop_assert_eq!(reader.uint("number", u64::MAX).unwrap(), value.cast_unsigned());
    }

    #[test]
    fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
        let mut reader = DerReader::new(&bytes, 0);
        if let Ok(tlv) = reader.any() {
            let mut again = Vec::new();
            put_tlv(&mut again, tlv.tag, tlv.content);
            prop_assert_eq!(&again, tlv.whole);
            if let Ok(value) = tlv.integer() {
                let mut again = Vec::new();
                match u64::try_from(value) {
                    Ok(value) => put_uint(&mut again, tlv.tag, value),
                    Err(_) => put_int(&mut again, tlv.tag, i64::try_from(value).unwrap()),
                }
                prop_assert_eq!(&again, tlv.whole);
            }
        }
    }
}
