use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(buffer)]
    a: [u16; 2],
    #[vmstate(buffer)]
    b: u8,
    #[vmstate(byte_array, max = 4)]
    c: [u8; 4],
    #[vmstate(unused = 4)]
    d: u32,
}

fn main() {}
