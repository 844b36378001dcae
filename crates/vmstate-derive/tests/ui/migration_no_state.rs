use std::collections::HashMap;
use std::sync::Mutex;

use vmstate_derive::{ToMigrationState, VmState};
use vmstate_desc::snapshot::Migratable;

struct Handle;

#[derive(ToMigrationState)]
struct State {
    control: u32,
    map: HashMap<u8, u8>,
    handle: Mutex<Handle>,
}

#[derive(VmState)]
struct Device {
    handle: Migratable<Mutex<Handle>>,
}

fn main() {}
