//! One test for each attribute, with the bytes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, LinkedList, VecDeque};

use vmstate_derive::VmState;
use vmstate_desc::{
    Error, LoadField, Reason, SaveField, SaveState, Scalar, Timer, Tmp, VmState as _,
};

use crate::common::{hex, load, load_version, load_with, refused, save, save_with};

/// The state has these bytes, and they give the state again.
fn round_trip<T>(state: &T, target: T, bytes: &str)
where
    T: vmstate_desc::VmState + PartialEq + std::fmt::Debug,
{
    let bytes = hex(bytes);
    assert_eq!(save(state), bytes);
    let mut target = target;
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, *state);
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "point")]
struct Point {
    x: u8,
    y: u8,
}

const fn point(x: u8, y: u8) -> Point {
    Point { x, y }
}

#[test]
fn natural_types() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        flag: bool,
        signed: i16,
        double: f64,
        timer: Timer,
        matrix: [[u8; 2]; 2],
        boxed: Box<u16>,
        point: Point,
        points: [Point; 2],
    }
    let state = State {
        flag: true,
        signed: -2,
        double: 1.0,
        timer: Timer(None),
        matrix: [[1, 2], [3, 4]],
        boxed: Box::new(0x506),
        point: point(7, 8),
        points: [point(9, 10), point(11, 12)],
    };
    let bytes = "01 fffe 3ff0000000000000 ffffffffffffffff 01020304 0506 0708 090a0b0c";
    round_trip(&state, State::default(), bytes);
    assert_eq!(state.plain_size(), Some(31));
}

#[test]
fn tuple_structs() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State(u8, #[vmstate(count = 0, max = 4)] Vec<u16>);
    round_trip(&State(2, vec![3, 4]), State::default(), "02 0003 0004");
}

#[test]
fn since_and_until() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 3, minimum_version = 1)]
    struct State {
        #[vmstate(since = 2)]
        new: u8,
        #[vmstate(until = 3)]
        old: u8,
        #[vmstate(since = 2, until = 3)]
        short: u8,
    }
    let mut state = State::default();
    assert_eq!(save(&state), hex("00"));
    load_version(&mut state, 1, &hex("01")).unwrap();
    assert_eq!((state.new, state.old, state.short), (0, 1, 0));
    load_version(&mut state, 2, &hex("020304")).unwrap();
    assert_eq!((state.new, state.old, state.short), (2, 3, 4));
    load_version(&mut state, 3, &hex("05")).unwrap();
    assert_eq!((state.new, state.old, state.short), (5, 3, 4));
    assert!(load_version(&mut state, 0, &[]).is_err());
    assert!(load_version(&mut state, 4, &hex("05")).is_err());
}

#[test]
fn what_formats_that_match_by_name_go_by() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 1)]
    struct State {
        #[vmstate(aliases("speed", "baud"))]
        rate: u8,
        #[vmstate(ignorable, aliases("hint_old"))]
        hint: u8,
        plain: u8,
    }
    let found: Vec<_> = State::DESCRIPTION
        .fields()
        .iter()
        .map(|f| (f.aliases.join(","), f.ignorable))
        .collect();
    let expected = [("speed,baud", false), ("hint_old", true), ("", false)];
    assert_eq!(
        found,
        expected.map(|(names, flag)| (names.to_owned(), flag))
    );
    let state = State {
        rate: 1,
        hint: 2,
        plain: 3,
    };
    round_trip(&state, State::default(), "01 02 03");
}

#[test]
fn another_number_of_elements() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 1)]
    struct State {
        #[vmstate(resize_max = 4)]
        array: [u16; 4],
        #[vmstate(resize_max = 2)]
        rows: [[u8; 3]; 2],
        #[vmstate(buffer, resize_max = 2)]
        bytes: [u8; 2],
        #[vmstate(count_with = |_: &State| 1, max = 2, resize_max = 8)]
        queues: Vec<u8>,
        plain: u8,
    }
    let most: Vec<_> = State::DESCRIPTION
        .fields()
        .iter()
        .map(|f| f.resize_max)
        .collect();
    assert_eq!(most, [Some(4), Some(6), Some(2), Some(8), None]);
    // QEMU's bytes do not tell how many there are.
    let state = State {
        array: [1, 2, 3, 4],
        rows: [[5, 6, 7], [8, 9, 10]],
        bytes: [11, 12],
        queues: vec![13],
        plain: 14,
    };
    let before = State {
        queues: vec![0xff, 0xfe],
        ..State::default()
    };
    let bytes = "0001 0002 0003 0004 05 06 07 08 09 0a 0b0c 0d 0e";
    round_trip(&state, before, bytes);
}

