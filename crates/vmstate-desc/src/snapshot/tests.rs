//! Every shape there and back, and every refusal with nothing changed.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::*;

fn mirror<T: ToMigrationState>(state: &T) -> T::Migrated {
    *state.to_migration_state().unwrap()
}

/// `from`'s state goes into `to`, through exclusive access.
fn travels<T: ToMigrationState<Migrated: Debug + PartialEq>>(from: &T, mut to: T) -> T {
    let sent = mirror(from);
    to.restore_migrated_state_mut(mirror(from), 0).unwrap();
    assert_eq!(mirror(&to), sent);
    to
}

/// The same through a shared reference.
fn travels_shared<T: ToMigrationStateShared<Migrated: Debug + PartialEq>>(from: &T, to: T) -> T {
    let sent = mirror(from);
    to.restore_migrated_state(mirror(from), 0).unwrap();
    assert_eq!(mirror(&to), sent);
    to
}

fn refused<T: ToMigrationState>(state: &mut T, from: T::Migrated) -> String {
    state
        .restore_migrated_state_mut(from, 0)
        .unwrap_err()
        .to_string()
}

#[test]
fn scalars() {
    assert!(travels(&true, false));
    assert_eq!(travels(&-3_i64, 0), -3);
    assert_eq!(travels(&2.5_f64, 0.0), 2.5);
    assert_eq!(travels(&f32::MIN_POSITIVE, 0.0), f32::MIN_POSITIVE);
    assert_eq!(travels(&'ß', 'a'), 'ß');
    assert_eq!(travels(&usize::MAX, 0), usize::MAX);
    assert_eq!(travels(&isize::MIN, 0), isize::MIN);
    let big = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128;
    assert_eq!(
        mirror(&big).0,
        [0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff]
    );
    assert_eq!(travels(&big, 0), big);
    assert_eq!(travels(&i128::MIN, 0), i128::MIN);
    assert_eq!(travels(&"text".to_owned(), String::new()), "text");
    assert_eq!(mirror(&PhantomData::<str>), Nothing);
    assert_eq!(
        refused(&mut 'a', 0xd800),
        "55296 is invalid: not a Unicode scalar value"
    );
}

#[test]
fn sequences() {
    assert_eq!(travels(&[7_u16; 100], [0; 100]), [7; 100]);
    assert_eq!(travels(&[[1_u8; 40]; 3], [[0; 40]; 3]), [[1; 40]; 3]);
    assert_eq!(travels(&[3_usize; 2], [0; 2]), [3; 2]);
    assert_eq!(travels(&vec![1_u8, 2, 3], vec![9]), [1, 2, 3]);
    assert_eq!(travels(&vec!['x'], vec!['a', 'b']), ['x']);
    assert_eq!(travels(&vec![1_usize; 3], Vec::new()), [1; 3]);
    let boxed = |n: usize| vec![n; n].into_boxed_slice();
    for (from, to) in [(3, 3), (3, 1), (1, 3), (0, 2), (2, 0)] {
        assert_eq!(travels(&boxed(from), boxed(to)), boxed(from));
    }
    let mut vec = vec!['a', 'b'];
    let e = refused(&mut vec, vec![u32::from('x'), 0x11_0000, 0]);
    assert_eq!(e, "[1]: 1114112 is invalid: not a Unicode scalar value");
    let e = refused(&mut vec, vec![0x78, 0x79, 0x7a, 0xd800]);
    assert_eq!(e, "[3]: 55296 is invalid: not a Unicode scalar value");
    assert_eq!(vec, ['a', 'b']);
}

