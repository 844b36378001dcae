use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(repr = u8)]
enum Mode {
    A = 256,
}

fn main() {}