#[test]
fn exists() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 1)]
    struct State {
        mode: u8,
        #[vmstate(exists = Self::has_value)]
        value: u16,
        #[vmstate(exists = |state: &Self, version| state.mode == 2 && version == 1)]
        point: Option<Point>,
    }
    impl State {
        fn has_value(&self, _version: u32) -> bool {
            self.mode == 1
        }
    }
    let state = |mode, value, point| State { mode, value, point };
    round_trip(&state(0, 5, None), state(9, 5, None), "00");
    round_trip(&state(1, 6, None), state(9, 5, None), "01 0006");
    round_trip(
        &state(2, 5, Some(point(1, 2))),
        state(9, 5, None),
        "02 0102",
    );
    let e = save_with(&state(2, 0, None), true).unwrap_err();
    assert_eq!(e.to_string(), "State/point: a value expected, found none");
}

#[test]
fn skip() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(skip = "a handle of this host")]
        handle: Option<String>,
        value: u8,
    }
    let handle = || Some("local".to_owned());
    let state = |value, handle| State { handle, value };
    round_trip(&state(7, handle()), state(0, handle()), "07");
}

#[test]
fn unused() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct Plain {
        before: u8,
        #[vmstate(unused = 3)]
        _gap: (),
        after: u8,
    }
    let state = Plain {
        before: 1,
        _gap: (),
        after: 2,
    };
    round_trip(&state, Plain::default(), "01 000000 02");
    assert_eq!(state.plain_size(), Some(5));
    let mut target = Plain::default();
    load(&mut target, &hex("01 ffffff 02")).unwrap();
    assert_eq!(target, state);

    #[derive(Debug, Default, PartialEq, VmState)]
    struct Counted {
        len: u8,
        #[vmstate(unused = 2, count = len, max = 4)]
        _gap: (),
    }
    let state = Counted { len: 2, _gap: () };
    round_trip(&state, Counted::default(), "02 0000 0000");
}

#[test]
fn equal_and_less_or_equal() {
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    struct State {
        #[vmstate(equal)]
        size: u16,
        #[vmstate(less_or_equal)]
        len: i32,
    }
    let state = |size, len| State { size, len };
    round_trip(&state(7, 3), state(7, 9), "0007 00000003");
    let mut target = state(8, 9);
    let message = refused(&mut target, &hex("0007 00000003"));
    assert_eq!(
        message,
        "State/size: must equal the destination's value 8, found 7 (byte 0x0)"
    );
    assert_eq!(target, state(8, 9));
    for len in ["0000000a", "ffffffff"] {
        let message = refused(&mut target, &hex(&format!("0008 {len}")));
        assert!(message.contains("is outside of 0..=9"), "{message}");
    }
}

#[test]
fn little_endian() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(little_endian)]
        one: u32,
        #[vmstate(little_endian)]
        some: [i16; 2],
    }
    let state = State {
        one: 0x0102_0304,
        some: [1, -2],
    };
    round_trip(&state, State::default(), "04030201 0100 feff");
}

#[test]
fn buffer() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(buffer)]
        all: [u8; 2],
        #[vmstate(buffer, size = 3)]
        sized: Vec<u8>,
        #[vmstate(buffer, range = 1..3)]
        part: [u8; 4],
        words: u8,
        #[vmstate(buffer, count = words, multiply = 2, max = 8)]
        counted: Box<[u8]>,
    }
    let state = State {
        all: [1, 2],
        sized: vec![3, 4, 5],
        part: [0, 6, 7, 0],
        words: 1,
        counted: [8, 9].into(),
    };
    round_trip(&state, State::default(), "0102 030405 0607 01 0809");
    let mut target = State::default();
    let message = refused(
        &mut target,
        &hex("0102 030405 0607 05 0000000000000000 0000"),
    );
    assert_eq!(
        message,
        "State/counted: count 10 is outside of 0..=8 (byte 0x8)"
    );
    let short = State {
        sized: vec![1],
        ..State::default()
    };
    let e = save_with(&short, true).unwrap_err();
    assert_eq!(
        e.to_string(),
        "State/sized: has 1 elements, but its description says 3"
    );

    #[derive(Debug, Default, PartialEq, VmState)]
    struct Plain {
        #[vmstate(buffer)]
        all: [u8; 2],
    }
    assert_eq!(Plain::default().plain_size(), Some(2));
    round_trip(&Plain { all: [1, 2] }, Plain::default(), "0102");
}

