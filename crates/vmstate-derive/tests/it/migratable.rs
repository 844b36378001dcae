//! `Migratable` seen through bytes: those of the bare mirror.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use vmstate_derive::VmState;
use vmstate_desc::snapshot::{InvalidError, Migratable, ToMigrationState, ToMigrationStateShared};
use vmstate_desc::{ErrorKind, Priority, Reason, SaveState, VmState as _};

use crate::common::{hex, load, load_version, load_with, save, save_with};

/// The mirror, with all that a description can say.
#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "regs", version = 3, minimum_version = 1, priority = Apic)]
#[vmstate(post_load = Self::check)]
#[vmstate(subsection(name = "regs/extra", version = 1, needed = |r: &Self| r.extra != 0, fields(extra)))]
struct Mirror {
    control: u32,
    #[vmstate(since = 2, default = 5)]
    level: u8,
    #[vmstate(default = 0)]
    extra: u16,
}

impl Mirror {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.control == 0xbad {
            return Err("bad".into());
        }
        Ok(())
    }
}

/// The state behind it. Remembers with which version it was restored.
#[derive(Debug, Default)]
struct Regs {
    mirror: Mirror,
    restored: Option<u32>,
}

impl ToMigrationState for Regs {
    type Migrated = Mirror;

    fn snapshot_migration_state(&self, into: &mut Mirror) -> Result<(), InvalidError> {
        if self.mirror.control == 0xdead {
            return Err(InvalidError::new("mid-reset")
                .with_value(0xdead)
                .in_field("control"));
        }
        into.clone_from(&self.mirror);
        Ok(())
    }

    fn restore_migrated_state_mut(
        &mut self,
        from: Mirror,
        version: u32,
    ) -> Result<(), InvalidError> {
        if from.control > 0xffff {
            return Err(InvalidError::new("too large")
                .with_value(from.control)
                .in_field("control"));
        }
        self.mirror = from;
        self.restored = Some(version);
        Ok(())
    }
}

fn regs(control: u32) -> Regs {
    Regs {
        mirror: Mirror {
            control,
            level: 1,
            extra: 2,
        },
        ..Regs::default()
    }
}

type Cellular = Migratable<RefCell<Regs>>;

#[derive(Default, VmState)]
#[vmstate(name = "device", version = 7, minimum_version = 7)]
struct Device {
    before: u8,
    regs: Cellular,
    several: [Migratable<Mutex<u16>>; 3],
    count: u8,
    #[vmstate(count = count, max = 4)]
    counted: Vec<Migratable<Cell<u8>>>,
    tuple: Migratable<Mutex<(u8, u16)>>,
    #[vmstate(exists = |d: &Self, _| d.count == 2)]
    maybe: Option<Cellular>,
    name: String,
    #[vmstate(byte_array, max = 4)]
    short: String,
    #[vmstate(struct_version = 2)]
    old: Cellular,
    #[vmstate(subsection)]
    sub: Option<Migratable<RefCell<SubRegs>>>,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "device/sub", version = 4, minimum_version = 2, needed = |s: &Self| s.value != 0)]
struct Sub {
    value: u8,
}

#[derive(Debug, Default)]
struct SubRegs {
    value: u8,
    version: u32,
}

impl ToMigrationState for SubRegs {
    type Migrated = Sub;

    fn snapshot_migration_state(&self, into: &mut Sub) -> Result<(), InvalidError> {
        into.value = self.value;
        Ok(())
    }

    fn restore_migrated_state_mut(&mut self, from: Sub, version: u32) -> Result<(), InvalidError> {
        (self.value, self.version) = (from.value, version);
        Ok(())
    }
}

#[test]
fn describes_as_the_mirror_does() {
    let d = Cellular::DESCRIPTION;
    assert!(std::ptr::eq(d, Mirror::DESCRIPTION));
    assert_eq!((d.version_id, d.minimum_version_id), (3, 1));
    assert_eq!(d.priority, Priority::Apic);
    assert_eq!(
        Device::DESCRIPTION.fields()[1].element,
        <Mirror as vmstate_desc::FieldValue>::ELEMENT
    );
}

#[test]
fn a_section_of_its_own() {
    let source = Cellular::new(RefCell::new(regs(0x11)));
    let bytes = save(&source);
    assert_eq!(bytes, save(&source.borrow().mirror));

    let mut target = Cellular::default();
    load(&mut target, &bytes).unwrap();
    assert_eq!(target.borrow().mirror, source.borrow().mirror);
    assert_eq!(target.borrow().restored, Some(3));

    // An older version: the version that came arrives, and the mirror's defaults hold.
    load_version(&mut target, 1, &hex("00000022")).unwrap();
    let state = target.borrow();
    assert_eq!(state.restored, Some(1));
    assert_eq!(
        state.mirror,
        Mirror {
            control: 0x22,
            level: 5,
            extra: 0
        }
    );
}

