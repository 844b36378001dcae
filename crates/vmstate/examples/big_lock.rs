//! A VMM with a big lock: its own cell for state that the lock protects, made migratable.
//!
//! The cell is as cheap as a `RefCell`; what makes it safe to share is that only one thread holds the big lock. Whoever saves
//! or restores without holding it gets an error and not a race.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::error::Error;
use std::ops::{Deref, DerefMut};

use vmstate::{Guarded, Limits, Migratable, Reason, ToMigrationState, decode, encode, guarded};

thread_local! {
    /// Whether this thread holds the big lock. (A VMM asks its lock.)
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with the big lock held.
fn with_big_lock<R>(f: impl FnOnce() -> R) -> R {
    HELD.set(true);
    let result = f();
    HELD.set(false);
    result
}

/// State that the big lock protects.
#[derive(Debug, Default)]
struct BigLockCell<T>(RefCell<T>);

impl<T> BigLockCell<T> {
    const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    fn borrow(&self) -> Result<Ref<'_, T>, Reason> {
        check()?;
        self.0.try_borrow().map_err(|e| e.to_string().into())
    }

    fn borrow_mut(&self) -> Result<RefMut<'_, T>, Reason> {
        check()?;
        self.0.try_borrow_mut().map_err(|e| e.to_string().into())
    }
}

fn check() -> Result<(), Reason> {
    if HELD.get() {
        return Ok(());
    }
    Err("this thread does not hold the big lock".into())
}

impl<T> Guarded for BigLockCell<T> {
    type Value = T;

    fn read(&self) -> Result<impl Deref<Target = T>, Reason> {
        self.borrow()
    }

    fn write(&self) -> Result<impl DerefMut<Target = T>, Reason> {
        self.borrow_mut()
    }
}

// Both traits, for whatever is in the cell.
guarded!(BigLockCell);

#[derive(Debug, Default, ToMigrationState)]
#[migration_state(name = "serial", version = 1)]
struct Registers {
    control: u8,
    divider: u16,
    #[migration_state(omit = "opened again by the destination")]
    log: Option<String>,
}

#[derive(Debug, Default)]
struct Serial {
    registers: Migratable<BigLockCell<Registers>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let source = Serial {
        registers: BigLockCell::new(Registers {
            control: 3,
            divider: 12,
            log: Some("serial.log".into()),
        })
        .into(),
    };

    let mut bytes = Vec::new();
    match encode(&source.registers, &mut bytes) {
        Ok(()) => return Err("saved without the lock".into()),
        Err(e) => println!("{e}"),
    }
    bytes.clear();
    with_big_lock(|| encode(&source.registers, &mut bytes))?;
    println!("{bytes:02x?}");

    let target = Serial::default();
    with_big_lock(|| decode(&mut &target.registers, 1, &bytes, Limits::default()))?;
    with_big_lock(|| -> Result<(), Reason> {
        let registers = target.registers.borrow()?;
        println!("{registers:?}");
        // Not opened yet.
        assert_eq!(registers.log, None);
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs() {
        main().unwrap();
    }

    #[test]
    fn without_the_lock_nothing_moves() {
        let serial = Serial::default();
        let e = encode(&serial.registers, &mut Vec::new()).unwrap_err();
        assert_eq!(
            e.to_string(),
            "serial: snapshot refused: this thread does not hold the big lock"
        );
        let e = decode(&mut &serial.registers, 1, &[1, 0, 2], Limits::default()).unwrap_err();
        assert_eq!(
            e.to_string(),
            "serial: restore refused: this thread does not hold the big lock (byte 0x3)"
        );
        with_big_lock(|| {
            assert_eq!(serial.registers.borrow().unwrap().divider, 0);
            decode(&mut &serial.registers, 1, &[1, 0, 2], Limits::default()).unwrap();
            assert_eq!(serial.registers.borrow().unwrap().divider, 2);
        });
    }

    #[test]
    fn a_borrow_in_progress_is_an_error() {
        let serial = Serial::default();
        with_big_lock(|| {
            let registers = serial.registers.borrow_mut().unwrap();
            assert!(encode(&serial.registers, &mut Vec::new()).is_err());
            assert_eq!(registers.divider, 0);
        });
    }
}