#[test]
fn bitmap() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(bitmap)]
        whole: [u64; 1],
        #[vmstate(bitmap, bits = 65)]
        bits: Vec<u64>,
        len: i32,
        #[vmstate(bitmap, count = len, max = 64)]
        counted: Vec<u64>,
    }
    let state = State {
        whole: [1],
        bits: vec![2, 3],
        len: 5,
        counted: vec![4],
    };
    let bytes = "0000000000000001 0000000000000002 0000000000000003 00000005 0000000000000004";
    round_trip(&state, State::default(), bytes);
    let bytes = bytes.replace("00000005", "00000041");
    let message = refused(&mut State::default(), &hex(&bytes));
    assert!(
        message.contains("count 65 is outside of 0..=64"),
        "{message}"
    );
}

#[test]
fn count() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        len: i32,
        #[vmstate(count = len, max = 3)]
        vec: Vec<u8>,
        #[vmstate(count = len, max = 3)]
        points: Box<[Point]>,
        #[vmstate(count = len, max = 2)]
        array: [u8; 2],
        #[vmstate(count = len, multiply = 2, max = 6)]
        twice: Vec<u8>,
        #[vmstate(count = len, max = 3)]
        rows: Vec<[u8; 2]>,
    }
    let state = State {
        len: 1,
        vec: vec![1],
        points: [point(2, 3)].into(),
        array: [4, 0],
        twice: vec![5, 6],
        rows: vec![[7, 8]],
    };
    round_trip(&state, State::default(), "00000001 01 0203 04 0506 0708");
    for len in ["00000004", "ffffffff"] {
        let message = refused(&mut State::default(), &hex(len));
        assert!(message.contains("State/vec: count"), "{message}");
    }
    let message = refused(&mut State::default(), &hex("00000003 000000 000000000000"));
    assert_eq!(
        message,
        "State/array: count 3 is outside of 0..=2 (byte 0xd)"
    );
    let e = save_with(&State { len: 2, ..state }, true).unwrap_err();
    assert_eq!(e.to_string(), "State/vec: has 1 elements, but len says 2");
}

#[test]
fn counts_that_are_not_in_the_stream() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(skip = "configured")]
        ports: usize,
        #[vmstate(count = ports, max = 4)]
        by_field: Vec<u8>,
        #[vmstate(count_with = Self::pairs, max = 4)]
        by_function: Vec<u8>,
    }
    impl State {
        fn pairs(&self) -> usize {
            self.ports / 2
        }
    }
    let state = State {
        ports: 2,
        by_field: vec![1, 2],
        by_function: vec![3],
    };
    let target = State {
        ports: 2,
        ..State::default()
    };
    round_trip(&state, target, "0102 03");
    // What a function counts may depend on what has been loaded before it.
    let told = vmstate_desc::own_counts(&state);
    assert_eq!(told.len(), 1, "{told:?}");
    let one = (&*told[0].path, &*told[0].counter, told[0].number);
    assert_eq!(one, ("by_field", "ports", 2));
    let huge = State {
        ports: usize::MAX,
        ..State::default()
    };
    assert!(save_with(&huge, true).is_err());
}

