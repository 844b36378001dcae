//! Random devices of all shapes, and random damage.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicI16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use proptest::prelude::*;
use vmstate_derive::ToMigrationState;
use vmstate_desc::Timer;
use vmstate_desc::snapshot::Migratable;

use crate::common::{load_with, save};

/// A part with something that does not travel.
#[derive(Debug, Default, ToMigrationState)]
struct Part {
    value: u16,
    letter: char,
    #[migration_state(omit)]
    own: u8,
}

#[derive(Debug, ToMigrationState)]
#[migration_state(version = 1, repr = u16)]
enum Choice {
    #[migration_state(tag = 0)]
    Nothing,
    #[migration_state(tag = 1)]
    Part(Part),
    #[migration_state(tag = 0x100)]
    More {
        #[migration_state(max = 4, len(n: u8))]
        list: Vec<u8>,
        maybe: Option<char>,
    },
}

/// Every shape that has an implementation.
#[derive(Debug, ToMigrationState)]
#[migration_state(name = "all", version = 1)]
#[migration_state(subsection(name = "all/tail", version = 1, needed = |all: &Self| all.tail != 0, fields(tail)))]
struct All {
    flag: bool,
    bytes: (u8, i8),
    words: (u16, i16),
    longs: (u32, i32),
    quads: (u64, i64),
    sizes: (usize, isize),
    wides: (u128, i128),
    floats: (f32, f64),
    letter: char,
    timer: Timer,
    unit: (),
    text: String,
    array: [u16; 33],
    nested: [[Part; 2]; 2],
    #[migration_state(max = 8)]
    list: Vec<Part>,
    #[migration_state(max = 8, len(boxed_count: u8))]
    boxed: Box<[u32]>,
    #[migration_state(max = 8)]
    locked_list: Mutex<Vec<char>>,
    option: Option<Part>,
    boxed_part: Box<Part>,
    cell: Cell<char>,
    ref_cell: RefCell<Part>,
    mutex: Mutex<Part>,
    lock: RwLock<[Part; 2]>,
    rc: Rc<RefCell<char>>,
    arc: Arc<Mutex<Arc<RwLock<Part>>>>,
    once_cell: OnceCell<Part>,
    once_lock: OnceLock<u8>,
    atomics: (AtomicI16, AtomicUsize),
    choice: Choice,
    #[migration_state(try_into(u8))]
    narrowed: u32,
    #[migration_state(clone, into(Cow<'static, str>))]
    converted: String,
    #[migration_state(default = 0)]
    tail: u8,
    last: Migratable<Mutex<char>>,
}

prop_compose! {
    fn part()(value in any::<u16>(), letter in any::<char>(), own in any::<u8>()) -> Part {
        Part { value, letter, own }
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(()).prop_map(|()| Choice::Nothing),
        part().prop_map(Choice::Part),
        (
            prop::collection::vec(any::<u8>(), 0..=4),
            any::<Option<char>>()
        )
            .prop_map(|(list, maybe)| Choice::More { list, maybe }),
    ]
}

fn all() -> impl Strategy<Value = All> {
    let numbers = (
        any::<(bool, u8, i8, u16, i16)>(),
        any::<(u32, i32, u64, i64, usize, isize)>(),
        any::<(u128, i128)>(),
        // Not a number is not equal to itself.
        (prop::num::f32::NORMAL, prop::num::f64::NORMAL),
        any::<(char, Option<u32>)>(),
    );
    let sequences = (
        "\\PC{0,9}",
        prop::collection::vec(any::<u16>(), 33),
        prop::collection::vec(part(), 4),
        prop::collection::vec(part(), 0..=8),
        prop::collection::vec(any::<u32>(), 0..=8),
        prop::collection::vec(any::<char>(), 0..=8),
    );
    let parts = (
        prop::collection::vec(part(), 6),
        prop::option::of(part()),
        prop::option::of(part()),
    );
    let rest = (
        any::<(char, char, Option<u8>, i16, usize)>(),
        choice(),
        any::<u8>(),
        "\\PC{0,9}",
        any::<u8>(),
        any::<char>(),
    );
    (numbers, sequences, parts, rest).prop_map(|(numbers, sequences, parts, rest)| {
        let ((flag, b, sb, w, sw), (l, sl, q, sq, us, is), wides, floats, (letter, timer)) =
            numbers;
        let (text, array, four, list, boxed, letters) = sequences;
        let (mut six, option, once) = parts;
        let ((cell, rc, once_lock, atomic, size), choice, narrowed, converted, tail, last) = rest;
        let mut next = || six.pop().unwrap();
        let mut four = four.into_iter();
        let mut row = || std::array::from_fn(|_| four.next().unwrap());
        All {
            flag,
            bytes: (b, sb),
            words: (w, sw),
            longs: (l, sl),
            quads: (q, sq),
            sizes: (us, is),
            wides,
            floats,
            letter,
            timer: Timer(timer.map(i64::from)),
            unit: (),
            text,
            array: array.try_into().unwrap(),
            nested: [row(), row()],
            list,
            boxed: boxed.into(),
            locked_list: Mutex::new(letters),
            option,
            boxed_part: Box::new(next()),
            cell: Cell::new(cell),
            ref_cell: RefCell::new(next()),
            mutex: Mutex::new(next()),
            lock: RwLock::new([next(), next()]),
            rc: Rc::new(RefCell::new(rc)),
            arc: Arc::new(Mutex::new(Arc::new(RwLock::new(next())))),
            once_cell: once.map_or_else(OnceCell::new, OnceCell::from),
            once_lock: once_lock.map_or_else(OnceLock::new, OnceLock::from),
            atomics: (AtomicI16::new(atomic), AtomicUsize::new(size)),
            choice,
            narrowed: narrowed.into(),
            converted,
            tail,
            last: Mutex::new(last).into(),
        }
    })
}

