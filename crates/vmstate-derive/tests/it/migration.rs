//! `#[derive(ToMigrationState)]`: what its mirrors are, which bytes they make, and that restores are whole.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use vmstate_derive::ToMigrationState;
use vmstate_desc::snapshot::{
    InvalidError, Migratable, ToMigrationState as _, ToMigrationStateShared as _,
};
use vmstate_desc::{Reason, VmState as _};

use crate::common::{hex, load, load_version, refused, save};

/// As in the proposal on QEMU's list.
#[derive(Debug, Default, PartialEq, ToMigrationState)]
struct NestedStruct {
    value: u16,
}

#[derive(Debug, Default, PartialEq, ToMigrationState)]
#[migration_state(rename = DeviceState)]
struct Device {
    primitive: u32,
    #[migration_state(omit)]
    runtime: Option<std::thread::ThreadId>,
    #[migration_state(clone)]
    shared_data: String,
    #[migration_state(into(Cow<'static, str>), clone)]
    converted_field: String,
    #[migration_state(try_into(i8))]
    fallible_field: u32,
    nested_field: NestedStruct,
    simple_field: bool,
}

fn device() -> Device {
    Device {
        primitive: 0x11,
        runtime: Some(std::thread::current().id()),
        shared_data: "ab".into(),
        converted_field: "ß".into(),
        fallible_field: 100,
        nested_field: NestedStruct { value: 0x22 },
        simple_field: true,
    }
}

#[test]
fn the_example_of_the_proposal() {
    let source = Migratable::new(Mutex::new(device()));
    let bytes = save(&source);
    assert_eq!(
        bytes,
        hex("00000011 00000002 6162 00000002 c39f 64 0022 01")
    );
    let mut target = Migratable::new(Mutex::new(Device::default()));
    load(&mut target, &bytes).unwrap();
    let expected = Device {
        runtime: None,
        ..device()
    };
    assert_eq!(*target.lock().unwrap(), expected);

    // The mirror is there for whoever wants to look at it.
    let mirror: DeviceState = *device().to_migration_state().unwrap();
    let converted: &Cow<'static, str> = &mirror.converted_field;
    assert_eq!((mirror.fallible_field, &**converted), (100_i8, "ß"));
    assert_eq!(mirror.nested_field, NestedStructMigration { value: 0x22 });
    assert_eq!(mirror.clone(), mirror);
    assert_eq!(DeviceState::DESCRIPTION.name, "Device");

    source.lock().unwrap().fallible_field = 200;
    let e = crate::common::save_with(&source, true).unwrap_err();
    assert_eq!(
        e.to_string(),
        "Device/fallible_field: snapshot refused 200: out of range integral type conversion attempted"
    );
    let mut bytes = bytes;
    bytes[16] = 0xff;
    assert_eq!(
        refused(&mut target, &bytes),
        "Device/fallible_field: restore refused -1: out of range integral type conversion attempted (byte 0x14)"
    );
    assert_eq!(*target.lock().unwrap(), expected);
}

/// Everything that is said about the mirror is said here.
#[derive(Default, ToMigrationState)]
#[migration_state(name = "nic", version = 3, minimum_version = 1, priority = PciBus)]
#[migration_state(post_load = NicMigration::checked)]
#[migration_state(subsection(
    name = "nic/vlan",
    version = 1,
    needed = |nic: &NicMigration| nic.vlans_len != 0,
    fields(vlans),
))]
struct Nic {
    #[migration_state(name = "ctl")]
    control: usize,
    #[migration_state(since = 2, default = true)]
    link_up: bool,
    #[migration_state(unused = 2, until = 3)]
    _legacy: (),
    #[migration_state(max = 3, len(queue_count: u8))]
    queues: Vec<NestedStruct>,
    #[migration_state(max = 4)]
    name: String,
    mac: [u8; 20],
    #[migration_state(range = 1..3)]
    middle: [u16; 4],
    #[migration_state(pointers)]
    slots: [Option<Box<Mutex<NestedStruct>>>; 2],
    option: Option<char>,
    #[migration_state(since = 3)]
    once: OnceCell<u8>,
    #[migration_state(buffer)]
    buffer: Arc<Mutex<[u8; 3]>>,
    #[migration_state(max = 2, byte_array)]
    bytes: RefCell<Vec<u8>>,
    count: u8,
    #[migration_state(count = count, max = 2)]
    counted: Box<[u16]>,
    #[migration_state(max = 2)]
    vlans: Vec<u16>,
    #[migration_state(subsection)]
    extra: Option<Extra>,
    _marker: PhantomData<Cell<u8>>,
    tuple: (u8, RwLock<u16>),
}

