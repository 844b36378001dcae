use std::borrow::Cow;

use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
struct State {
    #[migration_state(into(Cow<'static, str>))]
    text: String,
}

fn main() {}
