use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(max = 4)]
    a: [u8; 4],
    #[vmstate(multiply = 4)]
    b: [u8; 4],
    len: u8,
    #[vmstate(count = len, max = 0)]
    c: Vec<u8>,
    #[vmstate(count = len, max = 4, multiply = 0)]
    d: Vec<u8>,
}

fn main() {}