#[test]
fn pointers() {
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    struct State {
        len: u8,
        #[vmstate(pointers, count = len, max = 4)]
        every: Vec<Option<Box<Point>>>,
        #[vmstate(pointers)]
        fixed: [Option<Box<u16>>; 2],
        #[vmstate(pointers(mark_absent))]
        absent: [Option<Point>; 2],
    }
    let state = State {
        len: 2,
        every: vec![None, Some(Box::new(point(1, 2)))],
        fixed: [Some(Box::new(3)), None],
        absent: [None, Some(point(4, 5))],
    };
    // In the older form both ends agree about the holes; in the newer one what is there does not count.
    let target = State {
        every: vec![Some(Box::new(point(9, 9)))],
        absent: [None, Some(point(9, 9))],
        ..State::default()
    };
    let bytes = "02 30 31 0102 31 0003 30 30 0405";
    round_trip(&state, target.clone(), bytes);
    let mut wrong = target;
    assert!(load(&mut wrong, &hex("02 30 32")).is_err());
    assert!(load(&mut State::default(), &hex(bytes)).is_err());
}

#[test]
fn range() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(range = 1..3)]
        scalars: [u16; 4],
        #[vmstate(range = 2..)]
        rows: [[u8; 2]; 3],
        #[vmstate(range = ..1)]
        points: [Point; 2],
    }
    let state = State {
        scalars: [9, 1, 2, 9],
        rows: [[9; 2], [9; 2], [3, 4]],
        points: [point(5, 6), point(9, 9)],
    };
    let target = State {
        scalars: [9; 4],
        rows: [[9; 2]; 3],
        points: [point(9, 9), point(9, 9)],
    };
    round_trip(&state, target, "0001 0002 0304 0506");
}

#[test]
fn struct_version() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 2, minimum_version = 1)]
    struct Child {
        x: u8,
        #[vmstate(since = 2)]
        y: u8,
    }
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(struct_version = 1)]
        old: [Child; 2],
        new: Child,
    }
    let child = |x, y| Child { x, y };
    let state = State {
        old: [child(1, 0), child(2, 0)],
        new: child(3, 4),
    };
    round_trip(&state, State::default(), "01 02 0304");
    assert_eq!(state.plain_size(), None);
}

#[test]
fn lists() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 1)]
    struct Item(u8);
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(version = 1)]
    struct State {
        #[vmstate(qtailq, since = 1)]
        queue: VecDeque<Item>,
        #[vmstate(qlist, since = 1)]
        list: LinkedList<Item>,
        #[vmstate(qlist, since = 1)]
        vec: Vec<Item>,
    }
    let state = State {
        queue: [Item(1), Item(2)].into(),
        list: [Item(3)].into(),
        vec: vec![],
    };
    let target = State {
        vec: vec![Item(9)],
        ..State::default()
    };
    round_trip(&state, target, "01 01 01 02 00 01 03 00 00");
}

#[test]
fn trees() {
    #[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord, VmState)]
    struct Key {
        bus: u8,
    }
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        direct: BTreeMap<u64, Point>,
        objects: BTreeMap<Key, Point>,
    }
    let state = State {
        direct: [(7, point(1, 2))].into(),
        objects: [(Key { bus: 8 }, point(3, 4)), (Key { bus: 5 }, point(5, 6))].into(),
    };
    let bytes = "00000001 01 0000000000000007 0102 00 00000002 01 05 0506 01 08 0304 00";
    round_trip(&state, State::default(), bytes);
}

#[test]
fn byte_array() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        #[vmstate(byte_array, max = 3)]
        bytes: Vec<u8>,
    }
    let state = |bytes: &[u8]| State {
        bytes: bytes.to_vec(),
    };
    round_trip(&state(&[1, 2, 3]), state(&[9; 9]), "00000003 010203");
    round_trip(&state(&[]), state(&[9; 9]), "00000000");
    refused(&mut State::default(), &hex("00000004 01020304"));
}

#[derive(Debug, Default, PartialEq, VmState)]
#[vmstate(name = "half")]
struct Half {
    value: u8,
}

#[derive(Debug, Default, PartialEq, VmState)]
#[vmstate(tmp(Half, name = "again", after = low))]
struct Doubled {
    #[vmstate(tmp = Half)]
    value: u32,
    low: u8,
}

impl Tmp<Doubled> for Half {
    fn capture(parent: &Doubled) -> Result<Self, Reason> {
        let value = u8::try_from(parent.value / 2).map_err(|e| e.to_string())?;
        Ok(Self { value })
    }
    fn apply(&self, parent: &mut Doubled) -> Result<(), Reason> {
        if self.value == 0 {
            return Err("zero".into());
        }
        parent.value = u32::from(self.value) * 2;
        Ok(())
    }
}