#[test]
fn through_shared_references() {
    let bytes = save(&Cellular::new(RefCell::new(regs(0x11))));
    let target = Cellular::default();
    load(&mut &target, &bytes).unwrap();
    assert_eq!(target.borrow().mirror.control, 0x11);
    let mut target = Arc::new(Migratable::new(Mutex::new(regs(0))));
    let other = Arc::clone(&target);
    load(&mut target, &bytes).unwrap();
    assert_eq!(other.lock().unwrap().mirror.control, 0x11);
    assert_eq!(save(&other), bytes);
}

fn device() -> Device {
    let device = Device {
        before: 9,
        regs: Cellular::new(RefCell::new(regs(0x11))),
        several: [1, 2, 3].map(|v| Migratable::new(Mutex::new(v))),
        count: 2,
        counted: vec![Cell::new(7).into(), Cell::new(8).into()],
        tuple: Mutex::new((1, 2)).into(),
        maybe: Some(RefCell::new(regs(0x33)).into()),
        name: "ab".into(),
        short: "ß".into(),
        old: RefCell::new(regs(0x44)).into(),
        sub: Some(
            RefCell::new(SubRegs {
                value: 6,
                version: 0,
            })
            .into(),
        ),
    };
    device.old.borrow_mut().mirror.extra = 0;
    device
}

const REGS_EXTRA: &str = "05 0a 726567732f6578747261 00000001 0002";

fn device_bytes() -> Vec<u8> {
    hex(&format!(
        "09 00000011 01 {REGS_EXTRA} 0001 0002 0003 02 07 08 01 0002 00000033 01 {REGS_EXTRA} \
         00000002 6162 00000002 c39f 00000044 01 05 0a 6465766963652f737562 00000004 06"
    ))
}

#[test]
fn fields_of_a_device() {
    let bytes = device_bytes();
    assert_eq!(save(&device()), bytes);
    let mut target = Device {
        several: std::array::from_fn(|_| Migratable::default()),
        ..Device::default()
    };
    load(&mut target, &bytes).unwrap();
    assert_eq!(save(&target), bytes);
    // On the way through, each was told its version: its own, the pinned one, the subsection's.
    assert_eq!(target.regs.borrow().restored, Some(3));
    assert_eq!(target.old.borrow().restored, Some(2));
    assert_eq!(target.sub.as_ref().unwrap().borrow().version, 4);
    let old: Vec<u8> = bytes
        .iter()
        .copied()
        .take(bytes.len() - 2)
        .chain([2, 6])
        .collect();
    load(&mut target, &old).unwrap();
    assert_eq!(target.sub.as_ref().unwrap().borrow().version, 2);
}

#[test]
fn the_snapshot_says_whether_a_subsection_is_needed() {
    let mut source = device();
    source.sub = Some(Migratable::default());
    let bytes = save(&source);
    assert_eq!(bytes, device_bytes()[..device_bytes().len() - 17]);
}

#[test]
fn refusals_have_a_place() {
    let source = device();
    source.maybe.as_ref().unwrap().borrow_mut().mirror.control = 0xdead;
    let e = save_with(&source, true).unwrap_err();
    assert_eq!(
        e.to_string(),
        "device/maybe/control: snapshot refused 57005: mid-reset"
    );
    assert!(
        matches!(e.kind(), ErrorKind::Invalid { hook: "snapshot", value: Some(v), .. } if v == "57005")
    );
    let borrow = source.regs.borrow_mut();
    let e = save_with(&source, true).unwrap_err();
    assert_eq!(
        e.to_string(),
        "device/regs: snapshot refused: the cell is being changed: it is borrowed mutably"
    );
    drop(borrow);

    // Refused by the state, by a hook of the mirror, by a validator, by the end of the stream: nothing has changed.
    let mut bytes = save(&Cellular::new(RefCell::new(regs(0x11))));
    bytes[0] = 1;
    let mut target = Cellular::new(RefCell::new(regs(7)));
    let e = load(&mut target, &bytes).unwrap_err();
    assert_eq!(
        e.to_string(),
        "regs/control: restore refused 16777233: too large (byte 0x17)"
    );
    let e = load(&mut target, &hex("00000bad 00")).unwrap_err();
    assert_eq!(e.to_string(), "regs: post_load refused: bad (byte 0x5)");
    for len in 0..5 {
        let e = load_with(&mut target, 3, &hex("00000012 00")[..len], true).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }), "{e}");
    }
    let guard = target.borrow();
    let e = load(&mut &target, &hex("00000012 00")).unwrap_err();
    assert_eq!(
        e.to_string(),
        "regs: restore refused: the cell is in use: it is borrowed (byte 0x5)"
    );
    assert_eq!(guard.mirror, regs(7).mirror);

    // Elements have their number.
    let mut bytes = device_bytes();
    let at = bytes.iter().position(|b| *b == 0x33).unwrap() - 3;
    bytes[at] = 0xff;
    let e = load(&mut Device::default(), &bytes).unwrap_err();
    assert_eq!(
        e.to_string(),
        "device/maybe/control: restore refused 4278190131: too large (byte 0x3b)"
    );
}