/// What a device is, all of it.
fn shown(state: &Migratable<Mutex<All>>) -> String {
    format!("{state:?}")
}

fn version() -> u32 {
    1
}

/// One change of the bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Fill(prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0_u32..8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        1 => at().prop_map(Damage::Cut),
        1 => at().prop_map(Damage::Remove),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Fill(at, byte)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let len = bytes.len();
    match damage {
        Damage::Flip(at, mask) => bytes[at.index(len)] ^= mask,
        Damage::Cut(at) => bytes.truncate(at.index(len)),
        Damage::Remove(at) => drop(bytes.remove(at.index(len))),
        Damage::Insert(at, byte) => bytes.insert(at.index(len), *byte),
        Damage::Fill(at, byte) => {
            let at = at.index(len);
            bytes[at..len.min(at + 4)].fill(*byte);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Restoring after a snapshot gives an equal device, whatever it was before; only what is omitted stays.
    #[test]
    fn there_and_back(source in all(), target in all()) {
        let source = Migratable::new(Mutex::new(source));
        let bytes = save(&source);
        let own = (target.boxed_part.own, target.mutex.lock().unwrap().own);
        let mut target = Migratable::new(Mutex::new(target));
        let used = load_with(&mut target, version(), &bytes, true).unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!(save(&target), bytes);
        let (source, target) = (source.lock().unwrap(), target.lock().unwrap());
        let () = target.unit;
        prop_assert_eq!((target.boxed_part.own, target.mutex.lock().unwrap().own), own);
        prop_assert_eq!(&source.text, &target.text);
        prop_assert_eq!(source.wides, target.wides);
        prop_assert_eq!(source.floats, target.floats);
        prop_assert_eq!(source.sizes, target.sizes);
        prop_assert_eq!(source.list.len(), target.list.len());
        prop_assert_eq!(source.cell.get(), target.cell.get());
        prop_assert_eq!(
            source.atomics.1.load(Ordering::Relaxed),
            target.atomics.1.load(Ordering::Relaxed)
        );
        prop_assert_eq!(*source.last.lock().unwrap(), *target.last.lock().unwrap());
    }

    /// Damaged bytes are refused with nothing changed, or they are those of another device.
    #[test]
    fn damage_is_refused_or_harmless(source in all(), target in all(), damage in damage()) {
        let bytes = damaged(save(&Migratable::new(Mutex::new(source))), &damage);
        let mut target = Migratable::new(Mutex::new(target));
        let before = shown(&target);
        match load_with(&mut target, version(), &bytes, true) {
            Err(e) => {
                prop_assert_eq!(shown(&target), before, "{}", e);
                prop_assert!(!e.path().is_empty());
                prop_assert!(e.offset().is_some());
            }
            Ok(used) => {
                prop_assert!(used <= bytes.len());
                let again = save(&target);
                let state = shown(&target);
                load_with(&mut target, version(), &again, true).unwrap();
                prop_assert_eq!(shown(&target), state);
            }
        }
    }

    /// The same with a value that is refused behind all locks: by then each of them has been taken.
    #[test]
    fn the_last_refusal_changes_nothing(source in all(), target in all()) {
        let mut source = source;
        source.tail = 0;
        let mut bytes = save(&Migratable::new(Mutex::new(source)));
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&0xd800_u32.to_be_bytes());
        let mut target = Migratable::new(Mutex::new(target));
        let before = shown(&target);
        let e = load_with(&mut target, version(), &bytes, true).unwrap_err();
        prop_assert!(e.to_string().starts_with("all/last: restore refused 55296"), "{}", e);
        prop_assert_eq!(shown(&target), before);
    }
}
