use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(count = length, max = 4)]
    a: Vec<u8>,
}

fn main() {}
