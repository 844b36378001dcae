use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    flag: bool,
    wide: u64,
    array: [u8; 2],
    #[vmstate(count = flag, max = 4)]
    a: Vec<u8>,
    #[vmstate(count = wide, max = 4)]
    b: Vec<u8>,
    #[vmstate(count = array, max = 4)]
    c: Vec<u8>,
}

fn main() {}
