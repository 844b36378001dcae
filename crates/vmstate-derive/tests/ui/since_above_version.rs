use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(version = 2)]
struct State {
    #[vmstate(since = 3)]
    a: u8,
}

#[derive(VmState)]
struct Unversioned {
    #[vmstate(since = 1)]
    a: u8,
}

fn main() {}
