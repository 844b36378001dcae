use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(version = 2, minimum_version = 3)]
struct State {
    a: u8,
}

#[derive(VmState)]
#[vmstate(minimum_version = 1)]
struct Unversioned {
    a: u8,
}

fn main() {}
