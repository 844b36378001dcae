use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(restored = Self::restored)]
struct State {
    #[migration_state(validate = Self::check)]
    a: u8,
    #[migration_state(omit(rebuild = Self::cache))]
    b: u8,
    #[migration_state(validate = "check")]
    c: u8,
}

#[derive(ToMigrationState)]
#[migration_state(restored = Self::restored)]
struct Other {
    #[migration_state(validate = Self::check)]
    a: u8,
    #[migration_state(omit(rebuild = Self::cache))]
    b: u8,
}

impl Other {
    fn restored(&mut self) {}

    fn check(_: &u16, _: &Self) -> Result<(), String> {
        Ok(())
    }

    fn cache(&self) -> u16 {
        0
    }
}

fn main() {}