#[test]
fn compounds() {
    assert_eq!(travels(&Some(3_u8), None), Some(3));
    assert_eq!(travels(&Some(3_u8), Some(4)), Some(3));
    assert_eq!(travels(&None, Some(4_u8)), None);
    assert_eq!(*travels(&Box::new(5_u32), Box::new(0)), 5);
    assert_eq!(travels(&(1_u8,), (0,)), (1,));
    let eight = (1_u8, 2_u16, 3_u32, 'd', 5_usize, true, -7_i8, [8_u8; 33]);
    let zero = (0_u8, 0_u16, 0_u32, 'a', 0_usize, false, 0_i8, [0_u8; 33]);
    assert_eq!(travels(&eight, zero), eight);
    let mut tuple = (1_u8, 'a', 2_u8);
    assert_eq!(
        refused(&mut tuple, (7, 0xdfff, 7)),
        "1: 57343 is invalid: not a Unicode scalar value"
    );
    assert_eq!(tuple, (1, 'a', 2));
}

#[test]
fn cells() {
    assert_eq!(travels(&Cell::new(3_u8), Cell::new(0)).get(), 3);
    assert_eq!(travels_shared(&Cell::new('x'), Cell::new('a')).get(), 'x');
    assert_eq!(
        travels_shared(&RefCell::new(3_u8), RefCell::new(0)).take(),
        3
    );
    let mutex = travels_shared(&Mutex::new([3_u8; 64]), Mutex::new([0; 64]));
    assert_eq!(mutex.into_inner().unwrap(), [3; 64]);
    let lock = travels(&RwLock::new('x'), RwLock::new('a'));
    assert_eq!(lock.into_inner().unwrap(), 'x');
    let atomic = travels_shared(&AtomicU16::new(7), AtomicU16::new(0));
    assert_eq!(atomic.load(Ordering::Relaxed), 7);
    assert!(travels(&AtomicBool::new(true), AtomicBool::new(false)).into_inner());
    let atomic = travels_shared(&AtomicUsize::new(7), AtomicUsize::new(0));
    assert_eq!(atomic.into_inner(), 7);
    let rc = travels(&Rc::new(Cell::new(7_u8)), Rc::new(Cell::new(0)));
    assert_eq!(rc.get(), 7);
    let arc = travels_shared(&Arc::new(Mutex::new(7_u8)), Arc::new(Mutex::new(0)));
    assert_eq!(*arc.lock().unwrap(), 7);
    let nested = |v| Mutex::new((Arc::new(RwLock::new(v)), Cell::new(v), OnceLock::from(v)));
    let nested = travels_shared(&nested(3_u8), nested(0))
        .into_inner()
        .unwrap();
    assert_eq!((*nested.0.read().unwrap(), nested.1.get()), (3, 3));
    assert_eq!(nested.2.get(), Some(&3));
}

#[test]
fn cells_that_are_set_once() {
    assert_eq!(
        travels(&OnceCell::from('x'), OnceCell::new()).get(),
        Some(&'x')
    );
    assert_eq!(
        travels(&OnceCell::from('x'), OnceCell::from('a')).get(),
        Some(&'x')
    );
    assert_eq!(travels(&OnceLock::new(), OnceLock::from('a')).get(), None);

    let set = |v| OnceLock::from(Cell::new(v));
    travels_shared(&OnceCell::<Cell<u8>>::new(), OnceCell::new());
    assert_eq!(travels_shared(&set(1), set(2)).get().unwrap().get(), 1);
    let e = OnceLock::<Cell<u8>>::new().restore_migrated_state(Some(1), 0);
    assert_eq!(
        e.unwrap_err().to_string(),
        "is empty here, and was set where the state comes from"
    );
    let e = set(1).restore_migrated_state(None, 0);
    assert_eq!(
        e.unwrap_err().to_string(),
        "is set here, and was empty where the state comes from"
    );
}

#[test]
fn a_narrow_host_refuses() {
    // On a host whose `usize` has 64 bits nothing is too large; `narrow` is what decides on any other.
    let e = scalar::narrow::<u16, u64>(70_000).unwrap_err();
    assert_eq!(
        e.to_string(),
        "70000 is invalid: out of range integral type conversion attempted"
    );
}

fn poison<T: Send + Sync>(value: T) -> Mutex<T> {
    let mutex = Mutex::new(value);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _guard = mutex.lock().unwrap();
            std::panic::resume_unwind(Box::new("poisons the lock"));
        });
        assert!(thread.join().is_err());
    });
    assert!(mutex.is_poisoned());
    mutex
}

