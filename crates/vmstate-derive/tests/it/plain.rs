//! The straight-line path and the walk are the same, whatever the bytes.

use proptest::prelude::*;
use vmstate_derive::VmState;
use vmstate_desc::{SaveState as _, Timer, VmState};

use crate::common::{hex, load_with, save_with};

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "c")]
struct Child {
    a: u8,
    b: u16,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "e")]
struct Empty {}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(transparent)]
struct Wrapper(Child);

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(repr = u8)]
enum Mode {
    #[default]
    Zero = 0,
    Five = 5,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "p", version = 2, minimum_version = 1)]
struct Plain {
    child: Child,
    children: [Child; 2],
    flag: bool,
    #[vmstate(since = 2, default = 7)]
    word: u32,
    long: i64,
    boxed: Box<Child>,
    empty: Empty,
    #[vmstate(unused = 2)]
    _gap: (),
    wrapper: Wrapper,
    mode: Mode,
    modes: [Mode; 2],
    #[vmstate(skip = "configured")]
    local: u64,
    #[vmstate(buffer)]
    buffer: [u8; 3],
    matrix: [[u16; 2]; 2],
    timer: Timer,
    double: f64,
    last: Child,
}

/// Has a plain child and a plain list around something that is not.
#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "m", subsection(name = "m/s", fields(late)))]
struct Mixed {
    len: u8,
    #[vmstate(count = len, max = 4)]
    children: Vec<Child>,
    child: Child,
    late: u8,
}

/// As the walk sees it, and as the straight-line path does.
fn agree<T: VmState + Default + Clone + std::fmt::Debug>(version: u32, bytes: &[u8]) {
    let load = |plain| {
        let mut state = T::default();
        let result = load_with(&mut state, version, bytes, plain);
        // Through `Debug`, for which not-a-numbers are alike.
        (format!("{state:?}"), result, state)
    };
    let (walked, straight) = (load(false), load(true));
    assert_eq!(walked.0, straight.0);
    assert_eq!(walked.1, straight.1);
    let save = |plain| save_with(&walked.2, plain).map_err(|e| e.to_string());
    assert_eq!(save(false), save(true));
}

/// Bytes that often look like subsections.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let header = [&[5, 3][..], b"c/x", &[0, 0, 0, 1]].concat();
    let piece = prop_oneof![
        8 => any::<u8>().prop_map(|byte| vec![byte]),
        4 => prop_oneof![Just(5), Just(0), Just(1), Just(b'c')].prop_map(|byte| vec![byte]),
        1 => Just(header),
    ];
    proptest::collection::vec(piece, 0..90).prop_map(|pieces| pieces.concat())
}

/// Bytes that load, mostly.
fn tame() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![20 => Just(0_u8), 1 => Just(5)], 60..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn straight_line_and_walk_agree(version in 1_u32..3, bytes in bytes()) {
        agree::<Plain>(version, &bytes);
        agree::<Mixed>(0, &bytes);
    }

    #[test]
    fn straight_line_and_walk_agree_on_what_loads(version in 1_u32..3, bytes in tame()) {
        agree::<Plain>(version, &bytes);
        agree::<Mixed>(0, &bytes);
    }
}

#[test]
fn what_is_plain() {
    assert_eq!(Plain::default().plain_size(), Some(63));
    assert_eq!(Empty::default().plain_size(), Some(0));
    assert_eq!(Mixed::default().plain_size(), None);
}

#[test]
fn a_subsection_of_a_child_is_found() {
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    #[vmstate(name = "pp")]
    struct Pair {
        children: [Child; 2],
    }
    // Behind the first child, behind the second one, and something that only looks so.
    for (bytes, loads) in [
        ("01 0002 05 03 632f78 00000001", false),
        ("01 0002 03 0004 05 03 632f78 00000001", false),
        ("01 0002 05 0004", true),
        ("01 0002 03 0004 05", true),
    ] {
        for plain in [false, true] {
            let result = load_with(&mut Pair::default(), 0, &hex(bytes), plain);
            assert_eq!(result.is_ok(), loads, "{bytes}: {result:?}");
        }
    }
}
