use vmstate_derive::VmState;

#[derive(VmState)]
union State {
    a: u8,
    b: i8,
}

fn main() {}
