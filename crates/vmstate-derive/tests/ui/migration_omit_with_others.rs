use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
struct State {
    #[migration_state(omit, clone)]
    a: String,
    #[migration_state(into(u8), omit)]
    b: bool,
    #[migration_state(omit)]
    #[migration_state(try_into(u8))]
    c: u32,
    #[migration_state(omit = "a cache", since = 2)]
    d: u32,
    #[migration_state(omit(rebuild = 0), validate = check)]
    e: u32,
    #[migration_state(omit, omit)]
    f: u32,
}

fn main() {}
