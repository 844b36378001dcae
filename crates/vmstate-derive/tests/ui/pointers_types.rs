use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(pointers)]
    a: Option<Box<u8>>,
    #[vmstate(pointers)]
    b: [Box<u8>; 4],
    c: [Option<Box<u8>>; 4],
}

fn main() {}
