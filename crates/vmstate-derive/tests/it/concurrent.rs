//! Threads that use a device while it is saved and restored.

use std::mem::replace;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vmstate_derive::ToMigrationState;
use vmstate_desc::snapshot::{Migratable, ToMigrationState as _, ToMigrationStateShared as _};
use vmstate_desc::{
    Description, Error, FieldCx, Gate, Role, SaveVisitor, ScalarType, Slice, save as walk,
};

use crate::common::{load, save};

const ROUNDS: u32 = 2_000;

/// All words are equal whenever the lock is free.
#[derive(Debug, ToMigrationState)]
struct Words {
    before: u32,
    words: [u32; 64],
    behind: Part,
}

#[derive(Debug, ToMigrationState)]
struct Part {
    word: u32,
}

impl Words {
    fn new(word: u32) -> Self {
        Self {
            before: word,
            words: [word; 64],
            behind: Part { word },
        }
    }

    fn is_whole(&self) -> bool {
        self.words.iter().all(|word| *word == self.before) && self.behind.word == self.before
    }
}

/// A device's thread: changes the registers one by one.
fn hammer(device: &Mutex<Words>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut words = device.lock().unwrap();
        assert!(words.is_whole(), "{words:?}");
        let word = words.before.wrapping_add(1);
        words.before = word;
        for slot in &mut words.words {
            *slot = word;
        }
        words.behind.word = word;
    }
}

#[test]
fn no_snapshot_is_torn() {
    let device = Arc::new(Migratable::new(Mutex::new(Words::new(0))));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| hammer(&device, &stop));
        }
        let mut other = Migratable::new(Mutex::new(Words::new(0)));
        // At least until the threads have had their turn, between two snapshots.
        let end = Instant::now() + Duration::from_secs(60);
        let (mut different, mut last) = (0, 0);
        for round in 0_u32.. {
            if Instant::now() > end || (round >= ROUNDS && different > 1) {
                break;
            }
            let mirror = device.to_migration_state().unwrap();
            assert!(mirror.words.iter().all(|word| *word == mirror.before));
            assert_eq!(mirror.behind.word, mirror.before);
            different += u32::from(replace(&mut last, mirror.before) != mirror.before);

            let mut bytes = Vec::new();
            let mut out = Bytes {
                bytes: &mut bytes,
                device: None,
            };
            walk(&device, &mut out).unwrap();
            load(&mut other, &bytes).unwrap();
            assert!(other.lock().unwrap().is_whole());

            // And back in, through the shared reference, between two changes of the threads.
            if round % 16 == 0 {
                let other = other.to_migration_state().unwrap();
                device.restore_migrated_state(*other, 0).unwrap();
            }
            if round % 64 == 0 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(different > 1, "nothing changed meanwhile");
    });
    assert!(device.lock().unwrap().is_whole());
}

/// Two locks whose values are equal whenever both are free.
#[derive(Debug, Default, ToMigrationState)]
#[migration_state(shared)]
struct Two {
    first: Mutex<u32>,
    second: Mutex<u32>,
}

#[test]
fn several_locks_are_restored_at_once() {
    let device = Migratable::new(Two::default());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let (first, second) = (device.first.lock().unwrap(), device.second.lock().unwrap());
                assert_eq!(*first, *second, "half restored");
                seen += u32::from(*first != 0);
            }
            seen
        });
        let value = AtomicU32::new(1);
        let restore = || {
            let value = value.fetch_add(1, Ordering::Relaxed);
            let mirror = TwoMigration {
                first: value,
                second: value,
            };
            device.restore_migrated_state(mirror, 0).unwrap();
        };
        for _ in 0..ROUNDS {
            restore();
        }
        // The observer is to have seen something in between.
        for _ in 0..1_000_000 {
            restore();
            if value.load(Ordering::Relaxed) > 3 * ROUNDS {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        observer.join().unwrap();
    });
}

/// QEMU's encoding of 32-bit words. With `device`: the lock must be free whenever bytes go out.
struct Bytes<'a> {
    bytes: &'a mut Vec<u8>,
    device: Option<&'a Mutex<Words>>,
}

impl Bytes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(device) = self.device {
            assert!(device.try_lock().is_ok(), "held while bytes go out");
        }
        self.bytes.extend(bytes);
    }
}

impl SaveVisitor for Bytes<'_> {
    fn begin(&mut self, _: &Description, _: u32, _: Role<'_>) -> Result<(), Error> {
        self.put(&[]);
        Ok(())
    }
    fn end(&mut self, _: &Description, _: Role<'_>) -> Result<(), Error> {
        self.put(&[]);
        Ok(())
    }
    fn field(&mut self, _: FieldCx<'_>) -> Result<Gate, Error> {
        Ok(Gate::Visit)
    }
    fn end_field(&mut self, _: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn slot(&mut self, _: FieldCx<'_>, _: usize, _: bool) -> Result<(), Error> {
        Err(Error::format("no slots here"))
    }
    fn scalar(&mut self, _: FieldCx<'_>, _: ScalarType, bits: u64) -> Result<(), Error> {
        self.put(&u32::try_from(bits).unwrap().to_be_bytes());
        Ok(())
    }
    fn scalars(&mut self, _: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        let Slice::U32(values) = values else {
            return Err(Error::format("words only"));
        };
        values
            .iter()
            .for_each(|value| self.put(&value.to_be_bytes()));
        Ok(())
    }
    fn unused(&mut self, _: FieldCx<'_>, _: usize) -> Result<(), Error> {
        Err(Error::format("nothing unused here"))
    }
    fn raw(&mut self, _: FieldCx<'_>, _: &[u8]) -> Result<(), Error> {
        Err(Error::format("nothing raw here"))
    }
    fn list(&mut self, _: FieldCx<'_>, _: usize) -> Result<(), Error> {
        Err(Error::format("no lists here"))
    }
    fn item(&mut self, _: FieldCx<'_>, _: usize) -> Result<(), Error> {
        Err(Error::format("no lists here"))
    }
    fn end_list(&mut self, _: FieldCx<'_>) -> Result<(), Error> {
        Err(Error::format("no lists here"))
    }
    fn direct_key(&mut self, _: FieldCx<'_>, _: u64) -> Result<(), Error> {
        Err(Error::format("no trees here"))
    }
}

#[test]
fn no_lock_is_held_while_bytes_go_out() {
    let device = Migratable::new(Mutex::new(Words::new(7)));
    let mut bytes = Vec::new();
    let mut out = Bytes {
        bytes: &mut bytes,
        device: Some(&device),
    };
    walk(&device, &mut out).unwrap();
    assert_eq!(bytes, save(&device));
}
