//! Runtime state behind locks: the timer block.

use std::sync::Arc;

use vmstate_desc::Limits;
use vmstate_desc::snapshot::ToMigrationState;
use vmstate_devices::hpet::{Clock, Hpet, HpetState};
use vmstate_wire::codec::{decode, encode};

/// Stands still.
#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> i64 {
        1_000_000_007
    }
}

/// A block whose locks are all taken again.
fn mirror(hpet: &Hpet) -> HpetState {
    *hpet
        .state()
        .to_migration_state()
        .expect("nothing is poisoned or borrowed")
}

/// What is refused changes nothing. What is taken over can be saved, and that is taken over unchanged.
///
/// Number of timers, in the low bits of a byte; payload.
///
/// # Panics
/// If it is not so.
pub fn snapshot(data: &[u8]) {
    let (timers, payload) = super::settings(data);
    let hpet = Hpet::new(usize::from(timers % 33), Arc::new(Noon));
    hpet.enable(timers & 0x80 != 0);
    for timer in hpet.timers().iter().step_by(2) {
        timer.program(0x0e, 77, 7);
    }
    let before = mirror(&hpet);
    let limits = Limits::default();
    if let Err(e) = decode(&mut hpet.state(), 2, payload, limits) {
        assert_eq!(mirror(&hpet), before, "{e}");
        return;
    }
    let loaded = mirror(&hpet);
    let mut bytes = Vec::new();
    encode(&hpet.state(), &mut bytes).expect("what was loaded can be saved");
    let used = decode(&mut hpet.state(), 2, &bytes, limits).expect("what was saved can be loaded");
    assert_eq!(used, bytes.len());
    assert_eq!(mirror(&hpet), loaded);
}