#[test]
fn nothing_is_left_behind() {
    /// A mirror that counts how many of it are alive.
    #[derive(Debug, VmState)]
    #[vmstate(name = "counted", post_load = |c: &mut Self, _| if c.value == 3 { Err("3".into()) } else { Ok(()) })]
    #[vmstate(pre_save = |c: &Self| if c.value == 2 { Err("2".into()) } else { Ok(()) })]
    struct Counted {
        value: u8,
        #[vmstate(skip = "counts")]
        alive: Rc<()>,
    }

    thread_local! {
        static ALIVE: Rc<()> = Rc::new(());
    }

    impl Default for Counted {
        fn default() -> Self {
            Self {
                value: 0,
                alive: ALIVE.with(Rc::clone),
            }
        }
    }

    #[derive(Default)]
    struct State(u8);

    impl ToMigrationState for State {
        type Migrated = Counted;

        fn snapshot_migration_state(&self, into: &mut Counted) -> Result<(), InvalidError> {
            into.value = self.0;
            assert!(Rc::strong_count(&into.alive) > 1);
            if self.0 == 1 { Err("1".into()) } else { Ok(()) }
        }

        fn restore_migrated_state_mut(
            &mut self,
            from: Counted,
            _: u32,
        ) -> Result<(), InvalidError> {
            if from.value == 1 {
                Err("1".into())
            } else {
                Ok(())
            }
        }
    }

    let alive = || ALIVE.with(Rc::strong_count);
    let state = |v| Migratable::new(RefCell::new(State(v)));
    assert!(save_with(&state(0), true).is_ok());
    assert_eq!(alive(), 1);
    for refused in [1, 2] {
        // No snapshot, and one that cannot be encoded.
        assert!(save_with(&state(refused), true).is_err());
        assert_eq!(alive(), 1);
    }
    for bytes in [&[0][..], &[1], &[3], &[]] {
        let loaded = load_with(&mut state(0), 0, bytes, true);
        assert_eq!(loaded.is_ok(), bytes == [0]);
        assert_eq!(alive(), 1);
    }
}

#[test]
fn large_arrays_on_the_stack_of_a_thread() {
    let large = |v| Migratable::new(Box::new(Mutex::new(([v; 16_384],))));
    let bytes = save(&large(7_u32));
    let mut target = large(0);
    load(&mut target, &bytes).unwrap();
    assert!(target.lock().unwrap().0.iter().all(|word| *word == 7));
}

#[test]
fn bounds_of_strings() {
    let mut device = device();
    "12345".clone_into(&mut device.short);
    let mut bytes = save(&device);
    let e = load(&mut Device::default(), &bytes).unwrap_err();
    assert_eq!(e.to_string(), "device/short: length 5 is above 4");
    let at = bytes.windows(2).position(|pair| pair == b"ab").unwrap();
    bytes[at] = 0xff;
    let e = load(&mut Device::default(), &bytes).unwrap_err();
    assert!(
        e.to_string()
            .starts_with("device/name: utf-8 refused: invalid utf-8 sequence"),
        "{e}"
    );
}

#[test]
fn a_traversal_of_the_runtime_state_is_refused() {
    struct Nowhere;
    impl vmstate_desc::SaveField for Nowhere {
        fn count(&self) -> usize {
            1
        }
        fn scalar(&mut self, _: vmstate_desc::Scalar) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn scalars(&mut self, _: vmstate_desc::Slice<'_>) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn slot(&mut self, _: bool) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn child(&mut self, _: &dyn SaveState) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn list(&mut self, _: usize) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn direct_key(&mut self, _: u64) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn key(&mut self, _: &dyn SaveState) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
        fn raw(&mut self, _: &[u8]) -> Result<(), vmstate_desc::Error> {
            Ok(())
        }
    }
    let e = Cellular::default().save_field(0, &mut Nowhere).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Accessor { .. }));
}

#[test]
fn restores_by_hand() {
    let device = Cellular::default();
    let e = device
        .restore_migrated_state(regs(0x1_0000).mirror, 3)
        .unwrap_err();
    assert_eq!(e.to_string(), "regs/control: 65536 is invalid: too large");
    assert_eq!((e.device(), e.value()), (Some("regs"), Some("65536")));
}
