use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(vresion = 1)]
#[migration_state(transparent)]
struct State {
    #[migration_state(ommit)]
    a: u32,
    #[migration_state(skip = "not in the mirror")]
    b: u32,
    #[migration_state(serde)]
    c: u32,
    #[migration_state(omit(reason = "no"))]
    d: u32,
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8)]
enum Mode {
    #[migration_state(value = 1)]
    On,
}

fn main() {}
