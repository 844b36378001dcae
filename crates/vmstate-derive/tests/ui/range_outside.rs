use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(range = 2..5)]
    a: [u8; 4],
}

fn main() {}
