use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(qtailq)]
    a: u8,
}

fn main() {}
