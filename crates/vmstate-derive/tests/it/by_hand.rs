//! The description that the derive writes equals the one that a person would write.

use std::collections::{BTreeMap, LinkedList, VecDeque};

use vmstate_derive::VmState;
use vmstate_desc::{
    Codec, Count, Description, DescriptionRef, Element, Error, Field, ListKind, LoadField,
    Priority, Reason, Repeat, SaveField, ScalarType, Size, Timer, Tmp, TreeKey, VmState,
};

#[derive(Debug, Default, VmState)]
#[vmstate(name = "child", version = 2, minimum_version = 1)]
struct Child {
    x: u8,
    #[vmstate(since = 2)]
    y: u8,
}

#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord, VmState)]
#[vmstate(name = "key")]
struct Key {
    bus: u8,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "leaf")]
struct Leaf {
    x: u8,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "tmp-wire")]
struct Wire {
    diff: i64,
}

impl Tmp<Kinds> for Wire {
    fn capture(_: &Kinds) -> Result<Self, Reason> {
        Ok(Self::default())
    }
    fn apply(&self, _: &mut Kinds) -> Result<(), Reason> {
        Ok(())
    }
}

#[derive(Debug, Default, VmState)]
#[vmstate(repr = u16)]
enum Mode {
    #[default]
    Off = 0,
    On = 1,
}

#[derive(Debug, Default, VmState)]
#[vmstate(transparent)]
struct Address(u64);

#[derive(Debug, Default, VmState)]
#[vmstate(name = "kinds/extra")]
struct Extra {
    x: u8,
}

#[derive(Debug, Default, VmState)]
#[allow(dead_code, reason = "described only")]
#[allow(clippy::vec_box, reason = "boxes are seen through")]
#[vmstate(name = "kinds", version = 5, minimum_version = 2, priority = Apic)]
#[vmstate(early_setup, unmigratable)]
#[vmstate(must_exist(name = "sane", test = Self::yes, after = u8_))]
#[vmstate(must_exist(name = "complete", test = Self::yes))]
#[vmstate(tmp(Wire, name = "second_tmp", after = u8_))]
#[vmstate(subsection(
    name = "kinds/part",
    version = 3,
    minimum_version = 1,
    needed = Self::needed,
    fields(part_len, part_data),
    subsection(name = "kinds/part/deep", fields(deep)),
))]
struct Kinds {
    bool_: bool,
    u8_: u8,
    u16_: u16,
    u32_: u32,
    u64_: u64,
    i8_: i8,
    i16_: i16,
    i32_: i32,
    i64_: i64,
    f64_: f64,
    timer: Timer,
    timers: [Timer; 2],
    mode: Mode,
    address: Address,
    boxed: Box<u32>,
    array: [u16; 3],
    matrix: [[u16; 3]; 2],
    #[vmstate(name = "env.cr[0]", since = 3)]
    renamed: u32,
    #[vmstate(until = 4)]
    ended: u32,
    #[vmstate(since = 2, until = 4)]
    middle: u32,
    #[vmstate(exists = Self::exists)]
    maybe: u32,
    #[vmstate(exists = Self::exists)]
    option: Option<Child>,
    #[vmstate(equal)]
    equal_u8: u8,
    #[vmstate(equal)]
    equal_u16: u16,
    #[vmstate(equal)]
    equal_u32: u32,
    #[vmstate(equal)]
    equal_i32: i32,
    #[vmstate(equal)]
    equal_u64: [u64; 2],
    #[vmstate(less_or_equal)]
    le: i32,
    #[vmstate(little_endian)]
    little: [u16; 2],
    #[vmstate(buffer)]
    buffer: [u8; 7],
    #[vmstate(buffer, size = 32)]
    sized: Vec<u8>,
    #[vmstate(buffer, range = 2..6)]
    middle_buffer: [u8; 8],
    #[vmstate(buffer, count = u32_, multiply = 4, max = 4096)]
    vbuffer: Vec<u8>,
    #[vmstate(bitmap)]
    words: [u64; 2],
    #[vmstate(bitmap, bits = 70)]
    bits: Vec<u64>,
    #[vmstate(bitmap, count = i32_, max = 1024)]
    vbits: Box<[u64]>,
    #[vmstate(count = u8_, max = 10)]
    by_u8: Vec<u16>,
    #[vmstate(count = u16_, max = 10)]
    by_u16: Box<[Child]>,
    #[vmstate(count = u32_, max = 10, multiply = 2)]
    by_u32: Vec<u8>,
    #[vmstate(count = i32_, max = 4)]
    by_i32: [u8; 4],
    #[vmstate(count = u8_, max = 10)]
    rows: Vec<[u8; 3]>,
    #[vmstate(count = configured, max = 10)]
    by_skipped: Vec<u8>,
    #[vmstate(count_with = Self::ports, max = 10)]
    by_function: Vec<u8>,
    #[vmstate(pointers)]
    every: [Option<Box<Child>>; 3],
    #[vmstate(pointers, count = u8_, max = 8)]
    every_counted: Vec<Option<Box<Child>>>,
    #[vmstate(pointers(mark_absent))]
    absent: [Option<Box<Timer>>; 3],
    #[vmstate(range = 1..3)]
    sub_array: [u32; 4],
    #[vmstate(range = 1..)]
    sub_rows: [[u32; 5]; 3],
    #[vmstate(range = ..2)]
    sub_structs: [Child; 3],
    child: Child,
    children: [Child; 2],
    #[vmstate(struct_version = 1)]
    pinned: Child,
    #[vmstate(qtailq, since = 1)]
    queue: VecDeque<Child>,
    #[vmstate(qlist)]
    list: LinkedList<Leaf>,
    #[vmstate(qlist)]
    vec_list: Vec<Box<Leaf>>,
    tree: BTreeMap<u64, Leaf>,
    key_tree: BTreeMap<Key, Leaf>,
    #[vmstate(byte_array, max = 100)]
    bytes: Vec<u8>,
    #[vmstate(unused = 8)]
    filler: (),
    #[vmstate(unused = 4, count = u32_, max = 9, since = 2)]
    fillers: (),
    #[vmstate(tmp = Wire)]
    tmp: (),
    #[vmstate(custom(name = "pci irq state", size = 16, save = save_irq, load = load_irq))]
    irq: [u32; 4],
    #[vmstate(custom(name = "shpc", save = save_irq, load = load_irq))]
    shpc: Vec<String>,
    part_len: u8,
    #[vmstate(count = part_len, max = 3)]
    part_data: Vec<u8>,
    #[vmstate(since = 0)]
    deep: u8,
    #[vmstate(subsection)]
    extra: Option<Extra>,
    #[vmstate(skip = "configured")]
    configured: usize,
}

