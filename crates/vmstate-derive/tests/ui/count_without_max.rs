use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(count = len)]
    a: Vec<u8>,
    #[vmstate(count_with = Self::len)]
    b: Vec<u8>,
    #[vmstate(byte_array)]
    c: Vec<u8>,
}

fn main() {}