#[derive(Debug, Default, PartialEq, ToMigrationState)]
#[migration_state(name = "nic/extra", version = 1)]
struct Extra {
    value: u8,
}

impl NicMigration {
    fn checked(&mut self, version: u32) -> Result<(), Reason> {
        if version < 2 && self.ctl_is_odd() {
            return Err("version 1 is even".into());
        }
        Ok(())
    }

    const fn ctl_is_odd(&self) -> bool {
        self.control % 2 == 1
    }
}

fn nic() -> Nic {
    Nic {
        control: 1,
        link_up: false,
        queues: vec![NestedStruct { value: 2 }, NestedStruct { value: 3 }],
        name: "eth".into(),
        mac: [4; 20],
        middle: [9, 5, 6, 9],
        slots: [None, Some(Box::new(Mutex::new(NestedStruct { value: 7 })))],
        option: Some('x'),
        once: OnceCell::from(8),
        buffer: Arc::new(Mutex::new([1, 2, 3])),
        bytes: RefCell::new(vec![1, 2]),
        count: 1,
        counted: Box::new([9]),
        vlans: vec![0x10, 0x11],
        extra: Some(Extra { value: 0x12 }),
        tuple: (0x13, RwLock::new(0x14)),
        ..Nic::default()
    }
}

fn nic_bytes() -> Vec<u8> {
    hex(&format!(
        "0000000000000001 00 02 0002 0003 00000003 657468 {} 0005 0006 30 31 0007 01 00000078 01 08 010203 \
         00000002 0102 01 0009 13 0014 \
         05 08 6e69632f766c616e 00000001 00000002 0010 0011 \
         05 09 6e69632f6578747261 00000001 12",
        "04".repeat(20)
    ))
}

#[test]
fn what_is_said_about_the_mirror() {
    let d = NicMigration::DESCRIPTION;
    assert_eq!((d.version_id, d.minimum_version_id), (3, 1));
    let names: Vec<_> = d.fields().iter().map(|f| &*f.name).collect();
    assert_eq!(
        names,
        [
            "ctl",
            "link_up",
            "unused",
            "queue_count",
            "queues",
            "name",
            "mac",
            "middle",
            "slots",
            "option_present",
            "option",
            "once_present",
            "once",
            "buffer",
            "bytes",
            "count",
            "counted",
            "tuple"
        ]
    );
    let bytes = nic_bytes();
    assert_eq!(save(&Migratable::new(nic())), bytes);

    let mut target = Migratable::new(Nic {
        option: Some('a'),
        slots: [Some(Box::default()), Some(Box::default())],
        ..Nic::default()
    });
    load(&mut target, &bytes).unwrap();
    assert_eq!(save(&target), bytes);
    assert_eq!(target.queues, nic().queues);
    assert_eq!(target.mac, [4; 20]);
    assert_eq!(target.middle, [0, 5, 6, 0]);
    assert!(target.slots[0].is_none());
    assert_eq!(target.slots[1].as_ref().unwrap().lock().unwrap().value, 7);
    assert_eq!((target.option, target.once.get()), (Some('x'), Some(&8)));
    assert_eq!(*target.buffer.lock().unwrap(), [1, 2, 3]);
    assert_eq!(
        (&*target.vlans, &target.extra),
        (&[0x10, 0x11][..], &nic().extra)
    );

    // Version 1, without what came later, and with what went.
    let old = hex(&format!(
        "0000000000000002 aaaa 00 00000000 {} 0000 0000 30 30 00 000000 00000000 00 00 0000",
        "00".repeat(20)
    ));
    load_version(&mut target, 1, &old).unwrap();
    assert!(target.link_up && target.once.get().is_none() && target.option.is_none());
    assert!(target.vlans.is_empty() && target.extra.is_none());
    let mut odd = old.clone();
    odd[7] = 3;
    let e = load_version(&mut target, 1, &odd).unwrap_err().to_string();
    assert!(
        e.starts_with("nic: post_load refused: version 1 is even"),
        "{e}"
    );

    let mut many = bytes.clone();
    many[9] = 4;
    assert_eq!(
        refused(&mut target, &many),
        "nic/queues: count 4 is outside of 0..=3 (byte 0xa)"
    );
}

#[test]
fn counts_that_are_too_large_to_say() {
    #[derive(Default, ToMigrationState)]
    struct Many {
        #[migration_state(max = 1000, len(n: u8))]
        values: Vec<u8>,
    }
    let many = Many {
        values: vec![0; 256],
    };
    assert_eq!(
        many.to_migration_state().unwrap_err().to_string(),
        "values: 256 elements are more than their count can say"
    );
    assert_eq!(many.values.len(), 256);
}

