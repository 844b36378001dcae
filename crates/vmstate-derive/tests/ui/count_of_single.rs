use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(count = len, max = 4)]
    a: u8,
}

fn main() {}
