use std::collections::HashMap;

use vmstate_derive::VmState;

#[derive(VmState)]
struct State<'a> {
    a: usize,
    b: [isize; 4],
    c: f32,
    d: char,
    e: &'static str,
    f: u128,
    g: HashMap<u64, u8>,
    h: &'a u8,
    i: (),
    #[vmstate(equal)]
    j: usize,
}

fn main() {}
