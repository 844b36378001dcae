use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    a: Option<u8>,
}

fn main() {}
