use std::collections::VecDeque;

use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    a: Vec<u8>,
    b: Box<[u8]>,
    c: VecDeque<u8>,
    #[vmstate(buffer)]
    d: Vec<u8>,
    #[vmstate(bitmap)]
    e: Box<[u64]>,
    #[vmstate(pointers)]
    f: Vec<Option<Box<u8>>>,
}

fn main() {}
