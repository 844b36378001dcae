use std::sync::Mutex;

use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(shared)]
struct State {
    locked: Mutex<u32>,
    open: u32,
}

fn main() {}
