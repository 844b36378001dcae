use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(version = 3)]
struct State {
    #[vmstate(since = 2, until = 2)]
    a: u8,
    #[vmstate(until = 0)]
    b: u8,
    #[vmstate(exists = Self::has, until = 2)]
    c: u8,
}

fn main() {}
