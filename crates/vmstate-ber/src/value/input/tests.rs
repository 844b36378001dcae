//! The usual case is the long way, only faster: with the same values, errors and places.

use proptest::prelude::*;
use vmstate_derive::VmState;
use vmstate_desc::{
    Description, DynState, Error, FieldCx, Gate, Limits, LoadVisitor, Reason, Role, ScalarType,
    SliceMut, Slot, VmState, load_with,
};

use super::BerIn;
use crate::der::DerReader;
use crate::types::{TypeIndex, TypeTable};
use crate::value::encode;
use crate::value::list::ListReader;

/// Goes the long way.
struct Slow<'a>(BerIn<'a>);

impl LoadVisitor for Slow<'_> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<u32, Error> {
        self.0.begin_any(d, None, version, role)
    }

    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error> {
        self.0.end(d, role)
    }

    fn field(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        self.0.field_of_any_kind(cx, exists)
    }

    fn units(&mut self, cx: FieldCx<'_>) -> Result<Option<usize>, Error> {
        self.0.units(cx)
    }

    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.0.end_field(cx)
    }

    fn slot(&mut self, cx: FieldCx<'_>, index: usize, occupied: bool) -> Result<Slot, Error> {
        self.0.slot(cx, index, occupied)
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        self.0.scalar(cx, ty)
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: SliceMut<'_>) -> Result<(), Error> {
        self.0.scalars(cx, values)
    }

    fn unused(&mut self, cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.0.unused(cx, bytes)
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.raw(cx, bytes)
    }

    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        self.0.length(cx, max)
    }

    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.0.list(cx)
    }

    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<bool, Error> {
        self.0.item(cx, index)
    }

    fn direct_key(&mut self, cx: FieldCx<'_>) -> Result<u64, Error> {
        self.0.direct_key(cx)
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        self.0.next_subsection(owner)
    }

    fn offset(&self) -> Option<u64> {
        self.0.offset()
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(name = "inner", post_load = Self::check)]
struct Inner {
    a: u8,
    b: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(repr = u8)]
enum Mode {
    #[default]
    Zero = 0,
    Five = 5,
}

/// Is taken as a whole.
#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(name = "plain")]
struct Plain {
    mode: Mode,
    on: bool,
    deadline: i64,
    words: [u16; 2],
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "element", version = 2, minimum_version = 1, post_load = Self::check)]
struct Element {
    flag: bool,
    byte: u8,
    #[vmstate(equal)]
    unit: u16,
    inner: Inner,
    plain: Plain,
    word: u32,
    #[vmstate(since = 2)]
    wide: u64,
    long: i64,
    int: i32,
    half: i16,
    small: i8,
    double: f64,
    inners: [Inner; 2],
    last: u32,
    #[vmstate(subsection)]
    extra: Option<Extra>,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "element/extra")]
struct Extra {
    value: u16,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "device", version = 1)]
struct Device {
    count: u8,
    #[vmstate(count = count, max = 8)]
    elements: Vec<Element>,
    behind: u16,
}

/// As [`Device`], with other types and another order in its elements.
#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "device", version = 1)]
struct Other {
    count: u8,
    #[vmstate(count = count, max = 8)]
    elements: Vec<OtherElement>,
    behind: i32,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "element", version = 2, minimum_version = 1)]
struct OtherElement {
    flag: bool,
    byte: u16,
    unit: u16,
    inner: Inner,
    last: u64,
    plain: Plain,
    word: i64,
    wide: u64,
    long: i64,
    int: i32,
    half: i16,
    small: i8,
    double: f64,
    inners: [Inner; 2],
    #[vmstate(subsection)]
    extra: Option<Extra>,
}

impl Inner {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.a == 77 {
            return Err("no 77".into());
        }
        Ok(())
    }
}

impl Element {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.byte == 77 {
            return Err("no 77".into());
        }
        Ok(())
    }
}

/// Numbers at whose sizes something changes, often the same ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        4 => (0_u32..64, -1_i64..2).prop_map(|(bit, near)| (1_u64 << bit).wrapping_add_signed(near)),
        2 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "whatever fits"
)]
fn element() -> impl Strategy<Value = Element> {
    let numbers = proptest::array::uniform12(number());
    (numbers, any::<bool>(), any::<bool>()).prop_map(|(n, flag, extra)| {
        let [
            byte,
            word,
            wide,
            long,
            int,
            half,
            small,
            double,
            a,
            b,
            last,
            value,
        ] = n;
        let inner = Inner {
            a: a as u8,
            b: b as i64,
        };
        Element {
            flag,
            byte: byte as u8,
            inner,
            plain: Plain {
                mode: if a > b { Mode::Zero } else { Mode::Five },
                on: a < 9,
                deadline: b as i64,
                words: [half as u16, 3],
            },
            word: word as u32,
            wide,
            long: long as i64,
            int: int as i32,
            half: half as i16,
            small: small as i8,
            double: f64::from_bits(double),
            inners: [inner, Inner { a: 1, b: -1 }],
            last: last as u32,
            extra: extra.then_some(Extra {
                value: value as u16,
            }),
            unit: 0,
        }
    })
}