#[test]
fn tmp() {
    let state = |value| Doubled { value, low: 1 };
    round_trip(&state(8), state(0), "04 01 04");
    let e = save_with(&state(1024), true).unwrap_err();
    assert!(
        e.to_string().starts_with("Doubled/tmp: tmp refused: "),
        "{e}"
    );
    let message = refused(&mut state(0), &hex("04 01 00"));
    assert_eq!(message, "Doubled/again: tmp refused: zero (byte 0x3)");
}

#[derive(Debug, Default, PartialEq, VmState)]
struct Lines {
    #[vmstate(custom(name = "lines", size = 2, save = Self::save_lines, load = Self::load_lines))]
    lines: Vec<bool>,
}

impl Lines {
    fn save_lines(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        let bits = self
            .lines
            .iter()
            .rev()
            .fold(0, |bits, line| bits << 1 | u16::from(*line));
        sink.scalar(Scalar::U16(bits))
    }
    fn load_lines(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        let mut bytes = [0; 2];
        source.raw(&mut bytes)?;
        let bits = u16::from_be_bytes(bytes);
        self.lines = (0..4).map(|i| bits >> i & 1 != 0).collect();
        Ok(())
    }
}

#[test]
fn custom() {
    let state = Lines {
        lines: vec![true, false, true, true],
    };
    round_trip(&state, Lines::default(), "000d");
}

#[test]
fn validate() {
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        size: u8,
        #[vmstate(validate = |index: &u8, state: &Self| state.check(*index))]
        index: u8,
    }
    impl State {
        fn check(&self, index: u8) -> Result<(), Reason> {
            if index < self.size {
                return Ok(());
            }
            Err(format!("{index} is not below {}", self.size).into())
        }
    }
    round_trip(&State { size: 3, index: 2 }, State::default(), "03 02");
    let message = refused(&mut State::default(), &hex("03 03"));
    assert_eq!(
        message,
        "State/index: validate refused: 3 is not below 3 (byte 0x2)"
    );
}

#[test]
fn must_exist() {
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(must_exist(name = "index is sane", test = Self::index_is_sane, after = index))]
    #[vmstate(must_exist(name = "last is even", test = |state: &Self, _| state.last.is_multiple_of(2)))]
    struct State {
        size: u8,
        index: u8,
        last: u8,
    }
    impl State {
        fn index_is_sane(&self, _version: u32) -> bool {
            self.index < self.size
        }
    }
    let state = |size, index, last| State { size, index, last };
    round_trip(&state(3, 2, 4), State::default(), "030204");
    // Right behind its field: the last one has not been read.
    let mut target = State::default();
    let message = refused(&mut target, &hex("030304"));
    assert_eq!(message, "State/index is sane: validation failed (byte 0x2)");
    assert_eq!(target, state(3, 3, 0));
    assert!(refused(&mut target, &hex("030203")).contains("last is even"));
    assert!(save_with(&state(1, 1, 0), true).is_err());
}

#[test]
fn default() {
    #[derive(Debug, PartialEq, VmState)]
    #[vmstate(version = 2, minimum_version = 1)]
    #[vmstate(name = "d", subsection(name = "d/late", needed = Self::late, fields(late)))]
    struct State {
        first: u8,
        #[vmstate(since = 2, default = 64)]
        depth: u32,
        #[vmstate(default = vec![1; 2].len())]
        #[vmstate(exists = |_: &Self, _| false, name = "never")]
        #[vmstate(custom(name = "none", save = nothing_saved, load = nothing_loaded))]
        computed: usize,
        #[vmstate(default = 5)]
        late: u8,
    }
    fn nothing_saved(_: &State, _: &mut dyn SaveField) -> Result<(), Error> {
        Ok(())
    }
    fn nothing_loaded(_: &mut State, _: &mut dyn LoadField) -> Result<(), Error> {
        Ok(())
    }
    impl State {
        fn late(&self) -> bool {
            self.late != 5
        }
    }
    let mut state = State {
        first: 0,
        depth: 1,
        computed: 0,
        late: 9,
    };
    load_version(&mut state, 1, &hex("01")).unwrap();
    let expected = State {
        first: 1,
        depth: 64,
        computed: 2,
        late: 5,
    };
    assert_eq!(state, expected);
    assert_eq!(save(&state), hex("01 00000040"));
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "dev/opt", version = 1)]
struct Part {
    x: u8,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "dev/always", version = 1, needed = Self::is_needed)]
