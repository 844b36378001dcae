use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    len: u8,
    #[vmstate(buffer, bitmap)]
    a: [u8; 4],
    #[vmstate(pointers(mark_absent), little_endian)]
    b: [Option<Box<u8>>; 4],
    #[vmstate(equal, less_or_equal)]
    c: i32,
    #[vmstate(count = len, count_with = Self::len, max = 1)]
    d: Vec<u8>,
}

fn main() {}
