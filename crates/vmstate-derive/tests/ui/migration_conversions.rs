use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
struct State {
    #[migration_state(into(u16), try_into(u8))]
    a: u32,
    #[migration_state(into)]
    b: u32,
    #[migration_state(try_into())]
    c: u32,
    #[migration_state(into(u64, u32))]
    d: u32,
    #[migration_state(clone, clone)]
    e: u32,
    #[migration_state(try_into(u8))]
    #[migration_state(try_into(u8))]
    f: u32,
    #[migration_state(clone = 1)]
    g: u32,
    #[migration_state(into = u64)]
    h: u32,
    #[migration_state(since = 0, since = 0)]
    i: u32,
}

fn main() {}