struct Always {
    x: u8,
}

impl Always {
    fn is_needed(&self) -> bool {
        self.x != 0
    }
}

#[test]
fn subsections_that_are_fields() {
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    #[vmstate(name = "dev")]
    struct State {
        own: u8,
        #[vmstate(subsection)]
        optional: Option<Part>,
        #[vmstate(subsection)]
        always: Always,
    }
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    #[vmstate(name = "dev")]
    struct Other {
        #[vmstate(subsection)]
        boxed: Option<Box<Part>>,
        #[vmstate(subsection(needed = Self::is_odd))]
        chosen: Always,
    }
    impl Other {
        fn is_odd(&self) -> bool {
            self.chosen.x % 2 == 1
        }
    }
    let optional = "05 07 6465762f6f7074 00000001";
    let always = "05 0a 6465762f616c77617973 00000001";

    let mut state = State {
        own: 1,
        optional: Some(Part { x: 2 }),
        always: Always { x: 3 },
    };
    let bytes = format!("01 {optional} 02 {always} 03");
    round_trip(&state, State::default(), &bytes);
    // What is not in the stream is not there afterwards.
    load(&mut state, &hex("09")).unwrap();
    assert_eq!(state.optional, None);
    assert_eq!(state.always, Always { x: 3 });
    assert_eq!(save(&State::default()), hex("00"));

    let other = |boxed: Option<u8>, x| Other {
        boxed: boxed.map(|x| Box::new(Part { x })),
        chosen: Always { x },
    };
    let bytes = format!("{optional} 02 {always} 03");
    round_trip(&other(Some(2), 3), Other::default(), &bytes);
    assert!(save(&other(None, 2)).is_empty());
}

#[test]
fn subsections_of_fields() {
    #[derive(Debug, Default, Clone, PartialEq, VmState)]
    #[vmstate(name = "dev")]
    #[vmstate(must_exist(name = "check", test = |state: &Self, _| state.len < 9, after = len))]
    #[vmstate(subsection(
        name = "dev/a",
        version = 2,
        minimum_version = 1,
        needed = Self::in_use,
        pre_load = |state: &mut Self| { state.own += 0x10; Ok(()) },
        post_load = |state: &mut Self, version| { state.own += u8::try_from(version).unwrap(); Ok(()) },
        fields(len, data, half),
        subsection(name = "dev/a/deep", fields(deep, by_parent)),
    ))]
    struct State {
        #[vmstate(count = len, max = 4)]
        data: Vec<u8>,
        own: u8,
        deep: u8,
        len: u8,
        #[vmstate(since = 2)]
        half: u8,
        #[vmstate(count = len, max = 4, exists = |state: &Self, _| state.deep != 0)]
        by_parent: Vec<u8>,
    }
    impl State {
        fn in_use(&self) -> bool {
            self.len != 0
        }
    }
    let state = State {
        data: vec![1, 2],
        own: 3,
        deep: 4,
        len: 2,
        half: 5,
        by_parent: vec![6, 7],
    };
    let bytes = "03 05 05 6465762f61 00000002 02 0102 05 \
                 05 0a 6465762f612f64656570 00000000 04 0607";
    assert_eq!(save(&state), hex(bytes));
    let mut target = State::default();
    load(&mut target, &hex(bytes)).unwrap();
    assert_eq!(target.own, 0x15);
    assert_eq!(State { own: 3, ..target }, state);
    assert_eq!(save(&State { len: 0, ..state }), hex("03"));

    let mut target = State::default();
    load(&mut target, &hex("03 05 05 6465762f61 00000001 01 09")).unwrap();
    assert_eq!((target.own, target.half, target.data), (0x14, 0, vec![9]));
    let message = refused(
        &mut State::default(),
        &hex("03 05 05 6465762f61 00000002 09"),
    );
    assert_eq!(message, "dev/dev/a/check: validation failed (byte 0xd)");
}

