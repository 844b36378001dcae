use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(version = 1, minimum_version = 2)]
struct Versions {
    #[migration_state(since = 3)]
    a: u8,
    #[migration_state(until = 0)]
    b: u8,
}

#[derive(ToMigrationState)]
struct Counts {
    #[migration_state(count = n, max = 4)]
    before: Vec<u8>,
    n: u8,
    #[migration_state(count = n)]
    unbounded: Vec<u8>,
    #[migration_state(count = missing, max = 4)]
    missing_count: Vec<u8>,
    flag: bool,
    #[migration_state(count = flag, max = 4)]
    by_flag: Vec<u8>,
    #[migration_state(pointers)]
    not_an_array: u32,
}

#[derive(ToMigrationState)]
#[migration_state(name = "device", subsection(name = "other/part", fields(a)))]
struct Subsections {
    a: u8,
}

#[derive(ToMigrationState)]
struct Types {
    #[migration_state(clone)]
    wide: usize,
    #[migration_state(try_into(f32))]
    narrow: f64,
}

fn main() {}
