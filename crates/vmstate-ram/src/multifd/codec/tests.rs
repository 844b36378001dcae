use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

const BUILT: &[Method] = &[
    Method::None,
    #[cfg(feature = "zlib")]
    Method::Zlib,
    #[cfg(feature = "zstd")]
    Method::Zstd,
    #[cfg(feature = "zlib")]
    Method::Qpl,
    #[cfg(feature = "zlib")]
    Method::Uadk,
];

fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(PAGE)
    .collect()
}

/// Some packets of pages: flat, random, and both in one.
fn packets() -> Vec<Vec<Vec<u8>>> {
    vec![
        vec![vec![0; PAGE], vec![7; PAGE], noise(1)],
        vec![noise(2)],
        (0..128)
            .map(|i| {
                if i % 2 == 0 {
                    noise(i)
                } else {
                    vec![i as u8; PAGE]
                }
            })
            .collect(),
    ]
}

fn compressed(method: Method) -> Vec<Vec<u8>> {
    let mut compressor = Compressor::new(method, 1, PageSize::KIB4).unwrap();
    packets()
        .iter()
        .map(|pages| {
            let mut out = Vec::new();
            compressor
                .compress(
                    &pages.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                    &mut out,
                )
                .unwrap();
            out
        })
        .collect()
}

#[test]
fn every_method_gives_the_pages_back() {
    for method in BUILT.iter().copied() {
        let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
        for (pages, payload) in packets().iter().zip(compressed(method)) {
            let mut out = vec![0xee; pages.len() * PAGE];
            decompressor.decompress(&payload, &mut out).unwrap();
            assert_eq!(out, pages.concat(), "{method}");
            assert!(payload.len() <= 1 << 20);
        }
    }
}

#[test]
fn a_payload_must_give_exactly_the_pages() {
    for method in BUILT.iter().copied() {
        for wrong in [PAGE * 2, PAGE * 4] {
            let payload = &compressed(method)[0];
            let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
            let error = decompressor
                .decompress(payload, &mut vec![0; wrong])
                .unwrap_err();
            assert!(
                matches!(error.kind(), RamErrorKind::Inflate { .. }),
                "{method} {wrong}: {error}"
            );
        }
        let payload = &compressed(method)[0];
        for cut in [1, payload.len() / 2, payload.len() - 1] {
            let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
            let outcome = decompressor.decompress(&payload[..cut], &mut vec![0; PAGE * 3]);
            // The last byte of a zlib stretch is part of a flush mark, behind all pages.
            assert!(
                outcome.is_err() || method == Method::Zlib && cut == payload.len() - 1,
                "{method} {cut}"
            );
        }
        let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
        assert!(decompressor.decompress(payload, &mut [0; 100]).is_err());
    }
}

#[test]
fn a_bomb_is_stopped_at_the_pages() {
    for method in BUILT
        .iter()
        .copied()
        .filter(|method| matches!(method, Method::Zlib | Method::Zstd))
    {
        let mut compressor = Compressor::new(method, 1, PageSize::KIB4).unwrap();
        let page = vec![0; PAGE];
        let mut bomb = Vec::new();
        compressor
            .compress(&vec![page.as_slice(); 10_000], &mut bomb)
            .unwrap();
        assert!(bomb.len() < 1 << 20);
        let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
        let error = decompressor
            .decompress(&bomb, &mut vec![0; PAGE])
            .unwrap_err();
        assert_eq!(
            error.kind(),
            &RamErrorKind::Inflate {
                method,
                what: "it holds more bytes than announced"
            }
        );
    }
}

#[cfg(feature = "zstd")]
#[test]
fn a_zstd_window_of_128_mib_is_refused() {
    // Magic, frame header without content size, window descriptor for 2^27.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0, 0, 0];
    let mut decompressor = Decompressor::new(Method::Zstd, PageSize::KIB4).unwrap();
    assert!(decompressor.decompress(&frame, &mut vec![0; PAGE]).is_err());
}

#[test]
fn qatzip_is_refused_by_name() {
    let error = Decompressor::new(Method::Qatzip, PageSize::KIB4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "compression method qatzip is not supported by this build"
    );
    assert!(Compressor::new(Method::Qatzip, 1, PageSize::KIB4).is_err());
}

#[cfg(feature = "zlib")]
#[test]
fn pieces_are_bounded() {
    let check = |payload: &[u8]| {
        let mut decompressor = Decompressor::new(Method::Qpl, PageSize::KIB4).unwrap();
        let error = decompressor
            .decompress(payload, &mut vec![0; PAGE])
            .unwrap_err();
        match error.kind() {
            RamErrorKind::Inflate { what, .. } => *what,
            other => panic!("{other}"),
        }
    };
    assert_eq!(check(&[0, 0, 0]), "it is shorter than its table of lengths");
    assert_eq!(check(&[0, 0, 0x10, 1]), "a piece is longer than a page");
    assert_eq!(check(&[0, 0, 0, 2, 0]), "it is shorter than its pieces");
    assert_eq!(
        check(&[0, 0, 0, 2, 3, 0]),
        "it holds fewer bytes than announced"
    );
    assert_eq!(
        check(&[&[0, 0, 0x10, 0][..], &[1; PAGE + 1]].concat()),
        "bytes are left behind its end"
    );
    assert_eq!(check(&[0, 0, 0, 1, 7]), "it is not valid deflate data");
}

#[cfg(feature = "zlib")]
#[test]
fn a_page_of_another_size_is_refused() {
    let mut compressor = Compressor::new(Method::Zlib, 1, PageSize::KIB4).unwrap();
    assert!(compressor.compress(&[&[0; 100]], &mut Vec::new()).is_err());
}

proptest! {
    #[test]
    fn damage_never_panics(
        method in prop::sample::select(BUILT),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut decompressor = Decompressor::new(method, PageSize::KIB4).unwrap();
        let mut intact = true;
        for (whole, packet) in compressed(method).into_iter().zip(packets()).take(2) {
            let mut payload = whole.clone();
            for (at, value) in &damage {
                let at = at.index(payload.len());
                payload[at] = *value;
            }
            intact &= payload == whole;
            let decompressed = decompressor.decompress(&payload, &mut vec![0; PAGE * packet.len()]);
            // What is not damaged is understood; damage that is noticed is the peer's.
            match decompressed {
                Ok(()) => {}
                Err(error) => prop_assert!(!intact && error.blame() == crate::Blame::Malformed, "{error}"),
            }
        }
    }
}