impl Kinds {
    fn yes(&self, _: u32) -> bool {
        true
    }
    fn exists(&self, _: u32) -> bool {
        true
    }
    fn needed(&self) -> bool {
        true
    }
    fn ports(&self) -> usize {
        4
    }
}

fn save_irq(_: &Kinds, _: &mut dyn SaveField) -> Result<(), Error> {
    Ok(())
}

fn load_irq(_: &mut Kinds, _: &mut dyn LoadField) -> Result<(), Error> {
    Ok(())
}

fn child() -> DescriptionRef {
    Description {
        fields: vec![
            Field::value("x", Codec::Uint8),
            Field::value("y", Codec::Uint8).since(2),
        ]
        .into(),
        ..Description::new("child", 2, 1)
    }
    .into()
}

fn small(name: &'static str, field: Field) -> DescriptionRef {
    Description {
        fields: vec![field].into(),
        ..Description::new(name, 0, 0)
    }
    .into()
}

fn leaf() -> DescriptionRef {
    small("leaf", Field::value("x", Codec::Uint8))
}

fn wire() -> DescriptionRef {
    small("tmp-wire", Field::value("diff", Codec::Int64))
}

fn structure() -> Element {
    Element::Struct(child())
}

fn counted(count: Count) -> Repeat {
    Repeat::Counted(count)
}

