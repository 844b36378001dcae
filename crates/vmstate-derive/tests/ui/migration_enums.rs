use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
union Either {
    a: u8,
    b: i8,
}

#[derive(ToMigrationState)]
enum NoRepr {
    A = 0,
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8)]
enum Empty {}

#[derive(ToMigrationState)]
#[migration_state(repr = usize)]
enum Wide {
    A = 0,
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8)]
enum NoValues {
    A,
    B { field: u8 },
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8, name = "mode", rename = Mirror)]
enum Integer {
    #[migration_state(tag = 1)]
    A = 0,
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8, shared, restored = Self::f)]
enum Hooks {
    #[migration_state(tag = 1)]
    A {
        #[migration_state(exists = Self::f)]
        a: u8,
        #[migration_state(validate = Self::f)]
        b: u8,
        #[migration_state(omit(rebuild = Self::f))]
        c: u8,
    },
}

#[derive(ToMigrationState)]
#[migration_state(repr = u8)]
struct Struct(u8);

fn main() {}
