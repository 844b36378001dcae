use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(pointers(mark_all))]
    a: [Option<Box<u8>>; 4],
    #[vmstate(mark_absent)]
    b: [Option<Box<u8>>; 4],
}

fn main() {}