#[test]
fn a_poisoned_lock_is_an_error() {
    let text = "the lock is poisoned: a thread panicked while it changed the state";
    let mut mutex = poison(3_u8);
    assert_eq!(mutex.to_migration_state().unwrap_err().to_string(), text);
    let e = mutex.restore_migrated_state(4, 0).unwrap_err();
    assert_eq!(e.to_string(), text);
    assert_eq!(refused(&mut mutex, 4), text);
    assert_eq!(*mutex.lock().unwrap_err().into_inner(), 3);
    let e = (1_u8, mutex).to_migration_state().unwrap_err();
    assert_eq!(e.to_string(), format!("1: {text}"));
}

#[test]
fn a_borrowed_cell_is_an_error() {
    let cell = RefCell::new(3_u8);
    let reader = cell.borrow();
    assert_eq!(mirror(&cell), 3, "many may read");
    let e = cell.restore_migrated_state(4, 0).unwrap_err();
    assert_eq!(e.to_string(), "the cell is in use: it is borrowed");
    drop(reader);
    let writer = cell.borrow_mut();
    let e = cell.to_migration_state().unwrap_err();
    assert_eq!(
        e.to_string(),
        "the cell is being changed: it is borrowed mutably"
    );
    drop(writer);
    cell.restore_migrated_state(4, 0).unwrap();
    assert_eq!(cell.take(), 4);
}

#[test]
fn several_locks_change_together_or_not_at_all() {
    type Locks = (Mutex<u8>, [RwLock<u16>; 2], Arc<Mutex<char>>, RefCell<u8>);
    let new = |v: u8| -> Locks {
        (
            Mutex::new(v),
            [RwLock::new(v.into()), RwLock::new(v.into())],
            Arc::new(Mutex::new(char::from(v))),
            RefCell::new(v),
        )
    };
    let locks = new(1);
    let before = mirror(&locks);

    // The third value is refused: the first two are locked by then, and not changed.
    let e = locks.restore_migrated_state((9, Array([9, 9]), 0xd800, 9), 0);
    assert_eq!(
        e.unwrap_err().to_string(),
        "2: 55296 is invalid: not a Unicode scalar value"
    );
    assert_eq!(mirror(&locks), before);

    // The last cell is borrowed.
    let borrow = locks.3.borrow_mut();
    let e = locks.restore_migrated_state((9, Array([9, 9]), 9, 9), 0);
    assert_eq!(
        e.unwrap_err().to_string(),
        "3: the cell is in use: it is borrowed"
    );
    drop(borrow);
    assert_eq!(mirror(&locks), before);

    // Between the phases all guards are kept.
    let commit = locks.prepare_restore((9, Array([9, 9]), 9, 9), 0).unwrap();
    assert!(locks.0.try_lock().is_err());
    assert!(locks.1.iter().all(|lock| lock.try_read().is_err()));
    assert!(locks.2.try_lock().is_err());
    assert!(locks.3.try_borrow().is_err());
    commit();
    assert_eq!(mirror(&locks), mirror(&new(9)));

    // A second phase that is never called lets go.
    drop(locks.prepare_restore(mirror(&new(7)), 0).unwrap());
    assert_eq!(mirror(&locks), mirror(&new(9)));
}

#[test]
fn a_lock_inside_of_a_lock_is_kept_too() {
    let inner = Arc::new(Mutex::new(1_u8));
    let outer = Mutex::new((Arc::clone(&inner), 'a'));
    let commit = outer.prepare_restore((2, 0x62), 0).unwrap();
    assert!(inner.try_lock().is_err() && outer.try_lock().is_err());
    commit();
    assert_eq!(*inner.lock().unwrap(), 2);
    assert!(outer.restore_migrated_state((3, 0xd800), 0).is_err());
    assert_eq!(*inner.lock().unwrap(), 2);
    assert_eq!(outer.lock().unwrap().1, 'b');
}

