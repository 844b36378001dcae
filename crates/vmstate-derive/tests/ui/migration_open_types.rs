use std::sync::Mutex;

use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
struct State {
    a: Vec<u8>,
    b: Mutex<Box<[u16]>>,
    #[migration_state(into(Vec<u8>), clone)]
    c: String,
    #[migration_state(max = 4)]
    d: u32,
    #[migration_state(len(n: u8))]
    e: u32,
    #[migration_state(len)]
    f: Vec<u8>,
    #[migration_state(name = "nothing")]
    g: std::marker::PhantomData<u8>,
}

fn main() {}