fn device() -> impl Strategy<Value = Device> {
    let few = proptest::collection::vec(element(), 0..5);
    (few, 0_usize..4, any::<u16>()).prop_map(|(mut elements, equals, behind)| {
        if let Some(last) = elements.last().cloned() {
            elements.extend(vec![last; equals]);
        }
        Device {
            count: u8::try_from(elements.len()).unwrap(),
            elements,
            behind,
        }
    })
}

/// Loads by both ways, which must agree. Not-a-numbers are alike in the text.
fn agree<T: VmState + Default + std::fmt::Debug>(
    types: &TypeTable,
    ty: TypeIndex,
    bytes: &[u8],
) -> (Result<(), String>, String) {
    let value = DerReader::new(bytes, 7).any();
    let Ok(value) = value else {
        return (Err(String::new()), String::new());
    };
    let result = |result: Result<(), Error>| result.map_err(|e| e.to_string());
    let mut slow = T::default();
    let mut input = Slow(BerIn::new(types, ty, value));
    let by_slow = result(load_with(&mut slow, 1, &mut input, Limits::default()));
    let slow = format!("{slow:?}");
    // What is found out the first time is used from then on.
    for round in 0..3 {
        let mut usual = T::default();
        let mut input = BerIn::new(types, ty, value);
        let by_usual = result(load_with(&mut usual, 1, &mut input, Limits::default()));
        assert_eq!(by_usual, by_slow, "round {round}");
        assert_eq!(format!("{usual:?}"), slow, "round {round}");
    }
    (by_slow, slow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_ways_agree(device in device()) {
        let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
        let ty = encode(&device, &mut types, &mut bytes).unwrap();
        let refused = device.elements.iter().any(|e| e.byte == 77 || e.inner.a == 77);
        let (result, state) = agree::<Device>(&types, ty, &bytes);
        prop_assert_eq!(result.is_err(), refused, "{:?}", result);
        if !refused {
            prop_assert_eq!(state, format!("{device:?}"));
        }
        drop(agree::<Other>(&types, ty, &bytes));
    }

    #[test]
    fn both_ways_agree_on_what_is_wrong(
        device in device(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), number()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
        let ty = encode(&device, &mut types, &mut bytes).unwrap();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to.to_be_bytes()[7];
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        drop(agree::<Device>(&types, ty, &bytes));
        drop(agree::<Other>(&types, ty, &bytes));
    }

    #[test]
    fn lists_are_read_alike(
        bytes in proptest::collection::vec(prop_oneof![
            Just(0x30_u8), Just(0), Just(1), Just(2), Just(0xa7), Just(3), Just(5), Just(0x1f), Just(0x81), any::<u8>(),
        ], 0..24),
    ) {
        let (mut usual, mut slow) = (
            ListReader::of(DerReader::new(&bytes, 3)),
            ListReader::of(DerReader::new(&bytes, 3)),
        );
        for _ in 0..30 {
            let (a, b) = (usual.next(), slow.next_of_any_kind());
            prop_assert_eq!(&a, &b);
            prop_assert_eq!((usual.offset(), usual.is_over()), (slow.offset(), slow.is_over()));
            if !matches!(a, Ok(Some(_))) {
                break;
            }
        }
    }
}

/// A state that is described at run time has no type of its own to be compiled for.
#[test]
fn described_at_run_time() {
    let mut element = Element {
        wide: u64::MAX,
        long: -3,
        ..Element::default()
    };
    let mut device = Device {
        count: 3,
        elements: Vec::new(),
        behind: 9,
    };
    for n in 0..3 {
        element.byte = n;
        device.elements.push(element.clone());
    }
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(&device, &mut types, &mut bytes).unwrap();
    let description = types.description(ty).unwrap();
    let value = DerReader::new(&bytes, 0).any().unwrap();
    let mut texts = Vec::new();
    for slow in [false, true] {
        let mut state = DynState::new(description.clone());
        let mut input = BerIn::new(&types, ty, value);
        if slow {
            load_with(&mut state, 1, &mut Slow(input), Limits::default()).unwrap();
        } else {
            load_with(&mut state, 1, &mut input, Limits::default()).unwrap();
        }
        let mut again = Vec::new();
        encode(&state, &mut TypeTable::default(), &mut again).unwrap();
        assert_eq!(again, bytes);
        texts.push(format!("{state:?}"));
    }
    assert_eq!(texts[0], texts[1]);
}
