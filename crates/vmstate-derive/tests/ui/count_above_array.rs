use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(count = len, max = 5)]
    a: [u8; 4],
}

fn main() {}
