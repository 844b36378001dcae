use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(skip)]
    a: u8,
    #[vmstate(skip = " ")]
    b: u8,
}

fn main() {}
