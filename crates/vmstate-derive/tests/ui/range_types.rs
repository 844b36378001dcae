use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(range = 0..2)]
    a: u8,
    #[vmstate(range = 2..2)]
    b: [u8; 4],
}

fn main() {}