#[test]
fn the_same_lock_twice_is_an_error_and_not_a_deadlock() {
    let lock = Arc::new(Mutex::new(1_u8));
    let twice = (Arc::clone(&lock), Arc::clone(&lock));
    let e = twice.restore_migrated_state((2, 2), 0).unwrap_err();
    assert_eq!(
        e.to_string(),
        "1: the same cell is reached twice: omit it in one of the places"
    );
    assert_eq!(*lock.lock().unwrap(), 1);
    // It is not remembered afterwards.
    lock.restore_migrated_state(2, 0).unwrap();
    assert_eq!(*lock.lock().unwrap(), 2);
}

/// Even numbers, with restores that fail half-way, as an implementation by hand may.
#[derive(Debug, Default, PartialEq)]
struct Sloppy {
    even: u32,
    restores: u32,
}

impl ToMigrationState for Sloppy {
    type Migrated = u32;

    fn snapshot_migration_state(&self, into: &mut u32) -> Result<(), InvalidError> {
        *into = self.even;
        Ok(())
    }

    fn restore_migrated_state_mut(&mut self, from: u32, _: u32) -> Result<(), InvalidError> {
        self.even = from;
        self.restores += 1;
        if !from.is_multiple_of(2) {
            return Err(InvalidError::new("odd").with_value(from));
        }
        Ok(())
    }
}

#[test]
fn one_phase_is_undone() {
    let new = || {
        (
            Sloppy {
                even: 2,
                restores: 0,
            },
            'a',
        )
    };
    let mut state = new();
    let e = refused(&mut state, (3, 0x62));
    assert_eq!(e, "0: 3 is invalid: odd");
    assert_eq!((state.0.even, state.1), (2, 'a'));
    // Its own restore succeeds, another one's fails.
    let mut state = new();
    assert!(state.restore_migrated_state_mut((4, 0xd800), 0).is_err());
    assert_eq!((state.0.even, state.0.restores), (2, 2), "there and back");
    state.restore_migrated_state_mut((4, 0x62), 0).unwrap();
    assert_eq!((state.0.even, state.1), (4, 'b'));
    assert_eq!(state.0.restores, 3);
}

/// The same with interior mutability.
#[derive(Default)]
struct SloppyShared(Cell<u32>);

impl ToMigrationState for SloppyShared {
    type Migrated = u32;

    fn snapshot_migration_state(&self, into: &mut u32) -> Result<(), InvalidError> {
        *into = self.0.get();
        Ok(())
    }

    fn restore_migrated_state_mut(&mut self, from: u32, v: u32) -> Result<(), InvalidError> {
        self.restore_migrated_state(from, v)
    }
}

impl ToMigrationStateShared for SloppyShared {
    fn restore_migrated_state(&self, from: u32, _: u32) -> Result<(), InvalidError> {
        self.0.set(from);
        if from.is_multiple_of(2) {
            Ok(())
        } else {
            Err("odd".into())
        }
    }
}

#[test]
fn one_shared_phase_is_undone() {
    let state = (SloppyShared(Cell::new(2)), Cell::new('a'));
    assert!(state.restore_migrated_state((3, 0x62), 0).is_err());
    assert!(state.restore_migrated_state((4, 0xd800), 0).is_err());
    assert_eq!((state.0.0.get(), state.1.get()), (2, 'a'));
    state.restore_from(&(4, 0x62), 0).unwrap();
    assert_eq!((state.0.0.get(), state.1.get()), (4, 'b'));
}

#[test]
fn by_reference() {
    let mut state = vec![1_u8];
    let mirror = vec![1, 2];
    state.restore_from_mut(&mirror, 0).unwrap();
    assert_eq!(state, mirror);
}

#[test]
fn migratable_is_transparent() {
    let mut m = Migratable::new(Mutex::new(3_u8));
    *m.lock().unwrap() += 1;
    *m.get_mut().unwrap() += 1;
    assert_eq!(mirror(&m), 5);
    let copy = Migratable::from(7_u8);
    assert_eq!((copy, copy.into_inner()), (Migratable::new(7), 7));
    assert_eq!(Migratable::<u8>::default().into_inner(), 0);
    fn sync<T: Send + Sync>(_: &T) {}
    sync(&m);
}
