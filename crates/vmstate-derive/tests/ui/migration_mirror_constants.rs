use vmstate_derive::ToMigrationState;

const LATER: u32 = 2;

/// What tokens do not show, the check of the finished description does.
#[derive(ToMigrationState)]
#[migration_state(version = 1)]
struct Later {
    #[migration_state(since = LATER)]
    a: u8,
}

fn main() {}
