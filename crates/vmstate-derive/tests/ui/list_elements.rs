use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(qlist)]
    a: Vec<u8>,
}

fn main() {}
