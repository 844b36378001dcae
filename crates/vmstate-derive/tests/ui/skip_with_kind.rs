use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(skip = "configured", buffer)]
    a: [u8; 4],
}

fn main() {}
