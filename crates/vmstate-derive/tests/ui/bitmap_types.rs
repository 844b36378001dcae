use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(bitmap)]
    a: [u32; 2],
    #[vmstate(bitmap, bits = 64)]
    b: Vec<u8>,
    #[vmstate(bitmap)]
    c: u64,
}

fn main() {}