#[test]
fn transparent() {
    #[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
    #[vmstate(transparent)]
    struct Address(u32);
    #[derive(Debug, Default, PartialEq, VmState)]
    #[vmstate(transparent)]
    struct Table {
        rows: [[u8; 2]; 2],
    }
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        one: Address,
        some: [Address; 2],
        table: Table,
        #[vmstate(equal)]
        equal: Address,
    }
    let state = State {
        one: Address(1),
        some: [Address(2), Address(3)],
        table: Table {
            rows: [[4, 5], [6, 7]],
        },
        equal: Address(8),
    };
    let target = State {
        equal: Address(8),
        ..State::default()
    };
    round_trip(
        &state,
        target,
        "00000001 00000002 00000003 04050607 00000008",
    );
    assert_eq!(
        State::DESCRIPTION.fields()[2].repeat,
        vmstate_desc::Repeat::Array(4)
    );
}

#[test]
fn repr() {
    const FAST: u16 = 0x100;
    #[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
    #[vmstate(repr = u16)]
    enum Speed {
        #[default]
        Slow = 1,
        Fast = FAST as isize,
    }
    #[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
    #[vmstate(repr = i8)]
    enum Sign {
        Minus = -1,
        #[default]
        Plus = 1,
    }
    #[derive(Debug, Default, PartialEq, VmState)]
    struct State {
        speed: Speed,
        signs: [Sign; 2],
    }
    let state = State {
        speed: Speed::Fast,
        signs: [Sign::Minus, Sign::Plus],
    };
    round_trip(&state, State::default(), "0100 ff 01");
    assert_eq!(state.plain_size(), Some(4));
    let mut target = State::default();
    let message = refused(&mut target, &hex("0100 ff 00"));
    assert_eq!(
        message,
        "State/signs[1]: repr refused: 0 is none of the known values -1 (Minus), 1 (Plus) (byte 0x4)"
    );
}

/// Writes down which hook was called.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "hooks", version = 2, minimum_version = 1)]
#[vmstate(pre_save = Self::pre_save, post_save = Self::post_save)]
#[vmstate(pre_load = Self::pre_load, post_load = Self::post_load)]
#[vmstate(needed = Self::needed, unplug_pending = Self::unplug_pending)]
struct Hooks {
    value: u8,
    #[vmstate(skip = "of this test")]
    log: RefCell<Vec<String>>,
    #[vmstate(skip = "of this test")]
    refuse: Cell<bool>,
}

impl Hooks {
    fn note(&self, what: &str) -> Result<(), Reason> {
        self.log.borrow_mut().push(format!("{what} {}", self.value));
        if self.refuse.get() {
            return Err("no".into());
        }
        Ok(())
    }
    fn pre_save(&self) -> Result<(), Reason> {
        self.note("pre_save")
    }
    fn post_save(&self) {
        self.note("post_save").unwrap();
    }
    fn pre_load(&mut self) -> Result<(), Reason> {
        self.note("pre_load")
    }
    fn post_load(&mut self, version: u32) -> Result<(), Reason> {
        self.note(&format!("post_load({version})"))
    }
    fn needed(&self) -> bool {
        self.value == 0
    }
    fn unplug_pending(&self) -> bool {
        self.value == 0
    }
}

#[test]
fn hooks() {
    let mut state = Hooks::default();
    assert!(state.unplug_pending());
    assert!(state.needed());
    assert_eq!(save_with(&state, true).unwrap(), [0]);
    load_version(&mut state, 1, &[3]).unwrap();
    assert_eq!(
        *state.log.borrow(),
        ["pre_save 0", "post_save 0", "pre_load 0", "post_load(1) 3"]
    );
    state.refuse.set(true);
    let e = save_with(&state, true).unwrap_err();
    assert_eq!(e.to_string(), "hooks: pre_save refused: no");
    let e = load_with(&mut state, 2, &[4], true).unwrap_err();
    assert_eq!(e.to_string(), "hooks: pre_load refused: no (byte 0x0)");
    assert_eq!(state.value, 3);
}