/// A restore with every kind of refusal in it.
#[derive(Debug, Default, ToMigrationState)]
#[migration_state(name = "timers", version = 2, minimum_version = 1)]
#[migration_state(validate = Self::whole, restored = Self::rearmed)]
struct Timers {
    first: Mutex<u32>,
    #[migration_state(validate = Self::below_limit)]
    level: u8,
    #[migration_state(omit = "configured")]
    limit: u8,
    second: Arc<RwLock<char>>,
    #[migration_state(omit(rebuild = |timers: &Self| HashMap::from([(timers.level, 0)])))]
    cache: HashMap<u8, u8>,
    #[migration_state(omit(rebuild = Vec::new()))]
    pending: Vec<u8>,
    #[migration_state(omit)]
    rearmed: Option<(u32, u8)>,
    #[migration_state(try_into(u16))]
    cursor: usize,
    third: RefCell<u8>,
}

impl Timers {
    fn whole(from: &TimersMigration, timers: &Self) -> Result<(), Reason> {
        if from.first == u32::from(timers.limit) {
            return Err("first is the limit".into());
        }
        Ok(())
    }

    fn below_limit(level: &u8, timers: &Self) -> Result<(), String> {
        if *level > timers.limit {
            return Err(format!("above the limit {}", timers.limit));
        }
        Ok(())
    }

    fn rearmed(&mut self, version: u32) {
        // Everything else is in place by now.
        self.rearmed = Some((version, self.level + *self.third.get_mut()));
    }
}

fn timers() -> Timers {
    Timers {
        first: Mutex::new(1),
        level: 2,
        limit: 5,
        second: Arc::new(RwLock::new('c')),
        pending: vec![1],
        third: RefCell::new(7),
        ..Timers::default()
    }
}

fn mirror() -> TimersMigration {
    TimersMigration {
        first: 11,
        level: 3,
        second: u32::from('d'),
        cursor: 13,
        third: 17,
    }
}

#[test]
fn what_comes_last() {
    let mut state = timers();
    state.restore_migrated_state_mut(mirror(), 1).unwrap();
    assert_eq!(state.cache, HashMap::from([(3, 0)]));
    assert!(state.pending.is_empty());
    assert_eq!(state.rearmed, Some((1, 20)));
    assert_eq!(*state.to_migration_state().unwrap(), mirror());
}

#[test]
fn all_or_nothing() {
    let mut state = timers();
    let before = format!("{state:?}");
    type Change = fn(&mut TimersMigration);
    let changes: [(Change, &str); 4] = [
        (|m| m.level = 6, "level: 6 is invalid: above the limit 5"),
        (|m| m.first = 5, "first is the limit"),
        (
            |m| m.second = 0xd800,
            "second: 55296 is invalid: not a Unicode scalar value",
        ),
        (
            |m| m.second = 0x11_0000,
            "second: 1114112 is invalid: not a Unicode scalar value",
        ),
    ];
    for (change, message) in changes {
        let mut from = mirror();
        change(&mut from);
        let e: InvalidError = state.restore_migrated_state_mut(from, 2).unwrap_err();
        assert_eq!(e.to_string(), message);
        assert_eq!(format!("{state:?}"), before);
    }
    // Prepared and let go.
    drop(state.prepare_restore_mut(mirror(), 2).unwrap());
    assert_eq!(format!("{state:?}"), before);
    // The last of all is in use.
    let third = std::mem::take(&mut state.third);
    let state = Migratable::new(RefCell::new(Wrapped {
        timers: state,
        third: third.into(),
    }));
    let handle = std::rc::Rc::clone(&state.borrow().third);
    let borrow = handle.borrow();
    let e = state
        .restore_migrated_state(
            WrappedMigration {
                timers: mirror(),
                third: 1,
            },
            2,
        )
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "Wrapped/third: the cell is in use: it is borrowed"
    );
    assert_eq!(
        (e.device(), e.path().to_string().as_str()),
        (Some("Wrapped"), "third")
    );
    assert_eq!(*state.borrow().timers.first.lock().unwrap(), 1);
    assert_eq!(state.borrow().timers.rearmed, None);
    drop(borrow);
    state
        .restore_migrated_state(
            WrappedMigration {
                timers: mirror(),
                third: 1,
            },
            2,
        )
        .unwrap();
    assert_eq!(state.borrow().timers.rearmed, Some((2, 20)));
}

#[derive(ToMigrationState)]
struct Wrapped {
    timers: Timers,
    third: std::rc::Rc<RefCell<u8>>,
}

