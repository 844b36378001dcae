use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(resize_max = 5)]
    a: [u8; 4],
}

fn main() {}
