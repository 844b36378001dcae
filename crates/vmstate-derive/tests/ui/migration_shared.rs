use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(shared)]
struct State {
    #[migration_state(clone)]
    a: u32,
    #[migration_state(try_into(u8))]
    b: u32,
    #[migration_state(omit(rebuild = 0))]
    c: u32,
}

fn main() {}