/// Several locks, restored through `&self`.
#[derive(Default, ToMigrationState)]
#[migration_state(shared, restored = Self::count, validate = Self::check)]
struct Board {
    control: Mutex<u32>,
    status: AtomicU32,
    lines: [Cell<char>; 3],
    #[migration_state(omit)]
    restores: Cell<u32>,
}

impl Board {
    fn count(&self, _version: u32) {
        self.restores.set(self.restores.get() + 1);
    }

    fn check(from: &BoardMigration, _board: &Self) -> Result<(), &'static str> {
        if from.status == 9 {
            Err("nine")
        } else {
            Ok(())
        }
    }
}

#[test]
fn through_a_shared_reference() {
    let board = Migratable::new(Board::default());
    let mirror = |status, line| BoardMigration {
        control: 1,
        status,
        lines: [97, 98, line].into(),
    };
    let e = board
        .restore_migrated_state(mirror(2, 0xd800), 0)
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "Board/lines[2]: 55296 is invalid: not a Unicode scalar value"
    );
    let e = board.restore_migrated_state(mirror(9, 99), 0).unwrap_err();
    assert_eq!(e.to_string(), "Board: nine");
    assert_eq!(
        *board.to_migration_state().unwrap(),
        BoardMigration::default()
    );
    board.restore_from(&mirror(2, 99), 0).unwrap();
    assert_eq!(*board.to_migration_state().unwrap(), mirror(2, 99));
    assert_eq!(
        (board.status.load(Ordering::Relaxed), board.restores.get()),
        (2, 1)
    );
    let mut board = board;
    board.restore_migrated_state_mut(mirror(3, 99), 0).unwrap();
    assert_eq!(board.restores.get(), 2);
}

#[derive(Debug, Default, PartialEq, ToMigrationState)]
#[migration_state(version = 1, subsection(name = "Pair/late", version = 1, needed = |p: &PairMigration| p._3 != 0, fields(3)))]
#[migration_state(must_exist(name = "small", test = |p: &PairMigration, _: u32| p._0 < 100, after = 0))]
struct Pair(
    u8,
    #[migration_state(omit)] u64,
    #[migration_state(count = 0, max = 2)] Vec<u16>,
    u8,
);

#[derive(Debug, Default, PartialEq, ToMigrationState)]
struct Unit;

#[test]
fn arrays_longer_than_what_std_has_a_default_for() {
    #[derive(Debug, PartialEq, ToMigrationState)]
    struct Long {
        own: [u16; 100],
        #[migration_state(clone)]
        cloned: [[u8; 40]; 2],
    }
    let source = Migratable::new(Long {
        own: [1; 100],
        cloned: [[2; 40]; 2],
    });
    let bytes = save(&source);
    let mut target = Migratable::new(Long {
        own: [0; 100],
        cloned: [[0; 40]; 2],
    });
    load(&mut target, &bytes).unwrap();
    assert_eq!((bytes.len(), target), (280, source));
}

#[test]
fn tuple_structs() {
    let bytes = save(&Migratable::new(Pair(1, 7, vec![2], 3)));
    assert_eq!(bytes, hex("01 0002 05 09 506169722f6c617465 00000001 03"));
    let mut target = Migratable::new(Pair(0, 9, Vec::new(), 0));
    load(&mut target, &bytes).unwrap();
    assert_eq!(*target, Pair(1, 9, vec![2], 3));
    assert_eq!(
        refused(&mut target, &[100]),
        "Pair/small: validation failed (byte 0x1)"
    );
    assert!(save(&Migratable::new(Unit)).is_empty());
    load(&mut Migratable::new(Unit), &[]).unwrap();
}

mod outer {
    use super::*;

    /// Parameters of all kinds, one of which the mirror does not have.
    #[derive(Debug, PartialEq, ToMigrationState)]
    pub(crate) struct Generic<'a, T: Copy, U, const N: usize>
    where
        U: PartialEq,
    {
        pub(crate) one: T,
        pub(crate) many: [T; N],
        #[migration_state(max = 4)]
        pub(crate) list: Vec<T>,
        #[migration_state(clone)]
        pub(crate) own: Option<T>,
        pub(crate) cell: Cell<T>,
        #[migration_state(omit)]
        pub(crate) runtime: Option<&'a U>,
    }
}

