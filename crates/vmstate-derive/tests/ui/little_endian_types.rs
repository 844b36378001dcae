use vmstate_derive::VmState;

#[derive(VmState, Default)]
struct Child {
    a: u8,
}

#[derive(VmState)]
struct State {
    #[vmstate(little_endian)]
    a: Child,
}

fn main() {}
