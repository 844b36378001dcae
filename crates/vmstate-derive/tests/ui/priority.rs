use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(priority = High)]
struct State {
    a: u8,
}

fn main() {}
