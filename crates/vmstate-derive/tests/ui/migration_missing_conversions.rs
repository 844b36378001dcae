use vmstate_derive::ToMigrationState;

/// Goes there, but not back.
#[derive(Clone, Copy)]
struct OneWay;

impl From<OneWay> for u8 {
    fn from(_: OneWay) -> Self {
        0
    }
}

/// Comes back, but does not go there.
#[derive(Clone, Copy)]
struct WayBack;

impl From<u8> for WayBack {
    fn from(_: u8) -> Self {
        Self
    }
}

#[derive(ToMigrationState)]
struct State {
    #[migration_state(into(u8))]
    a: OneWay,
    #[migration_state(into(u8))]
    b: WayBack,
    #[migration_state(try_into(u8))]
    c: OneWay,
}

fn main() {}