#[test]
fn generic_types() {
    type Wide<'a> = outer::Generic<'a, u16, String, 2>;
    let text = String::new();
    let state = Wide {
        one: 1,
        many: [2, 3],
        list: vec![4],
        own: None,
        cell: Cell::new(5),
        runtime: Some(&text),
    };
    let bytes = save(&Migratable::new(state));
    assert_eq!(bytes, hex("0001 0002 0003 00000001 0004 00 0005"));
    let mut target = Migratable::new(Wide {
        one: 0,
        many: [0; 2],
        list: Vec::new(),
        own: Some(1),
        cell: Cell::new(0),
        runtime: Some(&text),
    });
    load(&mut target, &bytes).unwrap();
    assert_eq!(
        (target.list.as_slice(), target.own, target.runtime),
        (&[4][..], None, Some(&text))
    );
    let mirror = target.to_migration_state().unwrap();
    assert_eq!(*mirror, mirror.as_ref().clone());
    assert!(format!("{mirror:?}").starts_with("GenericMigration { one: 1, many: [2, 3],"));
}

/// Data in variants.
#[derive(Debug, PartialEq, ToMigrationState)]
#[migration_state(name = "clock", version = 1, repr = u8, validate = Self::check)]
enum Clock {
    #[migration_state(tag = 0)]
    Off,
    #[migration_state(tag = DIVIDED)]
    Divided {
        divider: u16,
        #[migration_state(omit)]
        cache: u32,
        label: Option<char>,
    },
    #[migration_state(tag = 7)]
    Chained(
        NestedStruct,
        #[migration_state(try_into(u8))] usize,
        #[migration_state(max = 2)] Vec<u8>,
    ),
}

const DIVIDED: u8 = 3;

impl Clock {
    fn check(from: &ClockMigration, clock: &Self) -> Result<(), Reason> {
        if *clock == Self::Off && from.tag == DIVIDED && from.divided_divider == 0 {
            return Err("divided by 0".into());
        }
        Ok(())
    }
}

/// Only values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ToMigrationState)]
#[migration_state(repr = i16)]
enum Mode {
    #[default]
    Off = 0,
    On = -2,
    Auto = AUTO,
}

const AUTO: isize = 5;

#[test]
fn enums() {
    let divided = |divider, cache| Clock::Divided {
        divider,
        cache,
        label: Some('x'),
    };
    let chained = || Clock::Chained(NestedStruct { value: 1 }, 2, vec![3, 4]);
    let save = |clock| save(&Migratable::new(clock));
    assert_eq!(save(Clock::Off), [0]);
    assert_eq!(save(divided(9, 1)), hex("03 0009 01 00000078"));
    assert_eq!(save(chained()), hex("07 0001 02 00000002 0304"));

    let mut clock = Migratable::new(Clock::Off);
    load(&mut clock, &hex("03 0009 01 00000078")).unwrap();
    assert_eq!(*clock, divided(9, 0), "a new variant");
    if let Clock::Divided { cache, .. } = &mut *clock {
        *cache = 5;
    }
    load(&mut clock, &hex("03 0008 01 00000078")).unwrap();
    assert_eq!(*clock, divided(8, 5), "the same variant, in place");
    load(&mut clock, &hex("07 0001 02 00000002 0304")).unwrap();
    assert_eq!(*clock, chained());

    for (bytes, message) in [
        (
            "04",
            "clock/tag: restore refused 4: none of the known values 0 (Off), DIVIDED (Divided), 7 (Chained) (byte 0x1)",
        ),
        (
            "03 0009 01 0000d800",
            "clock/divided_label: restore refused 55296: not a Unicode scalar value (byte 0x8)",
        ),
        (
            "07 0001 02 00000003 0304",
            "clock/chained_2: count 3 is outside of 0..=2 (byte 0x8)",
        ),
    ] {
        assert_eq!(refused(&mut clock, &hex(bytes)), message);
        assert_eq!(*clock, chained());
    }
    load(&mut clock, &[0]).unwrap();
    assert_eq!(
        refused(&mut clock, &hex("03 0000 00")),
        "clock: restore refused: divided by 0 (byte 0x4)"
    );

    #[derive(Default, ToMigrationState)]
    struct Modes {
        mode: Mutex<Mode>,
    }
    let mut modes = Migratable::new(Modes::default());
    for (mode, bytes) in [(Mode::On, [0xff, 0xfe]), (Mode::Auto, [0, 5])] {
        load(&mut modes, &bytes).unwrap();
        assert_eq!(*modes.mode.lock().unwrap(), mode);
        assert_eq!(crate::common::save(&modes), bytes);
    }
    assert_eq!(
        refused(&mut modes, &[0, 1]),
        "Modes/mode: restore refused 1: none of the known values 0 (Off), -2 (On), AUTO (Auto) (byte 0x2)"
    );
}
