use vmstate_derive::VmState;

#[derive(VmState)]
struct Refused {
    #[vmstate(resize_max = 4)]
    one: u8,
    #[vmstate(resize_max = 2, range = 0..2)]
    part: [u8; 4],
    #[vmstate(bitmap, resize_max = 64)]
    bits: [u64; 1],
    #[vmstate(pointers, resize_max = 2)]
    pointers: [Option<Box<u8>>; 2],
}

fn main() {}