fn fields() -> Vec<Field> {
    let child_size = u32::try_from(size_of::<Child>()).unwrap();
    let bytes = |size| Codec::Buffer(size);
    let bits = |size| Codec::Bitmap(size);
    vec![
        Field::value("bool_", Codec::Bool),
        Field::value("u8_", Codec::Uint8),
        Field::validator("sane"),
        Field::new("second_tmp", Element::Tmp(wire())),
        Field::value("u16_", Codec::Uint16),
        Field::value("u32_", Codec::Uint32),
        Field::value("u64_", Codec::Uint64),
        Field::value("i8_", Codec::Int8),
        Field::value("i16_", Codec::Int16),
        Field::value("i32_", Codec::Int32),
        Field::value("i64_", Codec::Int64),
        Field::value("f64_", Codec::CpuDouble),
        Field::value("timer", Codec::Timer),
        Field::value("timers", Codec::Timer).array(2),
        Field::value("mode", Codec::Uint16),
        Field::value("address", Codec::Uint64),
        Field::value("boxed", Codec::Uint32),
        Field::value("array", Codec::Uint16).array(3),
        Field::value("matrix", Codec::Uint16).array(6),
        Field::value("env.cr[0]", Codec::Uint32).since(3),
        Field::value("ended", Codec::Uint32).until(4),
        Field::value("middle", Codec::Uint32).since(2).until(4),
        Field::value("maybe", Codec::Uint32).conditional(),
        Field::new("option", structure()).conditional(),
        Field::value("equal_u8", Codec::Uint8Equal),
        Field::value("equal_u16", Codec::Uint16Equal),
        Field::value("equal_u32", Codec::Uint32Equal),
        Field::value("equal_i32", Codec::Int32Equal),
        Field::value("equal_u64", Codec::Uint64Equal).array(2),
        Field::value("le", Codec::Int32Le),
        Field::value("little", Codec::LittleEndian(ScalarType::U16)).array(2),
        Field::value("buffer", bytes(Size::Fixed(7))),
        Field::value("sized", bytes(Size::Fixed(32))),
        Field::value("middle_buffer", bytes(Size::Fixed(4))),
        Field::value(
            "vbuffer",
            bytes(Size::Counted(Count::of_field("u32_", 4096).times(4))),
        ),
        Field::value("words", bits(Size::Fixed(128))),
        Field::value("bits", bits(Size::Fixed(70))),
        Field::value("vbits", bits(Size::Counted(Count::of_field("i32_", 1024)))),
        Field::value("by_u8", Codec::Uint16).repeat(counted(Count::of_field("u8_", 10))),
        Field::new("by_u16", structure()).repeat(counted(Count::of_field("u16_", 10))),
        Field::value("by_u32", Codec::Uint8).repeat(counted(Count::of_field("u32_", 10).times(2))),
        Field::value("by_i32", Codec::Uint8).repeat(counted(Count::of_field("i32_", 4))),
        Field::value("rows", Codec::Uint8).repeat(counted(Count::of_field("u8_", 30).times(3))),
        Field::value("by_skipped", Codec::Uint8)
            .repeat(counted(Count::of_device("configured", 10))),
        Field::value("by_function", Codec::Uint8).repeat(counted(Count::of_device("ports", 10))),
        Field::new("every", structure())
            .array(3)
            .mark_every(child_size),
        Field::new("every_counted", structure())
            .repeat(counted(Count::of_field("u8_", 8)))
            .mark_every(child_size),
        Field::value("absent", Codec::Timer).array(3).mark_absent(),
        Field::value("sub_array", Codec::Uint32).array(2),
        Field::value("sub_rows", Codec::Uint32).array(10),
        Field::new("sub_structs", structure()).array(2),
        Field::new("child", structure()),
        Field::new("children", structure()).array(2),
        Field::new("pinned", Element::VersionedStruct(child(), 1)),
        Field::new("queue", Element::List(ListKind::QTailq, child())).since(1),
        Field::new("list", Element::List(ListKind::QList, leaf())),
        Field::new("vec_list", Element::List(ListKind::QList, leaf())),
        Field::new(
            "tree",
            Element::Tree {
                key: TreeKey::Direct,
                value: leaf(),
            },
        ),
        Field::new(
            "key_tree",
            Element::Tree {
                key: TreeKey::Struct(small("key", Field::value("bus", Codec::Uint8))),
                value: leaf(),
            },
        ),
        Field::value("bytes", Codec::ByteArray { max: 100 }),
        Field::value("unused", Codec::Unused(8)),
        Field::value("unused", Codec::Unused(4))
            .repeat(counted(Count::of_field("u32_", 9)))
            .since(2),
        Field::new("tmp", Element::Tmp(wire())),
        Field::value("irq", Codec::custom("pci irq state", Some(16))),
        Field::value("shpc", Codec::custom("shpc", None)),
        Field::validator("complete"),
    ]
}

fn expected() -> Description {
    let deep = small("kinds/part/deep", Field::value("deep", Codec::Uint8));
    let part = Description {
        fields: vec![
            Field::value("part_len", Codec::Uint8),
            Field::value("part_data", Codec::Uint8).repeat(counted(Count::of_field("part_len", 3))),
        ]
        .into(),
        subsections: vec![deep].into(),
        ..Description::new("kinds/part", 3, 1)
    };
    Description {
        fields: fields().into(),
        subsections: vec![
            part.into(),
            small("kinds/extra", Field::value("x", Codec::Uint8)),
        ]
        .into(),
        ..Description::new("kinds", 5, 2)
            .with_priority(Priority::Apic)
            .with_early_setup()
            .with_unmigratable()
    }
}

#[test]
fn every_kind_of_field() {
    let expected = expected();
    for (derived, written) in Kinds::DESCRIPTION.fields().iter().zip(expected.fields()) {
        assert_eq!(derived, written);
    }
    assert_eq!(*Kinds::DESCRIPTION, expected);
    assert_eq!(Kinds::DESCRIPTION.check(), Ok(()));
}

/// What the derive does not say is said by the type.
#[test]
fn names_and_versions_have_defaults() {
    #[derive(VmState)]
    struct Bare(u8, #[vmstate(name = "second")] u16);

    let d = Bare::DESCRIPTION;
    assert_eq!(
        (d.name(), d.version_id, d.minimum_version_id),
        ("Bare", 0, 0)
    );
    assert_eq!(d.fields()[0].name, "0");
    assert_eq!(d.fields()[1].name, "second");

    #[derive(VmState)]
    #[vmstate(version = Self::V + 1, minimum_version = 3)]
    struct Computed {
        r#type: u8,
    }
    impl Computed {
        const V: u32 = 6;
    }
    let d = Computed::DESCRIPTION;
    assert_eq!((d.version_id, d.minimum_version_id), (7, 3));
    assert_eq!(d.fields()[0].name, "type");
}
